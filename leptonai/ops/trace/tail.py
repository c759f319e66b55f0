"""Follow a file that another process appends to and cuts short when it is long."""

from __future__ import annotations

import os
from pathlib import Path

MAX_READ = 4 << 20  # bytes in one look


class Tail:
    """Whole lines, each once. A file shorter than it was, or another one of the name, is read from its start."""

    def __init__(self, path: Path, from_end: bool = False) -> None:
        self._path = path
        self._inode = self._offset = 0
        self._rest = b""
        self._from_end = from_end

    def lines(self) -> list[bytes]:
        """What was written since the last look, at most 4 MB; [] when there is no such file."""
        try:
            file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return []
        try:
            found = os.fstat(file)
            if found.st_ino != self._inode or found.st_size < self._offset:
                self._inode, self._rest = found.st_ino, b""
                self._offset = found.st_size if self._from_end else 0
            self._from_end = False
            block = os.pread(file, MAX_READ, self._offset)
        except OSError:
            return []
        finally:
            os.close(file)
        self._offset += len(block)
        *whole, self._rest = (self._rest + block).split(b"\n")
        if len(self._rest) > MAX_READ:
            self._rest = b""
        return [line for line in whole if line]
