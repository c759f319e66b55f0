"""Follow the prediction logs of the replicas through rotation, a bounded amount at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


_decode = msgspec.json.Decoder(Line).decode


class _Position:
    __slots__ = ("offset", "rest")

    def __init__(self) -> None:
        self.offset = 0
        self.rest = b""  # the beginning of a line whose end is not written yet


class Follower:
    """``folder``: ``<home>/run``. A file is known by its inode, so that renaming it neither repeats nor loses lines."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, dict[int, _Position]] = {}
        self.unreadable = 0  # lines that are no prediction

    def read(self, replicas: Sequence[Replica], outcomes: Outcomes) -> int:
        """Give every answered prediction (code below 400) written since the last look to ``outcomes``; how many.

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
                if found.code < 400:
                    prediction = Prediction(replica.service, found.digest, found.at, found.seconds, found.output)
                    outcomes.predicted(found.id, prediction)
                    count += 1
        return count

    def _lines(self, replica: str) -> Iterable[bytes]:
        positions = self._seen.get(replica, {})
        here: dict[int, _Position] = {}
        files = []
        try:
            for path in (self._folder / replica / "predictions").glob("*.jsonl*"):
                stat = path.stat()
                files.append((stat.st_mtime_ns, str(path), stat.st_ino, stat.st_size))
        except OSError:
            pass  # rotated away while we looked: the next look sees the new names
        for _, name, inode, size in sorted(files):
            position = here[inode] = positions.get(inode) or _Position()
            if size < position.offset:  # an inode used again, or a file cut short: its content is new
                position.offset, position.rest = 0, b""
            if size > position.offset:
                yield from self._new_lines(Path(name), position)
        self._seen[replica] = here

    def _new_lines(self, path: Path, position: _Position) -> list[bytes]:
        try:
            with path.open("rb") as file:
                file.seek(position.offset)
                block = file.read(MAX_READ)
        except OSError:
            return []
        position.offset += len(block)
        *lines, position.rest = (position.rest + block).split(b"\n")
        if len(position.rest) > MAX_READ:  # a line without an end is no line
            position.rest = b""
            self.unreadable += 1
        return [line for line in lines if line]
