"""Lines of a log file through rotation: by rename (the old file is read to its end) and by truncation."""

from __future__ import annotations

import os
import re
from pathlib import Path

from leptonai.ops.otlp.logs import MAX_BODY, cut
from leptonai.types import LogRecord

MAX_READ = 1 << 20  # bytes of one file in one look: a file that is written faster waits in itself
_SEVERITY = re.compile(
    r"\b(trace|debug|info|notice|warn(?:ing)?|err(?:or)?|crit(?:ical)?|fatal|panic)\b", re.IGNORECASE
)
_NUMBERS = {"t": 1, "d": 5, "i": 9, "n": 10, "w": 13, "e": 17, "c": 18, "f": 21, "p": 21}


class LogFile:
    """``position``: (inode, bytes read) from an earlier life; None: begin at the end of what is there."""

    def __init__(self, path: Path, position: tuple[int, int] | None) -> None:
        self.path = path
        self._file: int | None = None
        self._inode = self._offset = 0
        self._rest = b""
        if position is None:
            self._open(path, at_end=True)
        else:
            self._resume(*position)

    @property
    def position(self) -> tuple[int, int]:
        """Where the next whole line begins."""
        return self._inode, self._offset - len(self._rest)

    def lines(self) -> list[str]:
        """Whole lines written since the last look, each once, in order; a line over 64,000 characters is cut."""
        out: list[bytes] = []
        self._read(out)
        try:
            now = self.path.stat().st_ino
        except OSError:
            now = self._inode  # between two files, or none yet
        if self._file is None or now != self._inode:
            if self._file is not None:
                while self._read(out):  # to the end of the old one: nobody writes to it any more
                    pass
                out += [self._rest] if self._rest else []
            self._rest = b""
            self._open(self.path)
            self._read(out)
        return [cut(line.decode("utf-8", "replace").rstrip("\r")) for line in out if line.strip()]

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None

    def _read(self, out: list[bytes]) -> bool:
        if self._file is None:
            return False
        if os.fstat(self._file).st_size < self._offset:  # truncated in place
            self._offset, self._rest = 0, b""
        block = os.pread(self._file, MAX_READ, self._offset)
        self._offset += len(block)
        *whole, self._rest = (self._rest + block).split(b"\n")
        if len(self._rest) > 4 * MAX_BODY:  # no line at all, a binary perhaps: in pieces, so that memory stays
            whole.append(self._rest)
            self._rest = b""
        out += whole
        return bool(block)

    def _open(self, path: Path, at_end: bool = False) -> None:
        self.close()
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return
        found = os.fstat(self._file)
        self._inode, self._offset = found.st_ino, found.st_size if at_end else 0

    def _resume(self, inode: int, offset: int) -> None:
        """The file of that inode, under its name or one it was rotated to, from where we were."""
        for path in [self.path, *sorted(self.path.parent.glob(f"{self.path.name}*"))]:
            try:
                found = path.stat()
            except OSError:
                continue
            if found.st_ino == inode:
                self._open(path)
                self._offset = offset if found.st_size >= offset else 0
                return
        self._open(self.path)


def record(text: str, at: float, path: Path) -> LogRecord:
    """The record of one line. Its severity is the first word of its beginning that names one."""
    found = _SEVERITY.search(text[:120])
    severity = _NUMBERS[found[1][0].lower()] if found else 0
    return LogRecord(at=at, source={"file": str(path)}, body=text, severity=severity)
