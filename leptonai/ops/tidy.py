"""What is odd about the samples of a request, counted as columns: no Python loop over samples."""

from __future__ import annotations

from collections import Counter

import numpy as np

from leptonai.platforms.embedded.log import Ids
from leptonai.protocols import Floats
from leptonai.series.clean import GAP


class Tidy:
    """Remembers the last moment, value and step of every series id. Costs 25 bytes a series."""

    def __init__(self) -> None:
        self._at: Floats = np.full(1024, -np.inf)
        self._value: Floats = np.full(1024, np.nan)
        self._step: Floats = np.full(1024, np.nan)
        self._counter = np.zeros(1024, np.bool_)

    def clear(self) -> None:
        """The ids mean other series from now on."""
        self.__init__()  # type: ignore[misc]

    def opened(self, id: int, counter: bool) -> None:
        """``id`` is a series; ``counter``: its values rise until they begin anew."""
        while id >= len(self._at):
            grow = len(self._at)
            self._at = np.append(self._at, np.full(grow, -np.inf))
            self._value = np.append(self._value, np.full(grow, np.nan))
            self._step = np.append(self._step, np.full(grow, np.nan))
            self._counter = np.append(self._counter, np.zeros(grow, np.bool_))
        self._counter[id] = counter

    def look(self, ids: Ids, at: Floats, value: Floats) -> Counter[str]:
        """How many of these samples, in the order sent, are each of what ``series.clean`` names; nothing is changed.

        ``nan``, ``infinite``, ``out_of_order``, ``duplicate``, ``gap`` (more than 2.5 of the series' last step since
        its sample before) and ``reset`` (a counter below its value before).
        """
        found: Counter[str] = Counter()
        if not len(ids):
            return found
        finite = np.isfinite(value)
        if not finite.all():
            found["nan"] = int(np.isnan(value).sum())
            found["infinite"] = len(value) - int(finite.sum()) - found["nan"]
        order = np.argsort(ids, kind="stable")
        i, t, v = ids[order], at[order], value[order]
        first = np.append(True, i[1:] != i[:-1])
        # what each sample follows: the sample before it in this request, or the last one of its series
        before_at = np.where(first, self._at[i], np.append(0.0, t[:-1]))
        before_value = np.where(first, self._value[i], np.append(0.0, v[:-1]))
        rise = t - before_at
        found["duplicate"] = int((rise == 0).sum())
        found["out_of_order"] = int((rise < 0).sum())
        forward = rise > 0
        found["gap"] = int((forward & (rise > GAP * self._step[i])).sum())
        with np.errstate(invalid="ignore"):
            found["reset"] = int((forward & self._counter[i] & (v < before_value)).sum())
        last = np.append(first[1:], True)
        newer = last & (t > self._at[i])
        step = np.where(forward & np.isfinite(rise), rise, self._step[i])
        self._step[i[newer]] = step[newer]
        self._value[i[newer]] = v[newer]
        self._at[i[newer]] = t[newer]
        return found
