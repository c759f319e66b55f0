"""TensorBoard event files: scalars of a run, written without TensorBoard or TensorFlow.

A file is a row of TFRecords (length, masked CRC-32C, data, masked CRC-32C), each an ``Event`` protobuf; the formats are
those of tensorflow/core/lib/io/record_writer.h and tensorflow/core/util/event.proto.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from leptonai.errors import ModelError
from leptonai.platforms.prometheus.encode import varint


def _table() -> list[int]:
    out = []
    for n in range(256):
        for _ in range(8):
            n = (n >> 1) ^ (0x82F63B78 if n & 1 else 0)
        out.append(n)
    return out


_CRC = _table()


def masked(data: bytes) -> int:
    """CRC-32C (Castagnoli), rotated and shifted as TFRecord wants it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked(length)) + data + struct.pack("<I", masked(data))


def event(at: float, step: int, values: Mapping[str, float]) -> bytes:
    """One Event with a simple value for each tag."""
    summary = b"".join(
        _field(1, _field(1, tag.encode()) + b"\x15" + struct.pack("<f", value)) for tag, value in values.items()
    )
    return b"\x09" + struct.pack("<d", at) + b"\x10" + varint(step) + _field(5, summary)


def _field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


class Tells(Protocol):
    """Hears a run's scalars: a Board, or ``signals.Signals``."""

    def tell(self, step: int, **values: float) -> None: ...

    def close(self) -> None: ...


class Several:
    """All of them are told."""

    def __init__(self, parts: Sequence[Tells]) -> None:
        self._parts = tuple(parts)

    def tell(self, step: int, **values: float) -> None:
        for part in self._parts:
            part.tell(step, **values)

    def close(self) -> None:
        for part in self._parts:
            part.close()


class Board:
    """One event file in ``folder``; ``tensorboard --logdir`` finds it. Times are those of ``clock``.

    Each call is one record, flushed: a killed run loses nothing that was told. ModelError when it cannot be written.
    """

    def __init__(self, folder: Path, clock: object = None) -> None:
        self._clock = clock if callable(clock) else time.time
        now = self._clock()
        path = folder / f"events.out.tfevents.{int(now)}.{socket.gethostname()}.{os.getpid()}.{time.monotonic_ns()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = path.open("wb", buffering=0)
        except OSError as e:
            raise ModelError(f"{path} cannot be written: {e}", hint="choose another folder") from e
        self._file.write(record(b"\x09" + struct.pack("<d", now) + _field(3, b"brain.Event:2")))

    def tell(self, step: int, **values: float) -> None:
        """The scalars of ``step``, by tag; ``__`` in a name becomes ``/``."""
        tags = {name.replace("__", "/"): float(value) for name, value in values.items()}
        try:
            self._file.write(record(event(self._clock(), step, tags)))
        except OSError as e:
            raise ModelError(f"{self._file.name} cannot be written: {e}", hint="free space") from e

    def close(self) -> None:
        self._file.close()
