"""To zero and back: services with ``scale.idle`` go to zero when nobody asks, and start when somebody does.

What they ask for goes through the one door, as the scaler's proposals; the wish stays the only source.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from leptonai.errors import LeptonError
from leptonai.protocols import Platform
from leptonai.types import DialChange, Key, Service

log = logging.getLogger(__name__)

Asked = Mapping[tuple[Key, str], tuple[int, int]]  # (service, variant) -> requests so far, requests under way
Held = Mapping[tuple[Key, str], int]
Propose = Callable[[DialChange, str], bool]  # (change, why): whether it was admitted
DENIED = 5.0  # seconds until a refused proposal is made again


class Wanted(NamedTuple):
    change: DialChange
    why: str


def wake(service: Service, held: Held) -> Wanted | None:
    """What starts a service at zero for which requests wait: as many replicas as it begins with, one at least. Pure.

    Also of a service with ``scale.auto`` that its policy let go to zero.
    """
    if not _sleeps(service):
        return None
    waiting = {v: n for (key, v), n in held.items() if key == service.key}
    asleep = {
        v: n for v, n in waiting.items() if v in service.dials.variants and not service.dials.variants[v].replicas
    }
    if not asleep:
        return None
    first = min(max(1, service.spec.scale.replicas), service.spec.scale.max)
    change = DialChange(service=service.key, set={f"{v}.replicas": float(first) for v in asleep})
    return Wanted(change, f"{sum(asleep.values())} requests wait for a first replica")


def _sleeps(service: Service) -> bool:
    return service.spec.scale.idle is not None or service.spec.scale.auto is not None


class Quiet:
    """Since when each variant has had no request. Level: it compares counters, so a restart only begins anew."""

    def __init__(self) -> None:
        self._since: dict[tuple[Key, str], tuple[int, float]] = {}  # the count, and since when it has been that

    def sleep(self, services: Sequence[Service], asked: Asked, held: Held, now: float) -> list[Wanted]:
        """What lets services go to zero that had no request for ``scale.idle`` seconds.

        A variant counts as asked while a request is under way or held. The whole service goes, or nothing of it.
        """
        wanted, since = [], {}
        for service in services:
            idle = service.spec.scale.idle
            live = [name for name, dials in service.dials.variants.items() if dials.replicas]
            if idle is None or not live:
                continue
            quiet = []
            for name in live:
                at = service.key, name
                total, active = asked.get(at, (0, 0))
                count, began = self._since.get(at, (-1, now))
                if total != count or active or held.get(at):
                    began = now
                since[at] = total, began
                quiet.append(now - began)
            if min(quiet) >= idle:
                change = DialChange(service=service.key, set={f"{name}.replicas": 0.0 for name in live})
                wanted.append(Wanted(change, f"no request for {min(quiet):.0f} s, scale.idle is {idle:g} s"))
        self._since = since
        return wanted


class IdleLoop:
    """Looks each ``period`` seconds, and at once when the edge begins to hold requests (``woken``)."""

    def __init__(
        self,
        platform: Platform,
        services: Callable[[float], list[Service]],
        propose: Propose,
        clock: Callable[[], float] = time.time,
        period: float = 1.0,
    ) -> None:
        self._platform, self._services, self._propose = platform, services, propose
        self._clock, self._period = clock, period
        self._quiet = Quiet()
        self._wake = asyncio.Event()
        self._denied: dict[Key, float] = {}

    def woken(self, key: Key) -> None:
        """Call it from the loop's own thread; any number of calls make one look."""
        self._wake.set()

    async def run(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._once()
            except LeptonError as e:
                log.warning("services could not be looked at for sleep: %s", e)
            try:
                async with asyncio.timeout(self._period):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _once(self) -> None:
        services = [s for s in self._services(self._clock()) if _sleeps(s) and not self._platform.scaled(s)]
        if not services:
            return
        held = self._platform.held()
        for service in services:
            self._ask(wake(service, held))
        if any(s.spec.scale.idle and d.replicas for s in services for d in s.dials.variants.values()):
            asked = await self._platform.asked()
            if asked is not None:
                for wanted in self._quiet.sleep(services, asked, self._platform.held(), self._clock()):
                    self._ask(wanted)

    def _ask(self, wanted: Wanted | None) -> None:
        now = self._clock()
        if wanted is None or self._denied.get(wanted.change.service, 0.0) > now:
            return
        if not self._propose(wanted.change, wanted.why):
            self._denied[wanted.change.service] = now + DENIED
