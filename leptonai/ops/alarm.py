"""How often a burn rule pages when nothing is wrong, and how surely when something is. Pure.

Requests are taken to arrive as a Poisson process, each bad by itself: so both counts of a window are drawn, the total
too, and what happens in the short window is independent of the rest of the long one. Correlated bad ones page more.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrc, gammaincinv, gammaln, pdtr, xlog1py, xlogy

from leptonai.client.availability import Pages
from leptonai.ops.slo import ALPHA, MIN_EVENTS
from leptonai.protocols import Floats
from leptonai.series.burn import Window, windows
from leptonai.series.proportion import bound

Ints = NDArray[np.int64]

WEEK = 7 * 86400.0
MERGE = 30.0  # seconds: what pages again sooner is the same page (``ops.reopen``)
STEPS = 600_000  # simulated at most, some 0.3 s
RARE = 1e-4  # a week; an upper bound below it is told as it is, no simulation of any length would see one
CELLS = 48  # of a Poisson count: few enough that all pairs of two are looked at
SURELY = 50_000.0  # requests in a window from which their number counts as known: it deviates by 0.4 %
TAIL = 8.0  # deviations


def garwood(count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact interval of the mean of a Poisson count (Garwood 1936)."""
    tail = (1.0 - confidence) / 2
    low = float(gammaincinv(count, tail)) if count else 0.0
    return low, float(gammaincinv(count + 1, 1.0 - tail))


def needed(total: Ints, limit: float) -> Ints:
    """The fewest bad ones of each total at which the long window fires: above the limit, and too many for chance by
    the rule's own bound (``slo.Burn``); one more than there are where none do."""
    low, high = np.floor(limit * total).astype(np.int64), total.astype(np.int64) + 1
    while (high - low > 1).any():
        middle = (low + high) // 2
        fires = (bound(middle, total, limit) < ALPHA) & (middle <= total)
        low, high = np.where(fires, low, middle), np.where(fires, middle, high)
    return np.where(total < MIN_EVENTS, total + 1, high)


def fires(rate: float, share: float | tuple[float, float], row: Window, budget: float) -> float:
    """P(this row fires at one look), at ``rate`` requests a second of which ``share`` are bad; two shares are that of
    the short window and that of the rest of the long one. Exact for few requests; where a window holds more than some
    hundred, their number is looked at in CELLS cells, which is good to a few percent."""
    limit, (inside, before) = row.factor * budget, share if isinstance(share, tuple) else (share, share)
    (short, chance), (rest, other) = _counts(rate * row.short), _counts(rate * (row.long - row.short))
    total = short[:, None] + rest[None, :]
    want = needed(total.ravel(), limit).reshape(total.shape)
    out = 0.0
    for i, held in enumerate(short.tolist()):
        if not held:
            continue  # a ratio of no requests is above nothing
        spread = TAIL * math.sqrt(max(held * inside * (1.0 - inside), 1.0)) + TAIL
        first = max(math.floor(limit * held) + 1, math.floor(held * inside - spread))
        last = min(held, math.ceil(held * inside + spread))
        bad = np.arange(first, last + 1)
        if not len(bad):
            continue
        seen = _binomial(bad, held, inside)
        over = _over(want[i][:, None] - bad[None, :], rest[:, None], before)
        out += float(chance[i] * (other * (over * seen[None, :]).sum(axis=1)).sum())
    return min(out, 1.0)


def _counts(mean: float) -> tuple[Ints, Floats]:
    """Numbers of requests, and the chance of each: a Poisson count's, as the middles of CELLS cells."""
    if mean > SURELY:
        return np.array([round(mean)]), np.ones(1)
    wide = TAIL * math.sqrt(mean) + TAIL
    edges = np.unique(
        np.linspace(max(math.floor(mean - wide), 0), math.ceil(mean + wide) + 1, CELLS + 1).astype(np.int64)
    )
    below = np.where(edges > 0, pdtr(np.maximum(edges - 1, 0), mean), 0.0)
    return (edges[:-1] + edges[1:] - 1) // 2, np.diff(below)


def _binomial(bad: Ints, total: int, share: float) -> Floats:
    ways = gammaln(total + 1) - gammaln(bad + 1) - gammaln(total - bad + 1)
    out: Floats = np.exp(ways + xlogy(bad, share) + xlog1py(total - bad, -share))
    return out


def _over(least: Ints, total: Ints, share: float) -> Floats:
    """P(at least ``least`` of ``total``)."""
    inside = bdtrc(np.clip(least - 1, 0, np.maximum(total - 1, 0)), np.maximum(total, 1), share)
    out: Floats = np.where(least <= 0, 1.0, np.where(least > total, 0.0, inside))
    return out


def pages(rate: float, share: float, objective: float, period: float, step: float, seed: int = 0) -> Pages:
    """False pages at a healthy ``share`` of bad requests. SpecError where the promise has no rule that can page."""
    rows = [row for row in windows(objective, period, step) if row.severity == "critical"]
    budget = 1.0 - objective
    each = min(sum(fires(rate, share, row, budget) for row in rows), 1.0) if share > 0 else 0.0
    most = each * WEEK / step
    if most < RARE or rate <= 0:
        return Pages(chance=each, at_most=most)
    found, seconds = _simulated(rate, share, rows, budget, step, seed)
    low, high = garwood(found)
    by = WEEK / seconds
    return Pages(chance=each, at_most=most, a_week=found * by, low=low * by, high=high * by, simulated_seconds=seconds)


def _simulated(
    rate: float, share: float, rows: list[Window], budget: float, step: float, seed: int
) -> tuple[int, float]:
    """Pages, and the seconds they were counted over, after the longest window has filled. The rule looks each step."""
    draw = np.random.default_rng(seed)
    warm = math.ceil(max(row.long for row in rows) / step)
    count = min(max(STEPS, 4 * warm), 4 * STEPS)
    bad = draw.poisson(rate * share * step, count).astype(np.float64)
    total = bad + draw.poisson(rate * (1.0 - share) * step, count)
    burning = np.zeros(count, dtype=np.bool_)
    for row in rows:
        limit = row.factor * budget
        long = _sums(bad, row.long, step), _sums(total, row.long, step)
        short = _sums(bad, row.short, step), _sums(total, row.short, step)
        hot = (long[1] >= MIN_EVENTS) & (long[0] > limit * long[1]) & (short[0] > limit * short[1])
        at = np.flatnonzero(hot)
        burning[at[bound(long[0][at], long[1][at], limit) < ALPHA]] = True
    at = np.flatnonzero(burning[warm:])
    found = int((np.diff(at, prepend=-math.inf) * step > MERGE).sum()) if len(at) else 0
    return found, max(count - warm, 1) * step


def _sums(values: Floats, width: float, step: float) -> Floats:
    """The sum of each step and those before it, ``width`` seconds in all."""
    n = max(round(width / step), 1)
    total = np.concatenate((np.zeros(n), np.cumsum(values)))
    out: Floats = total[n:] - total[:-n]
    return out


def detects(
    rate: float, share: float, healthy: float, seconds: float, objective: float, period: float, step: float
) -> float:
    """P(a paging rule fires at the end of ``seconds`` in which ``share`` of the requests were bad, ``healthy`` of those
    before); of the rule that is the surest to, so at least this."""
    rows = [row for row in windows(objective, period, step) if row.severity == "critical"]

    def mixed(width: float, since: float) -> float:
        ill = min(max(seconds - since, 0.0), width) / max(width, 1e-9)
        return ill * share + (1.0 - ill) * healthy

    return max(
        fires(rate, (mixed(row.short, 0.0), mixed(row.long - row.short, row.short)), row, 1.0 - objective)
        for row in rows
    )
