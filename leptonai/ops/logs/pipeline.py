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
from typing import Any, NamedTuple

import msgspec

from leptonai.errors import NotFound, SpecError
from leptonai.ops.logs.follow import Follow, Place
from leptonai.ops.logs.lines import Columns, Lines
from leptonai.ops.logs.miner import Miner
from leptonai.ops.logs.outputs import Outputs
from leptonai.ops.logs.parse import clean, columns, record, sane, texts
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
CHUNK = 4_000  # lines mined at once, some 25 ms: nobody waits longer than this for what is known
VAULT_EVERY = 5.0  # seconds between two copies of the vault
SAVE = 300.0  # seconds between two copies of what the miners know
PATIENCE = 10.0  # seconds to wait until it is known whose logs there are


class _Kept(msgspec.Struct, frozen=True):
    place: Place
    service: str
    source: dict[str, str]


class _Places(msgspec.Struct, frozen=True):
    """Where each followed file is read on, once everything before ``seq`` was kept."""

    at: float
    seq: int
    files: dict[str, _Kept]


class _Found(NamedTuple):
    """What one source wrote. ``followed``: in a file, where it can be read again."""

    source: dict[str, str]
    followed: bool
    columns: Columns


Waiting = dict[str, list[_Found]]  # by service


class Pipeline:
    """``counts``: ``lines`` written, ``read`` in full, ``received`` from others, ``odd_time``: of these, whose time is
    not believed; ``lost`` places of followed files."""

    def __init__(self, home: Path, settings: Settings, sink: LogSink, clock: Callable[[], float]) -> None:
        self.settings = settings
        self.counts: Counter[str] = Counter()
        folder = home / "logs-store"
        self._places_path = folder / "places.msgpack"
        kept = _read_places(self._places_path)  # without any, files are read from their start
        again = 0 if not self._places_path.exists() else kept.seq if kept else None
        self._left = dict(kept.files) if kept else {}  # of an earlier life, not yet taken up
        self._places: dict[str, _Kept] = {}
        self.store = LogStore(folder, settings.logs, clock, again)
        self._vault = folder / "vault.json"
        self.masker = Masker.open(self._vault, settings.logs.mask)
        self.outputs = Outputs(settings.logs, folder / "dead", self.mask)
        self._home, self._folder, self._sink, self._clock = home, folder, sink, clock
        self._replicas: Sequence[Replica] | None = None  # not known yet
        self._files: dict[str, tuple[Follow, str, dict[str, str]]] = {}
        self._streams: dict[str, Stream] = {}
        self._lock = threading.Lock()  # streams and masker are asked by others while the thread works
        self._saved = clock()
        self._last = kept.at if kept else None
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

    def mask_text(self, text: str) -> str:
        with self._lock:
            return self.masker.mask(text)

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
        begun = self._clock()
        try:
            while self._replicas is None and self._clock() - begun < PATIENCE:  # noqa: ASYNC110 - told from any thread
                await asyncio.sleep(self.settings.ops.period / 10)
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
        elapsed = 1.0 if self._last is None else max(1e-3, now - self._last) / self.settings.ops.period
        self._last = now
        written: Counter[str] = Counter()
        waiting: Waiting = {}
        self._gather(now, written, waiting)
        self._receive(now, written, waiting)
        signals: list[Signal] = []
        parts: dict[str, list[str]] = {service: [] for service in self._streams}
        for service in written:
            parts.setdefault(self._target(service, now), []).append(service)
        for target, services in parts.items():
            signals += self._mine(target, services, waiting, sum(written[s] for s in services), now, elapsed)
        self._commit(now)  # before lines can go into a segment, where those read twice would stay
        self.store.tick(now)
        if self.masker.made != self._vaulted and now - self._vault_at >= VAULT_EVERY:
            self._save_vault()
        if now - self._saved >= SAVE:
            self._save(now)
        return signals

    def close(self) -> None:
        self._commit(self._clock())
        for follow, _, _ in self._files.values():
            follow.close()
        self._save(self._clock())
        self._save_vault()
        self.store.close()

    def _gather(self, now: float, written: Counter[str], waiting: Waiting) -> None:
        wanted: dict[str, tuple[Path, str, dict[str, str]]] = {}
        for name, service in OWN.items():
            wanted[name] = (self._home / "logs" / f"{name}.log", service, {"service": service})
        for r in self._replicas or ():
            source = {"service": r.service, "replica": r.id, "digest": r.digest}
            wanted[f"replica:{r.id}"] = (self._home / "run" / r.id / "log", r.service, source)
        for id, (path, service, source) in wanted.items():
            if id not in self._files:
                left = self._left.pop(id, None)
                self._files[id] = (Follow(path, left.place if left else None), service, source)
        if self._replicas is not None:  # what is left then went while nobody followed it
            for id, left in self._left.items():
                put_away = self._home / "logs" / "replicas" / f"{id.partition(':')[2]}.log"
                self._files[id] = (Follow(put_away, left.place), left.service, left.source)
            self._left.clear()
        for id, (follow, service, source) in list(self._files.items()):
            blocks = follow.look()
            if id not in wanted and self._replicas is not None:
                blocks = follow.finish()
                del self._files[id]
            found = self._read(blocks, service, now, written)
            self.counts["lost"] += follow.lost
            follow.lost = 0
            if found.body:
                waiting.setdefault(service, []).append(_Found(source, True, found))

    def _read(self, blocks: Iterable[bytes], service: str, now: float, written: Counter[str]) -> Columns:
        """The lines of a source; of more than are read in full an even share."""
        whole: list[bytes] = []  # blocks, as long as all of them are read
        kept: list[bytes] = []
        total, stride = 0, 1
        limit = self.settings.logs.lines_per_second
        for block in blocks:
            total += block.count(b"\n")
            whole.append(block)
            if total <= limit:
                continue
            for one in whole:
                kept += self._thin(one.split(b"\n")[:-1], stride)
            whole.clear()
            while len(kept) > 2 * limit:
                kept, stride = self._thin(kept, 2), 2 * stride
        while len(kept) > limit:
            kept = self._thin(kept, 2)
        written[service] += total
        return columns([text for block in whole or [b"\n".join(kept)] for text in texts(block)], now)

    def _thin(self, lines: list[bytes], stride: int) -> list[bytes]:
        """One of each ``stride`` lines, drawn: a log that repeats itself would deceive a fixed step."""
        if stride == 1:
            return lines
        draw = self._dice.random
        return [lines[min(len(lines) - 1, i + int(draw() * stride))] for i in range(0, len(lines), stride)]

    def _receive(self, now: float, written: Counter[str], waiting: Waiting) -> None:
        run: list[LogRecord] = []
        whose: dict[str, str] | None = None
        for found in self._sink.take(TAKEN):
            body, at = clean(found.body), sane(found.at, now)
            self.counts["odd_time"] += at != found.at
            parsed = msgspec.structs.replace(found, body=body, at=at)
            if body.startswith("{"):
                parsed = record(body, found.source, at, found.severity)
            if found.source != whose:
                self._hand_over(run, written, waiting)
                run, whose = [], found.source
            run.append(parsed)
            self.counts["received"] += 1
        self._hand_over(run, written, waiting)

    def _hand_over(self, run: list[LogRecord], written: Counter[str], waiting: Waiting) -> None:
        """Records of one source in a row become columns."""
        if not run:
            return
        source = run[0].source
        service = _foreign(source, source.get("workspace", DEFAULT_WORKSPACE))
        traced = any(r.trace or r.span for r in run)
        found = Columns(
            [r.at for r in run],
            [r.severity for r in run],
            [r.body for r in run],
            [r.trace for r in run] if traced else [],
            [r.span for r in run] if traced else [],
        )
        written[service] += len(run)
        waiting.setdefault(service, []).append(_Found(source, False, found))

    def _mine(
        self, target: str, services: list[str], waiting: Waiting, lines: int, now: float, elapsed: float
    ) -> list[Signal]:
        """What ``services`` wrote is mined as one stream, ``target``; beyond the limit they are many."""
        ids: list[int] = []
        errors = 0
        stream = self._streams[target]
        for service in services:
            for found in waiting.get(service, ()):
                for start in range(0, len(found.columns.body), CHUNK):
                    chunk = found.columns.part(start, start + CHUNK)
                    with self._lock:
                        templates = stream.add(chunk, now)
                        known = {id: stream.miner.text(id) for id in set(templates)}
                    ids += templates
                    if max(chunk.severity) >= ERROR:
                        errors += sum(level >= ERROR for level in chunk.severity)
                    self._keep(service, found, chunk, templates, known)
        self.counts["lines"] += lines
        self.counts["read"] += len(ids)
        with self._lock:
            return stream.step(ids, errors, lines, now, elapsed)

    def _keep(self, service: str, found: _Found, chunk: Columns, templates: list[int], known: dict[int, str]) -> None:
        lines = Lines(
            first=self.store.next,
            service=service,
            workspace=EVERYBODY if service in OWN.values() else parse_key(service)[0],
            source={k: v for k, v in found.source.items() if k not in ("service", "workspace")},
            followed=found.followed,
            at=chunk.at,
            severity=chunk.severity,
            template=templates,
            texts=known,
            body=chunk.body,
            trace=chunk.trace,
            span=chunk.span,
        )
        self.store.add(lines)
        if self.outputs.senders:
            self.outputs.put(lines.entries())

    def _commit(self, now: float) -> None:
        """What was read so far is kept: another life goes on behind it."""
        files = dict(self._left)
        for id, (follow, service, source) in self._files.items():
            if (place := follow.place) is not None:
                files[id] = _Kept(place, service, source)
        if files == self._places:
            return
        fresh = self._places_path.with_suffix(".new")
        try:
            fresh.write_bytes(msgspec.msgpack.encode(_Places(now, self.store.next, files)))
            fresh.chmod(0o600)
            fresh.replace(self._places_path)
            self._places = files
        except OSError as e:
            if not self.counts["places_failed"]:
                log.error("%s cannot be written, a restart will read lines twice: %s; told once", fresh, e)
            self.counts["places_failed"] += 1

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


def _read_places(path: Path) -> _Places | None:
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=_Places)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as e:
        log.error("%s cannot be read, followed files are read from their start: %s", path, e)
        return None


def _foreign(source: dict[str, str], workspace: str) -> Key:
    """The name of a foreign stream, as a key of its workspace: its service, else its host and file."""
    name = source.get("service") or ":".join(p for p in (source.get("host"), source.get("file")) if p) or "unnamed"
    name = clean(name).replace("/", ".")[:100]
    return name if workspace == DEFAULT_WORKSPACE else f"{workspace}/{name}"
