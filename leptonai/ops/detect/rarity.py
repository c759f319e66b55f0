"""Text novelty: lines of a log whose template never came before, or comes far more often than it used to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc

from leptonai.ops.detect.slotted import Slotted
from leptonai.protocols import Floats, Scored
from leptonai.series.columns import Columns
from leptonai.series.tails import MAX_SCORE


class Rarity(Slotted):
    """One slot a log template; ``x`` is how many lines of it came in a step (0 where the log was read and had none).

    A template's rate has a Gamma law (a Poisson count whose rate is unknown: Gelman et al., *Bayesian Data Analysis*,
    2.6), so a step's count is negative binomial, and the score is -log10 of the chance of so many or more. A fresh
    template starts from "one line in ``rare`` steps", with the weight of one such stretch: its first line scores about
    log10(rare). What is counted is discounted over ``memory`` steps, and bursts are wider than Poisson: the learnt
    variance over the mean widens the law. Counts below zero count as none. No cold start: the first line of a new
    template is what this is for; who mines templates for the first time sets ``learn`` and does not look. Cost: three
    columns, 24 bytes a template. Fails on: free text that no template holds.
    """

    name = "rarity"

    def __init__(self, rare: float = 1e4, memory: float = 5e3) -> None:
        self.rare, self.memory = rare, memory
        self._own = Columns(lines=0.0, steps=0.0, spread=1.0)
        super().__init__(own=self._own)

    def step(self, at: float, x: Floats, learn: NDArray[np.bool_]) -> Scored:
        own = self._own
        seen = np.isfinite(x)
        count = np.floor(np.clip(np.where(seen, x, 0.0), 0.0, 1e9))
        # before any line: one in ``rare`` steps; after some, what was counted, one line more than none
        shape = own["lines"] + np.where(own["lines"] > 0, 0.5, 1.0 / self.rare)
        steps = own["steps"] + 1.0
        mean = shape / steps
        spread = np.maximum(own["spread"], 1.0)
        tail = betainc(np.maximum(count / spread, 1e-9), shape / spread, 1.0 / (steps + 1.0))
        tail = np.where(count > 0, tail, 1.0)
        score = np.minimum(-np.log10(np.clip(tail, 1e-300, 1.0)), MAX_SCORE)
        taught = learn & seen
        fade = np.where(taught, 1.0 - 1.0 / self.memory, 1.0)
        own["lines"][:] = own["lines"] * fade + np.where(taught, count, 0.0)
        own["steps"][:] = own["steps"] * fade + taught
        apart = (count - mean) ** 2 / np.maximum(mean, 0.1)
        gain = np.where(taught, 1.0 / np.minimum(own["steps"] + 10.0, 200.0), 0.0)
        own["spread"][:] += gain * (np.minimum(apart, 9.0 * spread) - own["spread"])
        return Scored(np.where(seen, score, np.nan), np.where(seen, mean, np.nan), np.sqrt(mean * spread))
