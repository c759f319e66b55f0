"""What the compute threads carry: alone, in batches, and until waiting breaks the promise. Pure.

A thread serves one request, or one batch, at a time. Utilisation law (Denning and Buzen 1978): it is busy X S / m, with
S the seconds of a thread that a request takes, m threads. In batches of n that take t(n) = a n + b, S is t(n) / n.
"""

from __future__ import annotations

from math import isfinite, log, log1p
from typing import NamedTuple

import numpy as np

from leptonai.ops.advise.fits import line
from leptonai.ops.advise.queues import busiest, late_all, mean_wait, own_times
from leptonai.ops.advise.seen import SHORTEST, Seen, weighted

USUAL_SPREAD = 0.65  # (ca^2 + cs^2) / 2 of Poisson arrivals and service times that deviate by half their mean
LEAST_SPREAD, MOST_SPREAD = 0.5, 2.0
HELD = 0.2  # seconds of predicted wait that the usual spread weighs as much as
LONGEST = 1.1  # of the mean service time: the part of a slow request that is its own, where waits are looked at alone
USUAL, UNSURE = 0.5, 0.7  # how much own times deviate, over their mean, before anything is seen; of its logarithm
VARIES = tuple(float(v) for v in np.geomspace(0.05, 3.0, 12))
TOGETHER = 5.0  # late answers that come together, as one: they wait in the same queue
LOOKS = 3  # groups of windows of like load
LEAST_BUSY = 0.01  # of a thread: below it the promise is broken at any load
STRAINED = 0.85  # of what the threads carry: where waiting breaks the promise below it, it is waiting that ends first
BATCHED = 1.2  # requests in a mean batch, from which batches are made at all
PAYS = 0.05  # more requests a second from twice the batch, from which it is the size of batches that ends first
UNKNOWN_SHARE = 0.5  # of a batch's time that is fixed, until telemetry or the replica tells (as in runtime.cost)


class Batches(NamedTuple):
    """``each`` and ``fixed``: t(n) = each n + fixed, n in requests; ``full``: requests in a full batch; ``known``: the
    two were learnt."""

    each: float
    fixed: float
    full: float
    known: bool

    def time(self, n: float) -> float:
        return self.each * n + self.fixed

    @property
    def growth(self) -> float:
        """What batches of twice the size would carry more, as a share."""
        return 2.0 * self.time(self.full) / self.time(2.0 * self.full) - 1.0


class Threads(NamedTuple):
    """``carried``: requests a second of one thread that is never idle; ``held``: at which the promise breaks, all of
    them; ``rest``: seconds of a request outside thread and queue; ``each``: seconds of a thread that one takes;
    ``spread``: of waiting, as measured; ``varies``: how much own times deviate, over their mean; ``batches`` None: one
    request at a time."""

    replicas: int
    carried: float
    held: float
    rest: float
    each: float
    spread: float
    batches: Batches | None
    slack: float
    varies: float = USUAL

    @property
    def capacity(self) -> float:
        return self.replicas * self.carried

    @property
    def strained(self) -> bool:
        """Waiting breaks the promise while the threads have room."""
        return self.held < STRAINED * self.capacity

    def inside(self, load: float) -> float:
        """Requests inside at this load: Little's law."""
        if self.batches is None:
            busy = load * self.each / self.replicas
            return load * (self.rest + self.each + mean_wait(busy, self.replicas, self.each, self.spread))
        b, rate = self.batches, load / self.replicas
        n = b.full if rate * b.each >= 1 else min(max(rate * b.fixed / (1.0 - rate * b.each), 1.0), b.full)
        busy = min(load / self.capacity, 1.0)
        wait = 0.5 * b.time(n) / max(1.0 - busy**4, 1e-6)
        return load * (self.rest + b.time(n) + wait)


def threads(
    seen: Seen, count: int, latency: float, tail: float, size: int, queue: int, cost: tuple[float, float] | None,
    slower: float = 1.0,
) -> Threads | None:  # fmt: skip
    """What ``count`` of them carry. ``tail``: share of requests that may be later than ``latency``; ``size``: samples
    in a batch, ``queue``: that may wait; ``cost``: as a replica has learnt it; ``slower``: how much longer a request
    takes when all are busy. None: no compute time was seen."""
    each = seen.mean("service")
    if not isfinite(each) or each <= 0.0:
        return None
    compute, queued = seen.mean("compute"), seen.mean("queued")
    if not isfinite(compute):
        compute = each
    inside = seen.inside / seen.rate
    rest = weighted(inside, seen.rate) - compute - (queued if isfinite(queued) else 0.0)
    rest = max(rest, 0.0) if isfinite(rest) else 0.0
    batches = _batches(seen, size, cost) if size > 1 else None
    if batches is not None:
        carried = batches.full / batches.time(batches.full)
        last = batches.full
        slack = max(latency - rest, 0.0)
        # A request just missed a batch: it waits for that one and is computed in the next.
        if (2.0 - tail) * batches.time(last) > slack and batches.each > 0:
            last = max((slack / (2.0 - tail) - batches.fixed) / batches.each, 1.0)
        held = count * last / batches.time(last)
        return Threads(count, carried, held, rest, each, 1.0, batches, slack)
    spread = _spread(seen, each)
    slack = min(latency - rest - LONGEST * each, queue * each)
    whole = min(latency - rest, (queue + 1) * each)
    varies = _varies(seen, each, spread, latency - rest)
    each *= slower
    own = own_times(each, varies)
    busy = max(busiest(count, each, spread, whole, tail, own), LEAST_BUSY)
    return Threads(count, 1.0 / each, busy * count / each, rest, each, spread, None, slack, varies)


def _varies(seen: Seen, each: float, spread: float, slack: float) -> float:
    """How much own times must deviate for as many answers to be late as were: the likeliest, around USUAL where none
    could be."""
    known = np.isfinite(seen.slow) & np.isfinite(seen.ready) & (seen.ready >= 1)
    if known.sum() < LOOKS or slack <= 0:
        return USUAL
    rate, slow, ready = seen.rate[known], seen.slow[known], seen.ready[known]
    groups = np.array_split(np.argsort(rate), LOOKS)
    looks = []  # busy, servers, and late and other answers, of each group
    for at in groups:
        sent, servers = float(rate[at].sum()) * SHORTEST / TOGETHER, max(round(float(ready[at].mean())), 1)
        bad = float((rate[at] * slow[at]).sum()) * SHORTEST / TOGETHER
        looks.append((min(float(rate[at].mean()) * each / servers, 0.99), servers, bad, sent - bad))
    best, found = -np.inf, USUAL
    for varies in VARIES:
        own = own_times(each, varies)
        chance = -0.5 * (log(varies / USUAL) / UNSURE) ** 2
        for busy, servers, bad, good in looks:
            share = min(max(late_all(busy, servers, each, spread, slack, own), 1e-7), 1.0 - 1e-7)
            chance += bad * log(share) + good * log1p(-share)
        if chance > best:
            best, found = chance, varies
    return found


def _spread(seen: Seen, each: float) -> float:
    """How much longer requests waited than exponential service times at Poisson arrivals would make them."""
    waited = predicted = 0.0
    for rate, ready, queued in zip(seen.rate, seen.ready, seen.queued, strict=True):
        if isfinite(queued) and isfinite(ready) and ready >= 1:
            waited += rate * queued
            predicted += rate * mean_wait(min(rate * each / ready, 0.95), round(ready), each, 1.0)
    held = HELD * float(np.nansum(seen.rate)) * each
    return min(max((waited + USUAL_SPREAD * held) / (predicted + held), LEAST_SPREAD), MOST_SPREAD)


def _batches(seen: Seen, size: int, cost: tuple[float, float] | None) -> Batches | None:
    """None where requests hardly ever share a batch and nothing is known of what sharing would save."""
    shared = seen.compute / seen.service
    n, t = weighted(shared, seen.rate), weighted(seen.compute, seen.rate)
    if not isfinite(n):
        return None
    n = max(n, 1.0)
    if cost is not None and cost[0] > 0:
        samples = max((t - cost[1]) / cost[0] / n, 1.0)  # of one request
        samples = samples if samples >= 1.5 else 1.0
        full = max(size / samples, 1.0)
        return Batches(samples * cost[0], cost[1], full, True) if full > 1 else None
    found = line(shared, seen.compute)
    if found is not None and found.rises and found.span[1] > BATCHED:
        slope = min(found.slope, t / n)
        return Batches(slope, max(t - slope * n, 0.0), float(size), True)
    if n < BATCHED:
        return None
    return Batches((1.0 - UNKNOWN_SHARE) * t / n, UNKNOWN_SHARE * t, float(size), False)
