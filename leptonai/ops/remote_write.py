"""Prometheus remote-write 1.0: a snappy block holding a protobuf WriteRequest, read straight into columns.

    WriteRequest { repeated TimeSeries timeseries = 1; repeated MetricMetadata metadata = 3 (ignored) }
    TimeSeries   { repeated Label labels = 1; repeated Sample samples = 2; exemplars and histograms are counted }
    Label        { string name = 1; string value = 2 }        Sample { double value = 1; int64 timestamp = 2 (ms) }

The format: https://prometheus.io/docs/specs/prw/remote_write_spec/. A sender repeats the same label bytes in every
request, so the bytes themselves are the key of a series: labels are decoded once, and a request costs one dictionary
look-up a series. A key is trusted only after those very bytes were read as whole label fields, so what follows them
in a later request is known to begin a field.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from leptonai.errors import SpecError
from leptonai.ops.varint import varint
from leptonai.platforms.embedded.log import Ids
from leptonai.protocols import Floats

HINT = "send Prometheus remote-write 1.0: a snappy block with a protobuf prometheus.WriteRequest"
STALE = 0x7FF0000000000002  # the NaN with which Prometheus says that a series ended (model/value/value.go)
REFUSED = -1  # the id of a series that is not taken
Labels = list[tuple[str, str]]
_TAIL = np.dtype([("head", "V3"), ("value", "<f8"), ("tag", "u1"), ("time", "u1", 6)])  # a sample, 6 bytes of time
_SHIFTS = np.array([0, 7, 14, 21, 28, 35], np.int64)
_DOUBLE = struct.Struct("<d")


class Columns(NamedTuple):
    """Samples in the order sent. ``id`` is REFUSED where ``intern`` took no series; times are unix seconds."""

    ids: Ids
    at: Floats
    value: Floats
    histograms: int  # native histograms, which are not read


def unpack(body: bytes, limit: int) -> bytes:
    """The request inside a snappy block. SpecError: no such block, or more than ``limit`` bytes inside."""
    import pyarrow as pa

    try:
        size, _ = varint(body, 0, min(len(body), 5), _broken)
    except SpecError as e:
        raise SpecError(f"remote-write: {len(body)} bytes are no snappy block", hint=HINT) from e
    if size > limit:
        raise SpecError(
            f"remote-write: the request has {size} bytes, the limit is {limit}",
            hint="lower max_samples_per_send of the sender",
            code="too_large",
            status=413,
        )
    try:
        return bytes(pa.Codec("snappy").decompress(body, decompressed_size=size, asbytes=True))
    except (OSError, ValueError) as e:
        raise SpecError(f"remote-write: {len(body)} bytes are no snappy block: {e}", hint=HINT) from e


def decode(data: bytes, known: dict[bytes, int], intern: Callable[[Labels], int]) -> Columns:
    """The samples of a WriteRequest. ``known`` maps label bytes to what ``intern`` said of them, and is added to.

    SpecError, naming the byte, when ``data`` is no WriteRequest; nothing but ``known`` has changed then.
    """
    quick_ids: list[int] = []
    tails: list[bytes] = []
    places: list[int] = []  # where among all samples the quick ones stand
    ids: list[int] = []
    at: list[int] = []
    value: list[float] = []
    slow: list[int] = []
    histograms = count = here = 0
    end = len(data)
    while here < end:
        if data[here] != 0x0A:
            tag, here = varint(data, here, end, _broken)
            here = _skip(data, tag, here, end)
            continue
        length, here = varint(data, here + 1, end, _broken)
        stop = here + length
        if stop > end:
            raise _broken(here, "a series is longer than the request")
        id = known.get(data[here : stop - 18]) if length > 18 else None
        # sample, 16 bytes long: tag of the value ... tag of the time, 6 bytes of which only the last ends it
        if id is not None and data[stop - 18 : stop - 15] == b"\x12\x10\x09" and _six(data, stop):
            quick_ids.append(id)
            tails.append(data[stop - 18 : stop])
            places.append(count)
            count += 1
        else:
            id, samples, unread = _series(data, here, stop, known, intern)
            histograms += unread
            for moment, number in samples:
                ids.append(id)
                at.append(moment)
                value.append(number)
                slow.append(count)
                count += 1
        here = stop
    out_ids, out_at, out_value = np.empty(count, np.int32), np.empty(count), np.empty(count)
    if tails:
        read = np.frombuffer(b"".join(tails), _TAIL)
        out_ids[places], out_value[places] = quick_ids, read["value"]
        out_at[places] = ((read["time"].astype(np.int64) & 0x7F) << _SHIFTS).sum(axis=1) / 1000.0
    if slow:
        out_ids[slow], out_at[slow], out_value[slow] = ids, np.array(at, np.float64) / 1000.0, value
    return Columns(out_ids, out_at, out_value, histograms)


def _six(data: bytes, stop: int) -> bool:
    return data[stop - 7] == 0x10 and data[stop - 1] < 0x80 and all(b >= 0x80 for b in data[stop - 6 : stop - 1])


def _series(
    data: bytes, here: int, stop: int, known: dict[bytes, int], intern: Callable[[Labels], int]
) -> tuple[int, list[tuple[int, float]], int]:
    start, labels_end = here, here
    labels: Labels = []
    samples: list[tuple[int, float]] = []
    histograms = 0
    in_front = True  # only labels so far: the bytes up to here are a key ...
    scattered = False  # ... unless more labels follow behind a sample
    while here < stop:
        tag, after = varint(data, here, stop, _broken)
        if tag not in (0x0A, 0x12):
            histograms += tag == 0x22
            here, in_front = _skip(data, tag, after, stop), False
            continue
        length, here = varint(data, after, stop, _broken)
        if here + length > stop:
            raise _broken(here, "a field is longer than its series")
        if tag == 0x0A:
            labels.append(_label(data, here, here + length))
            if in_front:
                labels_end = here + length
            else:
                scattered = True
        else:
            in_front = False
            samples.append(_sample(data, here, here + length))
        here += length
    key = data[start:labels_end]
    id = known.get(key) if key and not scattered else None
    if id is None:
        id = intern(labels)
        if key and not scattered and id != REFUSED:
            known[key] = id
    return id, samples, histograms


def _label(data: bytes, here: int, stop: int) -> tuple[str, str]:
    pair = {0x0A: b"", 0x12: b""}
    while here < stop:
        tag, after = varint(data, here, stop, _broken)
        if tag not in pair:
            here = _skip(data, tag, after, stop)
            continue
        length, here = varint(data, after, stop, _broken)
        if here + length > stop:
            raise _broken(here, "a text is longer than its label")
        pair[tag] = data[here : here + length]
        here += length
    try:
        return pair[0x0A].decode(), pair[0x12].decode()
    except UnicodeDecodeError as e:
        raise _broken(here, "a label is no UTF-8") from e


def _sample(data: bytes, here: int, stop: int) -> tuple[int, float]:
    at, value = 0, 0.0  # what protobuf leaves out is zero
    while here < stop:
        tag, after = varint(data, here, stop, _broken)
        if tag == 0x09 and after + 8 <= stop:
            (value,) = _DOUBLE.unpack_from(data, after)
            here = after + 8
        elif tag == 0x10:
            at, here = varint(data, after, stop, _broken)
            at -= (at >> 63) << 64  # int64 in two's complement
        else:
            here = _skip(data, tag, after, stop)
    return at, value


def _skip(data: bytes, tag: int, here: int, end: int) -> int:
    kind = tag & 7
    if tag >> 3 == 0 or kind in (3, 4, 6, 7):
        raise _broken(here, f"{tag} is no tag of a field")
    if kind == 0:
        _, here = varint(data, here, end, _broken)
    elif kind == 2:
        length, here = varint(data, here, end, _broken)
        here += length
    else:
        here += 8 if kind == 1 else 4
    if here > end:
        raise _broken(here, "a field is longer than what holds it")
    return here


def _broken(here: int, why: str) -> SpecError:
    return SpecError(f"remote-write: no WriteRequest: {why}, near byte {here}", hint=HINT)
