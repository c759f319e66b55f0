"""Values that stop coming: silence is told by how regularly a series used to speak."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leptonai.ops.detect.slotted import Slotted
from leptonai.protocols import Floats, Scored
from leptonai.series.columns import Columns
from leptonai.series.tails import MAX_SCORE

LEAST = 0.01  # share of steps that even the most regular series is believed to miss


class Missing(Slotted):
    """Score of a gap of g steps: g times -log10 of the chance that a step is missed after a missed one, or at all.

    That chance is learnt per series as two rates with forgetting (a Gilbert channel, 1960: a gap begins, a gap goes on)
    and is at least LEAST. nan until ``warm`` values came; 0 where a value is there. ``expected`` and ``scale`` say
    nothing (nan). Cost: five columns, 40 bytes a series. A gap that lasts is not learnt before it ends, and then only
    as ``most`` steps. Fails on: series that send only on change.
    """

    name = "missing"

    def __init__(self, warm: int = 30, memory: float = 500.0, most: float = 20.0) -> None:
        self.warm, self.memory, self.most = warm, memory, most
        self._own = Columns(n=0.0, gap=0.0, begins=0.05, steps=0.0, gaps=0.0)
        super().__init__(own=self._own)

    def step(self, at: float, x: Floats, learn: NDArray[np.bool_]) -> Scored:
        own, there = self._own, np.isfinite(x)
        known = own["n"] >= self.warm
        gap = np.where(there | (own["n"] == 0), 0.0, own["gap"] + 1.0)
        # gaps are geometric: the chance to go on is learnt with the weight of one gap of one step beforehand
        going = np.clip((own["steps"] - own["gaps"] + 0.1) / (own["steps"] + 1.0), LEAST, 0.999)
        begins = np.clip(own["begins"], LEAST, 0.999)
        chance = -np.log10(begins) - (gap - 1.0) * np.log10(going)
        score = np.where(known, np.where(gap > 0, np.minimum(chance, MAX_SCORE), 0.0), np.nan)
        ended = learn & there & (own["gap"] > 0)
        gain = np.where(learn & there, np.maximum(1.0 / (own["n"] + 2.0), 1.0 / self.memory), 0.0)
        own["begins"][:] += gain * (ended - own["begins"])
        fade = np.where(learn & there, 1.0 - 1.0 / self.memory, 1.0)
        own["steps"][:] = own["steps"] * fade + np.where(ended, np.minimum(own["gap"], self.most), 0.0)
        own["gaps"][:] = own["gaps"] * fade + ended
        own["n"][learn & there] += 1.0
        own["gap"][:] = gap
        nothing = np.full(len(x), np.nan)
        return Scored(score, nothing, nothing.copy())
