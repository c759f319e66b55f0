"""The append log of telemetry: checksummed records in one file, each file readable without any other.

    file    magic, then records
    record  mark (4 bytes), length, CRC-32 of the payload (both u32, little endian), payload
    payload "S" + JSON [[id, name, {label: value}], ...]        what an id stands for, before its first use in the file
            "D" + n (u32) + ids (i32[n]) + at (f64[n]) + value (f64[n])

A write goes to the kernel at once, so a killed process loses nothing that was appended; ``sync`` is for power cuts.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from leptonai.protocols import Floats

MAGIC = b"leptonai telemetry log 1\n"
MARK = b"\xf5LR\xf5"  # 0xf5 is no byte of UTF-8, so no label can look like it
_HEAD = struct.Struct("<4sII")
_DEFINITIONS = msgspec.json.Decoder(list[tuple[int, str, dict[str, str]]])
Ids = NDArray[np.int32]


class Replayed(NamedTuple):
    """What a log file holds. ``lost``: records or samples that cannot be read; ``torn``: its last record is cut."""

    series: dict[int, tuple[str, dict[str, str]]]
    ids: Ids
    at: Floats
    value: Floats
    lost: int
    torn: bool


class Log:
    """One log file, open for appending. Made new: there must be no such file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.began: float | None = None  # the time given with the first append
        self.size = 0
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._defined = np.zeros(1024, dtype=np.bool_)
        self._write(MAGIC)

    def undefined(self, ids: Ids) -> list[int]:
        """Those of ``ids`` that this file does not know yet."""
        top = int(ids.max(initial=-1))
        if top >= len(self._defined):
            grown = np.zeros(2 * top + 2, dtype=np.bool_)
            grown[: len(self._defined)] = self._defined
            self._defined = grown
        known = self._defined[ids]
        return [] if known.all() else np.unique(ids[~known]).tolist()

    def append(self, new: list[tuple[int, str, dict[str, str]]], ids: Ids, at: Floats, value: Floats) -> None:
        """When this returns the kernel has the samples. ``new``: what ``undefined(ids)`` stand for. OSError: disk."""
        records = b""
        if new:
            records = _record(b"S" + msgspec.json.encode(new))
        if len(ids):
            columns = ids.astype("<i4").tobytes() + at.astype("<f8").tobytes() + value.astype("<f8").tobytes()
            records += _record(b"D" + struct.pack("<I", len(ids)) + columns)
        self._write(records)
        self._defined[[id for id, _, _ in new]] = True

    def sync(self) -> None:
        """What was appended survives a power cut."""
        os.fdatasync(self._file)

    def close(self) -> None:
        os.close(self._file)

    def _write(self, data: bytes) -> None:
        written = os.write(self._file, data)
        self.size += written
        if written < len(data):  # a full disk: the torn record must not swallow the next one, which the mark prevents
            raise OSError(28, f"only {written} of {len(data)} bytes were written", str(self.path))


def _record(payload: bytes) -> bytes:
    return _HEAD.pack(MARK, len(payload), zlib.crc32(payload)) + payload


def replay(path: Path) -> Replayed:
    """Everything in ``path`` that is whole. A damaged stretch costs the records it touches, not those behind it."""
    data = path.read_bytes()
    series: dict[int, tuple[str, dict[str, str]]] = {}
    parts: list[tuple[Ids, Floats, Floats]] = []
    here = len(MAGIC) if data.startswith(MAGIC) else 0
    lost, torn = int(not data.startswith(MAGIC) and not MAGIC.startswith(data)), False
    while here < len(data):
        payload = _payload(data, here)
        if payload is None or not _take(payload, series, parts):
            following = _next_whole(data, here + 1)
            if following is None and payload is None:
                torn = True  # the record that was being written when the writer died
                break
            lost += 1
            if following is None:
                break
            here = following
            continue
        here += _HEAD.size + len(payload)
    ids = np.concatenate([p[0] for p in parts]) if parts else np.empty(0, np.int32)
    at = np.concatenate([p[1] for p in parts]) if parts else np.empty(0)
    value = np.concatenate([p[2] for p in parts]) if parts else np.empty(0)
    known = np.isin(ids, np.fromiter(series, np.int32, len(series)))
    unknown = int((~known).sum())
    if unknown:
        ids, at, value = ids[known], at[known], value[known]
    return Replayed(series, ids, at, value, lost + unknown, torn)


def _payload(data: bytes, here: int) -> bytes | None:
    if here + _HEAD.size > len(data):
        return None
    mark, length, crc = _HEAD.unpack_from(data, here)
    payload = data[here + _HEAD.size : here + _HEAD.size + length]
    return payload if mark == MARK and len(payload) == length and zlib.crc32(payload) == crc else None


def _next_whole(data: bytes, here: int) -> int | None:
    while (here := data.find(MARK, here)) >= 0:
        if _payload(data, here) is not None:
            return here
        here += 1
    return None


def _take(
    payload: bytes, series: dict[int, tuple[str, dict[str, str]]], parts: list[tuple[Ids, Floats, Floats]]
) -> bool:
    if payload[:1] == b"S":
        try:
            series.update((id, (name, labels)) for id, name, labels in _DEFINITIONS.decode(payload[1:]))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False
        return True
    if payload[:1] != b"D" or len(payload) < 5:
        return False
    (n,) = struct.unpack_from("<I", payload, 1)
    if len(payload) != 5 + 20 * n:
        return False
    parts.append(
        (
            np.frombuffer(payload, "<i4", n, 5),
            np.frombuffer(payload, "<f8", n, 5 + 4 * n),
            np.frombuffer(payload, "<f8", n, 5 + 12 * n),
        )
    )
    return True
