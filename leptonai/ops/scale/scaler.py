"""Every service with ``scale.auto``: read, decide, check, propose, tell. The only place with a memory of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any, Literal

from leptonai.errors import LeptonError
from leptonai.ops.collect import Collected
from leptonai.ops.control import Control, World
from leptonai.ops.scale.memory import Shelf
from leptonai.ops.scale.meter import Held, Meter, Values, by_replica, idlest
from leptonai.ops.scale.rules import Bound, Situation, allowed, said
from leptonai.plan.lanes import lanes
from leptonai.plan.scale import Decision, Learner, Pilot, Reading, made
from leptonai.settings import Settings
from leptonai.types import SCALER, Auto, DialChange, Key, Proposal, Replica, Service, Signal

log = logging.getLogger(__name__)
UNITS = {  # of a Reading's fields, as signals
    "seconds": "scale_interval_seconds",
    "demand": "scale_demand_count",
    "concurrency": "scale_concurrency_count",
    "waiting": "scale_waiting_seconds",
    "ready": "scale_ready_count",
    "starting": "scale_starting_count",
    "least": "scale_least_count",
    "most": "scale_most_count",
    "startup": "scale_startup_seconds",
    "missing": "scale_missing_count",
}
AGAIN = 10.0  # seconds until what the door refused is proposed again
KEEP_EVERY = 600.0  # seconds between two copies of what was learnt; a season takes days to learn
Trouble = Literal["none", "open", "remedy"]


class Helm:
    """One variant under way."""

    def __init__(self, auto: Auto, meter: Meter, learner: Learner | None) -> None:
        self.auto, self.meter, self.learner = auto, meter, learner
        self.pilot: Pilot | None = None
        self.told: tuple[Any, ...] = ()
        self.rule = ""  # the forecaster's rule when last told
        self.refused_at = -inf
        self.pending: Proposal | None = None


class Scaler:
    """``step`` is one round; what it learnt of seasons lies in ``folder`` and outlives it."""

    def __init__(self, folder: Path, settings: Settings, control: Control) -> None:
        self._settings, self._control = settings, control
        self._shelf = Shelf(folder)
        self._helms: dict[tuple[Key, str], Helm] = {}
        self._kept = -inf
        self.readings: list[Signal] = []  # of the newest round, for the telemetry store

    async def step(
        self,
        now: float,
        world: World,
        found: Collected,
        trouble: Mapping[Key, Trouble],
        held: Mapping[Key, Held],
    ) -> None:
        """Look at every service with ``scale.auto``. One that fails keeps no other waiting; the first error is raised
        when all were looked at."""
        self.readings = []
        values = by_replica(found)
        wished = {(s.key, v.name) for s in world.services if s.spec.scale.auto for v in s.spec.variants}
        for gone in self._helms.keys() - wished:
            del self._helms[gone]
            self._shelf.drop(*gone)
        failed: LeptonError | None = None
        for service in world.services:
            if service.spec.scale.auto is None or service.key in world.theirs:
                continue
            for variant in service.spec.variants:
                try:
                    await self._variant(now, service, variant.name, world, found, values, trouble, held)
                except LeptonError as e:
                    failed = failed or e
        if now - self._kept >= KEEP_EVERY:
            self.keep(now)
        if failed:
            raise failed

    def keep(self, now: float) -> None:
        """Put on disk what was learnt."""
        self._kept = now
        for (key, variant), helm in self._helms.items():
            if helm.learner is not None:
                self._shelf.keep(key, variant, helm.learner, now)

    async def _variant(
        self,
        now: float,
        service: Service,
        variant: str,
        world: World,
        found: Collected,
        values: Mapping[str, Values],
        trouble: Mapping[Key, Trouble],
        held: Mapping[Key, Held],
    ) -> None:
        key, auto = service.key, service.spec.scale.auto
        dials = service.dials.variants.get(variant)
        if auto is None or dials is None:
            return
        replicas = [r for r in world.replicas if r.service == key and r.variant == variant]
        helm = self._helm(key, variant, auto, now)
        helm.meter.look(replicas)
        waiting = held.get(key, Held())
        room = world.room.get(key, {}).get(variant)
        live = sum(not r.gone and r.state != "stopping" for r in replicas)
        most = service.spec.scale.max if room is None else min(service.spec.scale.max, max(live, dials.replicas) + room)
        least = min(service.spec.scale.min, most)
        fresh = helm.meter.at is None or found.at > helm.meter.at
        reading = (
            helm.meter.read(found, values, bearing(service, replicas), auto, least, most, waiting) if fresh else None
        )
        situation = Situation(
            wished=dials.replicas,
            auto=dials.auto,
            age=now - (helm.meter.at if helm.meter.at is not None else now),
            stale_after=self._settings.ops.stale_periods * self._settings.ops.period,
            incident=trouble.get(key, "none"),
            missing=reading.missing if reading else 0,
        )
        if reading is None:
            if situation.age > situation.stale_after:
                await self._tell_stale(helm, key, variant, situation)
            return
        self._note(key, variant, reading)
        if helm.pilot is None:
            capacity = auto.concurrency
            if auto.policy == "ours" and helm.learner is None:
                helm.learner = Learner(reading.startup)
            helm.pilot = Pilot(made(auto), capacity, dials.replicas, reading.at - reading.seconds, helm.learner)
        decision = helm.pilot.step(reading)
        if decision is None and waiting.held and dials.replicas == 0:
            decision = Decision(1, "wake", {"held": float(waiting.held), "oldest": waiting.oldest})
        if decision is not None:
            await self._act(now, helm, service, variant, replicas, values, reading, decision, situation, room)

    async def _act(
        self,
        now: float,
        helm: Helm,
        service: Service,
        variant: str,
        replicas: Sequence[Replica],
        values: Mapping[str, Values],
        reading: Reading,
        decision: Decision,
        situation: Situation,
        room: int | None,
    ) -> None:
        key, wished = service.key, situation.wished
        final, bound = allowed(decision.desired, situation)
        rule = helm.pilot.outlook.rule if helm.pilot is not None and helm.pilot.outlook else ""
        text = said(wished, final, decision, reading, bound, rule, situation.age)
        detail = {
            "said": text,
            "variant": variant,
            "policy": helm.auto.policy,
            "desired": decision.desired,
            "target": final,
            "wished": wished,
            "ready": reading.ready,
            "starting": reading.starting,
            "reason": decision.reason,
            "bound": bound,
            "room": room,
            "age": situation.age,
            "forecast_rule": rule,
            "terms": decision.terms,
            "reading": reading._asdict(),
        }
        if rule and rule != helm.rule:
            if helm.rule:
                await self._control.record("scale.forecast", key, {"variant": variant, "rule": rule, "was": helm.rule})
            helm.rule = rule
        told = (decision.desired, final, wished, bound)
        if final == wished:
            if told != helm.told:
                helm.told = told
                await self._control.record("scale.decided", key, detail)
            return
        if now - helm.refused_at < AGAIN or await self._waits(helm):
            return
        wish = {f"{variant}.replicas": float(final)}
        leaving = wished - final - reading.starting
        evicted = set(service.dials.evict)
        if leaving > 0:
            fitting = [r for r in replicas if r.id not in evicted and may_leave(service, r)]
            wish |= {f"evict.{id}": 1.0 for id in idlest(fitting, values, leaving)}
        await self._control.record("scale.decided", key, detail | {"set": wish})
        helm.told = told
        proposal = await self._control.propose(DialChange(service=key, set=wish), text, SCALER)
        if proposal.status == "pending":
            helm.pending = proposal
        elif proposal.status != "admitted":
            helm.refused_at = now
            log.info("%s: %s", key, "; ".join(proposal.reasons))

    async def _waits(self, helm: Helm) -> bool:
        """Whether a person still has to approve what was proposed before."""
        if helm.pending is not None:
            seen = await self._control.proposal(helm.pending.id)
            helm.pending = seen if seen is not None and seen.status == "pending" else None
        return helm.pending is not None

    async def _tell_stale(self, helm: Helm, key: Key, variant: str, situation: Situation) -> None:
        bound: Bound = "stale telemetry"
        if helm.told != (bound,):
            helm.told = (bound,)
            text = f"stays at {situation.wished} replicas; telemetry is {situation.age:.0f} s old: nothing is changed"
            detail = {"said": text, "variant": variant, "wished": situation.wished, "bound": bound}
            await self._control.record("scale.decided", key, detail | {"age": situation.age})

    def _helm(self, key: Key, variant: str, auto: Auto, now: float) -> Helm:
        """The one there is, or a new one when ``scale.auto`` was changed; what was measured and learnt stays."""
        helm = self._helms.get((key, variant))
        if helm is None or helm.auto != auto:
            learner = helm.learner if helm else None
            if auto.policy == "ours" and learner is None:
                learner = self._shelf.learner(key, variant, now)
            meter = helm.meter if helm else Meter()
            helm = self._helms[key, variant] = Helm(auto, meter, learner if auto.policy == "ours" else None)
        return helm

    def _note(self, key: Key, variant: str, reading: Reading) -> None:
        """Everything that the policy was told, so that a history can be replayed."""
        labels = {"service": key, "variant": variant}
        for name, value in reading._asdict().items():
            if name != "at":
                self.readings.append(Signal(name=UNITS[name], labels=labels, at=reading.at, value=float(value)))


def bearing(service: Service, replicas: Sequence[Replica]) -> list[Replica]:
    """Those whose load is users' load. A version on probation that only gets copies bears none of it."""
    able = [lane for lane in lanes(service) if lane.only is None or lane.share > 0]
    return [r for r in replicas if any(lane.holds(r) for lane in able)]


def may_leave(service: Service, replica: Replica) -> bool:
    """Whether it runs what is wished and is the scaler's to let go: during a rollout one of the old version, because
    another of the new one would be started in its place."""
    lane = next((found for found in lanes(service) if found.variant.name == replica.variant), None)
    if lane is None or not lane.holds(replica):
        return False
    return replica.digest == lane.variant.digest and replica.epoch == lane.dials.epoch
