"""Traffic from outside over time, as a factor of its mean. Pure but for the generator it is given."""

from __future__ import annotations

import numpy as np

from leptonai.ops.simulate.system import SHAPES, System
from leptonai.protocols import Floats

DAY = 86_400.0
WANDER = 0.02  # of the logarithm of the rate, per square root of ten seconds


def traffic(system: System, rng: np.random.Generator, at: Floats) -> Floats:
    """(T, S) factors. Every shape wanders a little.

    ``daily``: a sine of a day, somewhere on it; ``bursts``: half as much again for some seconds, once a minute or so;
    ``flash``: twice for some minutes, with a steep rise, where the service has room for it; both are normal here.
    """
    rows, n = len(at), len(system.names)
    wander = np.cumsum(rng.normal(0.0, WANDER / np.sqrt(10.0), (rows, n)), axis=0)
    decay = np.linspace(0.0, 1.0, rows)[:, None]
    out = np.exp(wander - decay * wander[-1:])  # comes home: the mean is the mean
    kinds = np.array([SHAPES.index(shape) for shape in system.shape])
    season = 1.0 + 0.35 * np.sin(2 * np.pi * (at[:, None] / DAY + system.phase[None, :]))
    out = np.where(kinds[None, :] == SHAPES.index("daily"), out * season, out)
    for s in np.flatnonzero(kinds == SHAPES.index("bursts")).tolist():
        begin = rng.uniform(0.0, 60.0)
        while begin < rows:
            length = rng.uniform(3.0, 12.0)
            out[int(begin) : int(begin + length), s] *= rng.uniform(1.2, 1.6)
            begin += length + rng.exponential(60.0)
    worst = system.busy
    np.maximum.at(worst, system.caller, system.busy[system.callee])
    room = 0.6 / np.maximum(worst, 1e-3)
    for s in np.flatnonzero(kinds == SHAPES.index("flash")).tolist():
        top = min(2.0, float(room[s]))
        begin, length = rng.uniform(0.0, rows), rng.uniform(60.0, 240.0)
        shape = 1.0 / (1.0 + np.exp(-(np.arange(rows) - begin) / 4.0)) - 1.0 / (
            1.0 + np.exp(-(np.arange(rows) - begin - length) / 20.0)
        )
        out[:, s] *= 1.0 + (top - 1.0) * np.maximum(shape, 0.0)
    factors: Floats = np.maximum(out, 0.05)
    return factors
