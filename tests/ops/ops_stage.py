"""A stage for ops: the real store, door, reconcile loop and memory platform on a simulated clock; replicas and gateway
answer their pages over real Unix sockets; users are simulated with the gateway's own histogram."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from leptonai.admit import Door
from leptonai.admit.switch import Switch
from leptonai.client.calls import unreachable
from leptonai.client.wire import Desk, IssueVerdict
from leptonai.ops.control import World
from leptonai.ops.watch import Watch
from leptonai.platforms.memory import Behaviour, MemoryPlatform
from leptonai.platforms.memory import World as Machine
from leptonai.platforms.telemetry import Memory
from leptonai.serve.reconcile import Reconciler
from leptonai.settings import Settings
from leptonai.store import Store
from leptonai.types import (
    Change,
    Event,
    Fault,
    Feedback,
    Incident,
    Issue,
    Key,
    Proposal,
    Replica,
    Review,
    Revision,
    Rollout,
    Scale,
    Service,
    Slo,
    Spec,
    SpecChange,
    Token,
    Variant,
)

OPS = Token(name="ops", role="operator", secret_sha256="", created=0.0)
ANA = Token(name="ana", role="admin", secret_sha256="", created=0.0)
BOUNDS = (0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000)  # Envoy's default buckets, ms


@dataclass
class Page:
    """What one process shows, and whether it answers."""

    server: asyncio.Server
    text: str = ""
    silent: bool = False


@dataclass
class Model:
    """How a digest behaves: seconds of compute, share of errors, share of wrong answers."""

    compute: float = 0.004
    errors: float = 0.0
    wrong: float = 0.0
    retries: int = 0  # that the gateway makes of each request
    shift: int = 0  # added to what it answers wrongly


@dataclass
class Counts:
    requests: int = 0
    failed: int = 0
    compute: float = 0.0
    rss: float = 60e6
    leak: float = 0.0


class Stage:
    """``step`` lets one second pass for everybody."""

    def __init__(self, folder: Path, settings: Settings | None = None) -> None:
        self.now = 1_700_000_000.0
        self.folder = folder
        self.settings = settings or Settings()
        self.random = random.Random(7)
        self.start_delay = 1.0
        self.store = Store(folder / "store.db")
        self.switch = Switch(folder / "frozen")
        self.door = Door(self.store, self.settings, clock=lambda: self.now, frozen=self.switch.said)
        machine = Machine(clock=lambda: self.now, behaviour=lambda v: Behaviour(start_delay=self.start_delay))
        self.platform = MemoryPlatform(machine, self.settings)
        self.loop = Reconciler(
            self.platform, self.store.services, self.note, clock=lambda: self.now, drop_evictions=self.store.drop_evicts
        )
        self.pages: dict[str, Page] = {}
        self.counts: dict[str, Counts] = {}
        self.models: dict[str, Model] = {}
        self.users: dict[str, dict[str, float]] = {}
        self.rate = 40.0
        self.theirs: set[str] = set()  # services whose replicas somebody else sets
        self.labelled = 0.3
        self.away = False
        self.answering: set[asyncio.Task[Any]] = set()
        self.watch = self.new_watch()

    def new_watch(self) -> Watch:
        return Watch(self.folder, self.settings, Direct(self), Memory(), clock=lambda: self.now, timeout=0.05)

    def note(self, kind: str, subject: str, detail: dict[str, Any]) -> None:
        self.store.record(kind, subject, detail, actor="control", at=self.now)

    def deploy(self, model: Model, name: str = "digits", replicas: int = 2, **more: Any) -> Spec:
        variant = Variant(model=f"sha256:{len(self.models):064x}")
        self.models[variant.digest] = model
        more.setdefault("rollout", Rollout(verify_seconds=10.0, verify_requests=50))
        more.setdefault("slo", Slo(latency=0.1))
        spec = Spec(name=name, variants=(variant,), scale=Scale(replicas=replicas), **more)
        head = self.store.head(name)
        base = head.number if head else 0
        assert self.door.propose(SpecChange(spec=spec, base=base), ANA, "a new model").status == "admitted"
        return spec

    def replicas(self) -> list[Replica]:
        return self.platform.observe()

    def ready(self) -> list[Replica]:
        return [r for r in self.replicas() if r.state == "ready" and not self.pages[r.id].silent]

    async def kill(self, replica: str) -> None:
        await self.platform.inject(Fault(kind="kill", replica=replica))

    async def stop(self, replica: str, heal_after: float = 1e6) -> None:
        self.pages[replica].silent = True
        await self.platform.inject(Fault(kind="stop", replica=replica, heal_after=heal_after))

    def leak(self, replica: str, rate: float = 5e6) -> None:
        self.counts[replica].leak = rate

    def incidents(self) -> list[Incident]:
        return sorted(self.store.incidents(), key=lambda i: i.id)

    def proposals(self) -> list[Proposal]:
        return [p for p in self.store.proposals() if p.by.startswith("incident:")]

    async def step(self, times: int = 1) -> None:
        for _ in range(times):
            self.now += 1.0
            for _ in range(2):
                self.loop.once()
                await self.loop.settled()
            await self._serve()
            self._traffic()
            # Only who is silent on purpose is given up soon: others answer late where the machine is busy.
            self.watch._collector._timeout = 0.1 if any(p.silent for p in self.pages.values()) else 10.0
            await self.watch.step(self.now)
            assert not self.watch.failures or self.away, self.watch.failures

    async def until(self, what: Any, limit: int = 60) -> float:
        """Seconds until ``what()`` is true; fails after ``limit``."""
        for second in range(limit):
            if what():
                return float(second)
            await self.step()
        raise AssertionError(f"not within {limit} s; incidents: {self.incidents()}")

    async def close(self) -> None:
        self.watch.close()
        for page in self.pages.values():
            page.server.close()
        for task in list(self.answering):
            task.cancel()
        await asyncio.sleep(0.01)  # closed transports leave the loop in its next rounds
        self.store.close()

    # --- what the processes show ---------------------------------------------------------------------------------

    async def _serve(self) -> None:
        await self._page("gateway")
        for replica in self.replicas():
            if replica.gone and replica.id in self.pages:
                self.pages[replica.id].server.close()
            elif not replica.gone:
                await self._page(replica.id)
                self.counts.setdefault(replica.id, Counts())

    async def _page(self, name: str) -> None:
        if name in self.pages:
            return
        path = self.folder / f"{name}.sock"

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self.answering.add(task)
            with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
                while await reader.readuntil(b"\r\n\r\n"):
                    if self.pages[name].silent:
                        await asyncio.Event().wait()
                    body = self.pages[name].text.encode()
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            self.answering.discard(task)
            writer.close()

        self.pages[name] = Page(await asyncio.start_unix_server(answer, path))

    def _traffic(self) -> None:
        for service in self.store.services(self.now):
            serving = [r for r in self.ready() if r.service == service.key]
            for _ in range(round(self.rate)):
                if serving:
                    self._request(service, self.random.choice(serving))
                else:
                    self._seen(service, 5, 0.001)
        for id, counts in self.counts.items():
            if id in self.pages and not self.pages[id].silent:
                counts.rss += counts.leak + self.random.uniform(-1e5, 1e5)
                self.pages[id].text = _replica_page(counts)
        self.pages["gateway"].text = self._gateway_page()

    def _request(self, service: Service, replica: Replica) -> None:
        model, counts = self.models[replica.digest], self.counts[replica.id]
        compute = model.compute * self.random.uniform(0.8, 1.3)
        failed = self.random.random() < model.errors
        counts.requests += not failed
        counts.failed += failed
        counts.compute += compute
        self._seen(service, 5 if failed else 2, compute + 0.001)
        label = self.random.randrange(10)
        wrong = self.random.random() < max(model.wrong, 0.02)
        self._predicted(replica, label + 1 + model.shift if wrong else label, label)
        cluster = self.users[f"{service.key}@main"]
        cluster["retry"] = cluster.get("retry", 0) + model.retries

    def _predicted(self, replica: Replica, output: int, label: int) -> None:
        request = f"{self.random.getrandbits(64):016x}"
        folder = self.folder / "run" / replica.id / "predictions"
        folder.mkdir(parents=True, exist_ok=True)
        line = {
            "id": request,
            "at": self.now,
            "digest": replica.digest,
            "seconds": 0.01,
            "code": 200,
            "output": [output],
        }
        with (folder / "00000001.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self.random.random() < self.labelled:
            self.store.append_feedback(Feedback(about=request, by="user", at=self.now, label=label))

    def _seen(self, service: Service, code: int, seconds: float) -> None:
        cluster = self.users.setdefault(f"{service.key}@main", {})
        cluster[f"rq{code}"] = cluster.get(f"rq{code}", 0) + 1
        for bound in BOUNDS:
            cluster[f"le{bound}"] = cluster.get(f"le{bound}", 0) + (seconds * 1e3 <= bound)
        cluster["le+Inf"] = cluster.get("le+Inf", 0) + 1

    def _gateway_page(self) -> str:
        lines = []
        for cluster, seen in self.users.items():
            for name, value in seen.items():
                if name.startswith("rq"):
                    lines.append(
                        f'envoy_cluster_upstream_rq_xx{{envoy_response_code_class="{name[2:]}",'
                        f'envoy_cluster_name="{cluster}"}} {value}'
                    )
                elif name == "retry":
                    lines.append(f'envoy_cluster_upstream_rq_retry{{envoy_cluster_name="{cluster}"}} {value}')
                else:
                    labels = f'envoy_cluster_name="{cluster}",le="{name[2:]}"'
                    lines.append(f"envoy_cluster_upstream_rq_time_bucket{{{labels}}} {value}")
        return "\n".join(lines) + "\n"


def _replica_page(counts: Counts) -> str:
    total = counts.requests + counts.failed
    return (
        f'leptonai_requests_total{{code="200"}} {counts.requests}\n'
        f'leptonai_requests_total{{code="500"}} {counts.failed}\n'
        f"leptonai_compute_seconds_sum {counts.compute}\nleptonai_compute_seconds_count {total}\n"
        f"leptonai_queue_seconds_sum {total * 1e-4}\nleptonai_queue_seconds_count {total}\nleptonai_in_flight 0\n"
        f"process_resident_memory_bytes {counts.rss}\nprocess_cpu_seconds_total {counts.compute}\n"
    )


@dataclass
class Direct:
    """The control API without HTTP: what its handlers do, with the same store and the same door."""

    stage: Stage
    calls: int = field(default=0)

    def _store(self) -> Store:
        if self.stage.away:
            raise unreachable("http://control", OSError("refused"))
        return self.stage.store

    async def world(self) -> World:
        services = self._store().services(self.stage.now)
        replicas = [
            msgspec.structs.replace(r, address=f"unix:{self.stage.folder / r.id}.sock") for r in self.stage.replicas()
        ]
        gateways = (f"unix:{self.stage.folder / 'gateway'}.sock",)
        frozen = self.stage.switch.said()
        theirs = frozenset(self.stage.theirs)
        return World(
            services=tuple(services), replicas=tuple(replicas), gateways=gateways, frozen=frozen, theirs=theirs
        )

    async def revisions(self, key: Key) -> list[Revision]:
        return self._store().revisions(key)

    async def events(self, after: int) -> list[Event]:
        return self._store().events(after, newest=after == 0)

    async def feedback(self, after: int) -> tuple[list[Feedback], int]:
        items, following = self._store().feedback(after)
        return [item for _, item in items], following

    async def reviews(self, after: int) -> tuple[list[tuple[int, Review]], int]:
        return self._store().reviews_after(after)

    async def incident(self, id: int) -> Incident | None:
        return self._store().incident(id)

    async def issues(self, state: str) -> list[Issue]:
        return self._store().issues(state=state)

    async def judge_issue(self, id: int, verdict: IssueVerdict) -> None:
        found = self._store().issue(id)
        state = "closed" if verdict.fell else "open"
        self._store().put_issue(msgspec.structs.replace(found, state=state, before=verdict.before, after=verdict.after))

    async def incidents(self) -> list[Incident]:
        return self._store().incidents()

    async def put_incident(self, incident: Incident) -> Incident:
        return self._store().put_incident(incident)

    async def propose(
        self, change: Change, why: str, by: str, ask: str = "", expires_in: float | None = None
    ) -> Proposal:
        self._store()
        return self.stage.door.propose(change, OPS, why, by=by, ask=ask, expires_in=expires_in)

    async def proposal(self, id: str) -> Proposal | None:
        return self._store().proposal(id)

    async def verify(self, key: Key, number: int, detail: str) -> None:
        self._store().verify(key, number, self.stage.now)

    async def record(self, kind: str, subject: str, detail: dict[str, Any]) -> None:
        self._store().record(kind, subject, detail, actor="ops", at=self.stage.now)

    async def desk(self) -> Desk:
        opened = self._store().incidents(open=True)
        return Desk(
            silences=tuple(self._store().silences(after=self.stage.now)),
            acks=tuple(self._store().acks(i.id for i in opened)),
        )

    async def end_silence(self, id: int) -> None:
        silence = self._store().silence(id)
        self._store().put_silence(msgspec.structs.replace(silence, ends=self.stage.now))
