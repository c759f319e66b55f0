"""Is a promise being broken fast enough to act: the multi-window, multi-burn-rate rule.

Google SRE workbook, chapter 5, with sloth's 30-day table. budget = 1 - objective; burn = bad share / budget;
factor = budget spent x period / long window; alert when burn(long) > factor and burn(short) > factor.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Literal, NamedTuple

from leptonai.errors import SpecError
from leptonai.series.proportion import chance, wilson
from leptonai.types import Noun, Severity, Slo

MONTH = 30 * 86400.0
HOUR = 3600.0
Rule = Literal["errors", "latency"]

# (severity, share of the budget spent, long window, short window) for a period of 30 days
TABLE: tuple[tuple[Severity, float, float, float], ...] = (
    ("critical", 0.02, 1 * HOUR, HOUR / 12),
    ("critical", 0.05, 6 * HOUR, HOUR / 2),
    ("warning", 0.10, 24 * HOUR, 2 * HOUR),
    ("warning", 0.10, 72 * HOUR, 6 * HOUR),
)
SHORT_STEPS, LONG_STEPS = 3, 6  # a window holds at least this many collections
BUCKETS = 60  # resolution of a window: its sum is exact to 1/60 of its width
MIN_EVENTS = 10  # in the long window, before any burn is judged
CLEAN_STEPS = 3  # steps with events and without a burn, after which a new burn has a new onset
ALPHA = 1e-3  # chance of as many bad events at exactly the burn of the rule


class Window(NamedTuple):
    severity: Severity
    long: float  # seconds
    short: float
    factor: float

    @property
    def name(self) -> str:
        return f"{self.long:g}s/{self.short:g}s"


class BurnState(Noun, frozen=True, kw_only=True):
    """What one rule says now. ``severity`` None: the promise is kept, or too little is known.

    The numbers are those of the most severe window that fires, else of the one nearest to firing. ``began``: the first
    step of the newest stretch of burning steps; None unless firing. ``absent``: no data, not even a count of zero, for
    longer than ``absent_after``: an SLO over nothing reads 100 %.
    """

    rule: Rule
    severity: Severity | None = None
    burn_long: float = 0.0  # times the rate that spends the whole budget in exactly one period
    burn_short: float = 0.0
    factor: float = 0.0  # what both must exceed
    window: str = ""
    bad: int = 0  # in the long window
    total: int = 0
    ratio: float = 0.0
    lower: float = 0.0  # Wilson 95 % interval of the ratio
    upper: float = 1.0
    chance: float = 1.0  # P(this many bad or more) if the true burn were exactly the factor
    budget: float = 0.0
    began: float | None = None
    absent: bool = False


def windows(objective: float, period: float, step: float = 1.0) -> tuple[Window, ...]:
    """The rows that can fire for this promise, most severe and quickest first; ``step``: seconds between counts.

    Windows scale with ``period`` / 30 d but hold at least 3 (short) and 6 (long) steps; the factor is always
    budget spent x period / long, so it is the textbook's wherever no floor applies. A row with factor x budget >= 1
    asks for more than 100 % bad events and is left out. SpecError when no critical row is left, or when the period is
    so short that a floored window would spend its share of the budget before it is full (factor < 1).
    """
    if not 0 < objective < 1:
        raise SpecError(f"slo: the objective is {objective}, wanted a share strictly between 0 and 1")
    budget = 1.0 - objective
    rows = []
    for severity, spent, long, short in TABLE:
        scale = period / MONTH
        wide, narrow = max(long * scale, LONG_STEPS * step), max(short * scale, SHORT_STEPS * step)
        factor = spent * period / wide
        if factor < 1 - 1e-9:
            raise SpecError(
                f"slo.period: {period:g} s is too short for counts every {step:g} s, "
                f"wanted at least {LONG_STEPS * step / spent:g} s",
                hint="lengthen slo.period or shorten ops.period",
            )
        if factor * budget < 1:
            rows.append(Window(severity, wide, narrow, factor))
    if not any(row.severity == "critical" for row in rows):
        raise SpecError(
            f"slo: an objective of {objective:g} leaves a budget of {budget:g}; a burn that pages would need more "
            "than 100 % bad requests",
            hint=f"raise the objective above {1 - TABLE[1][2] / (TABLE[1][1] * MONTH):.3g}",
        )
    return tuple(rows)


class Sliding:
    """Counts of the last ``width`` seconds, in buckets of width / 60 (at least ``step``)."""

    def __init__(self, width: float, step: float) -> None:
        self.bucket = max(width / BUCKETS, step)
        self.span = math.ceil(width / self.bucket - 1e-9)
        self.total = self.bad = 0
        self._kept: deque[tuple[int, int, int]] = deque()

    def add(self, at: float, total: int, bad: int) -> None:
        now = math.floor(at / self.bucket + 1e-9)
        self._kept.append((now, total, bad))
        self.total += total
        self.bad += bad
        if len(self._kept) > 1 and self._kept[-2][0] == now:
            _, more_total, more_bad = self._kept.pop()
            _, old_total, old_bad = self._kept.pop()
            self._kept.append((now, old_total + more_total, old_bad + more_bad))
        while self._kept[0][0] <= now - self.span:
            _, gone_total, gone_bad = self._kept.popleft()
            self.total -= gone_total
            self.bad -= gone_bad

    @property
    def ratio(self) -> float:
        return self.bad / self.total if self.total else 0.0


class Burn:
    """One rule over one service: ``errors`` (failed against availability) or ``latency`` (slow against its objective).

    History shorter than a window is used as it is; a window is judged only from MIN_EVENTS events on. Low traffic: a
    burn counts only when the number of bad events in the long window would have a chance below ALPHA at a true burn
    of exactly the factor (exact binomial). It is the lower confidence bound of the burn that must exceed the factor;
    the exact bound is used for the decision because Wilson's is too high near zero (Brown, Cai & DasGupta 2001): one
    error in ten requests would page at 99.9 %. Wilson's interval is reported beside it.
    """

    def __init__(self, slo: Slo, rule: Rule, step: float = 1.0, absent_after: float = 10.0) -> None:
        objective = slo.availability if rule == "errors" else slo.latency_objective
        self.rule, self.budget, self.absent_after = rule, 1.0 - objective, absent_after
        self.windows = windows(objective, slo.period, step)
        widths = {width for row in self.windows for width in (row.long, row.short)}
        self._sums = {width: Sliding(width, step) for width in widths}
        self._heard: float | None = None
        self._onset: float | None = None
        self._clean = 0

    def step(self, at: float, total: float | None, bad: float | None) -> BurnState:
        """Count the events since the last step and judge. None or nan: nothing could be read (zero is a count)."""
        known = total is not None and bad is not None and math.isfinite(total) and math.isfinite(bad)
        if self._heard is None:
            self._heard = at
        if total is not None and bad is not None and known:
            self._heard = at
            events = max(round(total), 0)
            failed = min(max(round(bad), 0), events)
        else:
            events = failed = 0
        for window in self._sums.values():
            window.add(at, events, failed)
        if failed > self.windows[0].factor * self.budget * events:
            self._onset, self._clean = at if self._onset is None else self._onset, 0
        elif events:
            self._clean += 1
            self._onset = self._onset if self._clean < CLEAN_STEPS else None
        return self._judge(absent=at - self._heard > self.absent_after)

    def _judge(self, absent: bool) -> BurnState:
        best: tuple[bool, float, Window] | None = None
        for row in self.windows:
            long, short = self._sums[row.long], self._sums[row.short]
            limit = row.factor * self.budget
            fires = long.total >= MIN_EVENTS and long.ratio > limit and short.ratio > limit
            fires = fires and float(chance(long.bad, long.total, limit)) < ALPHA
            near = min(long.ratio, short.ratio) / limit
            if best is None or (fires and not best[0]) or (not best[0] and near > best[1]):
                best = fires, near, row
        assert best is not None  # windows() gives at least one row
        fires, _, row = best
        long, short = self._sums[row.long], self._sums[row.short]
        lower, upper = wilson(long.bad, long.total)
        return BurnState(
            rule=self.rule,
            severity=row.severity if fires else None,
            burn_long=long.ratio / self.budget,
            burn_short=short.ratio / self.budget,
            factor=row.factor,
            window=row.name,
            bad=long.bad,
            total=long.total,
            ratio=long.ratio,
            lower=float(lower),
            upper=float(upper),
            chance=float(chance(long.bad, long.total, row.factor * self.budget)) if long.total else 1.0,
            budget=self.budget,
            began=self._onset if fires else None,
            absent=absent,
        )
