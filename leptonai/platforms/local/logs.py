"""Log files that a process appends to directly, cut to size without losing a line, and read from their end."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from bisect import bisect_left
from collections import deque
from pathlib import Path

from leptonai.types import LogLine

_COLLAPSE_RANGE = 0x08  # FALLOC_FL_COLLAPSE_RANGE, <linux/falloc.h>
_BLOCK = 1 << 16  # a multiple of every common file system's block size, which collapsing needs
_AT_ONCE = 1 << 30  # bytes that one call copies; Linux takes no more than 2 GiB
_TAIL = 4 << 20  # bytes read at most from one file to answer for its last lines


def rotate(path: Path, limit: int, files: int) -> int:
    """Move the older part of ``path`` to ``path.1`` once it is above ``limit`` bytes; how many bytes were taken off.

    The writer keeps its O_APPEND descriptor and notices nothing. Where the file system can cut a file at its head
    (ext4, xfs) no line is ever lost; elsewhere lines written within the microseconds before the truncation are.
    At most ``files`` files are kept in all.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return 0
    if size <= limit:
        return 0
    for n in range(files - 1, 1, -1):
        elder = path.with_name(f"{path.name}.{n - 1}")
        if elder.exists():
            elder.replace(path.with_name(f"{path.name}.{n}"))
    cut = (size - 1) // _BLOCK * _BLOCK  # collapsing may not reach the end of the file
    with path.open("rb+") as source, contextlib.ExitStack() as stack:
        older = None
        if files > 1:
            older = stack.enter_context(path.with_name(f"{path.name}.1").open("wb"))
            os.fchmod(older.fileno(), 0o600)
            _copy(source.fileno(), older.fileno(), 0, cut)
        libc = ctypes.CDLL(None, use_errno=True)
        zero, length = ctypes.c_int64(0), ctypes.c_int64(cut)
        if cut and libc.fallocate(source.fileno(), _COLLAPSE_RANGE, zero, length) == 0:
            return cut
        if older is not None:
            _copy(source.fileno(), older.fileno(), cut, sys.maxsize)
        size = os.fstat(source.fileno()).st_size
        os.ftruncate(source.fileno(), 0)
        return size


def _copy(source: int, target: int, begin: int, end: int) -> None:
    """Bytes of ``source`` from ``begin`` to ``end``, or to where it ends, go behind what was written to ``target``."""
    while begin < end:
        sent = os.sendfile(target, source, begin, min(end - begin, _AT_ONCE))
        if sent == 0:
            return
        begin += sent


class Log:
    """One replica's log with the times at which it had grown to which length: its lines carry no times themselves."""

    def __init__(self, path: Path, started: float) -> None:
        self.path = path
        self._cut = 0  # bytes taken off the head so far
        self._marks: deque[tuple[int, float]] = deque([(0, started)], maxlen=4096)

    def tick(self, now: float, limit: int, files: int) -> None:
        """Note how long the log is at ``now``, and rotate it when it is too long."""
        try:
            length = self._cut + self.path.stat().st_size
        except FileNotFoundError:
            return
        if length > self._marks[-1][0]:
            self._marks.append((length, now))
        self._cut += rotate(self.path, limit, files)

    def lines(self, replica: str, since: float, limit: int) -> list[LogLine]:
        """The newest ``limit`` lines written at or after ``since``, oldest first; times are right to one tick."""
        out: list[LogLine] = []
        positions = [mark[0] for mark in self._marks]
        for path in (self.path, self.path.with_name(f"{self.path.name}.1")):
            if len(out) >= limit:
                break
            current = path == self.path
            try:
                text, start = _tail(path)
            except FileNotFoundError:
                continue
            end = start + len(text) + (self._cut if current else 0)
            for raw in reversed(text.splitlines(keepends=True)):
                at = self._marks[min(bisect_left(positions, end), len(positions) - 1)][1] if current else 0.0
                at = at or self._marks[0][1]
                end -= len(raw)
                if len(out) >= limit or at < since:
                    return out[::-1]
                out.append(LogLine(at=at, replica=replica, text=raw.decode(errors="replace").rstrip("\r\n")))
        return out[::-1]


def _tail(path: Path) -> tuple[bytes, int]:
    with path.open("rb") as file:
        start = max(0, os.fstat(file.fileno()).st_size - _TAIL)
        file.seek(start)
        text = file.read(_TAIL)
    if start:
        first = text.find(b"\n") + 1
        return text[first:], start + first
    return text, start
