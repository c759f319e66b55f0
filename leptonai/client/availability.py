"""How available a service was, as the API answers it; the arithmetic is in ``leptonai.ops.availability``."""

from __future__ import annotations

from typing import Literal

from leptonai.types import Key, Noun


class Pages(Noun, frozen=True, kw_only=True):
    """``chance``: that a rule which pages fires at one look. ``a_week``: expected false pages; None: ``at_most`` tells.

    ``at_most`` is looks x chance, which counts every look of one page; ``low`` and ``high`` the simulation's interval.
    """

    chance: float
    at_most: float
    a_week: float | None = None
    low: float | None = None
    high: float | None = None
    simulated_seconds: float = 0.0


class Estimate(Noun, frozen=True, kw_only=True):
    """A measured value and its 95 % interval. ``value`` None: it cannot be told; an end None: unbounded or unknown."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


class Alarm(Noun, frozen=True, kw_only=True):
    """One burn rule: ``errors`` against ``slo.availability``, ``latency`` (answers later than ``slo.latency``) against
    ``slo.latency_objective``. ``healthy``: share of bad requests outside incidents. ``page_chance``: that the rule
    pages before an incident of the mean length, with the share of bad requests of incidents, is over."""

    rule: Literal["errors", "latency"]
    objective: float
    healthy: Estimate
    false_pages: Pages | None = None
    page_chance: float | None = None


class Availability(Noun, frozen=True, kw_only=True):
    """Times in seconds. ``start``: since when requests were measured, if later than was asked for."""

    service: Key
    start: float
    end: float
    objective: float
    incidents: int
    open: int
    requests: int
    errors: int
    measured_share: float  # of the stretch, in which a request rate was seen
    detect: Estimate  # MTTD
    recover: Estimate  # MTTR; open incidents count with the time they have lasted: a lower bound
    between: Estimate  # MTBF
    up_share: float  # of the time, without any incident
    share: Estimate  # of requests answered without an error
    budget_spent_share: float | None  # of what the promise allows for the requests of this stretch
    per_day: Estimate  # p
    downtime: Estimate  # E
    expected_downtime: Estimate  # D = p * E, seconds a day
    alarms: tuple[Alarm, ...]  # each burn rule that can page
    cannot_tell: tuple[str, ...] = ()

    @property
    def false_pages_a_week(self) -> float | None:
        """Of all rules together, at most: two that fire at once are counted twice. None: no rule could be judged."""
        told = [a.false_pages for a in self.alarms if a.false_pages is not None]
        return sum(p.at_most if p.a_week is None else p.a_week for p in told) if told else None
