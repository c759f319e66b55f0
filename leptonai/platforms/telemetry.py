"""The embedded telemetry store: the newest samples of every series, as columns in memory."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from math import ceil

import numpy as np

from leptonai.errors import SpecError
from leptonai.protocols import Floats
from leptonai.types import Series, Signal

MAX_POINTS = 11_000  # points of one series in one answer, the bound Prometheus chose
Labels = frozenset[tuple[str, str]]


class _Column:
    """Two parallel arrays, times ascending. The head is cut in blocks, so keeping a window costs O(1) per sample."""

    __slots__ = ("at", "labels", "value")

    def __init__(self, labels: dict[str, str]) -> None:
        self.labels = dict(labels)
        self.at = array("d")
        self.value = array("d")

    def add(self, at: float, value: float) -> None:
        """Put one sample in its place; a second sample at the same time replaces the first."""
        if not self.at or at > self.at[-1]:
            self.at.append(at)
            self.value.append(value)
            return
        i = bisect_left(self.at, at)
        if self.at[i] == at:
            self.value[i] = value
        else:
            self.at.insert(i, at)
            self.value.insert(i, value)

    def cut(self, before: float) -> None:
        old = bisect_left(self.at, before)
        if old * 2 > len(self.at):  # at most as many dead samples as live ones are kept
            del self.at[:old]
            del self.value[:old]

    def between(self, start: float, end: float) -> tuple[Floats, Floats]:
        a, b = bisect_left(self.at, start), bisect_left(self.at, end)
        return np.array(self.at[a:b], dtype=np.float64), np.array(self.value[a:b], dtype=np.float64)


class Memory:
    """A TelemetryStore that keeps the newest ``keep`` seconds of at most ``series`` series, and nothing on disk.

    What is older than ``keep`` (against the newest sample ever written) is not answered. When ``series`` is reached
    the series that has been silent longest makes room, so replicas that come and go cannot fill the memory.
    """

    def __init__(self, keep: float = 3600.0, series: int = 100_000) -> None:
        if keep <= 0 or series < 1:
            raise SpecError(
                f"telemetry store: keep {keep:g} s and series {series} must both be positive", hint="see ops.keep"
            )
        self.keep = keep
        self.limit = series
        self._columns: dict[str, dict[Labels, _Column]] = {}
        self._count = 0
        self._newest = float("-inf")
        self._swept = float("-inf")

    def write(self, batch: Sequence[Signal]) -> None:
        """Every sample of ``batch`` can be read back at once. Samples older than ``keep`` are dropped."""
        for signal in batch:
            if signal.at > self._newest:
                self._newest = signal.at
        horizon = self._newest - self.keep
        for signal in batch:
            if signal.at < horizon:
                continue
            named = self._columns.setdefault(signal.name, {})
            key = frozenset(signal.labels.items())
            column = named.get(key)
            if column is None:
                if self._count >= self.limit:
                    self._make_room()
                    named = self._columns.setdefault(signal.name, {})
                column = named[key] = _Column(signal.labels)
                self._count += 1
            column.add(signal.at, signal.value)
        if self._newest - self._swept > self.keep / 16:
            self._sweep(horizon)

    def read(
        self, name: str, start: float, end: float, labels: dict[str, str] | None = None, step: float = 0.0
    ) -> list[Series]:
        """Every series of ``name`` whose labels include ``labels``, over ``[start, end)``, ordered by labels.

        ``step`` > 0: one point per step, at the step's beginning: the mean of what was seen in it, nan where nothing
        was. A series with no sample in the stretch is left out. SpecError: an empty stretch, a negative step, or more
        than 11,000 steps.
        """
        if not end > start or step < 0:
            raise SpecError(
                f"signals {name!r}: start {start} must be before end {end}, and step {step} not negative",
                hint="times are unix seconds, step is seconds",
            )
        if step and (end - start) / step > MAX_POINTS:
            points = ceil((end - start) / step)
            raise SpecError(
                f"signals {name!r}: step {step:g} s gives {points} points, the limit is {MAX_POINTS}",
                hint="ask for a shorter stretch or a longer step",
            )
        wanted = (labels or {}).items()
        found = []
        for column in self._columns.get(name, {}).values():
            if wanted <= column.labels.items():
                at, value = column.between(max(start, self._newest - self.keep), end)
                if len(at):
                    if step:
                        at, value = _means(at, value, start, end, step)
                    found.append(Series(name=name, labels=column.labels, at=at.tolist(), value=value.tolist()))
        return sorted(found, key=lambda s: sorted(s.labels.items()))

    def names(self) -> list[str]:
        """The names of all kept signals, ascending."""
        return sorted(name for name, columns in self._columns.items() if columns)

    def _sweep(self, horizon: float) -> None:
        self._swept = self._newest
        for named in self._columns.values():
            for key in [k for k, c in named.items() if c.at[-1] < horizon]:
                del named[key]
                self._count -= 1
            for column in named.values():
                column.cut(horizon)

    def _make_room(self) -> None:
        """Drop the sixteenth of the series that has been silent longest."""
        everything: Iterable[tuple[float, str, Labels]] = (
            (c.at[-1], name, key) for name, named in self._columns.items() for key, c in named.items()
        )
        for _, name, key in sorted(everything, key=lambda e: e[0])[: max(1, self.limit // 16)]:
            del self._columns[name][key]
            self._count -= 1


def _means(at: Floats, value: Floats, start: float, end: float, step: float) -> tuple[Floats, Floats]:
    steps = ceil((end - start) / step)
    slot = np.minimum(((at - start) / step).astype(np.int64), steps - 1)
    seen = ~np.isnan(value)
    total = np.bincount(slot[seen], weights=value[seen], minlength=steps)
    count = np.bincount(slot[seen], minlength=steps)
    mean: Floats = np.full(steps, np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    begins: Floats = start + step * np.arange(steps, dtype=np.float64)
    return begins, mean
