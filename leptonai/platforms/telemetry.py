"""The newest samples of every series, as columns in memory."""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from math import ceil

import numpy as np

from leptonai.errors import SpecError
from leptonai.protocols import Floats
from leptonai.types import Series, Signal

MAX_POINTS = 11_000  # points of one series in one answer, the bound Prometheus chose
TICK = 1e-3  # seconds; more than the spacing of doubles at unix times
Labels = frozenset[tuple[str, str]]


class Column:
    """Two parallel arrays, times ascending. The head is cut in blocks, so keeping a window costs O(1) per sample."""

    __slots__ = ("at", "dropped", "labels", "value")

    def __init__(self, labels: dict[str, str]) -> None:
        self.labels = dict(labels)
        self.dropped = False  # its memory no longer knows it: a new one must be asked for
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

    def cut(self, before: float, share: float = 0.5) -> None:
        """Drop what is older, once it is more than ``share`` of the column: then that costs O(1) a sample."""
        old = bisect_left(self.at, before)
        if old > share * len(self.at):
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
        self._lock = threading.Lock()  # questions are answered in a thread beside the loop that writes
        self._columns: dict[str, dict[Labels, Column]] = {}
        self._count = 0
        self._newest = float("-inf")
        self._swept = float("-inf")
        self._forgotten = float("-inf")

    @property
    def complete_since(self) -> float:
        """Every sample written at or after this time can be read; of earlier ones some were dropped."""
        return max(self._newest - self.keep, self._forgotten)

    def write(self, batch: Sequence[Signal]) -> None:
        """Every sample of ``batch`` can be read back at once. Samples older than ``keep`` are dropped."""
        if not batch:
            return
        with self._lock:
            horizon = self.reach(max(signal.at for signal in batch))
            for signal in batch:
                if signal.at >= horizon:
                    self.column(signal.name, signal.labels).add(signal.at, signal.value)
            self.sweep()

    def reach(self, newest: float) -> float:
        """Tell of the newest sample of a batch; the answer is the time before which samples are dropped."""
        self._newest = max(self._newest, newest)
        return self._newest - self.keep

    def column(self, name: str, labels: dict[str, str]) -> Column:
        """The column of one series, made when there is none; at the limit the longest silent ones make room."""
        named = self._columns.setdefault(name, {})
        key = frozenset(labels.items())
        column = named.get(key)
        if column is None:
            if self._count >= self.limit:
                self._make_room()
                named = self._columns.setdefault(name, {})
            column = named[key] = Column(labels)
            self._count += 1
        return column

    def between(
        self, name: str, start: float, end: float, labels: dict[str, str]
    ) -> list[tuple[dict[str, str], Floats, Floats]]:
        """``(labels, at, value)`` of every series that agrees with ``labels``; times ascending, without repeats."""
        start = max(start, self._newest - self.keep)
        agree = (c for c in self._columns.get(name, {}).values() if labels.items() <= c.labels.items())
        found = [(c.labels, *c.between(start, end)) for c in agree]
        return [f for f in found if len(f[1])]

    def forget_before(self, at: float) -> int:
        """Drop what is older than ``at``, before its time, to give memory back; how many samples are left."""
        self._forgotten = max(self._forgotten, at)
        self._cut(at, share=0.0)
        return sum(len(c.at) for named in self._columns.values() for c in named.values())

    def sweep(self) -> None:
        """Drop what is older than ``keep``; does nothing until a sixteenth of that has passed."""
        if self._newest - self._swept > self.keep / 16:
            self._swept = self._newest
            self._cut(self._newest - self.keep)

    def read(
        self, name: str, start: float, end: float, labels: dict[str, str] | None = None, step: float = 0.0
    ) -> list[Series]:
        """Every series of ``name`` whose labels include ``labels``, over ``[start, end)``, ordered by labels.

        ``step`` > 0: one point per step, at the step's beginning: the mean of what was seen in it, nan where nothing
        was. A series with no sample in the stretch is left out. SpecError: an empty stretch, a negative step, or more
        than 11,000 steps.
        """
        check_stretch(name, start, end, step)
        with self._lock:
            found = self.between(name, start, end, labels or {})
        return answer(name, found, start, end, step)

    def names(self) -> list[str]:
        """The names of all kept signals, ascending."""
        with self._lock:
            return sorted(name for name, columns in self._columns.items() if columns)

    def _cut(self, horizon: float, share: float = 0.5) -> None:
        for named in self._columns.values():
            for key in [k for k, c in named.items() if not c.at or c.at[-1] < horizon]:
                named.pop(key).dropped = True
                self._count -= 1
            for column in named.values():
                column.cut(horizon, share)

    def _make_room(self) -> None:
        """Drop the sixteenth of the series that has been silent longest."""
        everything: Iterable[tuple[float, str, Labels]] = (
            (c.at[-1] if c.at else float("-inf"), name, key)
            for name, named in self._columns.items()
            for key, c in named.items()
        )
        for _, name, key in sorted(everything, key=lambda e: e[0])[: max(1, self.limit // 16)]:
            column = self._columns[name].pop(key)
            column.dropped = True
            self._forgotten = max(self._forgotten, column.at[-1] + TICK if column.at else self._forgotten)
            self._count -= 1


def check_stretch(name: str, start: float, end: float, step: float) -> None:
    """SpecError unless ``[start, end)`` has something in it and gives at most 11,000 steps."""
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


def answer(
    name: str, found: Iterable[tuple[dict[str, str], Floats, Floats]], start: float, end: float, step: float
) -> list[Series]:
    """What a read returns of ``(labels, at, value)``: ordered by labels, down-sampled when ``step`` > 0."""
    out = []
    for labels, at, value in found:
        if step:
            at, value = _means(at, value, start, end, step)
        out.append(Series(name=name, labels=labels, at=at.tolist(), value=value.tolist()))
    return sorted(out, key=lambda s: sorted(s.labels.items()))


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
