"""The spans that are kept: in memory, indexed by trace and request, and in files that bring them back."""

from __future__ import annotations

import logging
import os
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from leptonai.client.wire import TraceView
from leptonai.settings import Traces
from leptonai.types import Span

log = logging.getLogger(__name__)
MOST_SPANS = 2_000  # of one trace; a loop that calls itself must not push out everything else


class TraceStore:
    """At most ``settings.spans`` spans; the trace that has been silent longest goes first, whole.

    ``folder`` None: memory only. ``counts``: ``kept``, ``repeated`` (a span with an id seen before: the later one is
    believed), ``expired``, ``trace_limit`` (spans beyond 2,000 of one trace), ``write_failed``, ``unreadable``.
    """

    def __init__(self, settings: Traces, folder: Path | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self._settings, self._folder = settings, folder
        self._traces: OrderedDict[str, dict[str, Span]] = OrderedDict()
        self._requests: dict[str, str] = {}
        self._size = self._written = 0
        self._file: int | None = None
        if folder is not None:
            self._load(folder)

    def __len__(self) -> int:
        return self._size

    def add(self, spans: Sequence[Span]) -> None:
        """Every span can be asked for at once; those pushed out by them are gone."""
        kept = self._put(spans)
        if kept and self._folder is not None:
            self._append(kept)

    def trace(self, id: str) -> list[Span]:
        """The spans of a trace, or of the request with that id, in order of their start; [] when none is kept."""
        found = self._traces.get(id) or self._traces.get(self._requests.get(id, "")) or {}
        return sorted(found.values(), key=lambda s: (s.start, -s.seconds))

    def search(
        self,
        *,
        service: str = "",
        failed: bool = False,
        slower_than: float = 0.0,
        start: float = 0.0,
        limit: int = 50,
        covers: Callable[[str], bool] = lambda workspace: True,
    ) -> list[TraceView]:
        """The newest ``limit`` traces that agree, newest first; of each only spans of workspaces that ``covers``."""
        out: list[TraceView] = []
        for id, spans in reversed(self._traces.items()):
            if len(out) >= limit:
                break
            seen = [s for s in spans.values() if covers(s.workspace)]
            if not seen:
                continue
            view = _view(id, seen)
            if (failed and not view.failed) or view.seconds < slower_than or view.start < start:
                continue
            if service and service not in view.services:
                continue
            out.append(view)
        return out

    def spans(self, since: float) -> Iterable[Span]:
        """All kept spans that began at ``since`` or later."""
        return (s for spans in self._traces.values() for s in spans.values() if s.start >= since)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _put(self, spans: Sequence[Span]) -> list[Span]:
        kept = []
        for span in spans:
            of_trace = self._traces.setdefault(span.trace, {})
            self._traces.move_to_end(span.trace)
            if span.id in of_trace:
                self.counts["repeated"] += 1
            elif len(of_trace) >= MOST_SPANS:
                if not self.counts["trace_limit"]:
                    log.error("trace %s has more than %d spans: the others are dropped", span.trace, MOST_SPANS)
                self.counts["trace_limit"] += 1
                continue
            else:
                self._size += 1
            of_trace[span.id] = span
            if span.request:
                self._requests[span.request] = span.trace
            kept.append(span)
        self.counts["kept"] += len(kept)
        while self._size > self._settings.spans and len(self._traces) > 1:
            _, gone = self._traces.popitem(last=False)
            self._size -= len(gone)
            self.counts["expired"] += len(gone)
            for span in gone.values():
                self._requests.pop(span.request, None)
        return kept

    # --- files: two of them, the older one goes when the newer is full -----------------------------------------------

    def _load(self, folder: Path) -> None:
        decoder = msgspec.json.Decoder(Span)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            names = sorted(folder.glob("*.jsonl"))
            self._number = int(names[-1].stem) if names else 1
            lines: deque[bytes] = deque(maxlen=self._settings.spans)
            for path in names:
                with path.open("rb") as file:
                    lines.extend(file)
        except (OSError, ValueError) as e:
            log.error("traces are kept in memory only: %s", e)
            self._folder = None
            return
        found = []
        for line in lines:
            try:
                found.append(decoder.decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError):  # a torn last line, or damage
                self.counts["unreadable"] += 1
        self._put(found)

    def _append(self, spans: Sequence[Span]) -> None:
        assert self._folder is not None
        data = msgspec.json.Encoder().encode_lines(spans)
        try:
            if self._file is None or self._written > self._settings.log_bytes // 2:
                self._rotate(self._folder)
            assert self._file is not None
            self._written += os.write(self._file, data)
        except OSError as e:
            if not self.counts["write_failed"]:
                log.error("traces are not written to disk, only kept in memory: %s", e)
            self.counts["write_failed"] += 1

    def _rotate(self, folder: Path) -> None:
        full = self._file is not None
        self.close()
        if full:
            self._number += 1
        path = folder / f"{self._number:08d}.jsonl"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._written = os.fstat(self._file).st_size
        for old in sorted(folder.glob("*.jsonl"))[:-2]:
            old.unlink(missing_ok=True)


def _view(id: str, spans: Sequence[Span]) -> TraceView:
    ids = {s.id for s in spans}
    roots = [s for s in spans if s.parent not in ids]
    root = min(roots or spans, key=lambda s: (s.start, -s.seconds))
    start, end = min(s.start for s in spans), max(s.start + s.seconds for s in spans)
    return TraceView(
        trace=id,
        request=next((s.request for s in spans if s.request), ""),
        name=root.name,
        start=start,
        seconds=end - start,
        failed=any(s.failed for s in spans),
        services=tuple(sorted({s.service for s in spans})),
        spans=len(spans),
    )
