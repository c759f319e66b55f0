"""CSV files to frames and graphs. Every refusal names the file, the row and column, and what was expected."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np

from leptonai.errors import NotFound, SpecError
from leptonai.ops.rank.frame import Frame, Graph, Key

HEADER = ("service", "metric", "statistic")
MISSING = frozenset({"", "nan", "null", "none", "na", "n/a"})
LAYOUT = "three header rows (service, metric, statistic), then one row per time: unix seconds, then numbers or nothing"


def read_metrics(path: Path) -> Frame:
    """The frame of a metrics file: rows 1 to 3 name the series, column 1 is the time, an empty cell is missing.

    A row below the header that has a first cell but no number in it and nothing else (as pandas writes the name of an
    index) is skipped. Raises NotFound when there is no such file, SpecError for anything that is not of this layout.
    """
    rows = _rows(path)
    if len(rows) < 4:
        raise SpecError(f"{path}: {len(rows)} rows; a metrics file has at least 4", hint=LAYOUT)
    width = len(rows[0])
    if width < 2:
        raise SpecError(f"{path}, row 1: no series, only {width} column", hint=LAYOUT)
    for number, row in enumerate(rows, start=1):
        if len(row) != width:
            raise SpecError(f"{path}, row {number}: {len(row)} columns, row 1 has {width}", hint=LAYOUT)
    keys = []
    first: dict[Key, int] = {}
    for column in range(1, width):
        key = Key(*(rows[i][column].strip() for i in range(3)))
        for i, part in enumerate(key):
            if not part:
                raise SpecError(f"{path}, row {i + 1}, column {column + 1}: empty; expected a {HEADER[i]}", hint=LAYOUT)
        if key in first:
            raise SpecError(
                f"{path}, column {column + 1}: the series {key} is in column {first[key] + 1} already",
                hint="each service, metric and statistic at most once",
            )
        first[key] = column
        keys.append(key)
    start = 3
    if _index_name(rows[3]):
        start = 4
    if len(rows) == start:
        raise SpecError(f"{path}: no row below the header", hint=LAYOUT)
    values = np.array(
        [[_number(cell, path, i + 1, j + 1) for j, cell in enumerate(rows[i])] for i in range(start, len(rows))]
    )
    times = values[:, 0]
    for i, time in enumerate(times.tolist()):
        if math.isnan(time):
            raise SpecError(f"{path}, row {start + i + 1}, column 1: no time; expected unix seconds", hint=LAYOUT)
        if i and time <= times[i - 1]:
            raise SpecError(
                f"{path}, row {start + i + 1}, column 1: time {time:.15g} is not after {times[i - 1]:.15g}",
                hint="rows are ordered by time, oldest first, each time once",
            )
    return Frame(times, tuple(keys), values[:, 1:])


def read_graph(path: Path) -> Graph:
    """The call graph of an adjacency matrix: row = caller, column = callee, 0 = no call; the same services both ways.

    A service that calls itself is left without that edge. Raises NotFound or SpecError as ``read_metrics`` does.
    """
    rows = _rows(path)
    hint = "an adjacency matrix: row 1 names the callees, column 1 the callers, a cell is 1 for a call and 0 for none"
    if not rows or len(rows[0]) < 2:
        raise SpecError(f"{path}: no service in row 1; expected an adjacency matrix", hint=hint)
    nodes = [cell.strip() for cell in rows[0][1:]]
    _distinct(nodes, path, "row 1, column", hint)
    names = []
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(nodes) + 1:
            raise SpecError(f"{path}, row {number}: {len(row)} columns, row 1 has {len(nodes) + 1}", hint=hint)
        names.append(row[0].strip())
    _distinct(names, path, "column 1, row", hint)
    for number, name in enumerate(names, start=2):
        if name not in set(nodes):
            raise SpecError(f"{path}, row {number}: the caller {name!r} has no column", hint=hint)
    for number, name in enumerate(nodes, start=2):
        if name not in set(names):
            raise SpecError(f"{path}, column {number}: the callee {name!r} has no row", hint=hint)
    calls: dict[str, list[str]] = {node: [] for node in nodes}
    for number, row in enumerate(rows[1:], start=2):
        for j, cell in enumerate(row[1:]):
            weight = _number(cell, path, number, j + 2)
            if math.isnan(weight) or weight < 0:
                raise SpecError(f"{path}, row {number}, column {j + 2}: {cell!r}; expected 0 or 1", hint=hint)
            if weight > 0:
                calls[row[0].strip()].append(nodes[j])
    return Graph.of(calls)


def read_target(text: str) -> Key:
    """The key that ``SERVICE,METRIC,STATISTIC`` names; a service's own name may contain commas. Raises SpecError."""
    parts = [part.strip() for part in text.rsplit(",", 2)]
    if len(parts) != 3 or not all(parts):
        raise SpecError(
            f"the target {text!r} is not SERVICE,METRIC,STATISTIC", hint="for example: frontend,latency,Average"
        )
    return Key(*parts)


def _rows(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file, strict=True))
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}", hint="give the path of a CSV file") from None
    except UnicodeDecodeError as e:
        raise SpecError(f"{path}: byte {e.start} is not UTF-8; expected a CSV file", hint=LAYOUT) from e
    except csv.Error as e:
        raise SpecError(f"{path}: not a CSV file: {e}", hint=LAYOUT) from e
    except OSError as e:
        raise SpecError(f"{path} cannot be read: {e.strerror}", hint="give the path of a CSV file") from e
    while rows and not any(cell.strip() for cell in rows[-1]):
        rows.pop()
    return rows


def _index_name(row: list[str]) -> bool:
    try:
        float(row[0])
    except ValueError:
        return bool(row[0].strip()) and not any(cell.strip() for cell in row[1:])
    return False


def _number(cell: str, path: Path, row: int, column: int) -> float:
    text = cell.strip()
    if text.lower() in MISSING:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if not math.isfinite(value):
        raise SpecError(f"{path}, row {row}, column {column}: {cell!r} is not a finite number", hint=LAYOUT)
    return value


def _distinct(names: list[str], path: Path, where: str, hint: str) -> None:
    seen: dict[str, int] = {}
    for number, name in enumerate(names, start=2):
        if not name:
            raise SpecError(f"{path}, {where} {number}: empty; expected the name of a service", hint=hint)
        if name in seen:
            raise SpecError(f"{path}, {where} {number}: {name!r} stands at {seen[name]} already", hint=hint)
        seen[name] = number
