"""Learnt limits: beyond what this series ever was; right for what has no level, blind to what comes back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leptonai.ops.detect.slotted import Slotted
from leptonai.protocols import Floats, Scored
from leptonai.series.peaks import Peaks

BOTH = float(np.log10(2.0))  # two tails are looked at: the chance of either is twice as high


class Quantile(Slotted):
    """Peaks over the 95 % quantile and under the 5 % quantile of everything seen (Siffer et al., KDD 2017, SPOT).

    No level is followed: a value is judged by how rare it was, whenever it was. ``expected`` is the value brought back
    between the quantiles, ``scale`` half of what lies between them. Cost: two ``series.peaks.Peaks``, 112 bytes a
    series. Cold start: 60 values. Fails on: trends (news all the time) and anomalies within the range (never news).
    A level shift is learnt as slowly as ``Peaks.memory`` says, a leak likewise: neither is ever adopted at once.
    """

    name = "quantile"

    def __init__(self, memory: float = 5000.0) -> None:
        self._high, self._low = Peaks(memory=memory), Peaks(memory=memory)
        super().__init__(high=self._high, low=self._low)

    def step(self, at: float, x: Floats, learn: NDArray[np.bool_]) -> Scored:
        x = np.where(np.isfinite(x), x, np.nan)
        ready = self._high["n"] >= self._high.warm
        high, low = self._high["at"].copy(), -self._low["at"]
        score = np.maximum(np.fmax(self._high.score(x), self._low.score(-x)) - BOTH, 0.0)
        self._high.learn(x, learn)
        self._low.learn(-x, learn)
        expected = np.where(ready, np.clip(x, np.minimum(low, high), high), np.nan)
        return Scored(score, expected, np.where(ready, np.abs(high - low) / 2, np.nan))
