"""A platform without processes: replicas simulated on any clock, for tests and for trying things out.

Same decisions as the real one (``plan``, ``routes``), same conformance suite; only the doing is simulated. The state
lives in a ``World``, as processes live in a machine: a second platform over the same world adopts what runs there.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from leptonai.errors import CapacityError, NotFound, PlatformError
from leptonai.plan import Snapshot, plan, routes
from leptonai.settings import Settings
from leptonai.types import (
    Fault,
    Forget,
    Key,
    LogLine,
    Replica,
    Retire,
    Service,
    Start,
    Step,
    Tune,
    Tuning,
    Variant,
)


@dataclass(frozen=True)
class Behaviour:
    """How replicas of a variant behave. Seconds count from the start of the process."""

    start_delay: float = 0.0  # until ready
    jitter: float = 0.0  # up to this much is added to start_delay
    exit_after: float | None = None  # the process exits then, ready or not
    drain: float = 0.0  # from being told to stop until it is gone


@dataclass
class _Process:
    id: str
    start: Start
    pid: int
    began: float
    ready_at: float
    behaviour: Behaviour
    tuning: Tuning
    exits_at: float | None = None
    exit_reason: str = "exited"
    stopped_at: float | None = None  # SIGSTOP
    resumes_at: float | None = None
    retired_at: float | None = None
    retire_reason: str = ""


@dataclass
class World:
    """What there is: processes, logs and the memory of numbers given. ``capacity``: replicas that fit, all together."""

    clock: Callable[[], float] = time.time
    capacity: int | None = None
    seed: int = 0
    behaviour: Callable[[Variant], Behaviour] = lambda variant: Behaviour()
    processes: dict[str, _Process] = field(default_factory=dict)
    lines: list[LogLine] = field(default_factory=list)
    services: dict[Key, Service] = field(default_factory=dict)
    scaled: dict[Key, dict[str, int]] = field(default_factory=dict)  # by variant, where somebody else sets replicas
    count: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)


class MemoryPlatform:
    name = "memory"

    def __init__(
        self,
        world: World | None = None,
        settings: Settings | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.world = world or World()
        self.settings = settings or Settings()
        self._sleep = sleep

    async def start(self) -> None:
        return None

    async def close(self) -> None:
        return None

    async def apply(self, service: Service) -> list[Step]:
        self.world.services[service.key] = service
        steps = plan(service, self.observe(), self.room, self.world.clock(), self.settings.local)
        for step in steps:
            match step:
                case Start():
                    self._start(step, service)
                case Forget():
                    self.world.processes.pop(step.replica, None)
                case Retire():
                    self._retire(self.world.processes[step.replica], step.reason)
                case Tune():
                    self.world.processes[step.replica].tuning = step.tuning
        return steps

    async def remove(self, key: Key) -> None:
        self.world.services.pop(key, None)
        for process in list(self.world.processes.values()):
            if process.start.service == key:
                self._retire(process, "removed")
        while any(r.service == key and not r.gone for r in self.observe()):
            await self._sleep(0.01)
        for replica in self.observe():
            if replica.service == key:
                del self.world.processes[replica.id]

    def observe(self) -> list[Replica]:
        now = self.world.clock()
        seen = []
        for process in list(self.world.processes.values()):
            if process.retired_at is not None and now >= min(
                process.retired_at + process.behaviour.drain, process.exits_at or float("inf")
            ):
                del self.world.processes[process.id]
            else:
                seen.append(self._replica(process, now))
        return sorted(seen, key=lambda r: (r.service, r.variant, r.id))

    def held(self) -> dict[tuple[Key, str], int]:
        return {}

    async def asked(self) -> dict[tuple[Key, str], tuple[int, int]] | None:
        return {}

    def room(self, variant: Variant) -> int | None:
        if self.world.capacity is None:
            return None
        return max(0, self.world.capacity - sum(not r.gone for r in self.observe()))

    def scaled(self, service: Service) -> dict[str, int]:
        return dict(self.world.scaled.get(service.key, {}))

    def logs(self, replica: str, since: float = 0.0, limit: int = 1000) -> list[LogLine]:
        lines = [line for line in self.world.lines if line.replica == replica]
        if not lines:
            raise NotFound(f"replica {replica!r} was never seen", hint="leptonai status lists replicas")
        recent = [line for line in lines if line.at >= since]
        return recent[-limit:] if limit > 0 else []

    def url(self, key: Key) -> str:
        return f"memory://{key}"

    def describe(self) -> dict[str, Any]:
        return {
            "gateway": {"url": "memory://", "admin": "", "pid": None, "healthy": True},
            "isolation": {"active": False, "reason": "replicas are simulated", "limits": False},
            "services": sorted({r.service for r in self.observe()}),
        }

    async def inject(self, fault: Fault) -> str:
        process = self.world.processes.get(fault.replica)
        now = self.world.clock()
        if process is None or self._replica(process, now).gone:
            raise PlatformError(f"replica {fault.replica!r} does not run", hint="leptonai status lists replicas")
        match fault.kind:
            case "kill":
                process.exits_at, process.exit_reason = now, "killed"
            case "stop":
                process.stopped_at, process.resumes_at = now, now + fault.heal_after
            case _:
                raise PlatformError(
                    f"fault {fault.kind!r} cannot be simulated", hint="the memory platform knows kill and stop"
                )
        return f"{fault.kind}:{fault.replica}"

    async def heal(self, fault_id: str) -> None:
        kind, _, replica = fault_id.partition(":")
        process = self.world.processes.get(replica)
        if kind == "stop" and process is not None:
            process.stopped_at = process.resumes_at = None

    def snapshot(self) -> Snapshot:
        """The gateway's files as the local platform would write them now."""
        services = list(self.world.services.values())
        return routes(services, self.observe(), self.settings.gateway, folder="/memory")

    def _start(self, step: Start, service: Service) -> None:
        world, now = self.world, self.world.clock()
        variant = service.variant(step.variant, step.digest)
        if self.room(variant) == 0:
            raise CapacityError(
                f"{service.key} needs a place and all {world.capacity} are taken",
                hint="scale another service down, or wait for what is stopping",
            )
        world.count += 1
        behaviour = world.behaviour(variant)
        delay = behaviour.start_delay + behaviour.jitter * world.random.random()
        process = _Process(
            id=f"{service.key.replace('/', '.')}-{step.variant}-{world.count:04d}",
            start=step,
            pid=world.count,
            began=now,
            ready_at=now + delay,
            behaviour=behaviour,
            tuning=Tuning.of(service.spec, variant),
            exits_at=None if behaviour.exit_after is None else now + behaviour.exit_after,
        )
        world.processes[process.id] = process
        self._log(process, f"started {step.variant} {step.digest} attempt {step.attempt}")

    def _retire(self, process: _Process, reason: str) -> None:
        if process.retired_at is None:
            process.retired_at, process.retire_reason = self.world.clock(), reason
            self._log(process, f"told to stop: {reason}")

    def _log(self, process: _Process, text: str) -> None:
        self.world.lines.append(LogLine(at=self.world.clock(), replica=process.id, text=text))

    def _replica(self, process: _Process, now: float) -> Replica:
        """What a look at the process shows at ``now``."""
        attempt, local = process.start.attempt, self.settings.local
        if process.resumes_at is not None and now >= process.resumes_at:
            process.stopped_at = process.resumes_at = None
        if process.exits_at is not None and now >= process.exits_at:
            if process.exits_at - process.ready_at >= local.stable_after:
                attempt = 0
            detail = "killed by SIGKILL" if process.exit_reason == "killed" else "ended with exit code 1"
            shown = ("failed", process.exit_reason, detail, process.exits_at)
        elif process.retired_at is not None:
            shown = ("stopping", process.retire_reason, "", process.retired_at)
        elif process.stopped_at is not None and now >= process.stopped_at + local.hung_after:
            since = process.stopped_at + local.hung_after
            shown = ("failed", "hung", f"no answer for {local.hung_after:g} s", since)
        elif now >= process.ready_at:
            shown = ("ready", "", "", process.ready_at)
        else:
            shown = ("starting", "loading", "", process.began)
        state, reason, detail, since = shown
        return Replica(
            id=process.id,
            service=process.start.service,
            variant=process.start.variant,
            digest=process.start.digest,
            epoch=process.start.epoch,
            state=state,  # type: ignore[arg-type]
            reason=reason,
            detail=detail,
            since=since,
            started=process.began,
            address=f"unix:/memory/{process.id}",
            pid=None if state == "failed" and reason != "hung" else process.pid,
            attempt=attempt,
            tuning=process.tuning,
        )
