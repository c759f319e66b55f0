"""Rows of any CSV file: which column is the value, which the time; read in pieces, so a file of any length will do."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from leptonai.errors import NotFound, SpecError
from leptonai.protocols import Floats

CHUNK = 65536  # rows in memory at once
SAMPLE = 200  # rows looked at to tell the columns apart
DELIMITERS = ",;\t|"
MISSING = {"", "na", "n/a", "nan", "null", "none", "-", "?"}
TRUE, FALSE = {"1", "1.0", "true", "yes", "anomaly"}, {"0", "0.0", "false", "no", "normal", ""}


class Chunk(NamedTuple):
    """Successive rows as they stand in the file. ``at``: unix seconds or the number itself, else nan."""

    text: list[str]  # the time as written; the row's number where there is no time column
    at: Floats
    value: Floats
    label: NDArray[np.bool_] | None
    position: int  # bytes read so far


@dataclass
class Table:
    """A CSV file understood: its columns, and what was odd in it so far (counted while it is read)."""

    path: Path
    delimiter: str
    header: list[str] | None
    value: int
    time: int | None
    label: int | None
    odd: dict[str, int] = field(default_factory=dict)

    @property
    def names(self) -> dict[str, str | None]:
        """The columns in use by name; numbered from 1 where there is no header."""

        def name(column: int | None) -> str | None:
            if column is None:
                return None
            return self.header[column] if self.header else f"column {column + 1}"

        return {"value": name(self.value), "time": name(self.time), "label": name(self.label)}

    def count(self, what: str, rows: int = 1) -> None:
        if rows:
            self.odd[what] = self.odd.get(what, 0) + rows

    def chunks(self) -> Iterator[Chunk]:
        """All rows in file order. Blank lines are skipped; what is no number counts as missing; both are counted."""
        newest = -math.inf
        number = 0
        with self.path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            progress = _Counted(file)
            rows = csv.reader(progress, delimiter=self.delimiter)
            if self.header is not None:
                next((r for r in rows if _filled(r)), None)
            try:
                while batch := list(islice((r for r in rows if _filled(r)), CHUNK)):
                    chunk, newest = self._parse(batch, number, newest, progress.read)
                    number += len(batch)
                    yield chunk
            except csv.Error as e:
                raise SpecError(f"{self.path} row {number + 1} on: {e}", hint="is this a text file?") from e

    def _parse(self, batch: list[list[str]], number: int, newest: float, position: int) -> tuple[Chunk, float]:
        short = sum(len(r) <= self.value for r in batch)
        self.count("rows without the value column", short)
        value = _numbers([r[self.value] if len(r) > self.value else "" for r in batch])
        self.count("missing values", int((~np.isfinite(value)).sum()) - short)
        if self.time is None:
            text = [str(number + i) for i in range(len(batch))]
            at = np.arange(number, number + len(batch), dtype=np.float64)
        else:
            text = [r[self.time].strip() if len(r) > self.time else "" for r in batch]
            at = np.array([moment(t) for t in text])
            self.count("rows without a readable time", int(np.isnan(at).sum()))
            known = at[np.isfinite(at)]
            if len(known):
                top = np.maximum.accumulate(np.concatenate(([newest], known)))
                self.count("rows earlier than one before them", int((known < top[:-1]).sum()))
                self.count("rows at the same time as the row before", int((np.diff(known) == 0).sum()))
                newest = float(top[-1])
        label = None
        if self.label is not None:
            label = np.array([self._truth(r[self.label] if len(r) > self.label else "") for r in batch], dtype=np.bool_)
        return Chunk(text, at, value, label, position), newest

    def _truth(self, cell: str) -> bool:
        word = cell.strip().lower()
        if word in TRUE:
            return True
        if word not in FALSE:
            raise SpecError(
                f"{self.path}: label {cell!r} in {self.names['label']} is neither true nor false",
                hint="labels are 1/0, true/false, yes/no, anomaly/normal",
            )
        return False


class _Counted:
    """The lines of a file, and how many bytes they were."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines, self.read = lines, 0

    def __iter__(self) -> _Counted:
        return self

    def __next__(self) -> str:
        line = next(self._lines).replace("\0", "")
        self.read += len(line)
        return line


def _filled(row: list[str]) -> bool:
    return any(cell.strip() for cell in row)


def number(cell: str) -> float:
    """The number a cell spells, decimal comma allowed; nan when it spells none."""
    text = cell.strip()
    try:
        return float(text)
    except ValueError:
        try:
            return float(text.replace(",", ".")) if text.count(",") == 1 else math.nan
        except ValueError:
            return math.nan


def _numbers(cells: list[str]) -> Floats:
    try:
        return np.array(cells, dtype=np.float64)
    except ValueError:
        return np.array([number(c) for c in cells])


def moment(cell: str) -> float:
    """Unix seconds of a timestamp (UTC where it names no zone), or the number itself; nan when it is neither."""
    plain = number(cell)
    if not math.isnan(plain):
        return plain
    text = cell.strip()
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        for pattern in ("%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M", "%Y/%m/%d %H:%M"):
            try:
                when = datetime.strptime(text, pattern)
                break
            except ValueError:
                continue
        else:
            return math.nan
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def open_table(path: Path, value: str | None = None, time: str | None = None, label: str | None = None) -> Table:
    """Looks at the first rows of a CSV file and tells delimiter, header and columns.

    ``value``, ``time``, ``label``: a column by name, or by number from 1. Without ``value``: the column called
    value, else the last numeric one. Without ``time``: a column called timestamp, time, date ..., else the first one
    whose cells are timestamps; none is fine.
    Raises NotFound (no such file), SpecError (no text, no rows, no numbers, no such column).
    """
    try:
        with path.open("rb") as raw:
            if b"\0" in raw.read(8192):
                raise SpecError(f"{path} is not a text file", hint="give a CSV file in UTF-8")
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            lines = [line for line in islice(file, SAMPLE + 1) if line.strip()]
    except FileNotFoundError as e:
        raise NotFound(f"no file {path}", hint="give the path of a CSV file") from e
    except OSError as e:
        raise SpecError(f"{path} cannot be read: {e.strerror or e}", hint="give the path of a CSV file") from e
    if not lines:
        raise SpecError(f"{path} is empty", hint="a CSV file has at least one row with a number")
    delimiter = max(DELIMITERS, key=lambda d: (min(line.count(d) for line in lines), lines[0].count(d)))
    try:
        rows = [r for r in csv.reader(lines, delimiter=delimiter) if _filled(r)]
    except csv.Error as e:
        raise SpecError(f"{path}: {e}", hint="is this a CSV file?") from e
    if not rows:
        raise SpecError(f"{path} has no cell with a value", hint="a CSV file has at least one row with a number")
    first = [c.strip() for c in rows[0]]
    header = None if any(_spells(c) for c in first) else first
    body = rows[1:] if header is not None else rows
    width = max(len(r) for r in rows)
    columns = [[r[i] for r in body if len(r) > i] for i in range(width)]
    chosen = _Columns(path, header, columns)
    named_label = chosen.find(label, "--label")
    when = chosen.find(time, "--time") if time else chosen.guess_time(named_label)
    what = chosen.find(value, "--value") if value else chosen.guess_value({when, named_label})
    assert what is not None
    return Table(path, delimiter, header, what, when, named_label)


def _spells(cell: str) -> bool:
    return not math.isnan(moment(cell)) or cell.strip().lower() in MISSING


@dataclass(frozen=True)
class _Columns:
    path: Path
    header: list[str] | None
    cells: list[list[str]]

    def find(self, name: str | None, option: str) -> int | None:
        if name is None:
            return None
        if self.header and name in self.header:
            return self.header.index(name)
        if name.isdigit() and 1 <= int(name) <= len(self.cells):
            return int(name) - 1
        known = ", ".join(self.header) if self.header else f"1 to {len(self.cells)} (there is no header)"
        raise SpecError(f"{self.path} has no column {name!r}", hint=f"{option}: {known}")

    def share(self, column: int, numeric: bool) -> float:
        """Of the cells that say something: how many are numbers (or, not ``numeric``, times that are no numbers)."""
        said = [c for c in self.cells[column] if c.strip().lower() not in MISSING]
        good = sum(not math.isnan(number(c) if numeric else moment(c)) for c in said)
        if not numeric:
            good -= sum(not math.isnan(number(c)) for c in said)
        return good / len(said) if said else 0.0

    def called(self, *words: str) -> list[int]:
        return [i for i, name in enumerate(self.header or []) if name.lower() in words]

    def guess_time(self, label: int | None) -> int | None:
        for i in self.called("timestamp", "time", "date", "datetime", "ts", "at", "ds"):
            if i != label:
                return i
        texts = (i for i in range(len(self.cells)) if i != label and self.share(i, numeric=False) > 0.5)
        return next(texts, None)

    def guess_value(self, taken: set[int | None]) -> int:
        free = [i for i in range(len(self.cells)) if i not in taken]
        numeric = [i for i in free if self.share(i, numeric=True) > 0.5]
        for i in chain(self.called("value", "y"), reversed(numeric)):
            if i in free:
                return i
        empty = [i for i in free if all(c.strip().lower() in MISSING for c in self.cells[i])]
        if len(empty) == 1 or (empty and len(free) == len(empty)):
            return empty[-1]
        raise SpecError(f"{self.path} has no column of numbers", hint="name one with --value")
