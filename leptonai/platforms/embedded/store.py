"""The store itself: what is written where, and what is merged into an answer."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np

from leptonai.errors import TelemetryError
from leptonai.platforms.arrow import release
from leptonai.platforms.embedded import segments as on_disk
from leptonai.platforms.embedded.log import Ids, Log, replay
from leptonai.platforms.embedded.segments import Found, Segment
from leptonai.platforms.telemetry import Column, Memory, answer, check_stretch
from leptonai.protocols import Floats
from leptonai.settings import Telemetry
from leptonai.types import Series, Signal

log = logging.getLogger(__name__)
MERGE = 12  # neighbouring segments become one: an hour of five minutes
MERGE_ROWS = 8_000_000  # that one segment may have; more would cost too much memory to sort


class Embedded:
    """A TelemetryStore in one folder: ``<n>.log``, ``segments/*.parquet``, ``damaged/``. One process writes; whoever
    wants reads the segments beside it. Samples of a series that the limit of series pushed out of memory are read
    again when their log has become a segment.

    ``counts`` says what went wrong, by what: ``segments_damaged``, ``logs_damaged``, ``log_lost`` (records or
    samples), ``log_torn``, ``write_failed``, ``seal_failed``, ``segments_expired``.
    """

    def __init__(
        self,
        folder: Path,
        keep: float = 3600.0,
        settings: Telemetry | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Everything that was written before and is whole can be read. TelemetryError: the folder cannot be used."""
        self.folder, self.settings = folder, settings or Telemetry()
        self.counts: dict[str, int] = {}
        self.generation = 0  # ids given by ``series`` hold as long as this stays
        self._clock = clock
        self._memory = Memory(max(keep, 2 * self.settings.segment_seconds), self.settings.series)
        self._lock = threading.RLock()
        self._ids: dict[tuple[str, frozenset[tuple[str, str]]], int] = {}
        self._known: list[tuple[str, dict[str, str]]] = []
        self._hot: list[Column] = []
        self._segments: list[Segment] = []
        self._names: dict[Path, set[str]] = {}
        self._held = 0  # samples in memory, counted from above
        self._worker = ThreadPoolExecutor(1, "telemetry")
        self._work: list[Future[None]] = []
        self._synced = clock()
        self._on_disk_before = float("-inf")  # what is older than this is in segments
        try:
            (folder / "segments").mkdir(parents=True, exist_ok=True)
            (folder / "damaged").mkdir(exist_ok=True)
            self._load()
            self._log = self._new_log()
        except OSError as e:
            raise TelemetryError(
                f"telemetry cannot be kept in {folder}: {e}", hint="check the disk and its rights"
            ) from e

    # --- writing ----------------------------------------------------------------------------------------------------

    def write(self, batch: Sequence[Signal]) -> None:
        """Every sample can be read at once, and after the death of this process."""
        if batch:
            with self._lock:
                ids = np.fromiter((self.series(s.name, s.labels) for s in batch), np.int32, len(batch))
                at = np.fromiter((s.at for s in batch), np.float64, len(batch))
                self.append(ids, at, np.fromiter((s.value for s in batch), np.float64, len(batch)))

    def series(self, name: str, labels: dict[str, str]) -> int:
        """The id under which ``append`` takes samples of a series, as long as ``generation`` stays."""
        key = (name, frozenset(labels.items()))
        with self._lock:
            id = self._ids.get(key)
            if id is None:
                id = self._ids[key] = len(self._known)
                self._known.append((name, dict(labels)))
                self._hot.append(self._memory.column(name, labels))
            return id

    def append(self, ids: Ids, at: Floats, value: Floats) -> None:
        """``write``, for many samples at once as columns; later ones replace earlier ones of the same moment."""
        if not len(ids):
            return
        with self._lock:
            self._to_log(ids, at, value)
            self._to_memory(ids, at, value)
            self._held += len(ids)
            now = self._clock()
            if self._log.began is None:
                self._log.began = now
            late = now - self._log.began >= self.settings.segment_seconds
            if late or self._log.size >= self.settings.log_bytes:
                self.seal()
            elif now - self._synced >= self.settings.sync:
                self._synced = now
                self._later(self._sync, self._log)

    def _to_memory(self, ids: Ids, at: Floats, value: Floats) -> None:
        horizon, hot = self._memory.reach(float(at.max())), self._hot
        for id, moment, number in zip(ids.tolist(), at.tolist(), value.tolist(), strict=True):
            if moment >= horizon:
                column = hot[id]
                if column.dropped:
                    column = hot[id] = self._memory.column(*self._known[id])
                column.add(moment, number)
        self._memory.sweep()
        if self._held > self.settings.hot_samples and self._on_disk_before > self._memory.complete_since:
            self._held = self._memory.forget_before(self._on_disk_before)

    def _to_log(self, ids: Ids, at: Floats, value: Floats) -> None:
        new = [(id, *self._known[id]) for id in self._log.undefined(ids)]
        try:
            self._log.append(new, ids, at, value)
        except OSError as e:
            if self._count("write_failed") == 1:
                log.error("telemetry is not written to disk, only kept in memory: %s", e)

    # --- reading ----------------------------------------------------------------------------------------------------

    def read(
        self, name: str, start: float, end: float, labels: dict[str, str] | None = None, step: float = 0.0
    ) -> list[Series]:
        """As the protocol says, ordered by labels, from memory and segments together. Safe to call in a thread."""
        check_stretch(name, start, end, step)
        wanted = labels or {}
        while True:
            with self._lock:
                hot = self._memory.between(name, start, end, wanted)
                enough = start >= self._memory.complete_since and start > self._on_disk_at_start
                cold = [] if enough else [s for s in self._segments if s.overlaps(start, end)]
            if not cold:
                return answer(name, hot, start, end, step)
            try:
                return answer(name, self._merged(cold, hot, name, start, end, wanted), start, end, step)
            except FileNotFoundError:  # a compaction or retention removed it meanwhile
                with self._lock:
                    self._segments = [s for s in self._segments if s.path.exists()]

    def names(self) -> list[str]:
        """The names of all signals that are kept, ascending."""
        with self._lock:
            found, cold = set(self._memory.names()), list(self._segments)
        for segment in cold:
            if segment.path not in self._names:
                try:
                    self._names[segment.path] = on_disk.names(segment)
                except (TelemetryError, FileNotFoundError) as e:
                    self._set_aside(segment, e)
            found |= self._names.get(segment.path, set())
        return sorted(found)

    def _merged(
        self,
        cold: Sequence[Segment],
        hot: list[tuple[dict[str, str], Floats, Floats]],
        name: str,
        start: float,
        end: float,
        wanted: dict[str, str],
    ) -> list[tuple[dict[str, str], Floats, Floats]]:
        found: Found = {}
        for segment in cold:
            try:
                on_disk.read(segment, name, start, end, found)
            except TelemetryError as e:
                self._set_aside(segment, e)
        pieces: Found = {}
        spelt: dict[str, dict[str, str]] = {}
        for text, parts in found.items():
            labels = msgspec.json.decode(text, type=dict[str, str])
            if wanted.items() <= labels.items():
                spelt[text], pieces[text] = labels, parts
        for labels, at, value in hot:
            text = on_disk.labels_text(labels)
            spelt[text] = labels
            pieces.setdefault(text, []).append((at, value))
        return [(spelt[text], *_in_order(parts)) for text, parts in pieces.items()]

    # --- the life of files ------------------------------------------------------------------------------------------

    def seal(self) -> None:
        """The log becomes a segment, in the background; a new log takes what comes."""
        with self._lock:
            full, began = self._log, self._log.began
            if began is None:
                return
            try:
                self._log = self._new_log()
            except OSError as e:
                self._log.began = self._clock()  # tried again after another stretch
                if self._count("seal_failed") == 1:
                    log.error("no new telemetry log: %s", e)
                return
            if len(self._known) > 2 * self.settings.series:  # series that came and went
                self._ids, self._known, self._hot = {}, [], []
                self.generation += 1
            self._later(self._seal, full)

    def settle(self) -> None:
        """Wait until nothing is being done in the background."""
        while True:
            with self._lock:
                work, self._work = self._work, []
            if not work:
                return
            for done in work:
                done.result()

    def close(self) -> None:
        """What was appended is on disk, safe against a power cut. The log stays for the next start."""
        self.settle()
        self._worker.shutdown()
        with self._lock:
            self._sync(self._log)
            self._log.close()
            if self._log.began is None:
                self._log.path.unlink(missing_ok=True)

    def _load(self) -> None:
        for leftover in self.folder.glob("*.new"):
            leftover.unlink()
        for path in sorted((self.folder / "segments").glob("*.parquet")):
            try:
                self._segments.append(on_disk.open_segment(path))
            except TelemetryError as e:
                self._set_aside(path, e)
        self._drop_contained()
        self._on_disk_at_start = max((s.end for s in self._segments), default=float("-inf"))
        logs = sorted(p for p in self.folder.glob("*.log") if p.stem.isdigit())
        used = [int(p.name[:12]) for p in self.folder.rglob("*") if p.name[:12].isdigit()]
        self._next = max([0, *used, *(s.last for s in self._segments)]) + 1
        for path in logs:
            if any(s.first <= int(path.stem) <= s.last for s in self._segments):
                path.unlink()  # its segment was finished, and only this was left to do
                continue
            self._recover(path)

    def _recover(self, path: Path) -> None:
        found = replay(path)
        if found.torn:
            self._count("log_torn")
        if found.lost:
            self._count("log_lost", found.lost)
            self._count("logs_damaged")
            log.error("telemetry log %s is damaged: %d records or samples are lost, the rest is read", path, found.lost)
            (self.folder / "damaged" / path.name).write_bytes(path.read_bytes())
        if len(found.ids):
            own = {id: self.series(name, labels) for id, (name, labels) in found.series.items()}
            translated = np.zeros(max(own) + 1, np.int32)
            translated[list(own)] = list(own.values())
            self._to_memory(translated[found.ids], found.at, found.value)
            self._held += len(found.ids)
        self._later(self._seal_path, path)

    def _new_log(self) -> Log:
        number, self._next = self._next, self._next + 1
        return Log(self.folder / f"{number:012d}.log")

    def _later(self, work: Callable[..., None], about: object) -> None:
        def guarded() -> None:
            try:
                work(about)
            except (OSError, TelemetryError, ValueError, MemoryError) as e:
                self._count("seal_failed")
                log.error("telemetry on disk: %s", e)

        with self._lock:
            self._work = [w for w in self._work if not w.done()]
            self._work.append(self._worker.submit(guarded))

    def _sync(self, log: Log) -> None:
        log.sync()

    def _seal(self, full: Log) -> None:
        full.close()
        self._seal_path(full.path)

    def _seal_path(self, path: Path) -> None:
        found = replay(path)
        number = int(path.stem)
        segment = on_disk.write(
            self.folder, number, number, self._clock(), found.series, found.ids, found.at, found.value
        )
        with self._lock:
            if segment is not None:
                self._segments.append(segment)
                self._segments.sort(key=lambda s: s.first)
                self._on_disk_before = max(self._on_disk_before, segment.end)
        path.unlink(missing_ok=True)
        self._compact()
        self._expire()
        release()

    def _compact(self) -> None:
        """Neighbouring small segments become one."""
        with self._lock:
            small = [s for s in self._segments if s.first == s.last]
        if len(small) < MERGE or sum(s.rows for s in small[:MERGE]) > MERGE_ROWS:
            return
        merged = on_disk.merge(self.folder, small[:MERGE])
        if merged is None:
            return
        with self._lock:
            self._segments.append(merged)
            self._segments.sort(key=lambda s: s.first)
            self._drop_contained()

    def _drop_contained(self) -> None:
        for inner in list(self._segments):
            if any(o != inner and o.first <= inner.first and inner.last <= o.last for o in self._segments):
                self._segments.remove(inner)
                inner.path.unlink(missing_ok=True)

    def _expire(self) -> None:
        """The oldest segments go, by the time since they were written and by their size together."""
        with self._lock:
            horizon = self._clock() - self.settings.retain
            total = sum(s.size for s in self._segments)
            for segment in list(self._segments):
                if segment.written < horizon or total > self.settings.retain_bytes:
                    total -= segment.size
                    self._segments.remove(segment)
                    self._names.pop(segment.path, None)
                    segment.path.unlink(missing_ok=True)
                    self._count("segments_expired")

    def _set_aside(self, segment: Segment | Path, error: Exception) -> None:
        path = segment if isinstance(segment, Path) else segment.path
        with self._lock:
            if isinstance(segment, Segment) and segment not in self._segments:
                return
            self._segments = [s for s in self._segments if s.path != path]
            if path.exists():
                path.replace(self.folder / "damaged" / path.name)
                self._count("segments_damaged")
                log.error("%s", error)

    def _count(self, what: str, by: int = 1) -> int:
        with self._lock:
            self.counts[what] = self.counts.get(what, 0) + by
            return self.counts[what]


def _in_order(parts: list[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """The pieces as one, times ascending; of one moment told twice the later piece is believed."""
    if len(parts) == 1:
        return parts[0]
    at, value = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
    if (at[1:] > at[:-1]).all():
        return at, value
    order = np.argsort(at, kind="stable")
    at, value = at[order], value[order]
    kept = np.append(at[1:] != at[:-1], True)
    return at[kept], value[kept]
