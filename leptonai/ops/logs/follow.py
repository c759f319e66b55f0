"""Follow a file that another process appends to, through every way of rotation, a bounded amount at a time.

Three ways are known: the file is renamed and a new one begun (logging, logrotate); it is copied and truncated
(``copytruncate``); its head is moved to ``<name>.1`` and cut off in place, as ``platforms.local.logs.rotate`` does.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

BLOCK = 1 << 20  # bytes read at once
MAX_LOOK = 64 << 20  # bytes in one look; what is written faster waits in the file
LONGEST = 64_000  # bytes of a line that are kept, as of a received record; a longer one says what is missing
_OLDER = 3  # rotated files looked into: .1 to .3
_MARK = 1024  # bytes before our place by which it is found again
_KEPT_MARK = 256  # of these in a place that is kept
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a replica's folder is trusted by nobody


class _Identity(NamedTuple):
    inode: int
    size: int
    changed: int


class Place(msgspec.Struct, frozen=True):
    """Where the next line of a followed file begins, to go on there in another life. ``mark``: the bytes before it, by
    which it is found when the file was moved or cut meanwhile; ``older``: what ``.1`` was then."""

    inode: int
    offset: int
    mark: bytes
    older: _Identity


class Follow:
    """``lost`` counts the times our place was not found again, so that lines may be missing. Several renames between
    two looks are followed up to ``.3``."""

    def __init__(self, path: Path, place: Place | None = None) -> None:
        """``place``: go on there, as far as it is found again."""
        self.path = path
        self.lost = 0
        self._file: int | None = None
        self._inode = self._offset = 0
        self._mark = b""
        self._before = b""  # what stands before the line that begins at our place
        self._rest = b""  # the beginning of a line whose end is not written yet
        self._over = 0  # bytes beyond LONGEST of that line
        self._known = {_identity(self._older(n)) for n in range(1, _OLDER + 1)}
        self._first_older = _identity(self._older(1))
        self._doubt = False  # whether our place must be found again before anything is read
        self._place_kept: Place | None = None
        if place is not None:
            self._resume(place)

    @property
    def place(self) -> Place | None:
        """Where the next whole line begins; None while there is no file."""
        if self._file is None:
            return None
        offset = max(0, self._offset - len(self._rest) - self._over)
        kept = self._place_kept
        if kept is None or (kept.inode, kept.offset, kept.older) != (self._inode, offset, self._first_older):
            self._place_kept = Place(self._inode, offset, self._before, self._first_older)
        return self._place_kept

    def look(self) -> Iterator[bytes]:
        """Blocks of whole lines written since the last look, each line once and with its end, in order."""
        left = MAX_LOOK
        if self._file is None:
            if not self._open(self.path):
                return
            yield from self._missed()
        for _ in range(2 * _OLDER + 2):  # from rotated file to rotated file
            older = self._first_older
            if self._cut() or self._doubt:
                yield from self._find(older)
            while left > 0 and (block := self._read()):
                left -= len(block)
                if whole := self._whole(block):
                    yield whole
            if left <= 0 or not self._step():
                return

    def finish(self) -> Iterator[bytes]:
        """The rest, and a last line without an end. Nothing will be written any more."""
        yield from self.look()
        if self._rest:
            yield self._rest + (f" ... {self._over:,} bytes cut" if self._over else "").encode() + b"\n"
        self.close()

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file, self._rest, self._over = None, b"", 0

    def _resume(self, place: Place) -> None:
        """Open the file of that inode, under its name or one that it was rotated to; else what has its name now."""
        for path in (self.path, *(self._older(n) for n in range(1, _OLDER + 1))):
            # An inode may have been given again: what stands before our place tells whether it is the file.
            if _identity(path).inode == place.inode and self._open(path) and self._stands(place):
                break
        else:
            self._doubt = True
            if not self._open(self.path):
                self.close()
                self.lost += 1
                return
        self._offset, self._first_older = place.offset, place.older
        self._mark = self._before = place.mark

    def _stands(self, place: Place) -> bool:
        length = min(len(place.mark), place.offset)  # the mark may begin in what was moved out of the file
        return os.pread(self._file or 0, length, place.offset - length) == place.mark[len(place.mark) - length :]

    def _older(self, n: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{n}")

    def _open(self, path: Path, offset: int = 0) -> bool:
        try:
            file = os.open(path, _FLAGS)
        except OSError:
            return False
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            os.close(file)
            return False
        if self._file is not None:
            os.close(self._file)
        self._file, self._inode, self._offset, self._mark = file, found.st_ino, offset, b""
        self._before = b""
        return True

    def _read(self) -> bytes:
        if self._file is None:
            return b""
        block = os.pread(self._file, BLOCK, self._offset)
        self._offset += len(block)
        self._note(block)
        return block

    def _note(self, block: bytes) -> None:
        """Remember what stands before our place: of the file now, it may be cut before it is asked."""
        if end := block.rfind(b"\n") + 1:
            self._before = (self._mark + block[max(0, end - _KEPT_MARK) : end])[-_KEPT_MARK:]
        self._mark = (self._mark + block[-_MARK:])[-_MARK:]

    def _whole(self, block: bytes) -> bytes:
        if self._over:
            end = block.find(b"\n")
            if end < 0:
                self._over += len(block)
                return b""
            said = f" ... {self._over + end:,} bytes cut".encode()
            block, self._rest, self._over = self._rest + said + block[end:], b"", 0
        end = block.rfind(b"\n") + 1
        whole = self._rest + block[:end] if end else b""
        self._rest = block[end:] if end else self._rest + block
        if len(self._rest) > LONGEST:
            self._over, self._rest = len(self._rest) - LONGEST, self._rest[:LONGEST]
        return whole

    def _step(self) -> bool:
        """To the file that follows the one read to its end; False when that is the newest or there is none yet."""
        newer = [self.path, *(self._older(n) for n in range(1, _OLDER + 1))]
        inodes = [_identity(p).inode for p in newer]
        place = inodes.index(self._inode) if self._inode in inodes else 1
        if place == 0 or not inodes[place - 1]:
            return False
        if self._rest:
            self._rest += b"\n"  # nobody will write its end
        moved = self._open(newer[place - 1])
        self._first_older = _identity(self._older(1))
        return moved

    def _cut(self) -> bool:
        """Whether the file is the same and shorter at its head than when we read it."""
        if self._file is None:
            return False
        older = _identity(self._older(1))
        changed = older != self._first_older and older.inode != self._inode
        if changed and _identity(self.path).inode != self._inode:
            return False  # renamed; followed by the open file
        self._first_older = older
        return changed or os.fstat(self._file).st_size < self._offset

    def _find(self, known: _Identity) -> Iterator[bytes]:
        """Go on where we were: in the file itself, or in what was moved out of it, oldest first.

        ``known`` was the first of the rotated files when we last looked.
        """
        self._doubt = False
        if not self._offset:  # no mark tells where we were: all that was moved out since then is new
            for path in self._since(known):
                yield from self._copy(path, 0)
            return
        chain = [self.path]
        for n in range(_OLDER + 1):
            if n:
                chain.insert(0, self._older(n))
            if (place := self._place(chain)) is None:
                continue
            index, position = place
            for path in chain[index:-1]:
                yield from self._copy(path, position)
                position = 0
            self._offset = position
            return
        self.lost += 1
        self._offset, self._over = 0, 0
        self._rest = self._mark = self._before = b""

    def _since(self, known: _Identity) -> list[Path]:
        """The rotated files before ``known``, oldest first. Its writer may have gone on with it for a while."""
        newer: list[Path] = []
        for n in range(1, _OLDER + 1):
            found = _identity(self._older(n))
            if not found.inode or (found.inode == known.inode and found.size >= known.size):
                break
            newer.insert(0, self._older(n))
        return newer

    def _missed(self) -> Iterator[bytes]:
        """What was moved out of the file before we could open it the first time."""
        for n in range(_OLDER, 0, -1):
            path = self._older(n)
            if path.exists() and _identity(path) not in self._known:
                yield from self._copy(path, 0)
        self._first_older, self._mark = _identity(self._older(1)), b""

    def _place(self, chain: list[Path]) -> tuple[int, int] | None:
        position = self._offset
        for index, path in enumerate(chain):
            size = _identity(path).size
            if position <= size:
                return (index, position) if self._fits(path, position) else None
            position -= size
        return None

    def _fits(self, path: Path, position: int) -> bool:
        length = min(len(self._mark), position)
        try:
            file = os.open(path, _FLAGS)
        except OSError:
            return False
        try:
            return os.pread(file, length, position - length) == self._mark[len(self._mark) - length :]
        finally:
            os.close(file)

    def _copy(self, path: Path, position: int) -> Iterator[bytes]:
        try:
            with path.open("rb") as file:
                file.seek(position)
                while block := file.read(BLOCK):
                    self._note(block)
                    if whole := self._whole(block):
                        yield whole
        except OSError:
            self.lost += 1


def _identity(path: Path) -> _Identity:
    try:
        found = path.stat()
    except OSError:
        return _Identity(0, 0, 0)
    return _Identity(found.st_ino, found.st_size, found.st_mtime_ns)
