"""How often a burn rule pages when nothing is wrong, and how surely when something is. Pure.

Errors of independent requests that arrive as a Poisson process are one too (thinning), so the bad events of a window
are Poisson, and those of the short window and of the rest of the long one independent. Correlated errors page more.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import gammaincinv, gammaln, pdtrc, xlogy

from leptonai.client.availability import Pages
from leptonai.ops.slo import ALPHA, MIN_EVENTS
from leptonai.protocols import Floats
from leptonai.series.burn import Window, windows
from leptonai.series.proportion import chance

WEEK = 7 * 86400.0
MERGE = 30.0  # seconds: what pages again sooner is the same page (``ops.reopen``)
STEPS = 600_000  # simulated at most, some 0.3 s
RARE = 1e-4  # a week; an upper bound below it is told as it is, no simulation of any length would see one


def garwood(count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact interval of the mean of a Poisson count (Garwood 1936)."""
    tail = (1.0 - confidence) / 2
    low = float(gammaincinv(count, tail)) if count else 0.0
    return low, float(gammaincinv(count + 1, 1.0 - tail))


def needed(events: float, limit: float) -> int:
    """The fewest bad of ``events`` at which the long window fires: above the limit, and too many for chance."""
    total = round(events)
    if total < MIN_EVENTS:
        return total + 1
    counts = np.arange(math.floor(limit * total) + 1, total + 1)
    fires = chance(counts, np.full(len(counts), total), limit) < ALPHA
    return int(counts[fires.argmax()]) if fires.any() else total + 1


def fires(rate: float, share: float, row: Window, budget: float) -> float:
    """P(this row fires at one look), at ``rate`` requests a second of which ``share`` are bad. Exact."""
    limit = row.factor * budget
    if round(rate * row.long) < MIN_EVENTS or share <= 0:
        return 0.0
    short, rest = rate * share * row.short, rate * share * (row.long - row.short)
    least = math.floor(limit * rate * row.short) + 1
    want = needed(rate * row.long, limit)
    # Past ``want`` in the short window the rest does not matter; up to there, sum over what the short one holds.
    held = np.arange(least, max(want, least))
    both = (
        float((np.exp(xlogy(held, short) - gammaln(held + 1) - short) * pdtrc(want - held - 1, rest)).sum())
        if len(held)
        else 0.0
    )
    return min(both + float(pdtrc(max(want, least) - 1, short)), 1.0)


def pages(rate: float, share: float, objective: float, period: float, step: float, seed: int = 0) -> Pages:
    """False pages at a healthy ``share`` of errors. SpecError where the promise has no rule that can page."""
    rows = [row for row in windows(objective, period, step) if row.severity == "critical"]
    budget = 1.0 - objective
    look = max(step, min(row.short for row in rows) / 60)  # the windows' own resolution
    each = min(sum(fires(rate, share, row, budget) for row in rows), 1.0)
    bound = each * WEEK / look
    if bound < RARE or rate <= 0:
        return Pages(chance=each, at_most=bound)
    found, seconds = _simulated(rate, share, rows, budget, look, seed)
    low, high = garwood(found)
    by = WEEK / seconds
    return Pages(chance=each, at_most=bound, a_week=found * by, low=low * by, high=high * by, simulated_seconds=seconds)


def _simulated(
    rate: float, share: float, rows: list[Window], budget: float, look: float, seed: int
) -> tuple[int, float]:
    """Pages, and the seconds they were counted over, after the longest window has filled."""
    draw = np.random.default_rng(seed)
    warm = math.ceil(max(row.long for row in rows) / look)
    count = min(max(STEPS, 4 * warm), 4 * STEPS)
    bad = draw.poisson(rate * share * look, count).astype(np.float64)
    total = bad + draw.poisson(rate * (1.0 - share) * look, count)
    burning = np.zeros(count, dtype=np.bool_)
    for row in rows:
        limit = row.factor * budget
        long = _sums(bad, row.long, look), _sums(total, row.long, look)
        short = _sums(bad, row.short, look), _sums(total, row.short, look)
        hot = (long[1] >= MIN_EVENTS) & (long[0] > limit * long[1]) & (short[0] > limit * short[1])
        at = np.flatnonzero(hot)
        burning[at[chance(long[0][at], long[1][at], limit) < ALPHA]] = True
    at = np.flatnonzero(burning[warm:])
    found = int((np.diff(at, prepend=-math.inf) * look > MERGE).sum()) if len(at) else 0
    return found, max(count - warm, 1) * look


def _sums(values: Floats, width: float, look: float) -> Floats:
    """The sum of each step and those before it, ``width`` seconds in all."""
    n = max(round(width / look), 1)
    total = np.concatenate((np.zeros(n), np.cumsum(values)))
    out: Floats = total[n:] - total[:-n]
    return out


def detects(rate: float, share: float, objective: float, period: float, step: float) -> float:
    """P(some paging rule fires at a look once its windows are full of ``share`` errors); at least the best row's."""
    rows = [row for row in windows(objective, period, step) if row.severity == "critical"]
    return max(fires(rate, share, row, 1.0 - objective) for row in rows)
