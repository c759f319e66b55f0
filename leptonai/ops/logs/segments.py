"""Segments of kept lines: immutable Parquet files, compressed, readable by any notebook while we run.

``<first>-<last>.parquet`` holds the lines of those ``seq``, ascending, with the columns of ``LogEntry``; ``source`` is
JSON, ``at`` a time in UTC. A file is written beside, synced and renamed: whoever lists the folder sees whole ones only.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from leptonai.ops.logs.lines import Lines
from leptonai.ops.logs.query import Query
from leptonai.platforms.arrow import numbers, strings
from leptonai.types import LogEntry

_NAME = re.compile(r"([0-9]+)-([0-9]+)\.parquet")
_COLUMNS = (
    "seq", "at", "workspace", "service", "source", "severity", "template_id", "template", "body", "trace", "span",
)  # fmt: skip

_FEW = [n for n in _COLUMNS if n not in ("seq", "at", "body")]  # columns whose values repeat


class Segment(NamedTuple):
    path: Path
    first: int
    last: int
    start: float  # time of its earliest line
    end: float  # of its latest
    size: int


def write(folder: Path, blocks: Sequence[Lines]) -> Segment:
    """OSError: disk."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = _columns(blocks)
    table = pa.Table.from_arrays([columns[name] for name in _COLUMNS], names=list(_COLUMNS))
    first, last = blocks[0].first, blocks[-1].last
    path = folder / f"{first:012}-{last:012}.parquet"
    fresh = path.with_suffix(".new")
    try:
        pq.write_table(table, fresh, compression="zstd", row_group_size=1 << 16, use_dictionary=_FEW)
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.chmod(0o600)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    start, end = min(min(b.at) for b in blocks), max(max(b.at) for b in blocks)
    return Segment(path, first, last, start, end, path.stat().st_size)


def _columns(blocks: Sequence[Lines]) -> dict[str, Any]:
    import numpy as np
    import pyarrow as pa

    sizes = [len(b) for b in blocks]
    n = sum(sizes)
    whose = numbers(np.repeat(np.arange(len(blocks)), sizes))
    words: dict[str, int] = {}
    template: list[int] = []
    for b in blocks:
        number = {id: words.setdefault(text, len(words)) for id, text in b.texts.items()}
        template += [number[id] for id in b.template]

    def each(values: list[str]) -> Any:
        """One value of each block, for all of its lines."""
        return strings(values).take(whose)

    def joined(name: str, kind: Any) -> Any:
        return np.fromiter(chain.from_iterable(getattr(b, name) for b in blocks), kind, n)

    def told(name: str) -> Any:
        columns = (getattr(b, name) or [""] * len(b) for b in blocks)
        return strings(list(chain.from_iterable(columns)))

    return {
        "seq": numbers(np.concatenate([np.arange(b.first, b.last + 1) for b in blocks])),
        "at": numbers(np.round(joined("at", np.float64) * 1e6).astype(np.int64), pa.timestamp("us", tz="UTC")),
        "workspace": each([b.workspace for b in blocks]),
        "service": each([b.service for b in blocks]),
        "source": each([msgspec.json.encode(b.source).decode() for b in blocks]),
        "severity": numbers(joined("severity", np.int64)),
        "template_id": numbers(joined("template", np.int64)),
        "template": strings(list(words)).take(numbers(np.array(template, np.int64))),
        "body": told("body"),
        "trace": told("trace"),
        "span": told("span"),
    }


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
