"""LocalPlatform: replicas as processes on this machine, Envoy in front of them. ``plan`` decides the steps."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil

from leptonai.errors import LeptonError, NotFound, PlatformError
from leptonai.plan import plan
from leptonai.platforms.local import cgroup, inject, isolate, start
from leptonai.platforms.local.front import Front
from leptonai.platforms.local.health import hung_or_stopped
from leptonai.platforms.local.logs import Log
from leptonai.platforms.local.process import Process
from leptonai.platforms.local.replica import LocalReplica
from leptonai.platforms.local.rundir import RunDir, make_runtime_folder
from leptonai.protocols import Record, unheard
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
    Variant,
)

_OLD_LOGS = 50  # logs of crashed replicas kept for ``logs``, the newest


def _never_failing(record: Record) -> Record:
    """An audit log that cannot be written must not stop serving."""

    def tell(kind: str, subject: str, detail: dict[str, Any]) -> None:
        with contextlib.suppress(LeptonError, OSError):
            record(kind, subject, detail)

    return tell


class LocalPlatform:
    """The Platform of one machine, over one home folder. One at a time per home: the caller holds its lock."""

    name = "local"

    def __init__(
        self,
        home: Path,
        settings: Settings,
        artifacts: start.Artifacts,
        clock: Callable[[], float] = time.time,
        record: Record = unheard,
        control: str = "",
        woken: Callable[[Key], None] = lambda key: None,
    ) -> None:
        """``control``: address of the control API behind the gateway's ``/feedback``; may be set until ``start``.

        ``woken`` is called with the key of a service when requests begin to be held for it at the edge: see ``held``.
        """
        self.home = home.resolve()
        self.settings = settings
        self._artifacts, self._clock, self._record = artifacts, clock, _never_failing(record)
        self._run = self.home / "run"
        self._old_logs = self.home / "logs" / "replicas"
        self._replicas: dict[str, LocalReplica] = {}
        self._locks: defaultdict[Key, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._tasks: set[asyncio.Task[None]] = set()
        self._drains: dict[str, asyncio.Task[None]] = {}
        self._faults: dict[str, inject.Injected] = {}
        self._refusal = self._limits = ""
        self._ground = start.Ground(self.home, Path(), "", False, settings.gateway.max_body)
        self._front = Front(self.home, settings.gateway, self._record, self.observe, woken)
        self._front.control = control
        self._closed = False

    # --- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Adopt replicas and gateway, or start a gateway.

        StartError when the port is taken or Envoy does not come up; replicas have been adopted by then, so that
        ``shutdown`` can still end them and ``close`` let go of them.
        """
        self._run.mkdir(parents=True, exist_ok=True)
        runtime = make_runtime_folder(self.home)
        self._refusal = await asyncio.to_thread(self._try_walls)
        self._ground = self._ground._replace(runtime=runtime, label=runtime.name, isolated=not self._refusal)
        self._limits = "memory watched, processors not limited" if self._refusal else cgroup.how(runtime.name)
        if self._refusal and self.settings.local.isolate:
            self._record("platform.not_isolated", "platform", {"reason": self._refusal})
        self._front.recall()
        await self._adopt()
        await self._front.start(runtime)
        self._keep_going(self._front.push_when_changed)
        self._keep_going(self._tick_for_ever)
        for replica in self._replicas.values():
            if replica.health.state == "stopping":
                self._drains[replica.id] = self._spawn_task(self._drain(replica))

    async def close(self) -> None:
        """Let go: replicas and the gateway keep running, to be adopted."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for replica in self._replicas.values():
            replica.release()
        self._front.close()

    async def shutdown(self) -> None:
        """Drain and stop everything; no process, socket, control group or mount of ours is left."""
        keys = {r.record.service for r in self._replicas.values()} | set(self._front.services)
        await asyncio.gather(*(self.remove(key) for key in keys))
        await self._front.stop()
        await self.close()
        shutil.rmtree(self._run, ignore_errors=True)
        shutil.rmtree(self._ground.runtime, ignore_errors=True)
        with contextlib.suppress(OSError):  # others' folders may be beside ours
            self._ground.runtime.parent.rmdir()

    # --- the wish ----------------------------------------------------------------------------------------------------

    async def apply(self, service: Service) -> list[Step]:
        async with self._locks[service.key]:
            self._front.wish(service)
            mine = [r.noun() for r in self._replicas.values() if r.record.service == service.key]
            steps = plan(service, mine, self.room, self._clock(), self.settings.local)
            for step in steps:
                match step:
                    case Start():
                        await self._start(service, step)
                    case Retire():
                        self._retire(self._replicas[step.replica], step.reason)
                    case Forget():
                        self._forget(self._replicas[step.replica])
                    case Tune():
                        await self._replicas[step.replica].tune(step.tuning)
            return steps

    async def remove(self, key: Key) -> None:
        async with self._locks[key]:
            self._front.drop(key)
            mine = [r for r in self._replicas.values() if r.record.service == key]
            for replica in mine:
                if replica.gone:
                    self._forget(replica)
                else:
                    self._retire(replica, "removed")
            await asyncio.gather(*(self._drains[r.id] for r in mine if r.id in self._drains))

    def observe(self) -> list[Replica]:
        return sorted((r.noun() for r in self._replicas.values()), key=lambda r: (r.service, r.variant, r.id))

    def room(self, variant: Variant) -> int | None:
        """From what this machine has and what live replicas declared; replicas that declare nothing count nothing."""
        wants = variant.resources
        live = [r.record.resources for r in self._replicas.values() if not r.gone]
        left: list[float] = []
        if wants.cpu:
            left.append((len(os.sched_getaffinity(0)) - sum(r.cpu or 0.0 for r in live)) / wants.cpu)
        if wants.memory:
            left.append((psutil.virtual_memory().total - sum(r.memory or 0 for r in live)) / wants.memory)
        if wants.gpu:
            gpus = Path("/proc/driver/nvidia/gpus")
            left.append(((len(list(gpus.iterdir())) if gpus.is_dir() else 0) - sum(r.gpu for r in live)) / wants.gpu)
        return max(0, int(min(left) + 1e-9)) if left else None

    def scaled(self, service: Service) -> dict[str, int]:
        return {}

    def logs(self, replica: str, since: float = 0.0, limit: int = 1000) -> list[LogLine]:
        if found := self._replicas.get(replica):
            return found.log.lines(replica, since, limit)
        old = self._old_logs / f"{replica}.log"
        if "/" in replica or not old.is_file():
            raise NotFound(f"replica {replica!r} was never seen, or long ago", hint="leptonai status lists replicas")
        return Log(old, old.stat().st_mtime).lines(replica, since, limit)

    def url(self, key: Key) -> str:
        return self._front.url(key)

    def held(self) -> dict[tuple[Key, str], int]:
        return self._front.held

    async def asked(self) -> dict[tuple[Key, str], tuple[int, int]] | None:
        return await self._front.asked()

    def describe(self) -> dict[str, Any]:
        walls = {"active": self._ground.isolated, "reason": self._refusal, "limits": self._limits}
        return self._front.describe() | {"isolation": walls}

    # --- drills ------------------------------------------------------------------------------------------------------

    async def inject(self, fault: Fault) -> str:
        replica = self._replicas.get(fault.replica)
        if replica is None or replica.process is None or not replica.alive:
            raise PlatformError(f"replica {fault.replica!r} does not run", hint="leptonai status lists replicas")
        target = inject.Target(replica.process.pid, replica.process.ticks, replica.record.socket)
        injected = await inject.inject(fault.kind, target, fault.amount, fault.heal_after)
        self._faults[injected.id] = injected
        self._record("fault.injected", fault.replica, {"kind": fault.kind, "id": injected.id})
        return injected.id

    async def heal(self, fault_id: str) -> None:
        injected = self._faults.pop(fault_id, None)
        if injected is None:
            raise NotFound(
                f"no fault {fault_id!r} is known here", hint="it may have healed, or another platform made it"
            )
        await inject.heal(injected)

    # --- steps -------------------------------------------------------------------------------------------------------

    async def _start(self, service: Service, step: Start) -> None:
        """The replica is known from here on, whatever happens: what cannot start is a failed one that says why."""
        variant = service.variant(step.variant, step.digest)
        uid = None
        if self._ground.isolated:
            taken = {r.record.uid: r.record.service for r in self._replicas.values() if r.record.uid is not None}
            uid = isolate.uid_of(service.key, taken)
        record = start.new_record(self._ground, service, variant, step, uid, self._clock())
        folder = RunDir(self._run / record.id)
        replica = LocalReplica(record, folder, self.settings.local, self._clock, self._changed)
        self._replicas[record.id] = replica
        try:
            artifact = self._artifacts.path(variant.model)
            start.prepare(folder, record, service, variant, artifact)
            await asyncio.to_thread(self._artifacts.verify, variant.model)
            if uid is not None:
                await asyncio.to_thread(isolate.interpreter_folders, variant.python or isolate.LAUNCHER[0])
            process, replica.record = start.spawn(self._ground, folder, record, variant, artifact)
        except LeptonError as e:
            reason = e.code if e.code != "start" else "start_failed"
            replica.fail(reason, f"{e.message} ({e.hint})" if e.hint else e.message)
        except (OSError, ValueError) as e:
            replica.fail("start_failed", str(e))
        else:
            replica.hold(process)
            detail = {"service": service.key, "variant": step.variant, "pid": process.pid, "attempt": step.attempt}
            self._record("replica.started", record.id, detail)
            return
        self._changed(replica)

    def _retire(self, replica: LocalReplica, reason: str) -> None:
        if replica.id not in self._drains:
            hopeless = hung_or_stopped(replica.health, replica.process is not None and replica.process.stopped())
            replica.stopping(reason)
            self._record("replica.stopping", replica.id, {"reason": reason})
            self._drains[replica.id] = self._spawn_task(self._drain(replica, hopeless))

    async def _drain(self, replica: LocalReplica, hopeless: bool = False) -> None:
        """Out of rotation, SIGTERM, grace, SIGKILL, and nothing of it is left."""
        await self._front.push()
        process = replica.process
        if process is not None and process.alive:
            # What waits on a hung one is answered by another as soon as its connections break.
            kill_after = 0.0 if hopeless else self.settings.local.kill_after
            process.terminate()
            if not await process.wait(kill_after):
                patience = 0.0 if hopeless or process.stopped() else replica.record.drain
                if not await process.wait(patience):
                    self._record("replica.cut_off", replica.id, {"after": kill_after + patience})
                    process.kill()
                    await process.wait(60.0)
        self._record("replica.retired", replica.id, {"reason": replica.health.reason})
        self._bury(replica)
        self._drains.pop(replica.id, None)

    def _forget(self, replica: LocalReplica) -> None:
        """Drop a replica that is gone; its log stays readable for a while."""
        with contextlib.suppress(OSError):
            self._old_logs.mkdir(parents=True, exist_ok=True)
            if replica.folder.log.exists():
                replica.folder.log.replace(self._old_logs / f"{replica.id}.log")
            for old in sorted(self._old_logs.iterdir(), key=lambda p: p.stat().st_mtime)[:-_OLD_LOGS]:
                old.unlink()
        self._bury(replica)

    def _bury(self, replica: LocalReplica) -> None:
        replica.release()
        cgroup.remove(replica.record.cgroups)
        shutil.rmtree(Path(replica.record.socket).parent, ignore_errors=True)
        replica.folder.remove()
        self._replicas.pop(replica.id, None)
        self._front.later()

    # --- adoption ----------------------------------------------------------------------------------------------------

    def _try_walls(self) -> str:
        if not self.settings.local.isolate:
            return "switched off by settings local.isolate"
        probe = self._run / ".walls"
        probe.mkdir(exist_ok=True)
        try:
            return isolate.refusal(self.home, probe)
        finally:
            shutil.rmtree(probe, ignore_errors=True)

    async def _adopt(self) -> None:
        for path in sorted(p for p in self._run.iterdir() if p.is_dir()):
            folder = RunDir(path)
            record = folder.load()
            if record is None or (record.pid == 0 and record.ended is None):
                folder.remove()  # the platform died before anything was started
                continue
            replica = LocalReplica(record, folder, self.settings.local, self._clock, self._changed)
            self._replicas[record.id] = replica
            process = Process.adopt(record.pid, record.ticks, record.boot) if record.ended is None else None
            if process is not None:
                replica.hold(process)
                if record.stopping:
                    replica.stopping(record.stopping)
            elif record.ended is not None:
                replica.recall(record.ended)
            else:
                replica.lost()
        await asyncio.gather(*(r.first_look() for r in self._replicas.values() if r.health.state == "starting"))
        for replica in self._replicas.values():
            if replica.alive:
                self._record("replica.adopted", replica.id, {"state": replica.health.state})

    # --- the gateway -------------------------------------------------------------------------------------------------

    def _changed(self, replica: LocalReplica) -> None:
        """A replica became ready, hung, or ended: the gateway hears of it at once."""
        self._front.changed()
        health = replica.health
        detail = {"service": replica.record.service, "reason": health.reason, "detail": health.detail}
        # After the turn in which the push has written its files: the audit log waits for the disk, users should not.
        asyncio.get_running_loop().call_soon(self._record, f"replica.{health.state}", replica.id, detail)

    # --- loops -------------------------------------------------------------------------------------------------------

    async def _tick_for_ever(self) -> None:
        while True:
            now = self._clock()
            for replica in list(self._replicas.values()):
                with contextlib.suppress(OSError):  # a full disk stops rotation, not us
                    replica.tick(now)
            await self._front.tick()
            await asyncio.sleep(self.settings.local.probe_interval)

    def _keep_going(self, loop: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """A loop that must not end: what breaks it is an event, and it begins again."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled():
                self._record(
                    "platform.loop_failed", "platform", {"loop": loop.__name__, "error": repr(task.exception())}
                )
                asyncio.get_running_loop().call_later(1.0, self._keep_going, loop)

        if not self._closed:
            self._spawn_task(loop()).add_done_callback(ended)

    def _spawn_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
