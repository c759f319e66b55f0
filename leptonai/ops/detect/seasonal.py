"""What is usual at this hour of this kind of day."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np
from numpy.typing import NDArray

from leptonai.errors import SpecError
from leptonai.ops.detect.slotted import Slotted
from leptonai.protocols import Floats, Scored
from leptonai.series.columns import Columns
from leptonai.series.robust import MEAN_ABSOLUTE, TINY
from leptonai.series.tails import Tail

DAY = 86400.0
THURSDAY = 3  # the weekday of 1970-01-01, Monday being 0


class Seasonal(Slotted):
    """Residual from a profile: per kind of day (working day, Saturday, Sunday or holiday) and time of day one mean.

    Each of ``bins`` a day is learnt once a day, when it is over: its mean winsorised at 3 of its sigmas, with the gain
    1/days and at least ``gain``. So a leak or an outage within a day teaches nothing until the bin ends, and then
    little. The scale is the bins' own absolute deviation. Holidays (``date`` or ISO text, in local time) count as
    Sundays. ``offset``: seconds that local time is ahead of UTC. ``day``: seconds of a day, less where days are
    compressed; holidays are then numbers of days. Cost: 3 x bins x 3 numbers, 7 kB a series at 96 bins; two passes a
    step, because all series are in the same bin. Cold start: nan until a bin was seen on ``days`` days of its kind:
    three working days, but three weeks for a Saturday (``weekly`` off: three days). Fails on: floating holidays that
    nobody listed, and changes of the clock, for an hour.
    """

    name = "seasonal"

    def __init__(
        self,
        bins: int = 96,
        day: float = DAY,
        weekly: bool = True,
        holidays: Sequence[date | str | int] = (),
        offset: float = 0.0,
        days: int = 3,
        gain: float = 0.1,
    ) -> None:
        if bins < 1 or not day > 0:
            raise SpecError(f"a season of {bins} bins in {day} seconds", hint="at least one bin, and a day that lasts")
        self.bins, self.day, self.weekly, self.offset, self.days, self.gain = bins, day, weekly, offset, days, gain
        self.holidays = frozenset(map(_number, holidays))
        self.options = "" if day == DAY else f"day {day:g}"
        size = bins * (3 if weekly else 1)
        self._profile = Columns(mean=np.full(size, np.nan), dev=np.zeros(size), seen=np.zeros(size))
        self._now = Columns(place=-1.0, total=0.0, apart=0.0, n=0.0)
        self._tail = Tail()
        super().__init__(profile=self._profile, now=self._now, tail=self._tail)

    def place(self, at: float) -> int:
        """The bin of the profile that ``at`` (unix seconds) falls into."""
        number, rest = divmod(at + self.offset, self.day)
        number, time = int(number), min(int(rest * self.bins / self.day), self.bins - 1)
        if not self.weekly:
            return time
        weekday = (number + THURSDAY) % 7
        kind = 2 if weekday == 6 or number in self.holidays else 1 if weekday == 5 else 0
        return kind * self.bins + time

    def step(self, at: float, x: Floats, learn: NDArray[np.bool_]) -> Scored:
        x = np.where(np.isfinite(x), x, np.nan)
        profile, now, place = self._profile, self._now, self.place(at)
        over = (now["place"] >= 0) & (now["place"] != place)
        if over.any():
            self._fold(over)
        ready = profile["seen"][place] >= self.days
        mean = profile["mean"][place].copy()
        scale = np.maximum(profile["dev"][place] / MEAN_ABSOLUTE, 1e-3 * np.abs(np.nan_to_num(mean)) + TINY)
        z = np.where(ready, (x - mean) / scale, np.nan)
        score = self._tail.score(z)
        self._tail.learn(z, learn, np.zeros(len(x), dtype=np.bool_))
        taught = learn & np.isfinite(x)
        known = np.where(taught, x, 0.0)
        around = np.where(np.isnan(mean), np.where(now["n"] > 0, now["total"] / np.maximum(now["n"], 1.0), known), mean)
        now["total"][:] += known
        now["apart"][:] += np.where(taught, np.abs(known - around), 0.0)
        now["n"][taught] += 1.0
        now["place"][taught] = float(place)
        return Scored(score, np.where(ready, mean, np.nan), np.where(ready, scale, np.nan))

    def _fold(self, over: NDArray[np.bool_]) -> None:
        """The bin that is over becomes part of the profile."""
        profile, now = self._profile, self._now
        slot = np.flatnonzero(over & (now["n"] > 0))
        place = now["place"][slot].astype(np.int64)
        mean, dev, seen = (profile[name][place, slot] for name in ("mean", "dev", "seen"))
        n = now["n"][slot]
        today, apart = now["total"][slot] / n, now["apart"][slot] / n
        known = seen >= self.days
        limit = np.where(known, 3.0 * dev / MEAN_ABSOLUTE + 1e-3 * np.abs(mean) + TINY, np.inf)
        gain = np.maximum(1.0 / (seen + 1.0), self.gain)
        moved = np.where(np.isnan(mean), 0.0, np.clip(today - np.nan_to_num(mean), -limit, limit))
        profile["mean"][place, slot] = np.where(np.isnan(mean), today, mean + gain * moved)
        spread = np.where(known, np.minimum(apart, limit), apart)
        # a first day has no other to differ from: what it says of the spread counts once a second one has come
        profile["dev"][place, slot] = np.where(seen <= 1, np.maximum(spread, dev), dev + gain * (spread - dev))
        profile["seen"][place, slot] = seen + 1.0
        for name in ("total", "apart", "n"):
            now[name][over] = 0.0
        now["place"][over] = -1.0


def _number(day: date | str | int) -> int:
    if isinstance(day, int):
        return day
    try:
        known = date.fromisoformat(day) if isinstance(day, str) else day
    except ValueError as e:
        raise SpecError(f"holiday {day!r} is no date", hint="write 2026-12-25") from e
    return (known - date(1970, 1, 1)).days
