"""Rollouts under way: findings of each, the next move, and one event whenever something about them changes."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from leptonai.errors import LeptonError
from leptonai.ops.control import Control
from leptonai.ops.lookout import Lookout
from leptonai.ops.modeltests import finding
from leptonai.ops.predictions import Line
from leptonai.ops.probation import Counted, Probation
from leptonai.ops.recorded import Recorded
from leptonai.plan.rollout import Finding, Move, TakeBack, Turn, Wait, decide
from leptonai.platforms.local.rundir import write_atomically
from leptonai.types import Change, DialChange, Key, Replica, Service, SpecChange

log = logging.getLogger(__name__)
OWNER = "rollout"
AGAIN = 5.0  # seconds until the door is asked again after it refused


class Kept:
    """What was counted, as files. A file that cannot be written or read costs evidence, never the watch."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last: dict[Key, bytes] = {}

    def save(self, key: Key, probation: Probation) -> None:
        data = msgspec.msgpack.encode(probation.counted())
        if self._last.get(key) == data:
            return
        with contextlib.suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(self._path(key), data)
            self._last[key] = data

    def load(self, key: Key, probation: Probation) -> None:
        with contextlib.suppress(OSError, ValueError, msgspec.DecodeError, KeyError):
            probation.resume(msgspec.msgpack.decode(self._path(key).read_bytes(), type=Counted))

    def forget(self, key: Key) -> None:
        self._last.pop(key, None)
        with contextlib.suppress(OSError):
            self._path(key).unlink()

    def _path(self, key: Key) -> Path:
        return self._folder / f"{key.replace('/', '.')}.msgpack"


class Rollouts:
    """One Probation per service whose head is on probation. What is known here only are counts; they are kept in
    ``folder``, one file a service, so that a restart neither forgets evidence nor counts it twice.

    ``orders``: the file with the secret by which replicas in pods take orders, where there is one."""

    def __init__(self, control: Control, folder: Path, orders: Path | None = None) -> None:
        self._control, self._orders = control, orders
        self._kept = Kept(folder)
        self._open: dict[Key, Probation] = {}
        self._recorded: dict[Key, Recorded] = {}
        self._told: dict[Key, tuple[object, ...]] = {}
        self._refused: dict[Key, float] = {}

    def follow(self, services: Sequence[Service]) -> None:
        """Watch the rollouts of ``services``, forget those that are over."""
        under_way = {s.key: s for s in services if s.canary is not None}
        for key in [k for k, p in self._open.items() if k not in under_way or p.revision != under_way[k].revision]:
            del self._open[key]
            self._kept.forget(key)
            del self._recorded[key]
            self._told.pop(key, None)
            self._refused.pop(key, None)
        for key, service in under_way.items():
            if key not in self._open:
                probation = self._open[key] = Probation(service)
                self._recorded[key] = Recorded(self._secret)
                self._kept.load(key, probation)

    def _secret(self) -> str:
        with contextlib.suppress(OSError):
            return self._orders.read_text().strip() if self._orders else ""
        return ""

    def probation(self, key: Key) -> Probation:
        """Of the service, whose rollout is under way; KeyError when none is."""
        return self._open[key]

    def saw(self, replica: Replica, line: Line) -> None:
        probation = self._open.get(replica.service)
        if probation is not None:
            probation.saw(replica, line.id, line.digest, line.at, line.seconds, line.code, line.output)

    async def step(
        self,
        now: float,
        services: Sequence[Service],
        replicas: Sequence[Replica],
        lookouts: Mapping[Key, Lookout],
        gateway: Mapping[Key, Mapping[str, tuple[int, int]]] = {},
    ) -> None:
        """One look at every rollout. One that fails is logged and does not keep the others waiting."""
        for service in services:
            probation, lookout = self._open.get(service.key), lookouts.get(service.key)
            if service.canary is None or probation is None or lookout is None:
                continue
            probation.step(now)
            probation.at_gateway(gateway.get(service.key, {}))
            self._kept.save(service.key, probation)
            digests = {v.digest for v in service.spec.variants}
            mine = {r.id for r in replicas if r.service == service.key and r.digest in digests}
            findings = probation.findings(service, lookout.last.leaks, lookout.last.wrong, mine)
            recorded = self._recorded[service.key]
            await recorded.step(service, replicas)
            if (said := recorded.finding(service)) is not None:
                findings.append(said)
            if service.spec.tests is not None:
                findings.append(finding(lookout.tested, mine))
            try:
                await self._move(service, decide(service, replicas, findings, now), findings, lookout, now)
            except LeptonError as e:
                log.warning("rollout of %s: %s", service.key, e.message)

    async def _move(
        self, service: Service, move: Move, findings: Sequence[Finding], lookout: Lookout, now: float
    ) -> None:
        if isinstance(move, Wait):
            kinds = [(f.measure, f.verdict) for f in findings]
            if move.stalled or move.due:
                await self._tell(service, "rollout.waits", move.why, findings, (move.stalled, *kinds))
            return
        if now - self._refused.get(service.key, float("-inf")) < AGAIN:
            return
        if isinstance(move, Turn):
            await self._tell(service, "rollout.judged", move.why, findings, (move.why,))
            if not await self._propose(service, self._dials(service, move.set), move.why, now):
                log.info("rollout of %s: a step was refused", service.key)
            return
        await self._take_back(service, move, findings, lookout, now)

    async def _take_back(
        self, service: Service, move: TakeBack, findings: Sequence[Finding], lookout: Lookout, now: float
    ) -> None:
        """Back to the stable spec; where the door wants a person for that, at least nobody is asked of the new one."""
        assert service.canary is not None
        await self._tell(service, "rollout.convicted", move.why, findings, ("convicted",))
        stable = next((r for r in lookout.revisions if r.number == service.canary.revision), None)
        if stable is None or stable.spec is None:
            return  # our view of the history is older than the wish; it is read again in the next round
        change = SpecChange(spec=stable.spec, base=service.revision)
        why = f"revision {service.revision} is rolled back to {stable.number}: {move.why}"
        if not await self._propose(service, change, why, now) and (service.canary.weight or service.canary.mirror):
            await self._propose(service, self._dials(service, {"weight": 0.0, "mirror": 0.0}), why, now)

    def _dials(self, service: Service, values: dict[str, float]) -> DialChange:
        named = {f"rollout.{service.revision}.{name}": value for name, value in values.items()}
        return DialChange(service=service.key, set=named)

    async def _propose(self, service: Service, change: Change, why: str, now: float) -> bool:
        answer = await self._control.propose(change, why[:2000], OWNER)
        if answer.status != "admitted":
            self._refused[service.key] = now
        return answer.status == "admitted"

    async def _tell(
        self, service: Service, kind: str, why: str, findings: Sequence[Finding], gist: tuple[object, ...]
    ) -> None:
        """One event for each new ``gist``: the audit log says what changed, not that time goes by."""
        assert service.canary is not None
        if self._told.get(service.key) == (kind, *gist):
            return
        self._told[service.key] = (kind, *gist)
        detail: dict[str, Any] = {
            "text": why,
            "revision": service.revision,
            "stable": service.canary.revision,
            "weight": service.canary.weight,
            "mirror": service.canary.mirror,
            "findings": [msgspec.to_builtins(f) for f in findings],
        }
        await self._control.record(kind, service.key, detail)
