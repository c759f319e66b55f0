"""Stated limits: a value outside them is wrong because a person said so."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leptonai.ops.detect.slotted import Slotted
from leptonai.protocols import Floats, Scored, Slots
from leptonai.series.columns import Columns

CERTAIN = 6.0  # the score of a value outside its limits: no probability stands behind a person's word


class Threshold(Slotted):
    """Score 0 within ``[lower, upper]``, CERTAIN outside, nan where no limit is set. No cold start, learns nothing.

    ``expected`` is the value brought back inside the limits; ``scale`` is 0. The oldest of control charts, with the
    limits given instead of learnt (Shewhart 1931). Cost: two numbers, 16 bytes a series. Fails on: everything within
    the limits.
    """

    name = "threshold"

    def __init__(self, lower: float = -np.inf, upper: float = np.inf) -> None:
        self._limits = Columns(lower=lower, upper=upper)
        super().__init__(limits=self._limits)

    def set(self, slot: Slots, lower: float, upper: float) -> None:
        """Limits of these slots from the next step on, until they are dropped."""
        self._limits["lower"][slot] = lower
        self._limits["upper"][slot] = upper

    def step(self, at: float, x: Floats, learn: NDArray[np.bool_]) -> Scored:
        lower, upper = self._limits["lower"], self._limits["upper"]
        known = np.isfinite(x) & (np.isfinite(lower) | np.isfinite(upper))
        outside = (x < lower) | (x > upper)
        score = np.where(known, np.where(outside, CERTAIN, 0.0), np.nan)
        return Scored(score, np.where(known, np.clip(x, lower, upper), np.nan), np.zeros_like(x))
