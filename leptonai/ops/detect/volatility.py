"""A series that begins to shake, or to stand still: its variance is news, each value is not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leptonai.ops.detect.ar import Ar
from leptonai.ops.detect.slotted import Slotted
from leptonai.protocols import Floats, Scored
from leptonai.series.columns import Columns
from leptonai.series.garch import Garch
from leptonai.series.peaks import Peaks

MOST = 3.0  # sigmas as which a residual counts at most: one outlier is no regime


class Volatility(Slotted):
    """Change of variance regime: how far the variance of the last ``span`` AR residuals is from the long-run one.

    The statistic is the absolute log ratio of the two, its law learnt per series (``series.peaks``). The volatility of
    the next step is GARCH(1,1) (Bollerslev 1986; ``series.garch``): it gives ``scale``, the band and the risk of a
    limit, and is not what residuals are judged by: after one shock it swallows the next (measured:
    docs/benchmarks.md). Cost: an Ar, 17 candidates and a tail, 700 bytes a series. Cold start: 60 residuals after
    Ar's 60 values, and 60 for the tail. Fails on: seasons of variance, which are news every day until the tail has
    learnt them.
    """

    name = "garch"

    def __init__(self, span: int = 24, patience: int = 60) -> None:
        self.span = span
        self._ar, self.garch, self._peaks = Ar(patience=patience), Garch(), Peaks()
        self._own = Columns(recent=1.0, expected=np.nan)
        inner = {f"ar_{name}": part for name, part in self._ar.parts.items()}
        super().__init__(**inner, garch=self.garch, peaks=self._peaks, own=self._own)

    def step(self, at: float, x: Floats, learn: NDArray[np.bool_]) -> Scored:
        own = self._own
        told = self._ar.step(at, x, learn)
        residual = np.where(np.isfinite(x), x, np.nan) - told.expected
        sigma = np.sqrt(self.garch.variance())
        known = np.isfinite(residual) & np.isfinite(sigma)
        usual = np.maximum(self.garch["v"], 1e-6 * np.nan_to_num(told.expected) ** 2 + 1e-300)
        unit = np.minimum(np.nan_to_num(residual) ** 2, MOST**2 * usual) / usual
        recent = np.where(known, own["recent"] + (unit - own["recent"]) / self.span, own["recent"])
        apart = np.where(known, np.abs(np.log(np.maximum(recent, 1e-3))), np.nan)
        score = self._peaks.score(apart)
        self._peaks.learn(apart, learn)
        self.garch.learn(residual, learn)
        own["recent"][:] = np.where(learn, recent, own["recent"])
        own["expected"][:] = np.where(np.isfinite(told.expected), told.expected, own["expected"])
        return Scored(score, told.expected, sigma)

    def band(self, sigmas: float = 1.96, ahead: int = 1) -> tuple[Floats, Floats]:
        """Lower and upper edge of where values around the newest expectation will be ``ahead`` steps from now."""
        width = sigmas * np.sqrt(self.garch.variance(ahead))
        return self._own["expected"] - width, self._own["expected"] + width

    def risk(self, limit: Floats, ahead: int = 1) -> Floats:
        """The chance that the value is above ``limit`` ``ahead`` steps from now; nan while cold."""
        return self.garch.risk(self._own["expected"], limit, ahead)
