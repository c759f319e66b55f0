"""What fills up: how long until a limit is reached, and how sure that is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, stdtr

from leptonai.ops.detect.slotted import Slotted
from leptonai.protocols import Floats, Scored, Slots
from leptonai.series.columns import Columns
from leptonai.series.drift import LOCAL, Drift
from leptonai.series.tails import LN10, MAX_SCORE

SLOW = 30  # steps whose means tell a slow climb out of noise


class Remaining(NamedTuple):
    """Seconds until the limit: at the likely rate, and at the ends of its 95 % band; inf: never at that rate."""

    likely: Floats
    soonest: Floats
    latest: Floats


class Exhaustion(Slotted):
    """Memory, disk, queue: a climb that reaches its limit within ``horizon`` seconds.

    Increments are tested, not levels, so that sums of noise are no climbs (Granger & Newbold 1974).
    The rate is looked at step by step and between means of SLOW steps (``series.drift``): fast fills are seen at once,
    slow ones out of noise. Score of each: the smaller of two tests' decades, "the rate is towards the limit" (t test)
    and "at this rate it is reached in time" (normal law); the greater of both less log10(2), because two were asked.
    Where the newest rate is off the mean one it is believed instead, with its wider error: a climb that has just begun
    is no slower for what was before it. So a leak is told as soon as it is certain that it matters, and what only
    fluctuates is not. nan without a limit.
    ``expected``: the value one ``horizon`` ahead; ``scale``: its standard error. Cost: two drifts, 200 bytes a series.
    Cold start: 30 steps. Fails on: what fills in one jump. Nothing is ever adopted as normal.
    """

    name = "exhaustion"

    def __init__(self, horizon: float = 3600.0, limit: float = np.inf, floor: float = -np.inf) -> None:
        self.horizon = horizon
        self._limits = Columns(upper=limit, lower=floor)
        self._fast, self._slow = Drift(), Drift(SLOW, span=20.0, warm=8)
        self._newest = Columns(value=np.nan)
        super().__init__(limits=self._limits, fast=self._fast, slow=self._slow, newest=self._newest)

    def set(self, slot: Slots, upper: float = np.inf, lower: float = -np.inf) -> None:
        """Limits of these slots (a full disk, no free memory) from the next step on, until they are dropped."""
        self._limits["upper"][slot] = upper
        self._limits["lower"][slot] = lower

    def step(self, at: float, x: Floats, learn: NDArray[np.bool_]) -> Scored:
        seen = np.isfinite(x)
        for drift in (self._fast, self._slow):
            drift.step(at, x, learn)
        self._newest["value"][seen & learn] = x[seen & learn]
        limited = np.isfinite(self._limits["upper"]) | np.isfinite(self._limits["lower"])
        known = seen & limited & self._fast.ready
        fast, slow = self._decades(self._fast, x), self._decades(self._slow, x)
        score = np.maximum(np.maximum(fast, slow) - np.log10(2.0), 0.0)
        rate, _, wide = self._surer()
        return Scored(
            np.where(known, score, np.nan),
            np.where(known, x + rate * self.horizon, np.nan),
            np.where(known, wide, np.nan),
        )

    def remaining(self) -> Remaining:
        """Per slot, from the newest value; nan while cold or without a limit in the direction it moves."""
        rate, error, _ = self._surer()
        value, upper, lower = self._newest["value"], self._limits["upper"], self._limits["lower"]
        bound = np.where(rate >= 0, upper, lower)
        known = self._fast.ready & np.isfinite(bound)
        room = np.where(known, np.abs(np.where(known, bound, 0.0) - value), np.nan)
        room = np.where(known & ((value > upper) | (value < lower)), 0.0, room)
        speed = np.abs(rate)
        found = []
        for r in (speed, speed + 1.96 * error, speed - 1.96 * error):
            found.append(np.where(r > 0, room / np.where(r > 0, r, 1.0), room + np.inf))
        return Remaining(*found)

    def _surer(self) -> tuple[Floats, Floats, Floats]:
        """Rate, its error and where it leads, of the drift with the smaller error."""
        fast, slow = self._fast, self._slow
        (quick, quick_error, _), (calm, calm_error, _) = fast.now(), slow.now()
        take = slow.ready & (calm_error < quick_error)
        wide = np.where(take, slow.wander(self.horizon), fast.wander(self.horizon))
        return np.where(take, calm, quick), np.where(take, calm_error, quick_error), wide

    def _decades(self, drift: Drift, x: Floats) -> Floats:
        rate, error, changed = drift.now()
        speed = np.abs(rate)
        room = np.where(rate >= 0, self._limits["upper"] - x, x - self._limits["lower"])
        ahead = np.where(np.isfinite(room), speed * self.horizon - np.where(np.isfinite(room), room, 0.0), -1.0)
        z = ahead / np.maximum(drift.wander(self.horizon), 1e-100)
        reached = np.where(z > 0, -log_ndtr(-np.maximum(z, 0.0)) / LN10, 0.0)
        t = np.where(error > 0, speed / np.where(error > 0, error, 1.0), np.where(speed > 0, 1e6, 0.0))
        freedom = np.where(changed, np.maximum(drift.freedom() / LOCAL, 1.0), drift.freedom())
        climbs = -np.log10(np.clip(2 * stdtr(freedom, -t), 1e-300, 1.0))
        return np.where(drift.ready, np.minimum(np.minimum(climbs, reached), MAX_SCORE), 0.0)
