"""Level and scale of many series: streaming (robust EWMA with regimes) and over windows (median, MAD)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from leptonai.protocols import Floats
from leptonai.series.columns import Columns

MEAN_ABSOLUTE = float(np.sqrt(2 / np.pi))  # E|z| of a standard normal: turns a mean absolute deviation into a sigma
MAD_TO_SIGMA = 1.4826  # 1 / normal quantile(3/4); Hampel 1974, "The influence curve and its role in robust estimation"
TINY = 1e-12  # keeps a constant series' scale above zero


class Around(NamedTuple):
    """What a level was before it saw the value: its mean, its sigma, and whether the slot has learnt enough.

    ``held``: the value belongs to a run and was not learnt; who learns beside the level must not learn it either.
    """

    mean: Floats
    scale: Floats
    ready: NDArray[np.bool_]
    held: NDArray[np.bool_]


class Level(Columns):
    """EWMA of the value and of the absolute residual, both winsorised, with a rule for level shifts.

    - Gain: 1/n for the first 1/alpha values, then ``alpha`` (Roberts 1959). Residuals are clipped at ``clip`` sigmas
      (Huber 1964) once ``warm`` values were seen, so one outlier moves the mean by alpha x clip sigmas at most.
    - A *run* is two or more values in a row beyond 2 sigmas on one side. While it lasts nothing is learnt, so an
      outage does not become normal. After every ``patience`` values of a run the block is judged: if it is flat (its
      fitted drift from end to end is within 2 sigmas of the block's own noise) it is a level shift, and mean and
      scale are taken from the block. A leak is not flat, so it stays anomalous for as long as it climbs; only a leak
      slower than about alpha x clip = 0.03 sigmas a step is followed.
    - An adopted shift leaves one return ticket: a value beyond the new band but inside the old one restores the old
      level at once (the fault was repaired), once.
    - nan teaches nothing and ends no run.
    """

    def __init__(self, alpha: float = 0.01, clip: float = 3.0, warm: int = 30, patience: int = 60, floor: float = 1e-3):
        self.alpha, self.clip, self.warm, self.patience, self.floor = alpha, clip, warm, patience, floor
        nan = float("nan")
        super().__init__(mean=nan, dev=0.0, n=0.0, was=nan, side=0.0, run=0.0, sx=0.0, stx=0.0, move=0.0, last=nan)

    def scale(self) -> Floats:
        """Sigma per slot, never below ``floor`` of the level's size: a ripple of 0.1 % is not news."""
        return np.maximum(self["dev"] / MEAN_ABSOLUTE, self.floor * np.abs(np.nan_to_num(self["mean"])) + TINY)

    def step(self, x: Floats, learn: NDArray[np.bool_]) -> Around:
        """What was expected before ``x`` was seen; then learn from it where ``learn`` and not missing."""
        seen = np.isfinite(x)
        learn = learn & seen
        scale = self.scale()
        settled = self["n"] >= self.warm
        self._return(x, scale, learn & settled)
        mean = self["mean"].copy()
        residual = np.where(seen, x - mean, 0.0)
        out = settled & (np.abs(residual) > 2 * scale)
        self._run(x, np.where(out, np.sign(residual), 0.0), learn)
        held = self["run"] >= 2
        self._adopt(learn)
        first = learn & np.isnan(mean)
        self["mean"][first] = x[first]
        self["n"][first] = 1.0
        ordinary = learn & ~first & ~held
        gain = np.where(ordinary, np.maximum(1.0 / (self["n"] + 1.0), self.alpha), 0.0)
        limit = np.where(settled, self.clip * scale, np.inf)
        clipped = np.clip(np.nan_to_num(residual), -limit, limit)
        self["mean"][:] += gain * clipped
        self["dev"][:] += gain * (np.abs(clipped) - self["dev"])
        self["n"][ordinary] += 1.0
        return Around(mean, scale, settled, held)

    def _return(self, x: Floats, scale: Floats, where: NDArray[np.bool_]) -> None:
        band = 2 * scale
        back = where & (np.abs(x - self["mean"]) > band) & (np.abs(x - self["was"]) <= band)
        self["mean"][back] = self["was"][back]
        self["was"][back] = np.nan
        self["run"][back] = 0.0

    def _run(self, x: Floats, side: Floats, learn: NDArray[np.bool_]) -> None:
        goes_on = learn & (side != 0) & (side == self["side"])
        starts = learn & (side != 0) & ~goes_on
        block = self["run"] % self.patience
        fresh = starts | (goes_on & (block == 0))  # a run is judged in blocks; each block sums from nothing
        known = np.nan_to_num(x)
        moved = np.where(fresh | ~goes_on, 0.0, np.abs(known - np.nan_to_num(self["last"])))
        position = np.where(fresh, 0.0, block)
        for name, add in (("sx", known), ("stx", position * known), ("move", moved)):
            self[name][:] = np.where(fresh, add, np.where(goes_on, self[name] + add, self[name]))
        self["run"][:] = np.where(goes_on, self["run"] + 1, np.where(starts, 1.0, np.where(learn, 0.0, self["run"])))
        self["side"][learn] = side[learn]
        self["last"][learn] = x[learn]

    def _adopt(self, learn: NDArray[np.bool_]) -> None:
        p = self.patience
        due = learn & (self["run"] > 0) & (self["run"] % p == 0)
        if not due.any():
            return
        centre = self["sx"] / p
        slope = (self["stx"] - (p - 1) / 2 * self["sx"]) * 12.0 / (p * (p * p - 1.0))
        dev = self["move"] / (p - 1) / np.sqrt(2.0)  # E|x_t - x_(t-1)| = sqrt(2) E|x - mean| for independent noise
        noise = np.maximum(dev / MEAN_ABSOLUTE, self.floor * np.abs(centre) + TINY)
        shift = due & (np.abs(slope) * (p - 1) <= 2 * noise)
        self["was"][shift] = self["mean"][shift]
        self["mean"][shift] = centre[shift]
        self["dev"][shift] = dev[shift]
        self["n"][shift] = float(p)
        self["run"][shift] = 0.0
        self["side"][shift] = 0.0


def median_mad(values: Floats) -> tuple[Floats, Floats]:
    """Median and normal-consistent MAD of ``values[S, T]`` along T, ignoring nan; nan for a row of nothing."""
    out = np.full(values.shape[0], np.nan), np.full(values.shape[0], np.nan)
    some = np.isfinite(values).any(axis=1)
    if some.any():
        rows = values[some]
        middle = np.nanmedian(rows, axis=1)
        out[0][some] = middle
        out[1][some] = MAD_TO_SIGMA * np.nanmedian(np.abs(rows - middle[:, None]), axis=1)
    return out
