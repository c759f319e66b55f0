"""Received log records on their way to whoever reads them: bounded, the oldest go first, loudly."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from threading import Lock

from leptonai.types import LogRecord

log = logging.getLogger(__name__)


class Handoff:
    """A ``protocols.LogSink`` in memory. ``taken`` and ``dropped`` count records since the start."""

    def __init__(self, limit: int) -> None:
        self.taken = self.dropped = 0
        self._limit = limit
        self._waiting: deque[LogRecord] = deque()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, batch: Sequence[LogRecord]) -> int:
        """As the protocol says. The first loss is told in the log, all are counted."""
        with self._lock:
            self._waiting.extend(batch)
            over = max(0, len(self._waiting) - self._limit)
            for _ in range(over):
                self._waiting.popleft()
            self.taken += len(batch)
            first = over and not self.dropped
            self.dropped += over
        if first:
            log.error("nobody reads the received logs fast enough: the oldest of %d are dropped", self._limit)
        return over

    def take(self, limit: int) -> list[LogRecord]:
        with self._lock:
            return [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]
