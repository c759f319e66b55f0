"""Lines through windows: what one more request costs, and when a line is no evidence of anything. Pure."""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

import numpy as np

from leptonai.protocols import Floats

VARIED = 0.05  # deviation of the load, over its mean, from which a slope is told apart from a level
SURE = 3.0  # standard errors that a slope must be away from none
FEW = 8  # windows


class Line(NamedTuple):
    """``y = base + slope x``; ``error``: standard error of the slope. ``span``: the x that were seen."""

    base: float
    slope: float
    error: float
    span: tuple[float, float]

    @property
    def rises(self) -> bool:
        return self.slope > SURE * self.error

    @property
    def falls(self) -> bool:
        return -self.slope > SURE * self.error


def line(x: Floats, y: Floats) -> Line | None:
    """Least squares; None with fewer than FEW windows, or when x hardly varied."""
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) < FEW or x.std() < VARIED * abs(x.mean()):
        return None
    dx = x - x.mean()
    square = float((dx * dx).sum())
    slope = float((dx * y).sum()) / square
    base = float(y.mean()) - slope * float(x.mean())
    rest = y - base - slope * x
    error = sqrt(float((rest * rest).sum()) / max(len(x) - 2, 1) / square)
    return Line(base, slope, error, (float(x.min()), float(x.max())))


def each(x: Floats, y: Floats) -> float:
    """What one more x adds to y: the slope where the line has a base of at least 0, else the ratio of the means; nan
    when y was never seen."""
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any() or x[known].sum() <= 0:
        return float("nan")
    found = line(x, y)
    ratio = float(y[known].sum() / x[known].sum())
    return found.slope if found is not None and found.rises and found.base >= 0 else ratio
