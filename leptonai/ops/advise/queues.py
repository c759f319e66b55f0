"""How long requests wait before compute threads, in closed form. Pure, seconds and requests a second."""

from __future__ import annotations

from math import exp, sqrt

NEVER = 1e9
STEPS = 60  # of a bisection: far below the error of any of these formulas


def waits(busy: float, servers: int) -> float:
    """Chance that a request finds all ``servers`` taken, each ``busy`` a share of its time: Sakasegawa (1977), whose
    mean wait of M/M/m is this over ``servers * (1 - busy)``, in service times; exact for one."""
    return float(min(max(busy, 0.0), 1.0) ** (sqrt(2.0 * (servers + 1.0)) - 1.0))


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
    return share


def busiest(servers: int, each: float, spread: float, slack: float, share: float) -> float:
    """The share of its time that a thread may be busy until more than ``share`` of the requests wait ``slack``."""
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if late(middle, servers, each, spread, slack) <= share else (low, middle)
    return low
