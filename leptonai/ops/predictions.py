"""Follow the prediction logs of the replicas through rotation, a bounded amount at a time."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from leptonai.ops.outcomes import Outcomes, Prediction
from leptonai.types import Replica

MAX_READ = 4 << 20  # bytes of one file in one look: about 20,000 lines


class Line(msgspec.Struct):
    """One line of a log, as ARCHITECTURE names it; fields we do not know are passed over."""

    id: str
    at: float
    digest: str
    seconds: float = 0.0
    code: int = 200
    output: Any = None
    trace: str = ""  # the traceparent that came with the request
    queue: float | None = None  # seconds; None: not told, negative: it never came to that
    wait: float | None = None
    compute: float | None = None
    input: Any = None  # by name: shape, range, mean, hash; told of a share of the requests


# The folder belongs to the replica, which nobody trusts: no links are followed, and a pipe must not make us wait.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
MAX_FILES = 8  # the newest by name; the runtime keeps two

_decode = msgspec.json.Decoder(Line).decode


class _Position:
    __slots__ = ("offset", "rest")

    def __init__(self) -> None:
        self.offset = 0
        self.rest = b""  # the beginning of a line whose end is not written yet


class Follower:
    """``folder``: ``<home>/run``. A file is known by name and inode: inodes are given again, names are not."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, dict[tuple[str, int], _Position]] = {}
        self.unreadable = 0  # lines that are no prediction

    def read(
        self, replicas: Sequence[Replica], outcomes: Outcomes, watched: Callable[[Replica, Line], None] | None = None
    ) -> int:
        """Give every answered prediction (code below 400) written since the last look to ``outcomes``; how many.

        ``watched`` is given every line, failed ones too.

        Order is per replica: oldest file first. A file that is gone or unreadable is passed over; one replica never
        keeps the others from being read.
        """
        known = {r.id for r in replicas}
        for gone in [id for id in self._seen if id not in known]:
            del self._seen[gone]
        count = 0
        for replica in replicas:
            for line in self._lines(replica.id):
                try:
                    found = _decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    self.unreadable += 1
                    continue
                if watched is not None:
                    watched(replica, found)
                if found.code < 400:
                    prediction = Prediction(replica.service, found.digest, found.at, found.seconds, found.output)
                    outcomes.predicted(found.id, prediction)
                    count += 1
        return count

    def _lines(self, replica: str) -> Iterable[bytes]:
        positions = self._seen.get(replica, {})
        here: dict[tuple[str, int], _Position] = {}
        try:
            names = sorted(p.name for p in (self._folder / replica / "predictions").iterdir())
        except OSError:
            names = []
        for name in [n for n in names if n.endswith(".jsonl")][-MAX_FILES:]:
            try:
                file = os.open(self._folder / replica / "predictions" / name, _FLAGS)
            except OSError:
                continue  # rotated away while we looked, or a link
            try:
                found = os.fstat(file)
                if not stat.S_ISREG(found.st_mode):
                    continue
                key = (name, found.st_ino)
                position = here[key] = positions.get(key) or _Position()
                if found.st_size < position.offset:  # an inode used again, or a file cut short: its content is new
                    position.offset, position.rest = 0, b""
                if found.st_size > position.offset:
                    yield from self._new_lines(file, position)
            finally:
                os.close(file)
        self._seen[replica] = here

    def _new_lines(self, file: int, position: _Position) -> list[bytes]:
        block = os.pread(file, MAX_READ, position.offset)
        position.offset += len(block)
        *lines, position.rest = (position.rest + block).split(b"\n")
        if len(position.rest) > MAX_READ:  # a line without an end is no line
            position.rest = b""
            self.unreadable += 1
        return [line for line in lines if line]
