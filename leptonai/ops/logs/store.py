"""Kept lines: a hot file that becomes Parquet segments, bounded by size and age, and their search.

A line of the hot file is the JSON of one ``Lines``: some thousand lines of a log that one source wrote.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter, deque
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import msgspec

from leptonai.errors import TelemetryError
from leptonai.ops.logs import segments as on_disk
from leptonai.ops.logs.lines import Lines, total
from leptonai.ops.logs.query import Query
from leptonai.ops.logs.segments import Segment
from leptonai.platforms.arrow import release
from leptonai.settings import Logs
from leptonai.types import LogPage

log = logging.getLogger(__name__)
MOST = 1000  # lines of one page
LOOKED = 20  # segments read for one page; a page may be empty and say where to go on
_lines = msgspec.json.Encoder()
_read = msgspec.json.Decoder(Lines).decode


class LogStore:
    """``<folder>/hot.jsonl`` and ``<folder>/<first>-<last>.parquet``, written by one process.

    A killed process loses no line that ``add`` returned from; a power cut may cost those since the last segment. When
    the disk refuses, lines are kept in memory only, at most twice ``segment_lines``. ``counts``: ``kept``,
    ``hot_torn``, ``write_failed``, ``seal_failed``, ``forgotten``, ``segments_expired``, ``segments_damaged``.
    """

    def __init__(self, folder: Path, settings: Logs, clock: Callable[[], float], committed: int | None = None) -> None:
        """What an earlier process kept can be read, but for followed lines from ``committed`` on: those will be read
        from their files again. TelemetryError: the folder cannot be used."""
        self.folder = folder
        self.counts: Counter[str] = Counter()
        self._settings = settings
        self._clock = clock
        self._lock = threading.RLock()
        self._hot: deque[Lines] = deque()
        self._segments: list[Segment] = []
        self._began = clock()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._segments = on_disk.find(folder, self.counts)
            self.next = max((s.last for s in self._segments), default=0) + 1
            self._restore(committed)
            self._file = self._open()
        except OSError as e:
            raise TelemetryError(f"logs cannot be kept in {folder}: {e}", hint="check the disk and its rights") from e

    def add(self, lines: Lines) -> None:
        """Keep lines whose ``first`` is ``next``."""
        with self._lock:
            self.next = lines.last + 1
            self._hot.append(lines)
            self.counts["kept"] += len(lines)
            try:
                os.write(self._file, _lines.encode_lines([lines]))
            except OSError as e:
                self._failed("write_failed", f"log lines are kept in memory only: {e}")

    def tick(self, now: float) -> None:
        """Make a segment when it is time, and let go what is too old or too much."""
        full = total(self._hot) >= self._settings.segment_lines
        if self._hot and (full or now - self._began >= self._settings.segment_seconds):
            self.seal()
        self._expire(now)

    def seal(self) -> None:
        """What is hot becomes a segment; it stays readable all the while."""
        with self._lock:
            blocks = list(self._hot)
        if not blocks:
            return
        try:
            made = on_disk.write(self.folder, blocks)
        except OSError as e:
            self._failed("seal_failed", f"no segment of log lines can be written: {e}")
            with self._lock:
                self._began = self._clock()  # tried again later
                while total(self._hot) > 2 * self._settings.segment_lines:
                    self.counts["forgotten"] += len(self._hot.popleft())
            return
        with self._lock:
            self._segments.append(made)
            while self._hot and self._hot[0].last <= made.last:
                self._hot.popleft()
            self._began = self._clock()
            try:
                os.ftruncate(self._file, 0)
                os.write(self._file, _lines.encode_lines(list(self._hot)))
            except OSError as e:
                self._failed("write_failed", f"log lines are kept in memory only: {e}")
        release()

    def search(self, query: Query, before: int | None = None, limit: int = 100) -> LogPage:
        """One page, newest first: at most ``limit`` lines older than ``before``. Safe to call in a thread."""
        limit = max(1, min(limit, MOST))
        with self._lock:
            hot, segments = list(self._hot), list(self._segments)
        limit_seq = before if before is not None else 1 << 62
        items = list(islice((e for block in reversed(hot) for e in block.find(query, limit_seq)), limit))
        if len(items) == limit:
            return LogPage(items=items, next=items[-1].seq)
        older = [s for s in reversed(segments) if s.first < limit_seq and (not hot or s.first < hot[0].first)]
        looked = 0
        for segment in older:
            if segment.end < query.since or segment.start >= query.until:
                continue
            if looked == LOOKED:
                return LogPage(items=items, next=segment.last + 1)
            looked += 1
            try:
                items += on_disk.search(segment, query, limit_seq, limit - len(items))
            except OSError as e:
                with self._lock:
                    if segment in self._segments:  # else it expired while we looked
                        self._segments.remove(segment)
                        self._failed("segments_damaged", f"{segment.path} cannot be read: {e}")
            if len(items) == limit:
                return LogPage(items=items, next=items[-1].seq)
        return LogPage(items=items, next=None)

    def close(self) -> None:
        self.seal()
        os.close(self._file)

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return os.open(self.folder / "hot.jsonl", flags, 0o600)

    def _restore(self, committed: int | None) -> None:
        """The lines of an earlier process that are in no segment yet; a torn last block is counted and left out."""
        path = self.folder / "hot.jsonl"
        if not path.exists():
            return
        known, again = self.next, False
        for line in path.read_bytes().splitlines():
            try:
                lines = _read(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                self.counts["hot_torn"] += 1
                continue
            if lines.first < known:
                continue
            self.next = max(self.next, lines.last + 1)
            if lines.followed and committed is not None and lines.first >= committed:
                again = True
            else:
                self._hot.append(lines)
        if self.counts["hot_torn"] or again:  # nothing may be appended to half a line
            fresh = path.with_name("hot.jsonl.new")
            fresh.write_bytes(_lines.encode_lines(list(self._hot)))
            fresh.chmod(0o600)
            fresh.replace(path)

    def _expire(self, now: float) -> None:
        with self._lock:
            size = sum(s.size for s in self._segments)
            while self._segments and (
                self._segments[0].end < now - self._settings.retain or size > self._settings.retain_bytes
            ):
                gone = self._segments.pop(0)
                size -= gone.size
                gone.path.unlink(missing_ok=True)
                self.counts["segments_expired"] += 1

    def _failed(self, what: str, text: str) -> None:
        self.counts[what] += 1
        if self.counts[what] == 1:
            log.error("%s; told once", text)
