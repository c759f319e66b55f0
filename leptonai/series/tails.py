"""How unlikely a standardised residual is: -log10 of its two-sided tail probability, calibrated per series."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtr

from leptonai.protocols import Floats
from leptonai.series.columns import Columns

LN10 = float(np.log(10.0))
THRESHOLD = 1.96  # sigmas; the normal law leaves 5 % beyond
CORE = float(2 * ndtr(THRESHOLD) - 1)
MAX_SCORE = 30.0  # beyond that every score means "never seen"
MAX_SHAPE = 0.5  # the second moment is finite below it


def gaussian(z: Floats) -> Floats:
    """-log10 P(|Z| > |z|) for a standard normal Z, at most MAX_SCORE; nan stays nan."""
    score: Floats = -(log_ndtr(-np.abs(z)) + np.log(2.0)) / LN10
    return np.minimum(score, MAX_SCORE)


class Tail(Columns):
    """Peaks over a threshold: a normal core, and beyond 1.96 sigmas a generalised Pareto tail learnt per series.

    Streaming form of Siffer et al., KDD 2017 (SPOT): the rate of peaks and the first two moments of their excess are
    kept with forgetting; shape and scale follow by moments (Hosking & Wallis 1987), the shape within [0, 0.5], so the
    tail is never lighter than exponential. A fresh slot believes in a heavy tail (10 % peaks, mean excess 0.7, shape
    0.14: near Student's t with 4 degrees of freedom) with the weight of 30 values and 4 peaks: cold scores err towards
    zero. An excess is learnt as at most 20 mean excesses, so one disaster does not make the next look ordinary.
    """

    def __init__(self, memory: float = 2000.0, peaks: float = 300.0) -> None:
        self.memory, self.peaks = memory, peaks
        super().__init__(rate=0.10, n=30.0, mean=0.70, square=2.4 * 0.70**2, k=4.0, waiting=np.nan)

    def score(self, z: Floats) -> Floats:
        """-log10 P(|Z| > |z|) per slot, continuous and rising in |z|, in [0, MAX_SCORE]; nan stays nan."""
        size = np.abs(z)
        core = 1.0 - (1.0 - self["rate"]) * (2 * ndtr(np.minimum(size, THRESHOLD)) - 1) / CORE
        ratio = self["mean"] ** 2 / np.maximum(self["square"] - self["mean"] ** 2, 1e-300)
        shape = np.clip(0.5 * (1.0 - ratio), 1e-6, MAX_SHAPE)
        scale = self["mean"] * (1.0 - shape)  # the mean of the law is scale / (1 - shape)
        excess = np.maximum(size - THRESHOLD, 0.0)
        beyond = -np.log(self["rate"]) + np.log1p(shape * excess / scale) / shape
        score = np.where(size > THRESHOLD, beyond, -np.log(np.maximum(core, 1e-300))) / LN10
        return np.minimum(score, MAX_SCORE)

    def learn(self, z: Floats, where: NDArray[np.bool_], held: NDArray[np.bool_]) -> None:
        """Learn from ``z`` where ``where`` and not missing, one value late and never from a run.

        A value waits until the next one of its slot is seen: only when that one is not part of a run (``held``) was it
        a draw from the tail. Otherwise it was the start of something else, and learning it would deafen the slot to
        what follows.
        """
        where = where & np.isfinite(z)
        size = self["waiting"]
        use = where & ~held & np.isfinite(size)
        peak = use & (size > THRESHOLD)
        gain = np.where(use, np.maximum(1.0 / (self["n"] + 1.0), 1.0 / self.memory), 0.0)
        self["rate"][:] = np.maximum(self["rate"] + gain * (peak - self["rate"]), 1e-4)
        self["n"][use] += 1.0
        excess = np.where(peak, np.minimum(size - THRESHOLD, 20.0 * self["mean"]), 0.0)
        gain = np.where(peak, np.maximum(1.0 / (self["k"] + 1.0), 1.0 / self.peaks), 0.0)
        self["mean"][:] += gain * (excess - self["mean"])
        self["square"][:] += gain * (excess**2 - self["square"])
        self["k"][peak] += 1.0
        self["waiting"][:] = np.where(where, np.where(held, np.nan, np.abs(z)), self["waiting"])
