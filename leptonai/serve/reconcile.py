"""The loop that makes the world match the wish. Level-triggered: a wake-up carries a name, never what happened."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine
from typing import Any

import msgspec

from leptonai.errors import LeptonError
from leptonai.protocols import Platform, Record
from leptonai.types import Applied, Forget, Key, Replica, Retire, Service, Start, Step, Tune

_LOG = logging.getLogger(__name__)

Services = Callable[[float], list[Service]]  # every wish in force at that time
DropEvictions = Callable[[Key, list[str]], None]  # evict dials that have done their work


class Reconciler:
    """Applies every service each ``period`` seconds, and a woken one at once; removes what nobody wishes any more.

    What it does and sees goes to ``record``: ``plan.start``, ``plan.retire``, ``plan.forget`` with the terms of the
    decision, ``plan.removed``, ``plan.failed`` (once per different error), and ``replica.<state>`` whenever a replica
    is seen in another state than before, with reason and detail. The subject is the service's key, the replica's id
    is in the detail. An error in one service is recorded and never stops another.
    """

    def __init__(
        self,
        platform: Platform,
        services: Services,
        record: Record,
        clock: Callable[[], float] = time.time,
        *,
        drop_evictions: DropEvictions = lambda key, replicas: None,
        period: float = 1.0,
    ) -> None:
        self._platform = platform
        self._services = services
        self._record = record
        self._clock = clock
        self._drop_evictions = drop_evictions
        self._period = period
        self.unrecorded = 0
        self._woken: set[Key] = set()
        self._wake = asyncio.Event()
        self._states: dict[str, Replica] | None = None  # None: nothing was seen yet
        self._applied: set[Key] = set()
        self._asleep: dict[Key, Service] = {}  # applied as they are, and wishing for no replica
        self._errors: dict[Key, str] = {}
        self._working: dict[Key, asyncio.Task[None]] = {}
        self._again: set[Key] = set()

    def holds(self, key: Key) -> bool:
        """Whether ``key`` was applied and is not removed yet."""
        return key in self._applied or key in self._working

    def wake(self, key: Key) -> None:
        """Look at ``key`` soon. Call it from the loop's own thread; any number of calls make one look."""
        self._woken.add(key)
        self._wake.set()

    async def run(self) -> None:
        """Reconcile until cancelled; what was under way then is taken up by the next control."""
        due = 0.0
        try:
            while True:
                now = time.monotonic()
                if now >= due:
                    due = now + self._period
                    self._woken.clear()
                    self._wake.clear()
                    self.once()
                else:
                    keys, self._woken = self._woken, set()
                    self._wake.clear()
                    if keys:
                        self.once(keys)
                try:
                    async with asyncio.timeout(max(0.0, due - time.monotonic())):
                        await self._wake.wait()
                except TimeoutError:
                    pass
        finally:
            for task in self._working.values():
                task.cancel()

    def once(self, only: Collection[Key] | None = None) -> None:
        """Begin a pass over all services, or over ``only``. Never raises for what a service or the platform did.

        Each service is worked on by a task of its own, so that a slow one delays no other; one that is still at work
        is looked at again when it is done. ``settled`` waits for them.
        """
        try:
            wished = {s.key: s for s in self._services(self._clock())}
        except Exception as e:  # noqa: BLE001 - without wishes there is nothing to do but to say so
            self._failed("", e)
            return
        self._errors.pop("", None)
        here = {r.service for r in self._look()}
        for key in sorted(here | self._applied | wished.keys() if only is None else only):
            if only is not None and key not in wished and key not in here and key not in self._applied:
                continue
            if only is None and key not in here and self._asleep.get(key) is wished.get(key, self):
                continue  # at zero, and nothing of it runs: a thousand such cost nothing
            if key in self._working:
                self._again.add(key)
            else:
                work = self._apply(wished[key]) if key in wished else self._remove(key)
                self._working[key] = asyncio.create_task(self._work(key, work))

    async def settled(self) -> None:
        """Return when no service is being worked on."""
        while self._working:
            await asyncio.wait(self._working.values())

    async def _work(self, key: Key, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
            self._errors.pop(key, None)
        except Exception as e:  # noqa: BLE001 - whatever a platform raises, the other services must go on
            self._failed(key, e)
        finally:
            del self._working[key]
            if key in self._again:
                self._again.discard(key)
                self.wake(key)

    async def _apply(self, service: Service) -> None:
        key = service.key
        self._applied.add(key)
        self._asleep.pop(key, None)
        seen = self._look()  # just before apply, so that nothing is forgotten before it was seen
        room = {v.name: self._platform.room(v) for v in service.spec.variants}
        steps = await self._platform.apply(service)
        mine = [r for r in seen if r.service == key]
        if not mine and not steps and not service.dials.evict and not any(_wanted(service)):
            self._asleep[key] = service
        for step in steps:
            self._tell(service, step, mine, room)
        gone = {step.replica for step in steps if isinstance(step, Forget)} | {r.id for r in mine if r.gone}
        here = {r.id for r in mine} | {r.id for r in self._platform.observe()}
        done = [id for id in service.dials.evict if id in gone or id not in here]
        if done:
            self._drop_evictions(key, done)

    async def _remove(self, key: Key) -> None:
        if key not in self._errors:  # told once, tried at every pass
            self._say("plan.remove", key, {"replicas": [r.id for r in self._look() if r.service == key]})
        await self._platform.remove(key)
        self._applied.discard(key)
        self._asleep.pop(key, None)
        self._look()
        self._say("plan.removed", key, {})

    def _tell(self, service: Service, step: Step, mine: list[Replica], room: dict[str, int | None]) -> None:
        """One event for one step, with the terms it was decided by."""
        terms: dict[str, Any]
        if isinstance(step, Applied):
            terms = {"object": step.object, "verb": step.verb, "fields": list(step.fields)}
            self._say("plan.applied", service.key, terms | {"revision": service.revision})
            return
        by_id = {r.id: r for r in mine}
        if isinstance(step, Forget) and step.replica in (self._states or {}):
            before = (self._states or {})[step.replica]
            if before.state != "failed":  # it went between the look and the apply
                self._seen(msgspec.structs.replace(before, state="failed", reason="gone"), before)
        variant = step.variant if isinstance(step, Start) else ""
        if not isinstance(step, Start) and step.replica in by_id:
            variant = by_id[step.replica].variant
        here = [r for r in mine if r.variant == variant]
        dials = service.dials.variants.get(variant)
        terms = {
            "variant": variant,
            "revision": service.revision,
            "wanted": dials.replicas if dials else 0,
            "ready": sum(r.state == "ready" for r in here),
            "live": sum(not r.gone and r.state != "stopping" for r in here),
            "room": room.get(variant),
        }
        match step:
            case Start():
                terms |= {"digest": step.digest, "epoch": step.epoch, "attempt": step.attempt}
            case Retire():
                terms |= {"replica": step.replica, "reason": step.reason}
            case Forget():
                terms |= {"replica": step.replica}
            case Tune():
                terms |= {"replica": step.replica, "tuning": msgspec.to_builtins(step.tuning)}
        self._say(f"plan.{type(step).__name__.lower()}", service.key, terms)

    def _look(self) -> list[Replica]:
        """Observe, and record every replica whose state changed. The first look records only what has failed."""
        seen = self._platform.observe()
        before = self._states
        for replica in seen:
            known = before.get(replica.id) if before is not None else None
            if known is None:
                if before is not None or replica.state == "failed":
                    self._seen(replica, None)
            elif (known.state, known.reason) != (replica.state, replica.reason):
                self._seen(replica, known)
        here = {r.id: r for r in seen}
        for id, replica in (before or {}).items():
            if id not in here and replica.state != "failed":
                self._say(
                    "replica.stopped",
                    replica.service,
                    {"replica": id, "variant": replica.variant, "was": replica.state},
                )
        self._states = here
        return seen

    def _seen(self, replica: Replica, before: Replica | None) -> None:
        detail = {
            "replica": replica.id,
            "variant": replica.variant,
            "digest": replica.digest,
            "epoch": replica.epoch,
            "reason": replica.reason,
            "detail": replica.detail,
            "since": replica.since,
            "pid": replica.pid if replica.pid is not None else (before.pid if before else None),
            "attempt": replica.attempt,
            "was": before.state if before else "",
        }
        self._say(f"replica.{replica.state}", replica.service, detail)
        if self._states is not None:
            self._states[replica.id] = replica

    def _say(self, kind: str, subject: str, detail: dict[str, Any]) -> None:
        """Serving goes on when the audit log cannot be written (a full disk); ``unrecorded`` counts what was lost."""
        try:
            self._record(kind, subject, detail)
        except Exception as e:  # noqa: BLE001 - the store may fail in its own ways
            self.unrecorded += 1
            _LOG.error("not recorded: %s of %s: %s", kind, subject, e)

    def _failed(self, key: Key, error: Exception) -> None:
        body = error.body() if isinstance(error, LeptonError) else {"error": f"{type(error).__name__}: {error}"}
        text = str(body.get("error"))
        if self._errors.get(key) != text:
            self._errors[key] = text
            self._say("plan.failed", key, body)


def _wanted(service: Service) -> list[int]:
    dials = service.dials.variants
    return [dials[v.name].replicas if v.name in dials else service.spec.scale.replicas for v in service.spec.variants]
