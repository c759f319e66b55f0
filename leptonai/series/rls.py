"""Autoregression of many series at once by recursive least squares with forgetting."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leptonai.protocols import Floats
from leptonai.series.columns import Columns


class Rls(Columns):
    """AR(order) with an intercept per slot: y_t ~ a . (1, y_(t-1) ... y_(t-order)).

    The recursion is the exponentially weighted one of Haykin, *Adaptive Filter Theory*, table 10.1:
    ``k = P f / (lam + f' P f)``, ``a += k e``, ``P = (P - k f' P) / lam``. Only the upper triangle of P is computed
    and mirrored, so P stays symmetric to the last bit; its trace is capped (without excitation, 1/lam makes P grow
    without bound); a slot whose P loses its positive diagonal to rounding starts P anew and keeps its coefficients.

    Inputs should be standardised: the start value P = ``spread`` x I means "coefficients of order one".
    Shapes: ``a[order + 1, S]``, ``P[order + 1, order + 1, S]``; slots last, so each line below is one pass over S.
    """

    def __init__(self, order: int = 3, forgetting: float = 0.998, spread: float = 1.0, cap: float = 1e3) -> None:
        self.order, self.forgetting, self.spread, self.cap = order, forgetting, spread, cap
        size = order + 1
        super().__init__(a=np.zeros(size), P=spread * np.eye(size))

    def predict(self, lags: Floats) -> Floats:
        """The next value from ``lags[order, S]``, newest first."""
        a = self["a"]
        out: Floats = a[0].copy()
        for i in range(self.order):
            out += a[i + 1] * lags[i]
        return out

    def learn(self, lags: Floats, error: Floats, where: NDArray[np.bool_]) -> None:
        """One recursion with the prediction error of ``lags``; slots outside ``where`` stay as they are."""
        a, p, size = self["a"], self["P"], self.order + 1
        f = [np.ones(self.slots), *np.where(where, lags, 0.0)]
        pf = [sum((p[i, j] * f[j] for j in range(1, size)), p[i, 0] * f[0]) for i in range(size)]
        gain = 1.0 / (self.forgetting + sum((f[i] * pf[i] for i in range(1, size)), f[0] * pf[0]))
        error = np.where(where, error, 0.0)
        for i in range(size):
            a[i] += pf[i] * gain * error
            for j in range(i, size):
                p[i, j] = np.where(where, (p[i, j] - pf[i] * pf[j] * gain) / self.forgetting, p[i, j])
                p[j, i] = p[i, j]
        diagonal = np.array([p[i, i] for i in range(size)])
        trace = diagonal.sum(axis=0)
        p *= np.where(trace > self.cap, self.cap / trace, 1.0)
        broken = ~(diagonal.min(axis=0) > 0)
        if broken.any():
            p[:, :, broken] = self.spread * np.eye(size)[..., None]
