"""Detection over a whole CSV file: scores out row by row, anomalies found, measures where there are labels."""

from __future__ import annotations

import csv
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leptonai.errors import SpecError
from leptonai.ops.detect.measure import PROFILES, Counts, Judged, count, nab, period, vus_pr, windows_of
from leptonai.ops.detect.stream import ALARM, QUIET, Hints, Stream
from leptonai.ops.detect.table import Chunk, Table, open_table
from leptonai.protocols import Floats

VUS_ROWS = 200_000  # beyond it VUS-PR would take minutes
SHOWN = 20_000  # points kept for a plot; longer series are thinned to the extremes


@dataclass(frozen=True)
class Span:
    """One anomaly: from its first alarm to its last. Rows count from 0; times as written in the file."""

    row: int
    last_row: int
    began: str
    last: str
    value: float  # at its worst row
    score: float  # -log10 of a tail probability


@dataclass(frozen=True)
class Measures:
    """What the scores are worth against the labels of the file. nan: cannot be said."""

    rows: Counts  # range_score >= ALARM against labelled rows
    windows: int
    windows_found: int
    nab: dict[str, float]  # by profile, at the fixed threshold ALARM
    nab_best: dict[str, float]  # by profile, at the best threshold for this file
    vus_pr: float  # of range_score
    vus_pr_score: float  # of score

    def document(self) -> dict[str, Any]:
        rows = self.rows
        return {
            "precision": rows.precision,
            "recall": rows.recall,
            "f1": rows.f1,
            "confusion": {"tp": rows.tp, "fp": rows.fp, "fn": rows.fn, "tn": rows.tn},
            "windows": self.windows,
            "windows_found": self.windows_found,
            "nab": self.nab,
            "nab_best": self.nab_best,
            "vus_pr": None if np.isnan(self.vus_pr) else self.vus_pr,
            "vus_pr_score": None if np.isnan(self.vus_pr_score) else self.vus_pr_score,
        }


@dataclass(frozen=True)
class Picture:
    """A series thinned for drawing: row, value and score, rows ascending."""

    row: NDArray[np.int64]
    value: Floats
    score: Floats


@dataclass(frozen=True)
class Found:
    table: Table
    rows: int
    anomalies: list[Span]
    measures: Measures | None
    picture: Picture
    label: list[tuple[int, int]]


def detect_file(
    path: str | Path,
    *,
    value: str | None = None,
    time: str | None = None,
    label: str | None = None,
    hints: Hints = Hints(),  # noqa: B008 - frozen
    scores: str | Path | None = None,
    progress: Callable[[int], None] = lambda position: None,
) -> Found:
    """Scores every row of a CSV file in file order. Memory does not grow with it, but for 25 bytes a labelled row.

    ``scores``: a CSV to write, ``timestamp,value,score,range_score`` a row. ``progress`` is told the bytes read.
    Raises NotFound and SpecError as ``open_table`` does, SpecError when ``scores`` cannot be written.
    """
    table = open_table(Path(path), value, time, label)
    stream, spans, picture = Stream(hints), _Spans(), _Thinned()
    kept: list[tuple[Floats, Floats, NDArray[np.bool_]]] = []
    ranges: list[Floats] = []
    rows = 0
    with ExitStack() as stack:
        out = _Rows(scores, stack) if scores is not None else None
        for chunk in table.chunks():
            score, late = stream.push(chunk.value)
            spans.add(rows, chunk, score, QUIET * stream.coarse)
            picture.add(rows, chunk.value, score)
            if out is not None:
                out.add(chunk, score, late)
            if chunk.label is not None:
                kept.append((chunk.value, score, chunk.label))
                ranges.append(late)
            rows += len(score)
            progress(chunk.position)
        late = stream.finish()
        ranges.append(late)
        if out is not None:
            out.finish(late)
    if rows == 0:
        raise SpecError(f"{path} has a header and no rows")
    measures, labelled = None, list[tuple[int, int]]()
    if kept:
        values, flat, truth = (np.concatenate(column) for column in zip(*kept, strict=True))
        measures, labelled = _measure(values, flat, np.concatenate(ranges), truth), windows_of(truth)
    return Found(table, rows, spans.found, measures, picture.done(), labelled)


def _measure(values: Floats, score: Floats, ranges: Floats, label: NDArray[np.bool_]) -> Measures:
    series = [Judged(score, windows_of(label))]
    size = period(np.where(np.isfinite(values), values, 0.0))
    small = len(score) <= VUS_ROWS
    fixed = {name: nab(series, profile, ALARM) for name, profile in PROFILES.items()}
    return Measures(
        rows=count(label, ranges >= ALARM),
        windows=len(series[0].windows),
        windows_found=fixed["standard"].found,
        nab={name: result.score for name, result in fixed.items()},
        nab_best={name: nab(series, profile).score for name, profile in PROFILES.items()},
        vus_pr=vus_pr(label, ranges, size) if small else float("nan"),
        vus_pr_score=vus_pr(label, score, size) if small else float("nan"),
    )


class _Spans:
    """Alarms joined to anomalies: those closer together than the time an alarm quietens the next."""

    def __init__(self) -> None:
        self.found: list[Span] = []

    def add(self, first: int, chunk: Chunk, score: Floats, near: int) -> None:
        """``near``: rows between two alarms of one anomaly."""
        for i in np.flatnonzero(score >= ALARM).tolist():
            at, when = first + i, chunk.text[i]
            alarm = Span(at, at, when, when, float(chunk.value[i]), float(score[i]))
            if self.found and at - self.found[-1].last_row <= near:
                before = self.found.pop()
                worst = max(before, alarm, key=lambda s: s.score)
                alarm = Span(before.row, at, before.began, when, worst.value, worst.score)
            self.found.append(alarm)


class _Rows:
    """The scores file. Rows wait until their range_score is known."""

    def __init__(self, path: str | Path, stack: ExitStack) -> None:
        try:
            file = stack.enter_context(Path(path).open("w", encoding="utf-8", newline=""))  # noqa: SIM115 - the stack closes it
        except OSError as e:
            raise SpecError(f"{path} cannot be written: {e.strerror or e}", hint="--scores names a file") from e
        self._write = csv.writer(file, lineterminator="\n")
        self._write.writerow(["timestamp", "value", "score", "range_score"])
        self._waiting: list[tuple[str, float, float]] = []

    def add(self, chunk: Chunk, score: Floats, late: Floats) -> None:
        self._waiting.extend(zip(chunk.text, chunk.value.tolist(), score.tolist(), strict=True))
        self.finish(late)

    def finish(self, late: Floats) -> None:
        ready, self._waiting = self._waiting[: len(late)], self._waiting[len(late) :]
        self._write.writerows(
            [when, "" if value != value else repr(value), f"{score:.6g}", f"{wide:.6g}"]
            for (when, value, score), wide in zip(ready, late.tolist(), strict=True)
        )


class _Thinned:
    """At most SHOWN points: of each stretch of rows the lowest, the highest and the worst score."""

    def __init__(self) -> None:
        self._row = np.empty(0, dtype=np.int64)
        self._value, self._score = np.empty(0), np.empty(0)

    def add(self, first: int, value: Floats, score: Floats) -> None:
        self._row = np.concatenate((self._row, np.arange(first, first + len(value))))
        self._value = np.concatenate((self._value, value))
        self._score = np.concatenate((self._score, score))
        if len(self._row) > 4 * SHOWN:
            self._thin()

    def done(self) -> Picture:
        if len(self._row) > SHOWN:
            self._thin()
        return Picture(self._row, self._value, self._score)

    def _thin(self) -> None:
        edges = np.linspace(0, len(self._row), SHOWN // 3 + 1).astype(int)[:-1]
        keep = set()
        for start, end in zip(edges.tolist(), [*edges[1:].tolist(), len(self._row)], strict=True):
            value = self._value[start:end]
            keep.add(start + int(np.argmin(np.where(np.isnan(value), np.inf, value))))
            keep.add(start + int(np.argmax(np.where(np.isnan(value), -np.inf, value))))
            keep.add(start + int(np.argmax(self._score[start:end])))
        at = np.array(sorted(keep))
        self._row, self._value, self._score = self._row[at], self._value[at], self._score[at]
