"""Small shifts that last: each value is ordinary, their sum is not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leptonai.ops.detect.slotted import Slotted
from leptonai.protocols import Floats, Scored
from leptonai.series.columns import Columns
from leptonai.series.peaks import Peaks
from leptonai.series.robust import Level

MOST = 4.0  # sigmas that one value adds at most: an outlier is no shift


class Cusum(Slotted):
    """Two-sided cumulative sum (Page 1954) of the distance from a robust level in sigmas, less ``drift`` a step.

    ``drift`` 0.5 is the best for shifts of one sigma (Hawkins & Olwell 1998, chapter 2). The sum's own law is learnt
    (``series.peaks``), so memory in the series costs sensitivity, not false alarms. When the level adopts a shift the
    sums begin anew: it was told for ``patience`` steps. Cost: one level, one tail, 200 bytes a series. Cold start:
    ``settle`` values for the level and 200 for the tail. Fails on: a climb slower than the level follows.
    """

    name = "cusum"

    def __init__(self, drift: float = 0.5, alpha: float = 0.005, patience: int = 60, settle: int = 30) -> None:
        self.drift = drift
        self._level, self._peaks = (
            Level(alpha=alpha, patience=patience, warm=settle),
            Peaks(warm=200, memory=20000.0, peaks=1500.0),
        )
        self._sums = Columns(up=0.0, down=0.0)
        super().__init__(level=self._level, peaks=self._peaks, sums=self._sums)

    def step(self, at: float, x: Floats, learn: NDArray[np.bool_]) -> Scored:
        x = np.where(np.isfinite(x), x, np.nan)
        sums = self._sums
        mean, scale, ready, held = self._level.step(x, learn)
        seen = ready & np.isfinite(x)
        z = np.clip(np.where(seen, (x - mean) / scale, 0.0), -MOST, MOST)
        up = np.where(seen, np.maximum(sums["up"] + z - self.drift, 0.0), sums["up"])
        down = np.where(seen, np.maximum(sums["down"] - z - self.drift, 0.0), sums["down"])
        total = np.where(seen, np.maximum(up, down), np.nan)
        score = self._peaks.score(total)
        self._peaks.learn(total, learn & ~held)
        adopted = ready & (np.abs(self._level["mean"] - mean) > scale)
        sums["up"][:] = np.where(adopted, 0.0, np.where(learn, up, sums["up"]))
        sums["down"][:] = np.where(adopted, 0.0, np.where(learn, down, sums["down"]))
        return Scored(score, np.where(ready, mean, np.nan), np.where(ready, scale, np.nan))
