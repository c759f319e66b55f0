"""How far the truth may be from what a law says: intervals that have come true, by the kind of limit. Pure.

Split conformal prediction, normalised and by kind (Vovk et al. 2005; Lei et al. 2018): of services whose true limit is
known (``benchmarks/advisor.py calibrate``), the logarithm of truth over prediction in units of ``deviation``; the
interval is as wide as nine of ten of these are.
"""

from __future__ import annotations

from math import exp, sqrt

from leptonai.client.advice import Name

LAWS = (0.14, 0.02)  # deviation of the laws, in logarithms: at the load that was seen, and for each e-fold beyond it
ALL = 1.35  # deviations to either side, where a kind was seen too seldom
KINDS: dict[Name, float] = {"dependency": 0.77, "batch": 0.8, "cpu": 1.39, "declared": 1.54, "memory": 1.73}


def deviation(spread: float, reach: float) -> float:
    """Of the logarithm of a limit. ``spread``: what telemetry leaves open; ``reach``: the logarithm of how many times
    the load that was seen it lies at."""
    return sqrt(spread**2 + (LAWS[0] + LAWS[1] * max(reach, 0.0)) ** 2)


def within(name: Name, load: float, spread: float, reach: float) -> tuple[float, float]:
    """The 90 % interval of a limit of this kind."""
    wide = exp(KINDS.get(name, ALL) * deviation(spread, reach))
    return load / wide, load * wide
