"""Distance from a robust moving level: right for series that hover."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leptonai.ops.detect.slotted import Slotted
from leptonai.protocols import Floats, Scored
from leptonai.series.robust import Level
from leptonai.series.tails import Tail


class Ewma(Slotted):
    """Residual from a robust EWMA (``series.robust.Level``), scored by a learnt tail (``series.tails.Tail``).

    The chart of Roberts (1959), with the robust steps of Huber (1964) and a tail by peaks over a threshold. Cost: a
    Level and a Tail, 130 bytes a series. Cold start: nan for the first 30 values of a slot. Level shifts are adopted
    after 60 steps, see Level. Fails on: memory, since a series that wanders looks odd at each end of its way.
    """

    name = "ewma"

    def __init__(self, alpha: float = 0.01, patience: int = 60) -> None:
        self._level, self._tail = Level(alpha=alpha, patience=patience), Tail()
        super().__init__(level=self._level, tail=self._tail)

    def step(self, at: float, x: Floats, learn: NDArray[np.bool_]) -> Scored:
        x = np.where(np.isfinite(x), x, np.nan)
        mean, scale, ready, held = self._level.step(x, learn)
        z = np.where(ready, (x - mean) / scale, np.nan)
        score = self._tail.score(z)
        self._tail.learn(z, learn, held)
        return Scored(score, mean, scale)
