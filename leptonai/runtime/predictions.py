"""The prediction log: one JSON line for each answered inference, in two rotating files; it never blocks a request."""

from __future__ import annotations

import os
import threading
from collections import deque
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from leptonai.runtime.inputs import inputs_seen

FLUSH = 0.2  # seconds between writes
MAX_VALUES = 8  # of an output, in its summary
INPUTS_PER_SECOND = 50.0  # looked at, 0.1 ms each at most on a busy machine: half a per cent of a processor
MAX_LINE = 1536  # bytes of a line, about: an id and a traceparent of 128, eight values of 64, four inputs, the rest
MAX_PENDING = 65_536  # lines waiting to be written; past it lines are dropped, not memory spent


class Prediction(Struct, eq=False, gc=False, omit_defaults=True):
    """One answered inference, as it is written. Phases: seconds, -1 where it never came to that."""

    id: str
    at: float  # unix seconds of the answer
    digest: str  # of the variant
    seconds: float  # from the request read to its answer
    code: int
    output: Any
    trace: str = ""  # the traceparent that came with the request, as it came
    queue: float = 0.0
    wait: float = 0.0
    compute: float = 0.0
    input: Any = None  # what ``inputs_seen`` tells, of a share of the requests


class PredictionLog:
    """Writes ``<folder>/<8 digits>.jsonl``; numbers rise, the newest two files are kept, ``limit`` bytes in all.

    ``add`` is called from the I/O loop; a thread writes. ``dropped`` counts lines lost to a full disk or to pressure.
    """

    def __init__(self, folder: Path, limit: int, digest: str) -> None:
        self.folder = folder
        self._digest = digest
        self._key = digest.encode()
        self._due = [0.0, 0.0]  # when the inputs of a good one, and of one that failed, are looked at again
        self._room = MAX_PENDING if limit > 0 else 0
        self._encoder = msgspec.json.Encoder(enc_hook=repr)
        self._half = max(limit // 2, 4096)
        self._pending: deque[Prediction] = deque()
        self._file: int | None = None
        self._size = 0
        self._number = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self.dropped = 0

    def start(self) -> None:
        if self._room:
            self._thread.start()

    def add(
        self,
        id: bytes,
        at: float,
        seconds: float,
        code: int,
        output: Any,
        trace: bytes = b"",
        queue: float = -1.0,
        wait: float = -1.0,
        compute: float = -1.0,
        inputs: dict[str, Any] | None = None,
    ) -> None:
        """Hand over a line; it is on disk about FLUSH seconds later. ``inputs`` are looked at INPUTS_PER_SECOND times a
        second at most, and as often again of requests that failed."""
        if len(self._pending) < self._room:
            text = id.decode() if id.isascii() else id.decode("latin-1")
            known = trace.decode("latin-1") if trace else ""
            seen = None
            if inputs and at >= self._due[code >= 500]:
                self._due[code >= 500] = at + 1.0 / INPUTS_PER_SECOND
                seen = inputs_seen(inputs, self._key)
            self._pending.append(
                Prediction(text, at, self._digest, seconds, code, output, known, queue, wait, compute, seen)
            )
        elif self._room:
            self.dropped += 1

    def close(self) -> None:
        """Write what waits. No line may be added any more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(2.0)

    def _run(self) -> None:
        while not self._stop.wait(FLUSH):
            self._flush()
        self._flush()
        if self._file is not None:
            os.close(self._file)

    def _flush(self) -> None:
        take = self._pending.popleft
        lines = [take() for _ in range(len(self._pending))]
        size = max(1, min(512, self._half // MAX_LINE))  # short slices: encoding holds the interpreter's lock
        for start in range(0, len(lines), size):
            part = lines[start : start + size]
            data = self._encoder.encode_lines(part)
            try:
                self._write(data)
            except OSError:
                self.dropped += len(part)

    def _write(self, data: bytes) -> None:
        if self._file is None or self._size + len(data) > self._half:
            self._rotate()
        assert self._file is not None
        written = os.write(self._file, data)
        if written < len(data):  # a full disk may take a part: cut it off so that no half line remains
            os.ftruncate(self._file, self._size)
            raise OSError("the disk is full")
        self._size += written

    def _rotate(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._file is not None:
            os.close(self._file)
            self._file = None
        old = sorted(self.folder.glob("*.jsonl"))
        self._number = max([self._number, *(int(p.stem) for p in old if p.stem.isdigit())]) + 1
        for path in old[:-1]:
            path.unlink(missing_ok=True)
        path = self.folder / f"{self._number:08d}.jsonl"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._size = 0


def summary(value: Any) -> Any:
    """At most MAX_VALUES values of an output, small whatever the output is."""
    kind = type(value)
    if kind is dict:
        if not value:
            return None
        value = next(iter(value.values()))
        kind = type(value)
    if kind is float or kind is int:
        return value
    if hasattr(value, "tolist"):
        value = value.ravel()[:MAX_VALUES].tolist() if getattr(value, "ndim", 0) else value.tolist()
    if isinstance(value, (list, tuple)):
        return [_small(v) for v in value[:MAX_VALUES]]
    return _small(value)


def _small(value: Any) -> Any:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return str(value)[:64]
