"""The gateway in a pod of its own: routes by the wishes and pods that the cluster tells of, whoever leads, or nobody.

It reads and changes nothing. What it saw last is kept in its home, so that a container that is started again while the
API server is away goes on with that; Envoy's own health checks find who of them still answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from leptonai.errors import LeptonError
from leptonai.plan.render.gate import CHOSEN
from leptonai.plan.render.names import MANAGER, OWN, account_name
from leptonai.plan.render.wish import LABEL, read
from leptonai.plan.share import share
from leptonai.platforms.kubernetes import pods
from leptonai.platforms.kubernetes.cluster import Cluster, Of, together
from leptonai.platforms.kubernetes.doubt import Doubts
from leptonai.platforms.kubernetes.mirror import Mirror
from leptonai.platforms.local.front import Front
from leptonai.platforms.local.rundir import make_runtime_folder, write_atomically
from leptonai.protocols import Record
from leptonai.settings import Settings
from leptonai.types import Key, Replica, Service

Json = dict[str, Any]

log = logging.getLogger("leptonai.gateway")
AGAIN = 1.0  # seconds until a cluster that did not answer is asked again, before anything was seen
CONTROL_EVERY = 30.0  # seconds between two looks where control answers; its Service keeps its address while it lives
MINE = f"app.kubernetes.io/managed-by={MANAGER}"


class Gate:
    """``front`` follows the namespace from ``start`` on."""

    def __init__(
        self,
        home: Path,
        settings: Settings,
        record: Record,
        control: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``control``: name of the Service behind which the control API is; "": nothing is led there."""
        self.home, self.settings = home.resolve(), settings
        self.front = Front(self.home, settings.gateway, record, self.observe, lambda key: None)
        self._control, self._clock = control, clock
        wanted = settings.kubernetes
        self._cluster = cluster = Cluster(wanted.context, wanted.namespace)
        self._pods = Mirror(cluster, Of("v1", "Pod", f"{MINE},{OWN}/service"), wanted.resync, self._pod_changed)
        self._wishes = Mirror(cluster, Of("v1", "ConfigMap", f"{MINE},{LABEL}"), wanted.resync, self._wish_changed)
        gateways = Of("v1", "Pod", ",".join(f"{name}={value}" for name, value in CHOSEN.items()))
        self._gates = Mirror(cluster, gateways, wanted.resync, self._gate_changed)
        self._wished: dict[Key, Service] = {}  # as stated for all gateways together
        self._replicas: dict[str, Replica] = {}
        self._doubts = Doubts()
        self._memory = self.home / "replicas.json"
        self._remembered: list[Replica] = []
        self._named: dict[str, Key] = {}  # whose wish a ConfigMap is, by its name: one may become unreadable
        self._tasks: set[asyncio.Task[None]] = set()
        self._broken = asyncio.Event()

    async def start(self) -> None:
        """Users are answered, by what the cluster says now or, while it says nothing, by what was seen last.

        Waits for the cluster where nothing was ever seen. StartError when the gateway does not come up.
        """
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._recall()
        while True:
            try:
                await together([self._gates.relist(), self._wishes.relist(), self._pods.relist(), self._find_control()])
                break
            except LeptonError as e:
                log.warning("the cluster tells nothing: %s", e)
                if self._memory.exists():
                    log.warning("going on with what was seen last: %d replicas", len(self._remembered))
                    break
                await asyncio.sleep(AGAIN)
        await self.front.start(make_runtime_folder(self.home))
        for work in (
            self._gates.run(), self._wishes.run(), self._pods.run(),
            self._forget(), self._follow_control(), self._doubts.run(self._say),
            self.front.push_when_changed(), self._tick(),
        ):  # fmt: skip
            self._go(work)

    async def broken(self) -> None:
        """Until a part of it has ended by an error, which the log tells: what it routes is no longer followed."""
        await self._broken.wait()

    async def stop(self) -> None:
        """Nothing of it runs: users were told to connect anew, and what they had asked was answered."""
        await self.front.stop(patient=True)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._cluster.close()

    def observe(self) -> list[Replica]:
        """As ``Platform.observe``, as far as routing needs it; until pods were listed, those seen last."""
        if not self._pods.listed.is_set():
            return self._remembered
        seen = [self._doubts.judged(r) for r in self._replicas.values()]
        return sorted(seen, key=lambda r: (r.service, r.variant, r.id))

    @property
    def trouble(self) -> str:
        """Why what is routed may be out of date; "" while it is not."""
        return self._pods.trouble or self._wishes.trouble or self.front.the_gateway.trouble

    # --- what is seen ------------------------------------------------------------------------------------------------

    def _wish_changed(self, before: Json | None, after: Json | None) -> None:
        try:
            if after is not None:
                service = read(after)
                self._named[account_name(service.key)] = service.key
                self._wished[service.key] = service
                self.front.wish(share(service, self._sharing()))
            elif before is not None and (key := self._named.pop(before["metadata"]["name"], None)) is not None:
                self._wished.pop(key, None)
                self.front.drop(key)
        except LeptonError as e:  # of a newer platform: what is routed stays as it is
            log.error("%s", e)

    def _gate_changed(self, before: Json | None, after: Json | None) -> None:
        gateways = self._sharing()
        for service in self._wished.values():
            self.front.wish(share(service, gateways))

    def _sharing(self) -> int:
        """How many gateways users are led to."""
        here = self._gates.objects.values()
        return sum(pods.said_ready(pod) and not pod["metadata"].get("deletionTimestamp") for pod in here)

    def _pod_changed(self, before: Json | None, after: Json | None) -> None:
        if after is None or pods.over(after):
            name = str((after or before or {})["metadata"]["name"])
            self._replicas.pop(name, None)
            self._doubts.forget(name)
        else:
            replica = pods.replica(after, self.settings.local.stable_after, self._clock())
            self._replicas[replica.id] = replica
            self._doubts.saw(after, replica)
        self.front.changed()

    async def _forget(self) -> None:
        """Once wishes are listed: what is routed from memory and is no longer wished goes."""
        await self._wishes.listed.wait()
        for name in self._named.keys() - self._wishes.objects.keys():
            self.front.drop(self._named.pop(name))

    async def _find_control(self) -> None:
        """Asked of the API server, for which no name service is needed."""
        if not self._control:
            return
        try:
            spec = (await self._cluster.get("v1", "Service", self._control) or {}).get("spec") or {}
        except LeptonError as e:
            log.warning("where control answers is not known: %s", e)
            return
        ports = {p.get("name"): p["port"] for p in spec.get("ports") or []}
        address, port = spec.get("clusterIP"), ports.get("api")
        found = f"{address}:{port}" if port and address not in (None, "", "None") else ""
        if found != self.front.control:
            self.front.control = found
            self.front.later()

    async def _follow_control(self) -> None:
        while self._control:
            await asyncio.sleep(CONTROL_EVERY)
            await self._find_control()

    async def _tick(self) -> None:
        serving: list[Replica] = []
        while True:
            await self.front.tick()
            now = [r for r in self.observe() if r.state == "ready"]
            if now != serving:
                serving = now
                self.front.changed()
                self._remember(now)
            await asyncio.sleep(self.settings.local.probe_interval)

    def _say(self) -> None:
        self.front.changed()

    # --- what is kept ------------------------------------------------------------------------------------------------

    def _recall(self) -> None:
        self.front.recall()
        self._named = {account_name(key): key for key in self.front.services}
        with contextlib.suppress(OSError, msgspec.DecodeError, msgspec.ValidationError):
            self._remembered = msgspec.json.decode(self._memory.read_bytes(), type=list[Replica])

    def _remember(self, ready: list[Replica]) -> None:
        if not self._pods.listed.is_set():
            return
        with contextlib.suppress(OSError):
            write_atomically(self._memory, msgspec.json.encode([replace(r, tuning=None, cost=None) for r in ready]))

    def _go(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (why := task.exception()) is not None:
            log.error("a part of the gateway ended: %r", why, exc_info=why)
            self._broken.set()
