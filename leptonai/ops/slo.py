"""Is a promise being broken fast enough to act: the multi-window, multi-burn-rate rule.

The rows of the table, their windows and factors: ``leptonai.series.burn``.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Literal

from leptonai.series.burn import Window, windows
from leptonai.series.proportion import bound, wilson
from leptonai.types import Noun, Severity, Slo

Rule = Literal["errors", "latency"]

BUCKETS = 60  # resolution of a window: its sum is exact to 1/60 of its width
MIN_EVENTS = 10  # in the long window, before any burn is judged
CLEAN_STEPS = 3  # steps with events and without a burn, after which a new burn has a new onset
_Z2 = 1.959963984540054**2  # of the two-sided 95 %
ALPHA = 1e-3  # chance of as many bad events at exactly the burn of the rule


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
    long: float = 0.0  # seconds of it
    bad: int = 0  # in the long window
    total: int = 0
    ratio: float = 0.0
    lower: float = 0.0  # Wilson 95 % interval of the ratio
    upper: float = 1.0
    chance: float = 1.0  # at most: P(this many bad or more) if the true burn were exactly the factor
    budget: float = 0.0
    began: float | None = None
    absent: bool = False


class Spent(Noun, frozen=True, kw_only=True):
    """What one rule has counted until ``at``. ``windows``: seconds -> (number of the bucket, requests, bad ones)."""

    at: float
    windows: dict[float, list[tuple[int, int, int]]]
    onset: float | None
    clean: int


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

    def dump(self) -> list[tuple[int, int, int]]:
        """The buckets in which something came, oldest first."""
        return [bucket for bucket in self._kept if bucket[1]]

    def load(self, kept: list[tuple[int, int, int]]) -> None:
        """Go on from what ``dump`` gave; what has grown too old leaves with the next ``add``."""
        self._kept = deque(kept)
        self.total, self.bad = sum(b[1] for b in kept), sum(b[2] for b in kept)

    @property
    def ratio(self) -> float:
        return self.bad / self.total if self.total else 0.0


class Burn:
    """One rule over one service: ``errors`` (failed against availability) or ``latency`` (slow against its objective).

    History shorter than a window is used as it is; a window is judged only from MIN_EVENTS events on. Low traffic: a
    burn counts only when the number of bad events in the long window would have a chance below ALPHA at a true burn
    of exactly the factor. It is the lower confidence bound of the burn that must exceed the factor; Wilson's is too
    high near zero (Brown, Cai & DasGupta 2001): one error in ten requests would page at 99.9 %. Chernoff's bound of
    the chance (``series.proportion.bound``) is never too high, and it can be written in a rule of Prometheus, so that
    ``alert.rules`` decides as we do. Wilson's interval is reported beside it.
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
        self._at = float("-inf")

    @property
    def spent(self) -> Spent:
        windows = {width: kept for width, sums in self._sums.items() if (kept := sums.dump())}
        return Spent(at=self._at, windows=windows, onset=self._onset, clean=self._clean)

    def resume(self, spent: Spent) -> None:
        """Go on from the counts of another process. Windows of another width, as another promise has them, begin
        anew."""
        for width, sums in self._sums.items():
            sums.load(spent.windows.get(width, []))
        self._onset, self._clean = spent.onset, spent.clean

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
        self._at = at
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
            fires = fires and float(bound(long.bad, long.total, limit)) < ALPHA
            near = min(long.ratio, short.ratio) / limit
            if best is None or (fires and not best[0]) or (not best[0] and near > best[1]):
                best = fires, near, row
        assert best is not None  # windows() gives at least one row
        fires, _, row = best
        long, short = self._sums[row.long], self._sums[row.short]
        lower, upper = _interval(long.bad, long.total)
        return BurnState(
            rule=self.rule,
            severity=row.severity if fires else None,
            burn_long=long.ratio / self.budget,
            burn_short=short.ratio / self.budget,
            factor=row.factor,
            window=row.name,
            long=row.long,
            bad=long.bad,
            total=long.total,
            ratio=long.ratio,
            lower=lower,
            upper=upper,
            chance=float(bound(long.bad, long.total, row.factor * self.budget)) if long.bad else 1.0,
            budget=self.budget,
            began=self._onset if fires else None,
            absent=absent,
        )


def _interval(bad: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval. Of no bad ones, which is nearly always, without numpy: [0, z^2 / (total + z^2)]."""
    if not bad:
        return 0.0, _Z2 / (total + _Z2)
    lower, upper = wilson(bad, total)
    return float(lower), float(upper)
