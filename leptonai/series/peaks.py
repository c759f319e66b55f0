"""How unlikely a large value of any statistic is: -log10 of its one-sided tail probability, calibrated per series."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leptonai.protocols import Floats
from leptonai.series.columns import Columns
from leptonai.series.tails import LN10, MAX_SCORE

SHARE = 0.05  # of values that are peaks
NORMAL = 1.645  # sigmas that a normal law has SHARE beyond
LEARNT = 5.0  # a value is learnt as at most the one of this score
SHAPES = (-0.25, 0.5)  # lighter than uniform's tail nothing is believed to be; the second moment is finite below 0.5


class Peaks(Columns):
    """Peaks over a threshold of a statistic whose law nobody knows: a sum, a distance, a squared residual.

    Streaming form of Siffer et al., KDD 2017 (SPOT). The threshold is the 95 % quantile, followed by stochastic
    approximation (Tierney 1983): a step of the excess the tail has on average, over its share, times the gain. What is
    beyond it has a generalised Pareto law; its shape and scale come by moments (Hosking & Wallis 1987). Below the
    threshold the score rises from 0 at the mean. The first ``warm`` values are only learnt: nan until then.

    ``memory``: values, and ``peaks``: peaks, remembered. What anomalies teach is bounded: see LEARNT.
    """

    def __init__(self, warm: int = 60, memory: float = 5000.0, peaks: float = 400.0) -> None:
        self.warm, self.memory, self.peaks = warm, memory, peaks
        super().__init__(n=0.0, centre=0.0, dev=0.0, at=0.0, mean=0.0, square=0.0, k=0.0)

    def score(self, value: Floats) -> Floats:
        """-log10 P(value or more) per slot, in [0, MAX_SCORE]; nan while cold and where ``value`` is nan."""
        shape, scale = self._law()
        excess = np.maximum(value - self["at"], 0.0)
        inner = np.maximum(1.0 + shape * excess / scale, 1e-300)
        beyond = -np.log10(SHARE) + np.log(inner) / (shape * LN10)
        gap = np.maximum(self["at"] - self["centre"], 1e-12)
        below = -np.log10(SHARE) * np.clip((value - self["centre"]) / gap, 0.0, 1.0)
        score = np.minimum(np.where(value > self["at"], beyond, below), MAX_SCORE)
        return np.where(self["n"] >= self.warm, score, np.nan)

    def learn(self, value: Floats, where: NDArray[np.bool_]) -> None:
        """Learn from ``value`` where ``where`` and finite."""
        where = where & np.isfinite(value)
        n = self["n"]
        settled = n >= self.warm
        shape, scale = self._law()
        most = self["at"] + scale * np.expm1(shape * LN10 * (LEARNT + np.log10(SHARE))) / shape
        value = np.where(settled, np.minimum(np.nan_to_num(value), most), np.nan_to_num(value))
        gain = np.where(where, np.maximum(1.0 / (n + 1.0), 1.0 / self.memory), 0.0)
        apart = value - self["centre"]
        self["centre"][:] += gain * apart
        self["dev"][:] += gain * (apart**2 - self["dev"])
        peak = where & settled & (value > self["at"])
        excess = np.where(peak, value - self["at"], 0.0)
        self["at"][:] += np.where(settled, gain * self["mean"] / SHARE * (peak - SHARE), 0.0)
        gain = np.where(peak, np.maximum(1.0 / (self["k"] + 1.0), 1.0 / self.peaks), 0.0)
        self["mean"][:] += gain * (excess - self["mean"])
        self["square"][:] += gain * (excess**2 - self["square"])
        self["k"][peak] += 1.0
        n[where] += 1.0
        begins = where & (n == self.warm)
        sigma = np.maximum(np.sqrt(self["dev"]), 1e-9 * np.abs(self["centre"]) + 1e-12)
        for name, start in (
            ("at", self["centre"] + NORMAL * sigma),
            ("mean", 0.6 * sigma),  # heavier than the normal law's 0.4: cold scores err towards zero
            ("square", 2.4 * (0.6 * sigma) ** 2),
        ):
            self[name][begins] = start[begins]
        self["k"][begins] = 4.0

    def _law(self) -> tuple[Floats, Floats]:
        mean = np.maximum(self["mean"], 1e-300)
        ratio = mean**2 / np.maximum(self["square"] - mean**2, 1e-6 * mean**2 + 1e-300)
        shape = np.clip(0.5 * (1.0 - ratio), *SHAPES)
        shape = np.where(np.abs(shape) < 1e-6, 1e-6, shape)
        return shape, np.maximum(mean * (1.0 - shape), 1e-300)
