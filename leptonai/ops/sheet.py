"""CSV and Parquet files of samples, as series cleaned and in order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from leptonai.errors import NotFound, SpecError
from leptonai.ops.detect.table import moment
from leptonai.ops.units import prometheus_name
from leptonai.series.clean import Cleaned, clean

TIMES = ("at", "timestamp", "time", "date", "datetime", "ts", "ds")


class Sheet(NamedTuple):
    """``series``: (name, labels, samples); ``counts``: what cleaning did, by policy, and columns that were left."""

    series: list[tuple[str, dict[str, str], Cleaned]]
    counts: dict[str, int]


def read_sheet(path: Path, time: str | None = None, labels: tuple[str, ...] = (), prefix: str = "") -> Sheet:
    """Each column of numbers is a series of its name; text columns named in ``labels`` tell series apart.

    A file with columns ``name``, ``at``, ``value`` (and ``labels``, JSON), as our segments have, is read as such.
    ``time``: the column of times, unix seconds or timestamps (UTC where they name no zone); else one called ``at``,
    ``timestamp``, ``time`` ... NotFound: no such file. SpecError: no such column, no times, no numbers, or no table.
    """
    if not path.is_file():
        raise NotFound(f"there is no file {path}", hint="give a .csv or .parquet file")
    table = _table(path)
    names = [str(n) for n in table.column_names]
    lower = {n.lower(): n for n in reversed(names)}
    if time is not None and time not in names:
        raise SpecError(f"{path} has no column {time!r}", hint=f"it has {', '.join(names[:20])}")
    when = time or next((lower[t] for t in TIMES if t in lower), None)
    if when is None:
        raise SpecError(f"{path}: which column has the times?", hint=f"--time COLUMN; it has {', '.join(names[:20])}")
    at = _times(table.column(when))
    if not np.isfinite(at).any():
        raise SpecError(f"{path}: no cell of column {when!r} is a time", hint="unix seconds, or 2026-01-31 08:15:00")
    for label in labels:
        if label not in names:
            raise SpecError(f"{path} has no column {label!r} for --label", hint=f"it has {', '.join(names[:20])}")
    if {"name", "value"} <= set(names):
        return _long(table, at)
    counts: dict[str, int] = {}
    found: list[tuple[str, dict[str, str], Cleaned]] = []
    groups = _groups([table.column(n).to_pylist() for n in labels], len(at))
    for name in names:
        if name == when or name in labels:
            continue
        value = _numbers(table.column(name))
        if value is None:
            counts["columns without numbers"] = counts.get("columns without numbers", 0) + 1
            continue
        for key, rows in groups.items():
            cleaned = clean(at[rows], value[rows])
            _add(counts, cleaned.counts)
            if len(cleaned.at):
                own = dict(zip((prometheus_name(n) for n in labels), key, strict=True))
                found.append((prometheus_name(prefix + name), own, cleaned))
    if not found:
        raise SpecError(f"{path}: no column has numbers", hint="which columns did you expect? see the first lines")
    return Sheet(found, counts)


def _long(table: Any, at: np.ndarray[Any, np.dtype[np.float64]]) -> Sheet:
    value = _numbers(table.column("value"))
    texts = table.column("labels").to_pylist() if "labels" in table.column_names else ["{}"] * len(at)
    counts: dict[str, int] = {}
    found: list[tuple[str, dict[str, str], Cleaned]] = []
    for (name, text), rows in _groups([table.column("name").to_pylist(), texts], len(at)).items():
        try:
            own = {str(k): str(v) for k, v in json.loads(text or "{}").items()}
        except (ValueError, AttributeError) as e:
            raise SpecError(f"labels {text[:80]!r} are no JSON object", hint='like {"line": "3"}') from e
        if value is not None and name:
            cleaned = clean(at[rows], value[rows])
            _add(counts, cleaned.counts)
            if len(cleaned.at):
                found.append((prometheus_name(name), own, cleaned))
    if not found:
        raise SpecError("no row has a name, a time and a value", hint="columns name, at, value, labels")
    return Sheet(found, counts)


def _table(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return pyarrow.parquet.read_table(path)
        return pyarrow.csv.read_csv(path)
    except (pa.ArrowException, OSError, ValueError) as e:
        said = str(e).split("\n")[0][:200]
        raise SpecError(f"{path} cannot be read: {said}", hint="a CSV file with a header, or a Parquet file") from e


def _times(column: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return np.asarray(column.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy(), np.float64) / 1e6
    numbers = _numbers(column)
    if numbers is not None:
        return numbers
    return np.array([moment(str(t)) if t is not None else np.nan for t in column.to_pylist()], np.float64)


def _numbers(column: Any) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    import pyarrow as pa

    kind = column.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        return None
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def _groups(columns: list[list[Any]], rows: int) -> dict[tuple[str, ...], np.ndarray[Any, np.dtype[np.int64]]]:
    if not columns:
        return {(): np.arange(rows)}
    found: dict[tuple[str, ...], list[int]] = {}
    for row, key in enumerate(zip(*columns, strict=True)):
        found.setdefault(tuple("" if k is None else str(k) for k in key), []).append(row)
    return {key: np.array(own) for key, own in found.items()}


def _add(counts: dict[str, int], more: dict[str, int]) -> None:
    for what, n in more.items():
        counts[what] = counts.get(what, 0) + n
