"""Parquet segments: immutable files of ``name, labels (JSON), at, value``, sorted by series and time.

``<first>-<last>.parquet`` holds the logs ``first`` to ``last``. A file is written beside, synced and renamed, so that
whoever lists the folder sees whole files only. A later file says what is true where two hold the same moment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from leptonai.errors import TelemetryError
from leptonai.platforms.arrow import numbers, strings
from leptonai.platforms.embedded.log import Ids
from leptonai.protocols import Floats

GROUP = 1 << 16  # rows of a row group: what a read of one series decodes at least
Known = dict[int, tuple[str, dict[str, str]]]
Found = dict[str, list[tuple[Floats, Floats]]]  # labels as JSON -> pieces, oldest file first


class Segment(NamedTuple):
    path: Path
    first: int
    last: int
    start: float  # of its earliest sample
    end: float  # of its latest sample
    written: float  # when it was made; of a merged one when its youngest part was
    rows: int
    size: int

    def overlaps(self, start: float, end: float) -> bool:
        return self.start < end and self.end >= start


def labels_text(labels: dict[str, str]) -> str:
    """The one spelling of labels in a segment: JSON, keys ascending."""
    return msgspec.json.encode(labels, order="deterministic").decode()


def write(
    folder: Path, first: int, last: int, written: float, known: Known, ids: Ids, at: Floats, value: Floats
) -> Segment | None:
    """The samples as a segment on disk, safe against a power cut; None when there are none. OSError: disk.

    Of two samples of one series at one time the later in the arrays is kept.
    """
    if not len(ids):
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    used = np.unique(ids)
    spelt = sorted((known[i][0], labels_text(known[i][1]), i) for i in used.tolist())
    rank = np.zeros(int(used[-1]) + 1, dtype=np.int32)
    for place, (_, _, i) in enumerate(spelt):
        rank[i] = place
    series = rank[ids]
    order = np.lexsort((at, series))
    series, at, value = series[order], at[order], value[order]
    last_of = np.append((series[1:] != series[:-1]) | (at[1:] != at[:-1]), True)
    series, at, value = series[last_of], at[last_of], value[last_of]
    text = pa.dictionary(pa.int32(), pa.string())  # for pyarrow only: the file says string
    schema = pa.schema([("name", text), ("labels", text), ("at", pa.float64()), ("value", pa.float64())])
    path = folder / "segments" / f"{first:012d}-{last:012d}.parquet"
    fresh = folder / f"{path.stem}.new"
    with pq.ParquetWriter(
        fresh,
        schema,
        compression="zstd",
        use_dictionary=["name", "labels"],
        column_encoding={"at": "BYTE_STREAM_SPLIT", "value": "BYTE_STREAM_SPLIT"},
        write_page_checksum=True,
        store_schema=False,
    ) as out:
        for here in range(0, len(at), GROUP):
            part = series[here : here + GROUP]
            low, high = int(part[0]), int(part[-1])
            codes = (part - low).astype(np.int32)
            here_named = sorted({s[0] for s in spelt[low : high + 1]})
            code = {name: i for i, name in enumerate(here_named)}
            name_of = np.array([code[s[0]] for s in spelt[low : high + 1]], np.int32)[part - low]
            names = pa.DictionaryArray.from_arrays(numbers(name_of), strings(here_named))
            texts = pa.DictionaryArray.from_arrays(numbers(codes), strings([s[1] for s in spelt[low : high + 1]]))
            stretch = slice(here, here + GROUP)
            columns = [names, texts, numbers(at[stretch]), numbers(value[stretch])]
            out.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=GROUP)
        start, end = float(at.min()), float(at.max())
        out.add_key_value_metadata({"start": repr(start), "end": repr(end), "written": repr(written)})
    _sync(fresh)
    fresh.replace(path)
    _sync(path.parent)
    return Segment(path, first, last, start, end, written, len(at), path.stat().st_size)


def open_segment(path: Path) -> Segment:
    """What the file's footer says. TelemetryError when it is not a whole segment."""
    first, _, last = path.stem.partition("-")
    with _reading(path) as file:
        told = file.metadata.metadata or {}
        if not {b"start", b"end", b"written"} <= told.keys() or not (first.isdigit() and last.isdigit()):
            raise TelemetryError(f"{path}: it does not say what stretch it holds", hint="it was not written by us")
        start, end, written = (float(told[key]) for key in (b"start", b"end", b"written"))
        return Segment(path, int(first), int(last), start, end, written, file.metadata.num_rows, path.stat().st_size)


def read(segment: Segment, name: str, start: float, end: float, found: Found) -> None:
    """Add the segment's samples of ``name`` over ``[start, end)`` to ``found``. TelemetryError: it is damaged."""
    with _reading(segment.path) as file:
        for group, (low, high) in enumerate(_names(file)):
            if not low <= name <= high:
                continue
            table = file.read_row_group(group, use_threads=False)
            names, texts = _one(table["name"]), _one(table["labels"])
            spelt = names.dictionary.to_pylist()
            if name not in spelt:
                continue
            at, value, codes = table["at"].to_numpy(), table["value"].to_numpy(), texts.indices.to_numpy()
            wanted = names.indices.to_numpy() == spelt.index(name)
            if segment.start < start or segment.end >= end:
                wanted &= (at >= start) & (at < end)
            if not wanted.all():
                at, value, codes = at[wanted], value[wanted], codes[wanted]
            if not len(at):
                continue
            begins = np.append(0, np.flatnonzero(np.diff(codes)) + 1).tolist()
            labels = texts.dictionary.to_pylist()
            for begin, end_of in zip(begins, [*begins[1:], len(at)], strict=True):
                found.setdefault(labels[codes[begin]], []).append((at[begin:end_of], value[begin:end_of]))


def names(segment: Segment) -> set[str]:
    """The names of all series in the segment. TelemetryError: it is damaged."""
    with _reading(segment.path) as file:
        out: set[str] = set()
        for group, (low, high) in enumerate(_names(file)):
            if low == high:
                out.add(low)
            else:
                out.update(file.read_row_group(group, columns=["name"])["name"].unique().to_pylist())
        return out


def merge(folder: Path, segments: Sequence[Segment]) -> Segment | None:
    """One segment in place of several neighbours, oldest first; theirs stay until the caller removes them."""
    known: Known = {}
    numbers: dict[tuple[str, str], int] = {}
    parts: list[tuple[Ids, Floats, Floats]] = []
    for segment in segments:
        with _reading(segment.path) as file:
            table = file.read(use_threads=False).unify_dictionaries()
            names, texts = _one(table["name"]), _one(table["labels"])
            pair = np.stack([names.indices.to_numpy(), texts.indices.to_numpy()])
            changes = np.append(0, np.flatnonzero((pair[:, 1:] != pair[:, :-1]).any(axis=0)) + 1)
            name_of, text_of = names.dictionary.to_pylist(), texts.dictionary.to_pylist()
            ids = []
            for i in changes.tolist():
                key = (name_of[pair[0, i]], text_of[pair[1, i]])
                number = numbers.setdefault(key, len(numbers))
                known[number] = (key[0], msgspec.json.decode(key[1], type=dict[str, str]))
                ids.append(number)
            runs = np.diff(np.append(changes, len(table)))
            parts.append((np.repeat(np.array(ids, np.int32), runs), table["at"].to_numpy(), table["value"].to_numpy()))
    columns = [np.concatenate(c) for c in zip(*parts, strict=True)]
    written = max(s.written for s in segments)
    return write(folder, segments[0].first, segments[-1].last, written, known, columns[0], columns[1], columns[2])


def _one(column: Any) -> Any:
    """A column of strings as one dictionary array."""
    merged = column.combine_chunks()
    return merged.chunk(0) if hasattr(merged, "chunk") else merged


def _names(file: Any) -> Iterator[tuple[str, str]]:
    for group in range(file.metadata.num_row_groups):
        told = file.metadata.row_group(group).column(0).statistics
        yield (told.min, told.max) if told is not None and told.has_min_max else ("", "\U0010ffff")


class _reading:
    """Opens a file, and turns what pyarrow says of a damaged one into TelemetryError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Any:
        import pyarrow.parquet as pq

        try:
            self._file = pq.ParquetFile(self.path, page_checksum_verification=True, read_dictionary=["name", "labels"])
        except FileNotFoundError:
            raise
        except (OSError, ValueError) as e:
            raise self._damaged(e) from e
        return self._file

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._file.close()
        if isinstance(error, (OSError, ValueError)):
            raise self._damaged(error) from error

    def _damaged(self, error: BaseException) -> TelemetryError:
        return TelemetryError(
            f"telemetry segment {self.path.name} is damaged: {error}",
            hint="it is moved to damaged/; everything else is read",
            retry=False,
        )


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
