"""Distance from a short-term forecast: right for series with memory, blind to a slow climb."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leptonai.ops.detect.slotted import Slotted
from leptonai.protocols import Floats, Scored
from leptonai.series.columns import Columns
from leptonai.series.rls import Rls
from leptonai.series.robust import MEAN_ABSOLUTE, Level
from leptonai.series.tails import Tail

SPAN = 6.0  # standardised lags and forecasts stay within +-6 sigmas: one outlier cannot own the regression


class Ar(Slotted):
    """Residual of an AR(order) fitted by recursive least squares on the value standardised by a robust level.

    Residuals of an autoregression as a chart: Alwan & Roberts (1988); the recursion: ``series.rls``. A missing value
    is carried forward as a lag. Cost: order + 1 coefficients and their covariance, a Level and a Tail, 330 bytes a
    series. Cold start: nan for the first 60 values of a slot (30 for the level, 30 for the regression). Level shifts:
    as in ``series.robust.Level``. Fails on: slow climbs, which it forecasts.
    """

    name = "ar"
    warm = 30

    def __init__(self, order: int = 3, alpha: float = 0.01, patience: int = 60, forgetting: float = 0.998) -> None:
        self.order, self.alpha = order, alpha
        self._level, self._tail = Level(alpha=alpha, patience=patience), Tail()
        self._rls = Rls(order=order, forgetting=forgetting)
        self._own = Columns(lags=np.full(order, np.nan), dev=1.0, n=0.0)
        super().__init__(level=self._level, rls=self._rls, tail=self._tail, own=self._own)

    def step(self, at: float, x: Floats, learn: NDArray[np.bool_]) -> Scored:
        x = np.where(np.isfinite(x), x, np.nan)
        own = self._own
        mean, scale, level_ready, held = self._level.step(x, learn)
        centre = np.nan_to_num(mean)
        lags = np.clip(np.nan_to_num((own["lags"] - centre) / scale), -SPAN, SPAN)
        forecast = np.clip(self._rls.predict(lags), -SPAN, SPAN)
        ready = level_ready & (own["n"] >= self.warm)
        error = (x - centre) / scale - forecast  # in sigmas of the level
        sigma = np.maximum(own["dev"] / MEAN_ABSOLUTE, 1e-2)
        z = np.where(ready, error / sigma, np.nan)
        score = self._tail.score(z)

        self._tail.learn(z, learn, held)
        fit = learn & np.isfinite(x) & ~held & level_ready & np.isfinite(own["lags"]).all(axis=0)
        clipped = np.clip(np.nan_to_num(error), -4 * sigma, 4 * sigma)
        gain = np.where(fit, np.maximum(1.0 / (own["n"] + 1.0), self.alpha), 0.0)
        self._rls.learn(lags, clipped, fit)
        own["dev"][:] += gain * (np.minimum(np.abs(clipped), 3 * sigma) - own["dev"])
        own["n"][fit] += 1.0
        newest = np.where(np.isfinite(x), x, own["lags"][0])
        own["lags"][1:] = own["lags"][:-1].copy()
        own["lags"][0] = newest
        return Scored(score, np.where(ready, mean + scale * forecast, np.nan), np.where(ready, scale * sigma, np.nan))
