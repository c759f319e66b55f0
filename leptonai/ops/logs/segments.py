"""Segments of kept lines: immutable Parquet files, compressed, readable by any notebook while we run.

``<first>-<last>.parquet`` holds the lines of those ``seq``, ascending, with the columns of ``LogEntry``; ``source`` is
JSON, ``at`` a time in UTC. A file is written beside, synced and renamed: whoever lists the folder sees whole ones only.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from leptonai.ops.logs.query import Query
from leptonai.types import LogEntry

_NAME = re.compile(r"([0-9]+)-([0-9]+)\.parquet")
_COLUMNS = (
    "seq", "at", "workspace", "service", "source", "severity", "template_id", "template", "body", "trace", "span",
)  # fmt: skip


class Segment(NamedTuple):
    path: Path
    first: int
    last: int
    start: float  # time of its earliest line
    end: float  # of its latest
    size: int


def write(folder: Path, entries: Sequence[LogEntry]) -> Segment:
    """OSError: disk."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {name: [getattr(e, name) for e in entries] for name in _COLUMNS if name != "source"}
    columns["source"] = [msgspec.json.encode(e.source).decode() for e in entries]
    columns["at"] = pa.array([round(at * 1e6) for at in columns["at"]], pa.timestamp("us", tz="UTC"))
    table = pa.table({name: columns[name] for name in _COLUMNS})
    first, last = entries[0].seq, entries[-1].seq
    path = folder / f"{first:012}-{last:012}.parquet"
    fresh = path.with_suffix(".new")
    try:
        pq.write_table(table, fresh, compression="zstd", row_group_size=1 << 16)
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.chmod(0o600)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    times = [e.at for e in entries]
    return Segment(path, first, last, min(times), max(times), path.stat().st_size)


def find(folder: Path, counts: Counter[str]) -> list[Segment]:
    """The whole segments of a folder, oldest first; what is damaged gets the name ``*.damaged`` and is counted."""
    import pyarrow.parquet as pq

    for half in folder.glob("*.new"):
        half.unlink(missing_ok=True)
    found = []
    for path in sorted(folder.glob("*.parquet")):
        name = _NAME.fullmatch(path.name)
        try:
            if name is None:
                raise ValueError("not a name of a segment")
            meta = pq.ParquetFile(path).metadata
            place = meta.schema.names.index("at")
            stats = [meta.row_group(i).column(place).statistics for i in range(meta.num_row_groups)]
            start, end = min(s.min for s in stats).timestamp(), max(s.max for s in stats).timestamp()
        except (OSError, ValueError, AttributeError):  # pyarrow's errors are ValueErrors
            counts["segments_damaged"] += 1
            path.rename(path.with_name(path.name + ".damaged"))
            continue
        found.append(Segment(path, int(name[1]), int(name[2]), start, end, path.stat().st_size))
    return sorted(found, key=lambda s: s.first)


def search(segment: Segment, query: Query, before: int, limit: int) -> list[LogEntry]:
    """The newest ``limit`` lines older than ``before`` that match, newest first. OSError: it cannot be read."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    field = pc.field
    wanted = field("seq") < before
    if query.service:
        wanted &= field("service") == query.service
    if query.template:
        wanted &= field("template_id") == query.template
    if query.level:
        wanted &= field("severity") >= query.level
    if isfinite(query.since):
        wanted &= field("at") >= _moment(query.since)
    if isfinite(query.until):
        wanted &= field("at") < _moment(query.until)
    if query.workspaces is not None:
        wanted &= field("workspace").isin(sorted(query.workspaces))
    try:
        table = pq.read_table(segment.path, filters=wanted)
    except (pa.ArrowException, ValueError) as e:
        raise OSError(str(e)) from e
    if query.text:
        hits = pc.match_substring(table.column("body"), query.text, ignore_case=True)
        table = table.filter(hits)
    table = table.slice(max(0, table.num_rows - limit))
    at = pc.cast(table.column("at"), pa.int64()).to_pylist()
    rows = table.drop_columns(["at"]).to_pylist()
    made = [
        LogEntry(**{**row, "source": msgspec.json.decode(row["source"]), "at": when / 1e6})
        for row, when in zip(rows, at, strict=True)
    ]
    return made[::-1]


def _moment(at: float) -> Any:
    import pyarrow as pa

    return pa.scalar(round(min(max(at, -6e10), 2e11) * 1e6), pa.timestamp("us", tz="UTC"))
