"""Volatility of many series at once: GARCH(1,1), learnt online by a bank of candidates that compete."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from leptonai.protocols import Floats
from leptonai.series.columns import Columns

REACTIONS = (0.03, 0.07, 0.15, 0.3)  # alpha: how much of a shock enters the next variance
PERSISTENCE = (0.7, 0.9, 0.97, 0.995)  # alpha + beta: how much of it is left a step later
FREEDOM = 6.0  # degrees of freedom of the Student t likelihood: a shock in the tail does not decide between candidates


class Garch(Columns):
    """Conditional variance of residuals: h(t+1) = v (1 - a - b) + a e(t)^2 + b h(t) (Bollerslev 1986).

    Fitting (a, b) anew each step would cost an optimisation a series. Here all candidates of a grid run side by side,
    the long-run variance v is common and learnt beside them (variance targeting: Engle & Mezrich 1996), and each is
    weighted by its discounted Student t likelihood (Bollerslev 1987; Raftery et al. 2010 for the discounting). The
    first candidate is a constant variance, so ``arch`` says how much better any other does: a likelihood ratio.

    Cost: 17 candidates of two numbers, 290 bytes a series; 35 arithmetic passes a step. Cold start: ``warm``
    residuals. v follows a lasting change of variance at rate ``alpha``.
    """

    def __init__(self, alpha: float = 0.003, forgetting: float = 0.998, warm: int = 60) -> None:
        self.alpha, self.forgetting, self.warm = alpha, forgetting, warm
        grid = [(0.0, 0.0)] + [(a, p - a) for a, p in itertools.product(REACTIONS, PERSISTENCE)]
        self.reaction = np.array([a for a, _ in grid])[:, None]
        self.memory = np.array([b for _, b in grid])[:, None]
        size = len(grid)
        super().__init__(h=np.ones(size), likelihood=np.zeros(size), v=0.0, n=0.0)

    def weights(self) -> Floats:
        """``[candidate, S]``: shares that sum to 1."""
        share = np.exp(self["likelihood"] - self["likelihood"].max(axis=0))
        out: Floats = share / share.sum(axis=0)
        return out

    def variance(self, ahead: int = 1) -> Floats:
        """Of the residual ``ahead`` steps from now; it returns to v at each candidate's own pace. nan while cold."""
        left = (self.reaction + self.memory) ** (ahead - 1)
        said = (self.weights() * (1.0 + left * (self["h"] - 1.0))).sum(axis=0)
        return np.where(self["n"] >= self.warm, self["v"] * said, np.nan)

    def arch(self) -> Floats:
        """Log-likelihood ratio of the best candidate to a constant variance; 3 and more: the volatility clusters."""
        out: Floats = self["likelihood"].max(axis=0) - self["likelihood"][0]
        return out

    def risk(self, expected: Floats, limit: Floats, ahead: int = 1) -> Floats:
        """The chance that a value around ``expected`` is above ``limit`` ``ahead`` steps from now (normal law)."""
        sigma = np.sqrt(np.maximum(self.variance(ahead), 1e-300))
        out: Floats = ndtr(-(limit - expected) / sigma)
        return out

    def learn(self, residual: Floats, where: NDArray[np.bool_]) -> None:
        """One residual a slot, where ``where`` and finite; taken as at most 5 long-run sigmas once warm."""
        where = where & np.isfinite(residual)
        square = np.nan_to_num(residual) ** 2
        warm = self["n"] >= self.warm
        square = np.where(warm, np.minimum(square, 25.0 * self["v"]), square)
        gain = np.where(where, np.maximum(1.0 / (self["n"] + 1.0), self.alpha), 0.0)
        unit = np.where(
            self["v"] > 0, np.minimum(square, 25.0 * self["v"]) / np.where(self["v"] > 0, self["v"], 1.0), 1.0
        )
        h = self["h"]
        said = -0.5 * np.log(h) - (FREEDOM + 1) / 2 * np.log1p(unit / ((FREEDOM - 2) * h))
        likelihood = self.forgetting * self["likelihood"] + said
        self["likelihood"][:] = np.where(where & warm, likelihood, self["likelihood"])
        following = (1.0 - self.reaction - self.memory) + self.reaction * unit + self.memory * h
        h[:] = np.where(where, np.maximum(following, 1e-3), h)
        self["v"][:] += gain * (square - self["v"])
        self["n"][where] += 1.0
