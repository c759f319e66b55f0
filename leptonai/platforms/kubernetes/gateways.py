"""The gateway's pods, as control sees them: what they hold, what they were asked, whether they follow.

In the place of ``Front`` where the gateway is not beside us. Nothing is pushed: they read wishes and pods from the
cluster themselves (``gate``), so that none of them needs us.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import orjson

from leptonai.errors import LeptonError
from leptonai.plan.access import FILE
from leptonai.plan.render.gate import CHOSEN, NAME, PAGES
from leptonai.plan.render.wish import read
from leptonai.platforms.kubernetes.cluster import Cluster, Of
from leptonai.platforms.kubernetes.mirror import Mirror
from leptonai.platforms.kubernetes.pods import said_ready
from leptonai.platforms.local.asked import ASKED, Count, clusters, variants
from leptonai.platforms.local.front import path
from leptonai.platforms.local.held import Held
from leptonai.platforms.local.logs import rotate
from leptonai.platforms.local.probe import Unanswered, UnixClient
from leptonai.platforms.local.rundir import write_atomically
from leptonai.settings import Settings
from leptonai.types import Key, Service

Json = dict[str, Any]

_PERIOD = 1.0  # seconds between two looks at one
_TIMEOUT = 2.0
_ACCESS_BYTES = 32 << 20  # of lines for traces, as a gateway beside us keeps
_NONE_FOR = 30.0  # seconds without one that is ready until that is a trouble: all of them may be new


class Gateways:
    """``services``: what is wished, as far as this copy of the platform knows."""

    def __init__(self, home: Path, settings: Settings, woken: Callable[[Key], None]) -> None:
        self.services: dict[Key, Service] = {}
        self.control = ""
        self.started = False
        self._settings, self._woken = settings, woken
        self._access, self._note = home / "envoy" / FILE, home / "edge.json"
        self._secret = ""
        self._wishes: Mirror | None = None
        self._pods: Mirror | None = None
        self._followed: dict[str, _Followed] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready_at = 0.0  # loop time at which one was ready last

    def join(self, cluster: Cluster, secret: str, wishes: Mirror) -> None:
        """Whose gateways these are. ``wishes``: ConfigMaps, mirrored by whoever calls; listed before ``recall``."""
        self._secret, self._wishes = secret, wishes
        chosen = Of("v1", "Pod", ",".join(f"{name}={value}" for name, value in CHOSEN.items()))
        self._pods = Mirror(cluster, chosen, self._settings.kubernetes.resync, self._changed)

    def recall(self) -> None:
        """The wishes that an earlier copy left in the cluster are known."""
        for obj in self._wishes.objects.values() if self._wishes else ():
            with contextlib.suppress(LeptonError):
                service = read(obj)
                self.services.setdefault(service.key, service)

    async def start(self, runtime: Path) -> None:
        """Every gateway is followed; there need be none yet."""
        if self._pods is None:
            return
        self._access.parent.mkdir(parents=True, exist_ok=True)
        self.started, self._ready_at = True, asyncio.get_running_loop().time()
        await self._pods.relist()
        self._tell()
        task = asyncio.create_task(self._pods.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for one in self._followed.values():
            one.close()

    async def stop(self) -> None:
        """They are followed no more. They stay: who applied them removes them."""
        self.close()
        self._note.unlink(missing_ok=True)

    # --- what is routed: they read it themselves ---------------------------------------------------------------------

    def wish(self, service: Service) -> None:
        self.services[service.key] = service

    def drop(self, key: Key) -> None:
        self.services.pop(key, None)

    def changed(self) -> None: ...

    async def push_when_changed(self) -> None:
        await asyncio.Event().wait()

    async def tick(self) -> None:
        if any(one.ready for one in self._followed.values()):
            self._ready_at = asyncio.get_running_loop().time()
        with contextlib.suppress(OSError):
            rotate(self._access, _ACCESS_BYTES, 1)

    # --- what is seen ------------------------------------------------------------------------------------------------

    @property
    def held(self) -> dict[tuple[Key, str], int]:
        found: dict[tuple[Key, str], int] = {}
        for one in self._followed.values():
            for at, count in one.held.items():
                found[at] = found.get(at, 0) + count
        return found

    async def asked(self) -> dict[tuple[Key, str], Count] | None:
        """As ``Platform.asked``; None while one that is ready does not say, for it may be the one that is asked."""
        here = list(self._followed.values())
        counts = await asyncio.gather(*(one.asked() for one in here))
        if not here or any(one.ready and count is None for one, count in zip(here, counts, strict=True)):
            return None
        total: dict[str, Count] = {}
        for count in counts:
            for cluster, (so_far, active) in (count or {}).items():
                before = total.get(cluster, (0, 0))
                total[cluster] = before[0] + so_far, before[1] + active
        return variants(self.services.values(), total)

    @property
    def address(self) -> str:
        public = self._settings.gateway.public.rstrip("/")
        return public or f"http://{NAME}.{self._settings.kubernetes.namespace or 'default'}"

    def url(self, key: Key) -> str:
        return self.address + path(key)

    def describe(self) -> dict[str, Any]:
        """As of ``Front``; ``gateway.pages`` are where each of them is asked for its counters."""
        ready = [name for name, one in self._followed.items() if one.ready]
        troubles = [f"{name}: {one.trouble}" for name, one in sorted(self._followed.items()) if one.trouble]
        since = asyncio.get_running_loop().time() - self._ready_at if self.started else 0.0
        if not ready and since > _NONE_FOR:
            seen = f"{len(self._followed)} pods, none of them ready" if self._followed else "there is no pod of it"
            troubles = [f"no gateway serves for {since:.0f} s: {seen} (Deployment/{NAME})"]
        return {
            "edge": {},
            "gateway": {
                "url": self.address,
                "admin": "",
                "pages": self._addresses(),
                "pid": None,
                "healthy": bool(ready),
                "trouble": "; ".join(troubles),
            },
            "services": sorted(self.services),
        }

    # --- who there is ------------------------------------------------------------------------------------------------

    def _changed(self, before: Json | None, after: Json | None) -> None:
        pod = after or before
        assert pod is not None
        name, status = str(pod["metadata"]["name"]), pod.get("status") or {}
        gone = after is None or status.get("phase") in ("Failed", "Succeeded")
        address = "" if gone or not status.get("podIP") else f"{status['podIP']}:{PAGES}"
        known = self._followed.get(name)
        if known is not None and known.address != address:
            self._followed.pop(name).close()
            known = None
        if known is None and address:
            known = self._followed[name] = _Followed(address, self._secret, self._access, self._woken)
        if known is not None:
            known.ready = said_ready(pod)
        self._tell()

    def _addresses(self) -> list[str]:
        return sorted(one.address for one in self._followed.values())

    def _tell(self) -> None:
        """Where ops asks what they hold."""
        with contextlib.suppress(OSError):
            write_atomically(self._note, msgspec.json.encode({"sockets": self._addresses()}))


class _Followed:
    """One gateway: ``held`` as it says at once, its requests for traces each second in our own file."""

    def __init__(self, address: str, secret: str, access: Path, woken: Callable[[Key], None]) -> None:
        self.address = address
        self.ready = False  # as the cluster says
        self.trouble = ""
        self._access, self._holding = access, Held(woken)
        self._head = f"authorization: Bearer {secret}"
        self._place = ""
        self._counts = UnixClient(address)
        self._tasks = [asyncio.create_task(self._holding.follow(address, _PERIOD)), asyncio.create_task(self._look())]

    @property
    def held(self) -> dict[tuple[Key, str], int]:
        """As ``Held.counts``."""
        return self._holding.counts

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._counts.close()

    async def asked(self) -> dict[str, Count] | None:
        """By cluster; None: it does not say."""
        try:
            answer = await self._counts.request("GET", ASKED, _TIMEOUT)
            return clusters(answer.body.decode()) if answer.status == 200 else None
        except (Unanswered, ValueError):
            return None

    async def _look(self) -> None:
        client = UnixClient(self.address, self._head)
        try:
            while True:
                try:
                    state = await client.request("GET", "/-/ready", _TIMEOUT)
                    self.trouble = str(orjson.loads(state.body).get("trouble", "")) if state.status == 200 else ""
                    while await self._fetch(client):
                        pass
                except (Unanswered, ValueError, OSError):  # being started, ended, or no room for lines here
                    self.trouble = ""
                await asyncio.sleep(_PERIOD)
        finally:
            client.close()

    async def _fetch(self, client: UnixClient) -> bool:
        """Take over its lines since; whether there may be more."""
        answer = await client.request("GET", f"/access?after={self._place}", _TIMEOUT)
        if answer.status != 200:
            return False
        head, _, lines = answer.body.partition(b"\n")
        self._place = str(orjson.loads(head)["place"])
        if lines:
            file = os.open(self._access, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(file, lines)
            finally:
                os.close(file)
        return bool(lines)
