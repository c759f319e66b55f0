"""Where log lines go beside our own store: Elasticsearch and Loki, masked, with patience and dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from leptonai.ops.logs.outputs.elastic import Bulk
from leptonai.ops.logs.outputs.loki import Push
from leptonai.ops.logs.outputs.send import Sender
from leptonai.settings import Logs
from leptonai.types import LogEntry

__all__ = ["Bulk", "Outputs", "Push", "Sender"]


class Outputs:
    """Those that the settings name. ``mask`` is applied to every entry before anything else sees it."""

    def __init__(self, settings: Logs, dead: Path, mask: Callable[[LogEntry], LogEntry]) -> None:
        self.senders: list[Sender] = []
        elastic, loki = settings.elasticsearch, settings.loki
        if elastic.url:
            self.senders.append(Sender(Bulk(elastic.index), elastic.url, elastic.headers, settings, dead, mask))
        if loki.url:
            self.senders.append(Sender(Push(loki.labels), loki.url, loki.headers, settings, dead, mask))

    def put(self, entries: Sequence[LogEntry]) -> None:
        """Hand over; never waits. From any thread."""
        for sender in self.senders:
            sender.put(entries)

    async def run(self) -> None:
        """Send until cancelled."""
        await asyncio.gather(*(s.run() for s in self.senders))

    def counts(self) -> dict[str, dict[str, int]]:
        return {s.wire.name: {**s.counts, "waiting": len(s)} for s in self.senders}
