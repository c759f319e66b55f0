"""How long requests wait before compute threads, in closed form. Pure, seconds and requests a second."""

from __future__ import annotations

from math import exp, log, log1p, sqrt

import numpy as np

from leptonai.protocols import Floats

NEVER = 1e9
STEPS = 24  # of a bisection: far below the error of any of these formulas
NONE = 1e-12  # a chance below it is not told from none: more places make it smaller still
NORMAL = np.linspace(-4.0, 5.0, 91)  # deviations at which own times are looked at
WEIGHT = np.exp(-0.5 * NORMAL**2) / np.exp(-0.5 * NORMAL**2).sum()


def all_taken(busy: Floats, servers: Floats) -> Floats:
    """Chance that a request finds all ``servers`` taken, each ``busy`` a share of its time: Sakasegawa (1977), whose
    mean wait of M/M/m is this over ``servers * (1 - busy)``, in service times; exact for one."""
    out: Floats = np.clip(busy, 0.0, 1.0) ** (np.sqrt(2.0 * (servers + 1.0)) - 1.0)
    return out


def waits(busy: float, servers: int) -> float:
    """``all_taken`` of one station."""
    return float(all_taken(np.asarray(busy), np.asarray(servers)))


def mean_wait(busy: float, servers: int, each: float, spread: float) -> float:
    """Seconds that a request waits: Sakasegawa's, times ``spread``, (ca^2 + cs^2) / 2 of Allen and Cunneen."""
    if busy >= 1.0:
        return NEVER
    return spread * each * waits(busy, servers) / (servers * (1.0 - busy))


def late(busy: float, servers: int, each: float, spread: float, slack: float) -> float:
    """Chance that a request waits longer than ``slack``: an exponential tail of which ``mean_wait`` is the mean
    (Kingman's law of heavy traffic)."""
    if busy >= 1.0:
        return 1.0
    some = waits(busy, servers)
    if some <= 0.0 or slack <= 0.0:
        return some if slack <= 0.0 else 0.0
    return some * exp(-slack * servers * (1.0 - busy) / (spread * each))


def refused(offered: float, places: int) -> float:
    """Share of requests that find all ``places`` taken and are refused: Erlang's loss formula, which holds whatever the
    times inside are like. ``offered``: requests inside if none were refused."""
    share = 1.0
    for place in range(1, places + 1):
        share = offered * share / (place + offered * share)
        if share < NONE:
            break
    return share


def fades(busy: float, varies: float) -> float:
    """How much rarer one more request inside a single server is, far out: 1 / z of M/G/1 (Cramer and Lundberg), for
    times of a gamma distribution that deviate by ``varies`` times their mean; ``busy`` where they are exponential."""
    square = max(varies, 1e-3) ** 2
    low, high = 1.0 + 1e-9, min(1.0 + 1.0 / (busy * square), 1e3) if busy > 0 else 1e3
    for _ in range(STEPS):
        z = 0.5 * (low + high)
        rest = 1.0 - busy * square * (z - 1.0)
        low, high = (low, z) if rest <= 0 or -log(rest) / square > log(z) else (z, high)
    return 1.0 / low


def crowded(busy: float, varies: float, servers: int, places: int) -> float:
    """Chance that an arrival joins a server with ``places`` inside or more, where each goes to the emptier of two that
    are drawn with replacement: s(k+1) = g (s(k) / m + (1 - 1 / m) s(k)^2), the mean field of the choice of two
    (Mitzenmacher 2001), and exact for one server of exponential times; g: ``fades``."""
    if busy >= 1.0 or places <= 0:
        return 1.0
    alone, less, share = 1.0 / servers, fades(busy, varies), busy
    for _ in range(places - 1):
        share = less * (alone * share + (1.0 - alone) * share * share)
        if share < NONE:
            break
    return alone * share + (1.0 - alone) * share * share


def own_times(each: float, varies: float) -> Floats:
    """What a request itself takes, at NORMAL deviations: log-normal around ``each``, deviating by ``varies`` of it."""
    sigma = sqrt(log1p(varies * varies))
    out: Floats = each * np.exp(sigma * NORMAL - 0.5 * sigma * sigma)
    return out


def late_all(busy: float, servers: int, each: float, spread: float, slack: float, own: Floats) -> float:
    """Chance that wait and own time together are longer than ``slack``, the wait as in ``late``; ``own``: as
    ``own_times`` gives them."""
    pace = servers * (1.0 - busy) / (spread * each)
    return float(WEIGHT @ np.where(own < slack, waits(busy, servers) * np.exp(-pace * np.maximum(slack - own, 0)), 1.0))


def busiest(servers: int, each: float, spread: float, slack: float, share: float, own: Floats | None = None) -> float:
    """The share of its time that a thread may be busy until more than ``share`` of the requests wait ``slack``; with
    ``own`` times, until wait and own time together are as long."""
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = 0.5 * (low + high)
        if own is None:
            some = late(middle, servers, each, spread, slack)
        else:
            some = late_all(middle, servers, each, spread, slack, own)
        low, high = (middle, high) if some <= share else (low, middle)
    return low
