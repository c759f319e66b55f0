"""Everything that comes in beside what ops collects itself: OTLP, agents, scraped pages, the gateway's lines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from leptonai.errors import SpecError
from leptonai.ops.agent import batch as agents
from leptonai.ops.agent.seen import Seen
from leptonai.ops.logs.handoff import Handoff
from leptonai.ops.logs.pipeline import Pipeline
from leptonai.ops.otlp import columns, logs, message, traces
from leptonai.ops.otlp.metrics import Metrics
from leptonai.ops.predictions import Line
from leptonai.ops.receive import Keeper, Point, Receiver
from leptonai.ops.remote_write import Columns
from leptonai.ops.scrape import Scraper
from leptonai.ops.trace.assemble import Access, Assembler
from leptonai.ops.trace.calls import Calls
from leptonai.ops.trace.export import Exporter
from leptonai.ops.trace.graph import call_graph
from leptonai.ops.trace.store import TraceStore
from leptonai.ops.trace.tail import Tail
from leptonai.plan.access import FILE
from leptonai.protocols import LogSink
from leptonai.settings import Settings
from leptonai.types import DEFAULT_WORKSPACE, Key, LogRecord, Replica, Service

CALLS_EVERY = 10.0  # seconds: going through 50,000 spans takes some 50 ms
CALLS_BACK = 3600.0  # seconds of spans that say who depends on whom
_access = msgspec.json.Decoder(Access, strict=False).decode


class Feeds:
    """``receiver`` takes samples, ``logs`` records, ``traces`` spans. All within limits, all counted."""

    def __init__(
        self,
        home: Path | None,
        settings: Settings,
        store: Keeper,
        clock: Callable[[], float],
        sink: LogSink | None = None,
    ) -> None:
        """``home`` None: nothing is kept on disk. ``sink``: where log records go, a bounded hand-off unless given."""
        self.settings = settings
        self.receiver = Receiver(store, settings.telemetry, clock)
        self.logs = sink or Handoff(settings.telemetry.log_records)
        self.pipeline = Pipeline(home, settings, self.logs, clock) if home else None
        self.traces = TraceStore(settings.traces, home / "traces" if home else None)
        self.dependencies = Calls()
        self.exporter = Exporter(settings.traces)
        self.scraper = Scraper(settings.scrape, self.receiver, clock)
        self._clock, self._store = clock, store
        self._slow: dict[Key, float] = {}
        self._assembler = Assembler(lambda key: self._slow.get(key, settings.gateway.trace_slow))
        self._gateway = Tail(home / "envoy" / FILE, from_end=True) if home else None
        self._calls: tuple[float, list[tuple[str, str]]] = (float("-inf"), [])
        self._metrics: dict[str, Metrics] = {}
        self._seen = Seen(home / "telemetry" / "agents.json" if home else None)
        self.hosts: dict[str, float] = {}  # workspace/agent -> when it was heard last
        self._pace: dict[str, tuple[int, int]] = {}

    async def run(self) -> None:
        """Scrape, export and read logs until cancelled."""
        mining = [self.pipeline.run(self._store.write)] if self.pipeline else []
        await asyncio.gather(self.scraper.run(), self.exporter.run(), *mining)

    def close(self) -> None:
        self.traces.close()
        if self.pipeline:
            self.pipeline.close()

    # --- our own requests -------------------------------------------------------------------------------------------

    def answered(self, replica: Replica, line: Line) -> None:
        """A replica has answered a request."""
        self._assembler.answered(replica, line, self._clock())

    def step(self, services: Sequence[Service], now: float) -> None:
        """Once a round: the gateway's new lines are read, the spans of finished requests kept and exported."""
        self._slow = {s.key: s.spec.slo.latency for s in services}
        for line in self._gateway.lines() if self._gateway else ():
            try:
                self._assembler.passed(_access(line), now)
            except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
                self.traces.counts["unreadable"] += 1
        spans = self._assembler.finished(now)
        if spans:
            self.traces.add(spans)
            self.exporter.put(spans)

    # --- what others send -------------------------------------------------------------------------------------------

    def otlp(self, what: message.What, body: bytes, content_type: str, encoding: str, workspace: str) -> bytes:
        """The answer to an OTLP/HTTP request, in the encoding it came in; a partial success names what was refused.

        SpecError: the body is broken (400, nothing is taken), too large (413), or in a form not spoken (415).
        """
        protobuf = message.media_type(content_type) == "application/x-protobuf"
        try:
            plain = message.unpack(body, encoding, self.settings.telemetry.request_bytes)
            if what == "metrics" and protobuf:
                return message.answer(what, *self._take_columns(plain, workspace), content_type)
            request = message.read(what, plain, content_type)
        except SpecError:
            self.receiver.malformed(workspace, f"OTLP {what}")
            raise
        rejected, why = {"metrics": self._take_metrics, "logs": self._take_logs, "traces": self._take_spans}[what](
            request, workspace
        )
        return message.answer(what, rejected, why, content_type)

    def agent(self, body: bytes, encoding: str, workspace: str) -> bool:
        """Take one batch of an agent; False: it was taken before, and nothing of it again. SpecError: it is none."""
        try:
            batch = agents.decode(message.unpack(body, encoding, self.settings.telemetry.request_bytes))
        except SpecError:
            self.receiver.malformed(workspace, "agent")
            raise
        name = f"{workspace}/{batch.agent}"
        self.hosts[name] = self._clock()
        if self._seen.known(name, batch.run, batch.number):
            self.receiver.count(workspace, "agent_repeated")
            return False
        points = [Point(s.name, (*s.labels.items(), ("host", batch.agent)), s.at, s.value) for s in batch.signals]
        if points:
            points.append(Point("agent_dropped_batches_count", (("host", batch.agent),), points[0].at, batch.dropped))
        self.receiver.take(points, workspace, f"agent {batch.agent}")
        whose = {"host": batch.agent} | ({} if workspace == DEFAULT_WORKSPACE else {"workspace": workspace})
        records = [msgspec.structs.replace(r, source=r.source | whose, body=logs.cut(r.body)) for r in batch.logs]
        self._hand_over(records, workspace)
        self._seen.took(name, batch.run, batch.number)
        return True

    def _take_metrics(self, request: Any, workspace: str) -> tuple[int, str]:
        metrics = self._metrics.setdefault(workspace, Metrics())
        before = metrics.counts.copy()
        dropped = self.receiver.take(metrics.points(request), workspace, "OTLP")
        for what, n in (metrics.counts - before).items():
            self.receiver.count(workspace, what, n)
        return dropped.samples, f"dropped {dropped.why}" if dropped.why else ""

    def _take_columns(self, body: bytes, workspace: str) -> tuple[int, str]:
        metrics = self._metrics.setdefault(workspace, Metrics())
        before = metrics.counts.copy()

        def read(known: columns.Known | None, intern: columns.Intern) -> tuple[columns.Known, Columns]:
            known = known or columns.Known()
            return known, columns.decode(body, known, intern, metrics)

        dropped = self.receiver.columns(read, workspace, "OTLP")
        for what, n in (metrics.counts - before).items():
            self.receiver.count(workspace, what, n)
        return dropped.samples, f"dropped {dropped.why}" if dropped.why else ""

    def _take_logs(self, request: Any, workspace: str) -> tuple[int, str]:
        self._hand_over(list(logs.records(request, self._clock(), workspace)), workspace)
        return 0, ""

    def _hand_over(self, records: list[LogRecord], workspace: str) -> None:
        if records:
            self.receiver.count(workspace, "log_records", len(records))
            self.receiver.count(workspace, "log_records_dropped", self.logs.put(records))

    def _take_spans(self, request: Any, workspace: str) -> tuple[int, str]:
        found, wrong = traces.spans(request, workspace)
        room = self._room(workspace)
        kept, over = found[:room], len(found[room:])
        second, used = self._pace[workspace]
        self._pace[workspace] = (second, used + len(kept))
        self.traces.add(kept)
        self.dependencies.saw(kept)
        self.receiver.count(workspace, "spans", len(kept))
        said = [f"{n} spans with a {what.replace('_', ' ')}" for what, n in sorted(wrong.items())]
        if over:
            limit = self.settings.traces.received_per_second
            said.append(f"{over} spans over the limit of {limit:g} a second (traces.received_per_second)")
        refused = over + sum(wrong.values())
        self.receiver.count(workspace, "spans_refused", refused)
        return refused, f"dropped {'; '.join(said)}" if said else ""

    def _room(self, workspace: str) -> int:
        second = int(self._clock())
        if self._pace.get(workspace, (0, 0))[0] != second:
            self._pace[workspace] = (second, 0)
        return max(0, int(self.settings.traces.received_per_second) - int(self._pace[workspace][1]))

    def calls(self, now: float) -> list[tuple[str, str]]:
        """Who called whom lately, as (caller, callee); looked up anew each CALLS_EVERY seconds."""
        if now - self._calls[0] >= CALLS_EVERY:
            found = call_graph(self.traces.spans(now - CALLS_BACK)).edges
            self._calls = now, [(e.caller, e.callee) for e in found]
        return self._calls[1]

    def counts(self) -> dict[str, Any]:
        """What became of everything, as ``GET /telemetry`` tells it."""
        received: dict[str, dict[str, int]] = {}
        for (workspace, what), n in self.receiver.counts.items():
            if n:
                received.setdefault(workspace, {})[what] = n
        told: dict[str, Any] = {"received": received, "traces": dict(self.traces.counts)}
        if self.settings.traces.export_url:
            told["export"] = dict(self.exporter.counts)
        if isinstance(self.logs, Handoff):
            told["logs"] = {"taken": self.logs.taken, "dropped": self.logs.dropped, "waiting": len(self.logs)}
        if self.pipeline:
            told["log_pipeline"] = {**self.pipeline.counts, **self.pipeline.store.counts}
            told["log_outputs"] = self.pipeline.outputs.counts()
        return told
