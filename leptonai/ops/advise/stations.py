"""What is called, as a station of several servers: how many and how fast, by how it slows down with load. Pure.

An answer takes R(y) = s + W(y), W the wait of M/M/c by Sakasegawa (1977), y the calls of all, c / s the capacity.
One server shows its end early; several hardly before they are full. So none is chosen: each number of servers and each
share that others ask counts by how well it explains the windows, with the s that does so best (Bayes: a normal
likelihood of the logarithm, its deviation unknown).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from leptonai.ops.advise.queues import all_taken
from leptonai.protocols import Floats

SERVERS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
OTHERS = (0.0, 0.1, 0.25)  # of its capacity, that others ask of it
QUICKEST = 0.02  # of the quickest answer that was seen: what s is sought from
FEW = 8  # windows
BINS = 10  # of load: what the likelihood is made of
REFUTED = 0.2585  # of the likeliest: below it 90 % of the truths lie not (likelihood ratio, Wilks 1938: exp(-chi2 / 2))
UNLIKELY = 1e-3  # of the likeliest, below which a station is left out
STEPS = 24
FULL = 1e6  # seconds of an answer of what is full
LEAST = 1e-4  # square of the deviation of windows: nothing is measured better than to a percent
GOLDEN = 0.6180339887498949  # of a section that is searched


class Stations(NamedTuple):
    """Columns: each a station, ``weight`` adds up to 1. ``capacity``: calls a second of all; ``others``: of these.
    ``least``: calls a second of the bin of windows with the fewest."""

    servers: Floats
    capacity: Floats
    others: Floats
    weight: Floats
    least: float

    def seconds(self, calls: Floats) -> Floats:
        """Of an answer, at ``calls`` a second of ours; inf where the station is full."""
        return _seconds(self.servers, self.capacity, (calls + self.others) / self.capacity)

    def until(self, holds: Callable[[Floats], Floats], most: float) -> tuple[float, float, float]:
        """The load up to which it holds, the deviation of its logarithm, and the least that is not refuted: the median
        over all stations, of what holds below a point only; 0 where it never holds. ``holds``: of a load for each
        station. The least is of no prior: how many servers there may be at most says nothing of it.

        For the deviation all loads below ``least`` are one: the logarithm of what is next to 0 tells how small it is,
        not how unsure."""
        low, high = np.zeros(len(self.weight)), np.minimum(self.capacity, most)
        for _ in range(STEPS):
            middle = 0.5 * (low + high)
            good = holds(middle).astype(bool)
            low, high = np.where(good, middle, low), np.where(good, high, middle)
        order = np.argsort(low)
        median = float(low[order][np.searchsorted(np.cumsum(self.weight[order]), 0.5)])
        logs = np.log(np.maximum(low, self.least) / max(median, self.least))
        least = float(low[self.weight >= REFUTED * self.weight.max()].min())
        return median, float(np.sqrt((self.weight * logs**2).sum())), least


def stations(calls: Floats, seconds: Floats) -> Stations | None:
    """Those that explain ``seconds`` an answer at ``calls`` a second, over windows. None: too few windows."""
    known = np.isfinite(calls) & np.isfinite(seconds) & (seconds > 0) & (calls > 0)
    calls, seconds = calls[known], seconds[known]
    if len(calls) < FEW:
        return None
    rate, took, size, within = _binned(calls, seconds)
    c, share = (a.ravel() for a in np.meshgrid(np.array(SERVERS, dtype=np.float64), OTHERS, indexing="ij"))

    def rest(each: Floats) -> Floats:
        """Mean square of what stations with such an s leave unexplained."""
        capacity = c / each
        busy = rate[None, :] / capacity[:, None] + share[:, None]
        off = np.log(took[None, :] / np.minimum(_seconds(c[:, None], capacity[:, None], busy), FULL))
        out: Floats = (size[None, :] * off**2).sum(axis=1) / size.sum()
        return out

    low = np.full(len(c), np.log(QUICKEST * took.min()))
    high = np.log(np.minimum(took.max() * 1.1, 0.999 * c * (1.0 - share) / rate.max()))
    high = np.maximum(high, low)
    for _ in range(STEPS):
        one, two = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        nearer = rest(np.exp(one)) < rest(np.exp(two))
        low, high = np.where(nearer, low, one), np.where(nearer, two, high)
    each = np.exp(0.5 * (low + high))
    # Within a bin the windows deviate whatever the station is like: that, and what it leaves unexplained.
    logs = -0.5 * len(calls) * np.log(np.maximum(rest(each) + within, LEAST))
    weight = np.exp(logs - logs.max())
    keep = weight > UNLIKELY
    capacity = (c / each)[keep]
    return Stations(c[keep], capacity, share[keep] * capacity, weight[keep] / weight[keep].sum(), float(rate.min()))


def _seconds(servers: Floats, capacity: Floats, busy: Floats) -> Floats:
    each = servers / capacity
    free = np.maximum(1.0 - busy, 1e-9)
    out: Floats = np.where(busy < 1.0, each * (1.0 + all_taken(busy, servers) / (servers * free)), np.inf)
    return out


def _binned(calls: Floats, seconds: Floats) -> tuple[Floats, Floats, Floats, float]:
    """Calls a second, seconds an answer and calls, of windows of like load together; and the mean square of the
    logarithm by which a call's window is off from its own."""
    edges = np.unique(np.quantile(calls, np.linspace(0.0, 1.0, BINS + 1)))
    at = np.clip(np.searchsorted(edges, calls, side="right") - 1, 0, max(len(edges) - 2, 0))
    _, at, windows = np.unique(at, return_inverse=True, return_counts=True)
    size: Floats = np.bincount(at, calls).astype(np.float64)
    took: Floats = np.bincount(at, calls * seconds) / size
    off = np.log(seconds / took[at])
    return size / windows, took, size, float((calls * off**2).sum() / calls.sum())
