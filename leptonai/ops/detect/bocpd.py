"""Where a new regime began: a level or a spread that changed, by the chance of every moment since when."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from leptonai.ops.detect.slotted import Slotted
from leptonai.protocols import Floats, Scored
from leptonai.series.columns import Columns
from leptonai.series.peaks import Peaks
from leptonai.series.robust import Level

MOST = 4.0  # sigmas as which a value counts at most: an outlier is no regime
LEAST = 3  # values of a regime before it is told
STRENGTH, SHAPE = 0.5, 2.0  # the prior of a new regime: half a value for its level, four for its spread


class Bocpd(Slotted):
    """Bayesian online change-point detection (Adams & MacKay 2007): the posterior of how long the regime lasts.

    A regime is normal with unknown mean and variance (normal-inverse-gamma prior around the robust level, Student t
    predictions); one in ``usual`` steps begins another. ``lengths`` run lengths are kept, the last stands for all
    longer ones and forgets at its own rate. Statistic: the log odds that the regime is LEAST to ``recent`` values
    old; its own law is learnt (``series.peaks``), so memory in the series costs sensitivity, not false alarms. A shift
    that the level adopted is the regime from then on. Cost: 3 numbers a run length and slot, 2 kB at 80; 10 passes
    over them a step. Cold start: 30 values for the level, ``lengths`` for the posterior, 200 for the tail. Fails on:
    slow climbs, which are a change at no moment.
    """

    name = "bocpd"

    def __init__(
        self, lengths: int = 80, recent: int = 40, usual: float = 250.0, alpha: float = 0.005, patience: int = 60
    ) -> None:
        self.lengths, self.recent, self.hazard = lengths, recent, 1.0 / usual
        age = np.arange(lengths, dtype=np.float64)[:, None]
        self._strength, self._shape = STRENGTH + age, SHAPE + age / 2
        self._constant = gammaln(self._shape + 0.5) - gammaln(self._shape) - 0.5 * np.log(2 * np.pi * self._shape)
        self._level, self._peaks = Level(alpha=alpha, patience=patience), Peaks(warm=200, memory=20000.0, peaks=1500.0)
        settled = np.zeros(lengths)
        settled[-1] = 1.0
        spread = np.full(lengths, SHAPE)
        spread[-1] = self._shape[-1, 0]
        self._run = Columns(weight=settled, mean=np.zeros(lengths), spread=spread)
        self._own = Columns(n=0.0)
        super().__init__(level=self._level, peaks=self._peaks, run=self._run, own=self._own)

    def step(self, at: float, x: Floats, learn: NDArray[np.bool_]) -> Scored:
        x = np.where(np.isfinite(x), x, np.nan)
        level, scale, ready, held = self._level.step(x, learn)
        seen = ready & np.isfinite(x)
        z = np.clip(np.where(seen, (x - level) / scale, 0.0), -MOST, MOST)
        weight, mean, spread = self._after(z)
        young = weight[LEAST : self.recent + 1].sum(axis=0)
        odds = np.log(young + 1e-9) - np.log(1.0 - young + 1e-9)
        told = np.where(seen & (self._own["n"] >= self.lengths), odds, np.nan)
        score = self._peaks.score(told)
        self._peaks.learn(told, learn & ~held)
        taught = seen & learn
        for name, after in (("weight", weight), ("mean", mean), ("spread", spread)):
            self._run[name][:] = np.where(taught, after, self._run[name])
        self._own["n"][taught] += 1.0
        adopted = ready & (np.abs(self._level["mean"] - level) > scale)
        if adopted.any():
            self._run.drop(np.flatnonzero(adopted))
        return Scored(score, np.where(ready, level, np.nan), np.where(ready, scale, np.nan))

    def _after(self, z: Floats) -> tuple[Floats, Floats, Floats]:
        """Weight, mean and sum of squares of every run length after one more value; fresh arrays."""
        weight, mean, spread = (self._run[name] for name in ("weight", "mean", "spread"))
        k, a = self._strength, self._shape
        apart = (z - mean) ** 2
        wide = spread * (k + 1) / (a * k)
        likely = weight * np.exp(self._constant - 0.5 * np.log(wide) - (a + 0.5) * np.log1p(apart / (2 * a * wide)))
        total = likely.sum(axis=0)
        likely = np.where(total > 0, likely / np.where(total > 0, total, 1.0), weight)
        moved = mean + (z - mean) / (k + 1)
        grown = spread + k * apart / (2 * (k + 1))
        out = np.empty_like(weight), np.empty_like(weight), np.empty_like(weight)
        out[0][0], out[1][0], out[2][0] = self.hazard, 0.0, SHAPE
        for after, before in zip(out, ((1.0 - self.hazard) * likely, moved, grown), strict=True):
            after[1:] = before[:-1]
        # the last run length is entered and never left: both who stay and who come in are merged by their weights
        stay, come = (1.0 - self.hazard) * likely[-1], out[0][-1].copy()
        share = stay / np.maximum(stay + come, 1e-300)
        out[0][-1] = stay + come
        out[1][-1] += share * (moved[-1] - out[1][-1])
        out[2][-1] += share * (grown[-1] * a[-1] / (a[-1] + 0.5) - out[2][-1])
        return out
