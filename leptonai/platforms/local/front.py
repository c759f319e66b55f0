"""What users reach, before whatever replicas there are: one Envoy, the edge behind it, and the wishes they route."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from leptonai.errors import LeptonError, PlatformError
from leptonai.plan import Memo, Snapshot, linger, routes
from leptonai.platforms.local.asked import variants
from leptonai.platforms.local.edge import Edge
from leptonai.platforms.local.envoy import Gateway
from leptonai.platforms.local.rundir import write_atomically
from leptonai.protocols import Record
from leptonai.settings import Gateway as GatewaySettings
from leptonai.types import DEFAULT_WORKSPACE, Key, Replica, Service, parse_key


class Front:
    """Level, not edge: a push brings Envoy to the wishes and replicas of now. ``control``: see LocalPlatform."""

    def __init__(
        self,
        home: Path,
        settings: GatewaySettings,
        record: Record,
        observe: Callable[[], list[Replica]],
        woken: Callable[[Key], None],
    ) -> None:
        self.control = ""
        self.services: dict[Key, Service] = {}
        self.gateway: Gateway | None = None
        self._home, self._settings, self._record = home, settings, record
        self._observe, self._woken = observe, woken
        self._wishes = home / "envoy" / "services.json"
        self._unremembered = False  # wishes were applied that are not on disk yet
        self._pushing = asyncio.Lock()
        self._changed = asyncio.Event()
        self._edge: Edge | None = None
        self._memo: Memo = {}
        self._left: dict[str, float] = {}  # clusters that no route names any more: loop time until which they stay
        self._due: asyncio.TimerHandle | None = None

    def recall(self) -> None:
        """The wishes that an earlier platform routed are known."""
        with contextlib.suppress(FileNotFoundError, msgspec.DecodeError, msgspec.ValidationError):
            known = msgspec.json.decode(self._wishes.read_bytes(), type=list[Service])
            self.services = {s.key: s for s in known}

    async def start(self, runtime: Path) -> None:
        """Gateway and edge run, adopted or started; sockets are in ``runtime``.

        StartError when the port is taken or Envoy does not come up; nothing of a refused start is left running.
        """
        logs = self._home / "logs"
        gateway = Gateway(self._home / "envoy", runtime, logs / "envoy.log", self._settings, self._record)
        self.gateway = gateway
        self._edge = Edge(gateway.folder, runtime, logs / "edge.log", self._record, self._woken)
        fresh = self._edge.start()
        gateway.prepare()
        await self._edge.answering()  # else the first requests that nobody can answer find nobody to hold them
        try:
            await gateway.start(self._lingering())
        except LeptonError:
            if fresh:  # what was adopted may still hold requests
                await self._edge.stop()
            raise

    def close(self) -> None:
        """Let go: both keep running, to be adopted."""
        if self._due:
            self._due.cancel()
        if self._edge:
            self._edge.close()
            self._edge.release()
        if self.gateway:
            self.gateway.close()

    async def stop(self, patient: bool = False) -> None:
        """Neither runs any more. ``patient``: see ``Gateway.stop``."""
        if self.gateway:
            await self.gateway.stop(patient)
        if self._edge:
            await self._edge.stop()

    # --- what is routed ----------------------------------------------------------------------------------------------

    def wish(self, service: Service) -> None:
        """``service`` is routed as it says from the next push on."""
        if self.services.get(service.key) != service:
            self.services[service.key] = service
            self._unremembered = True
            self._changed.set()

    def drop(self, key: Key) -> None:
        if self.services.pop(key, None) is not None:
            self._unremembered = True
            self._changed.set()

    def changed(self) -> None:
        """Replicas became ready, hung, or ended: the gateway hears of it at once."""
        self._changed.set()
        if self._pushing.locked() and self.gateway is not None:
            self.gateway.hasten(self._snapshot())

    def later(self) -> None:
        """As ``changed``, without haste."""
        self._changed.set()

    async def push(self) -> bool:
        """Envoy has what is wished and seen now; whether it took it."""
        if self.gateway is None:
            return True
        async with self._pushing:
            self._changed.clear()
            if self._unremembered:  # once for all that changed together
                self._unremembered = False
                self._remember_wishes()
            return await self.gateway.push(self._lingering())

    async def push_when_changed(self) -> None:
        while True:
            await self._changed.wait()
            if not await self.push():
                await asyncio.sleep(self._settings.respawn)
                self._changed.set()

    async def tick(self) -> None:
        """Look after both: called every ``local.probe_interval``."""
        await self.the_gateway.check()
        if self._edge:
            self._edge.tick()

    # --- what is seen ------------------------------------------------------------------------------------------------

    @property
    def the_gateway(self) -> Gateway:
        if self.gateway is None:
            raise PlatformError("the platform has not been started", hint="leptonai up")
        return self.gateway

    @property
    def held(self) -> dict[tuple[Key, str], int]:
        return dict(self._edge.held) if self._edge else {}

    async def asked(self) -> dict[tuple[Key, str], tuple[int, int]] | None:
        """As ``Platform.asked``."""
        counts = await self.the_gateway.asked()
        return None if counts is None else variants(self.services.values(), counts)

    def url(self, key: Key) -> str:
        return self.the_gateway.url + path(key)

    @property
    def started(self) -> bool:
        return self.gateway is not None

    def describe(self) -> dict[str, Any]:
        """``edge``, ``gateway`` and ``services`` of ``Platform.describe``."""
        gateway, edge = self.the_gateway, self._edge
        return {
            "edge": {"socket": str(edge.own), "pid": edge.pid} if edge else {},
            "gateway": {
                "url": gateway.url,
                "admin": str(gateway.admin),
                "pid": gateway.pid,
                "healthy": gateway.healthy,
                "trouble": gateway.trouble,
            },
            "services": sorted(self.services),
        }

    def _lingering(self) -> Snapshot:
        """As ``_snapshot``, with the clusters that are to stay a while yet; their last moment is a change."""
        loop = asyncio.get_running_loop()
        gateway, snapshot = self.the_gateway, self._snapshot()
        snapshot, self._left = linger(gateway.written, snapshot, self._left, loop.time(), gateway.watches)
        if self._due:
            self._due.cancel()
        self._due = loop.call_at(min(self._left.values()), self._changed.set) if self._left else None
        return snapshot

    def _snapshot(self) -> Snapshot:
        gateway = self.the_gateway
        edge = str(self._edge.sockets) if self._edge else ""
        return routes(
            list(self.services.values()), self._observe(), gateway.settings, folder=str(gateway.folder),
            control=self.control, edge=edge, watches=gateway.watches, memo=self._memo,
        )  # fmt: skip

    def _remember_wishes(self) -> None:
        """So that a fresh platform's first push routes all that this one did, not only what it was asked for yet."""
        with contextlib.suppress(OSError):
            self._wishes.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._wishes, msgspec.json.encode(list(self.services.values())))


def path(key: Key) -> str:
    """Of a service below a gateway's address."""
    workspace, name = parse_key(key)
    prefix = "" if workspace == DEFAULT_WORKSPACE else f"/workspaces/{workspace}"
    return f"{prefix}/services/{name}"
