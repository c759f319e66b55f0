"""The newest samples beside a Prometheus, so that what is read each second is not asked of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leptonai.platforms.telemetry import Column, Memory
from leptonai.protocols import Floats
from leptonai.settings import Telemetry

MILLI = 6e-4  # seconds: half of one, and the spacing of doubles at unix times
Found = tuple[dict[str, str], Floats, Floats]  # labels, times, values


class Recent:
    """``memory`` holds what this process has written; ``before``: name -> what Prometheus told of the ``keep`` seconds
    before ``since``, when it began. Whoever calls holds the store's lock."""

    def __init__(self, keep: float, limits: Telemetry, since: float) -> None:
        self.keep, self.since = keep, since
        self.memory = Memory(keep, limits.series)
        self.before: dict[str, list[Found]] = {}
        self._most = limits.hot_samples
        self._held = 0
        self._named: list[tuple[str, dict[str, str]]] = []  # by id
        self._columns: list[Column | None] = []

    def named(self, name: str, labels: dict[str, str]) -> None:
        """The next id is of this series."""
        self._named.append((name, dict(labels)))
        self._columns.append(None)

    def put(self, ids: NDArray[np.int32], at: Floats, value: Floats) -> None:
        """Past the limit of samples the older half goes."""
        if not len(at):
            return
        horizon = self.memory.reach(float(at.max()))
        for id, moment, number in zip(ids.tolist(), at.tolist(), value.tolist(), strict=True):
            if moment < horizon:
                continue
            column = self._columns[id]
            if column is None or column.dropped:
                column = self._columns[id] = self.memory.column(*self._named[id])
            column.add(moment, number)
            self._held += 1
        self.memory.sweep()
        if horizon > self.since:
            self.before.clear()  # nobody can ask for it any more
        if self._held > self._most:
            newest, oldest = float(at.max()), self.reach
            self._held = self.memory.forget_before(oldest + 0.5 * (newest - oldest))

    @property
    def reach(self) -> float:
        """The earliest time that can be answered."""
        complete = self.memory.complete_since
        return complete if complete > self.since else max(complete, self.since - self.keep)

    def between(self, name: str, start: float, end: float, labels: dict[str, str]) -> list[Found]:
        """As ``Memory.between``, with what came before."""
        found = self.memory.between(name, start, end, labels)
        known = self.before.get(name, []) if start < self.since else []
        if not known:
            return found
        joined = {frozenset(own.items()): (own, at, value) for own, at, value in found}
        for own, at, value in known:
            if labels.items() <= own.items():
                which = (at >= start) & (at < end)
                key = frozenset(own.items())
                _, late_at, late_value = joined.get(key, (own, at[:0], value[:0]))
                joined[key] = own, *_merged(at[which], value[which], late_at, late_value)
        return [part for part in joined.values() if len(part[1])]


def _merged(at: Floats, value: Floats, late_at: Floats, late_value: Floats) -> tuple[Floats, Floats]:
    """Both, times ascending; of one moment the second is believed. Prometheus counts in milliseconds."""
    at, value = np.concatenate([at, late_at]), np.concatenate([value, late_value])
    order = np.argsort(at, kind="stable")
    at, value = at[order], value[order]
    kept = np.append(at[1:] - at[:-1] > MILLI, True)[: len(at)]
    return at[kept], value[kept]
