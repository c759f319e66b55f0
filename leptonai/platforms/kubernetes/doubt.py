"""Pods that the cluster calls unready though nothing of theirs ended: they are asked themselves.

A kubelet that is started again, and a node that is not heard of, call pods unready that serve.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from leptonai.platforms.local.probe import Unanswered, UnixClient
from leptonai.types import Replica

Json = dict[str, Any]

PERIOD = 1.0  # seconds between two questions
TIMEOUT = 2.0
# Seconds for which a good answer, or the kubelet's last good word, stands: until the next one at the latest, with room.
FRESH = PERIOD + TIMEOUT + 0.5


class _Was(NamedTuple):
    container: str
    ready: Replica
    answered: float  # monotonic


class Doubts:
    """Ready is who was, runs in the same container, and answers. Pods that nobody calls unready are never asked."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._was: dict[str, _Was] = {}
        self._doubted: dict[str, Replica] = {}
        self._asking: set[str] = set()

    def saw(self, pod: Json, replica: Replica) -> None:
        """The pod is so now, which is that as a replica."""
        name = replica.id
        container: Json = next(iter((pod.get("status") or {}).get("containerStatuses") or []), {})
        id = str(container.get("containerID") or "")
        was, before = self._was.get(name), self._doubted.pop(name, None)
        if replica.state == "ready":
            self._was[name] = _Was(id, replica, self._clock())
        elif was is None or was.container != id or replica.reason not in ("hung", "loading"):
            self.forget(name)
        else:
            self._doubted[name] = replica
            if before is None:
                self._was[name] = was._replace(answered=self._clock())

    def forget(self, name: str) -> None:
        self._was.pop(name, None)
        self._doubted.pop(name, None)

    def judged(self, replica: Replica) -> Replica:
        """What it is to be taken for."""
        was = self._was.get(replica.id)
        doubted = replica.id in self._doubted and was is not None
        return was.ready if doubted and was and self._clock() - was.answered <= FRESH else replica

    async def run(self, changed: Callable[[], None]) -> None:
        """Ask until cancelled, each by itself: who is silent keeps nobody waiting. ``changed`` is called when one
        answered, and each ``PERIOD`` while somebody is doubted."""
        async with asyncio.TaskGroup() as group:
            while True:
                for name, replica in self._doubted.items():
                    if name not in self._asking:
                        self._asking.add(name)
                        group.create_task(self._ask(name, replica.address, changed))
                await asyncio.sleep(PERIOD)
                if self._doubted:
                    changed()

    async def _ask(self, name: str, address: str, changed: Callable[[], None]) -> None:
        client = UnixClient(address)
        try:
            answer = await client.request("GET", "/-/ready", TIMEOUT)
            was = self._was.get(name)
            if answer.status == 200 and was is not None:
                self._was[name] = was._replace(answered=self._clock())
                changed()
        except Unanswered:
            pass
        finally:
            self._asking.discard(name)
            client.close()
