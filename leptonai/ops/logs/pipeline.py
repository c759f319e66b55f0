"""The logs of everything that runs, once a period: followed, read, mined, kept, and handed to outputs.

It runs in a thread of its own beside the loop of ops, so that a flood delays logs and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from leptonai.errors import NotFound, SpecError
from leptonai.ops.logs.follow import Follow
from leptonai.ops.logs.miner import Miner
from leptonai.ops.logs.outputs import Outputs
from leptonai.ops.logs.parse import clean, decode, record
from leptonai.ops.logs.privacy import Masker
from leptonai.ops.logs.query import Query
from leptonai.ops.logs.shifts import Shift
from leptonai.ops.logs.store import LogStore
from leptonai.ops.logs.stream import ERROR, Stream
from leptonai.protocols import LogSink
from leptonai.settings import Settings
from leptonai.types import DEFAULT_WORKSPACE, Key, LogEntry, LogPage, LogRecord, Replica, Signal, parse_key

log = logging.getLogger(__name__)
OWN = {n: f"leptonai.{n}" for n in ("parent", "control", "ops", "edge", "envoy")}  # logs/<name>.log -> its service
OTHERS = "leptonai.others"  # the stream of services beyond the limit
EVERYBODY = "*"  # the workspace of what tells of all workspaces
TAKEN = 10_000  # received records in one step
CHUNK = 2_000  # lines mined at once: nobody waits longer than this for what is known
VAULT_EVERY = 5.0  # seconds between two copies of the vault
SAVE = 300.0  # seconds between two copies of what the miners know


class Pipeline:
    """``counts``: ``lines`` written, ``read`` in full, ``received`` from others, ``lost`` places of followed files."""

    def __init__(self, home: Path, settings: Settings, sink: LogSink, clock: Callable[[], float]) -> None:
        self.settings = settings
        self.counts: Counter[str] = Counter()
        folder = home / "logs-store"
        self.store = LogStore(folder, settings.logs, clock)
        self._vault = folder / "vault.json"
        self.masker = Masker.open(self._vault, settings.logs.mask)
        self.outputs = Outputs(settings.logs, folder / "dead", self.mask)
        self._home, self._folder, self._sink, self._clock = home, folder, sink, clock
        self._replicas: Sequence[Replica] = ()
        self._files: dict[str, tuple[Follow, str, dict[str, str]]] = {}
        self._streams: dict[str, Stream] = {}
        self._lock = threading.Lock()  # streams and masker are asked by others while the thread works
        self._saved = self._last = clock()
        self._first = True
        self._dice = random.Random(0)
        self._vaulted, self._vault_at = self.masker.made, clock()
        (folder / "miners").mkdir(exist_ok=True)

    # --- for others: safe from any thread ---------------------------------------------------------------------------

    def watch(self, replicas: Sequence[Replica]) -> None:
        """Whose logs are followed from the next step on."""
        self._replicas = replicas

    def mask(self, entry: LogEntry) -> LogEntry:
        with self._lock:
            return self.masker.entry(entry)

    def shifts(self, service: Key, onset: float, now: float) -> tuple[Shift, ...]:
        """What changed in the log of a service around ``onset``; samples are masked."""
        with self._lock:
            stream = self._streams.get(service)
            found = stream.shifts(onset, now) if stream else ()
            mask = self.masker.mask
            return tuple(msgspec.structs.replace(s, template=mask(s.template), sample=mask(s.sample)) for s in found)

    def search(self, query: Query, before: int | None, limit: int) -> LogPage:
        """Lines as kept, masked: a search is answered to whoever asked from wherever."""
        page = self.store.search(query, before, limit)
        with self._lock:
            items = [self.masker.entry(e) for e in page.items]
        return LogPage(items=items, next=page.next)

    def templates(self, service: str) -> list[dict[str, Any]]:
        """Templates of a service, most frequent first. NotFound names the services that have some."""
        with self._lock:
            if (stream := self._streams.get(service)) is None:
                there = ", ".join(sorted(self._streams)) or "none yet"
                raise NotFound(f"no log of {service!r} is mined", hint=f"there are: {there}")
            mask = self.masker.mask
            return [
                {**t, "template": mask(str(t["template"])), "sample": mask(str(t["sample"]))}
                for t in stream.templates()
            ]

    # --- the thread -------------------------------------------------------------------------------------------------

    async def run(self, write: Callable[[Sequence[Signal]], None]) -> None:
        """Step once a period and send to outputs, until cancelled. A step that fails is told once and tried again."""
        sending = asyncio.create_task(self.outputs.run())
        told = ""
        try:
            while True:
                begun = self._clock()
                try:
                    write(await asyncio.to_thread(self.step, begun))
                    told = ""
                except Exception as e:
                    self.counts["failed"] += 1
                    if told != (told := f"{type(e).__name__}: {e}"):
                        log.exception("a look at the logs failed; told once")
                await asyncio.sleep(max(0.0, self.settings.ops.period - (self._clock() - begun)))
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    def step(self, now: float) -> list[Signal]:
        """One look at everything; the signals of it."""
        elapsed = max(1e-3, now - self._last) / self.settings.ops.period if not self._first else 1.0
        self._last = now
        written: Counter[str] = Counter()
        waiting: dict[str, list[LogRecord]] = {}
        self._gather(now, written, waiting)
        self._receive(now, written, waiting)
        self._first = False
        signals: list[Signal] = []
        parts: dict[str, list[str]] = {service: [] for service in self._streams}
        for service in written:
            parts.setdefault(self._target(service, now), []).append(service)
        for target, services in parts.items():
            signals += self._mine(target, services, waiting, sum(written[s] for s in services), now, elapsed)
        self.store.tick(now)
        if self.masker.made != self._vaulted and now - self._vault_at >= VAULT_EVERY:
            self._save_vault()
        if now - self._saved >= SAVE:
            self._save(now)
        return signals

    def close(self) -> None:
        for follow, _, _ in self._files.values():
            follow.close()
        self._save(self._clock())
        self._save_vault()
        self.store.close()

    def _gather(self, now: float, written: Counter[str], waiting: dict[str, list[LogRecord]]) -> None:
        wanted: dict[str, tuple[Path, str, dict[str, str]]] = {}
        for name, service in OWN.items():
            wanted[name] = (self._home / "logs" / f"{name}.log", service, {"service": service})
        for r in self._replicas:
            source = {"service": r.service, "replica": r.id, "digest": r.digest}
            wanted[f"replica:{r.id}"] = (self._home / "run" / r.id / "log", r.service, source)
        for id, (path, service, source) in wanted.items():
            if id not in self._files:  # of what ran before us, only what is new: it was read before
                self._files[id] = (Follow(path, from_end=self._first), service, source)
        for id, (follow, service, source) in list(self._files.items()):
            blocks = follow.look()
            if id not in wanted:
                blocks = follow.finish()
                del self._files[id]
            found = self._read(blocks, source, now, written)
            self.counts["lost"] += follow.lost
            follow.lost = 0
            waiting.setdefault(service, []).extend(found)

    def _read(
        self, blocks: Iterable[bytes], source: dict[str, str], now: float, written: Counter[str]
    ) -> list[LogRecord]:
        """The records of a source; of more lines than are read in full an even share."""
        kept: list[bytes] = []
        total, stride = 0, 1
        limit = self.settings.logs.lines_per_second
        for block in blocks:
            total += block.count(b"\n")
            kept += self._thin(block.split(b"\n")[:-1], stride)
            while len(kept) > 2 * limit:
                kept, stride = self._thin(kept, 2), 2 * stride
        while len(kept) > limit:
            kept = self._thin(kept, 2)
        written[source["service"]] += total
        return [record(text, source, now) for line in kept if (text := decode(line))]

    def _thin(self, lines: list[bytes], stride: int) -> list[bytes]:
        """One of each ``stride`` lines, drawn: a log that repeats itself would deceive a fixed step."""
        if stride == 1:
            return lines
        draw = self._dice.random
        return [lines[min(len(lines) - 1, i + int(draw() * stride))] for i in range(0, len(lines), stride)]

    def _receive(self, now: float, written: Counter[str], waiting: dict[str, list[LogRecord]]) -> None:
        for found in self._sink.take(TAKEN):
            workspace = found.source.get("workspace", DEFAULT_WORKSPACE)
            service = _foreign(found.source, workspace)
            body = clean(found.body)
            if body.startswith("{"):
                parsed = record(body, found.source, found.at, found.severity)
            else:
                parsed = LogRecord(
                    at=found.at, source=found.source, body=body, severity=found.severity, trace=found.trace,
                    span=found.span,
                )  # fmt: skip
            written[service] += 1
            waiting.setdefault(service, []).append(parsed)
            self.counts["received"] += 1

    def _mine(
        self,
        target: str,
        services: list[str],
        waiting: dict[str, list[LogRecord]],
        lines: int,
        now: float,
        elapsed: float,
    ) -> list[Signal]:
        """What ``services`` wrote is mined as one stream, ``target``; beyond the limit they are many."""
        ids: list[int] = []
        errors = 0
        stream = self._streams[target]
        for service in services:
            records = waiting.get(service, [])
            for start in range(0, len(records), CHUNK):
                chunk = records[start : start + CHUNK]
                with self._lock:
                    found = stream.add(chunk, now)
                    texts = {id: stream.miner.text(id) for id in set(found)}
                ids += found
                self._keep(service, chunk, found, texts)
            errors += sum(r.severity >= ERROR for r in records)
        self.counts["lines"] += lines
        self.counts["read"] += len(ids)
        with self._lock:
            return stream.step(ids, errors, lines, now, elapsed)

    def _keep(self, service: str, records: list[LogRecord], ids: list[int], texts: dict[int, str]) -> None:
        workspace = EVERYBODY if service in OWN.values() else parse_key(service)[0]
        seq = self.store.next
        of = {id(r.source): r.source for r in records}  # few, and one object for all lines of a file
        sources = {
            place: {k: v for k, v in source.items() if k not in ("service", "workspace")}
            for place, source in of.items()
        }
        entries = [
            LogEntry(
                seq=seq + i,
                at=r.at,
                service=service,
                source=sources[id(r.source)],
                severity=r.severity,
                template_id=template,
                template=texts[template],
                body=r.body,
                trace=r.trace,
                span=r.span,
                workspace=workspace,
            )
            for i, (r, template) in enumerate(zip(records, ids, strict=True))
        ]
        self.store.add(entries)
        self.outputs.put(entries)

    def _target(self, service: str, now: float) -> str:
        """The stream that a service is mined in: its own, or that of all beyond the limit."""
        if service in self._streams:
            return service
        if len(self._streams) >= self.settings.logs.services and service not in OWN.values():
            if OTHERS not in self._streams:
                limit = self.settings.logs.services
                log.error("logs of more than %d services (logs.services): later ones are mined as one", limit)
            service = OTHERS
        with self._lock:
            self._streams.setdefault(service, Stream(service, now, self._known(service)))
        return service

    def _known(self, service: str) -> Miner | None:
        try:
            return Miner.load(self._miner(service).read_bytes())
        except (OSError, SpecError):
            return None

    def _miner(self, service: str) -> Path:
        return self._folder / "miners" / f"{service.encode().hex()[:200]}.json"

    def _save(self, now: float) -> None:
        """Template ids outlive us, as the segments hold them."""
        self._saved = now
        for service, stream in list(self._streams.items()):
            with self._lock:
                state = stream.miner.dump()
            path = self._miner(service)
            try:
                fresh = path.with_suffix(".new")
                fresh.write_bytes(state)
                fresh.chmod(0o600)
                fresh.replace(path)
            except OSError as e:
                log.warning("templates of %s cannot be saved: %s", service, e)

    def _save_vault(self) -> None:
        try:
            with self._lock:
                self.masker.save(self._vault)
                self._vaulted, self._vault_at = self.masker.made, self._clock()
        except OSError as e:
            log.error("masked values cannot be turned back after a restart, %s cannot be written: %s", self._vault, e)


def _foreign(source: dict[str, str], workspace: str) -> Key:
    """The name of a foreign stream, as a key of its workspace: its service, else its host and file."""
    name = source.get("service") or ":".join(p for p in (source.get("host"), source.get("file")) if p) or "unnamed"
    name = clean(name).replace("/", ".")[:100]
    return name if workspace == DEFAULT_WORKSPACE else f"{workspace}/{name}"
