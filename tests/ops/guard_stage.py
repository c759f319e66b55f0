"""A world for random histories of incidents and runbooks: real are the engine (casebook, hand, decisions, runbook,
remedies) and the door's judge; simulated are replicas, telemetry and people. Whatever is proposed, admitted or judged
is held against the guard rails by rules of their own, which know nothing of how the engine decides."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec
from guard_told import COMPUTE, evidence, load, settings_of

from leptonai.admit.judge import judge
from leptonai.admit.world import World as DoorWorld
from leptonai.admit.world import diff
from leptonai.client.wire import Desk
from leptonai.errors import LeptonError
from leptonai.ops.case import Case, Surroundings
from leptonai.ops.casebook import Casebook
from leptonai.ops.lookout import Lookout
from leptonai.ops.runbook import Runbook, RunbookFiles
from leptonai.platforms.telemetry import Memory
from leptonai.settings import Settings
from leptonai.types import (
    MOST_RULES,
    QUARANTINE,
    Cause,
    Change,
    Dial,
    DialChange,
    Fallback,
    Feedback,
    Incident,
    JobChange,
    Key,
    Proposal,
    Replica,
    Revision,
    Scale,
    Service,
    Signal,
    Spec,
    SpecChange,
    Token,
    Variant,
    effective_dials,
)

OPS = Token(name="ops", role="operator", secret_sha256="", created=0.0)
ANA = Token(name="ana", role="admin", secret_sha256="", created=0.0)
MOST_QUARANTINED = 0.3  # of all requests, as the remedy has it
DURING_DEPLOY = {"rollback", "evict", "recycle"}


class Broken(AssertionError):
    """A guard rail was broken."""


SEEN: Counter[str] = Counter()  # what the histories so far were made of


def rail(holds: bool, said: str) -> None:
    SEEN["rails held"] += 1
    if not holds:
        raise Broken(said)


def model(number: int) -> str:
    return f"sha256:{number:064x}"


def spec(name: str, number: int, **more: Any) -> Spec:
    small = Variant(name="small", model=model(90))
    main = Variant(model=model(number))
    return Spec(name=name, variants=(main, small) if name == "wide" else (main,), **more)


SPECS = (
    spec("wide", 1, priority=1, scale=Scale(min=1, max=5, replicas=3), fallback=Fallback()),
    spec("pair", 2, scale=Scale(min=1, max=4, replicas=2)),
    spec("lone", 3, scale=Scale(min=0, max=2, replicas=1)),
)


@dataclass
class Kept:
    """One service as the door keeps it."""

    history: list[Revision]
    dials: list[Dial] = field(default_factory=list)


class Door:
    """``Control`` over the pure judge: what the real door does, without a disk."""

    def __init__(self, stage: Guarded) -> None:
        self.stage = stage
        self.kept: dict[Key, Kept] = {}
        self.proposals: dict[str, Proposal] = {}
        self.admitted: list[Proposal] = []
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        self.frozen = ""
        for found in SPECS:
            first = Revision(
                service=found.key, number=1, by="human:ana", why="", at=stage.now - 5000.0, spec=found,
                verified=stage.now - 4000.0,
            )  # fmt: skip
            self.kept[found.key] = Kept([first])

    def service(self, key: Key) -> Service:
        kept = self.kept[key]
        found = kept.history[-1].spec
        assert found is not None
        return Service(
            spec=found, dials=effective_dials(found, kept.dials, self.stage.now), revision=kept.history[-1].number
        )

    def world(self, key: Key) -> DoorWorld:
        recent = [p for p in self.admitted if not p.by.startswith("human:") and p.approved_by is None]
        kept = self.kept[key]
        return DoorWorld(
            now=self.stage.now, admit=self.stage.settings.admit, history=tuple(kept.history), dials=tuple(kept.dials),
            recent=tuple(recent), frozen=self.frozen,
        )  # fmt: skip

    def ask(self, change: Change, actor: Token, by: str, why: str = "", ask: str = "", wait: float = 300.0) -> Proposal:
        now = self.stage.now
        name = f"p-{len(self.proposals)}"
        made = Proposal(id=name, change=change, by=by, why=why, at=now, expires=now + wait, ask=ask)
        return self.settle(made, actor)

    def settle(self, made: Proposal, actor: Token) -> Proposal:
        world = self.world(made.service)
        status, reasons = judge(made, actor, world)
        if status == "admitted":
            reasons += diff(made.change, world.service)
            self.apply(made)
        made = msgspec.structs.replace(made, status=status, reasons=reasons)
        self.proposals[made.id] = made
        if status == "admitted":
            self.admitted.append(made)
            self.stage.was_admitted(made, world)
        return made

    def apply(self, made: Proposal) -> None:
        kept, change, now = self.kept[made.service], made.change, self.stage.now
        if isinstance(change, SpecChange):
            number = kept.history[-1].number + 1
            kept.history.append(
                Revision(service=made.service, number=number, by=made.by, why=made.why, at=now, spec=change.spec)
            )
        elif isinstance(change, DialChange):
            ends = None if change.ttl is None else now + change.ttl
            kept.dials += [
                Dial(path=p, value=v, owner=made.by, reason="", at=now, expires=None if p.endswith(".epoch") else ends)
                for p, v in change.set.items()
            ]

    # --- what ops calls

    async def propose(
        self, change: Change, why: str, by: str, ask: str = "", expires_in: float | None = None
    ) -> Proposal:
        self.stage.is_proposed(change, by, ask, why)
        return self.ask(change, OPS, by, why, ask, expires_in or 300.0)

    async def proposal(self, id: str) -> Proposal | None:
        found = self.proposals.get(id)
        if found is not None and found.status == "pending" and found.expires <= self.stage.now:
            found = self.proposals[id] = msgspec.structs.replace(found, status="expired")
        return found

    async def record(self, kind: str, subject: str, detail: dict[str, Any]) -> None:
        self.events.append((kind, subject, detail))

    async def put_incident(self, incident: Incident) -> Incident:
        return incident

    async def revisions(self, key: Key) -> list[Revision]:
        return self.kept[key].history

    async def incidents(self) -> list[Incident]:
        return []

    async def feedback(self, after: int) -> tuple[list[Feedback], int]:
        return [], after

    async def desk(self) -> Desk:
        return Desk()

    def approve(self, id: str, hash: str) -> bool:
        """A person says yes to a hash; True when it counted."""
        found = self.proposals[id]
        late = found.expires <= self.stage.now
        if found.status != "pending" or hash != found.hash:
            return False
        try:
            made = self.settle(msgspec.structs.replace(found, approved_by="human:ana"), ANA)
        except LeptonError:  # the world has moved on
            self.proposals[id] = msgspec.structs.replace(found, status="denied")
            return False
        rail(not (late and made.status == "admitted"), "an approval counted after its time")
        return made.status == "admitted"


class Guarded:
    """``now`` passes in ``step``. ``firing``, ``silent``, ``stuck``, ``broken``, ``flooded``: services that are so;
    ``theirs``: those whose replicas somebody else sets."""

    def __init__(self, settings: Settings, runbook: Runbook) -> None:
        self.now = 1_000_000.0
        self.settings, self.runbook = settings, runbook
        self.door = Door(self)
        self.store = Memory()
        files = RunbookFiles()
        files.book = runbook
        self.book = Casebook(settings, self.door, self.store, runbooks=files)  # type: ignore[arg-type]
        self.book.doubt = lambda incident: self.doubt
        self.lookouts = {s.key: Lookout(self.door.service(s.key), settings.ops) for s in SPECS}
        self.replicas: dict[Key, list[Replica]] = {s.key: [] for s in SPECS}
        self.firing: set[Key] = set()
        self.silent: set[Key] = set()
        self.stuck: set[Key] = set()
        self.broken: set[Key] = set()
        self.flooded: set[Key] = set()
        self.theirs: set[Key] = set()
        self.stale = False
        self.doubt = ""
        self.made = 0
        self.acting: Case | None = None
        self.refused = 0.15  # of all requests, what a quarantine would refuse
        self.loop = asyncio.new_event_loop()
        self.settle_replicas()

    def close(self) -> None:
        self.loop.run_until_complete(self.book.hand.jobs.close())
        self.loop.close()

    # --- what happens

    def open(self, key: Key, cause: str, about: str, confidence: float) -> None:
        """An incident, at most two of a service."""
        if sum(c.incident.closed is None and c.service == key for c in self.book.cases) >= 2:
            return
        service = self.door.service(key)
        serving = [r.id for r in self.replicas[key]]
        subjects = {
            "replica": serving[-1] if serving else key, "revision": f"{key}#{service.revision}", "service": key
        }  # fmt: skip
        number = len(self.book.cases) + 1
        incident = Incident(
            id=number, subject=f"default/service/{key}", severity="warning", title="", began=self.now, opened=self.now,
            causes=(Cause(name=cause, subject=subjects[about], confidence=confidence),),
        )  # fmt: skip
        incident = msgspec.structs.replace(incident, evidence=evidence(self.now, serving, self.refused))
        case = Case(incident, self.now)
        case.leads = (cause, subjects[about], self.now - 60.0)  # told for long: test_respond has what is not
        self.book.cases.append(case)
        self.firing.add(key)

    def deploy(self, key: Key) -> None:
        self.made += 1
        found = self.door.service(key)
        variants = (msgspec.structs.replace(found.spec.variants[0], model=model(1000 + self.made)),)
        change = SpecChange(
            spec=msgspec.structs.replace(found.spec, variants=variants + found.spec.variants[1:]), base=found.revision
        )
        self.door.ask(change, ANA, "human:ana", "a deploy")

    def verify(self, key: Key) -> None:
        history = self.door.kept[key].history
        history[-1] = msgspec.structs.replace(history[-1], verified=self.now)

    def step(self, seconds: float) -> None:
        self.now += seconds
        self.settle_replicas()
        for key, lookout in self.lookouts.items():
            if key not in self.silent:
                lookout.requests += 50
                lookout.sightings += 5
            lookout.revisions = tuple(self.door.kept[key].history)
            lookout.wish(self.door.service(key), self.replicas[key], self.now)
            share = 0.6 if key in self.broken else 0.0
            if key not in self.silent:
                self.store.write([Signal(name="error_ratio", labels={"service": key}, at=self.now, value=share)])
                come = self.coming(key) * (1.0 - self.door.service(key).dials.shed)
                self.store.write([x for at in (self.now - seconds / 2, self.now) for x in load(key, come, at)])
        collected = self.now - 60.0 if self.stale else self.now
        self.book.frozen = self.door.frozen
        running = self.book.hand.running(self.book.cases)
        about = (self.lookouts, self.book.cases, collected, (), self.door.frozen, running)
        for case in self.book.cases:
            if case.incident.closed is not None:
                continue
            fires = case.service in self.firing
            case.quiet_since = None if fires else (self.now if case.quiet_since is None else case.quiet_since)
            around = Surroundings(*about, theirs=frozenset(self.theirs))
            for _ in range(3):
                before, self.acting = case.incident, case
                self.loop.run_until_complete(self.book.act(case, around, fires, self.now))
                self.was_judged(case, before, fires)
                if case.incident is before:
                    break
        for case in self.book.cases:
            self.acting = case
            self.loop.run_until_complete(self.book.ease(case, Surroundings(*about), self.now))

    def coming(self, key: Key) -> float:
        """Requests a second that fit, or many more than any number of replicas carries where it is flooded."""
        return 400.0 if key in self.flooded else 10.0

    def settle_replicas(self) -> None:
        """What serve does, at once unless it is stuck: as many replicas as wished, of the wished digest and epoch."""
        for key, here in self.replicas.items():
            if key in self.stuck:
                continue
            service = self.door.service(key)
            kept = []
            for variant in service.spec.variants:
                dials = service.dials.variants[variant.name]
                mine = [
                    r for r in here
                    if (r.variant, r.digest, r.epoch) == (variant.name, variant.digest, dials.epoch)
                    and r.id not in service.dials.evict
                ]  # fmt: skip
                while len(mine) < dials.replicas:
                    self.made += 1
                    mine.append(
                        Replica(
                            id=f"{key}-{self.made}", service=key, variant=variant.name, digest=variant.digest,
                            epoch=dials.epoch, state="ready", since=self.now,
                        )
                    )  # fmt: skip
                kept += mine[: dials.replicas]
            here[:] = kept

    # --- the rails

    def is_proposed(self, change: Change, by: str, ask: str, why: str) -> None:
        """Held against every proposal before the door sees it."""
        case, ops = self.acting, self.settings.ops
        assert case is not None and by == f"incident:{case.incident.id}"
        SEEN["proposals"] += 1
        incident, last = case.incident, case.last
        key = change.spec.key if isinstance(change, SpecChange) else change.service
        rail(not self.stale, "acted on stale telemetry")
        if isinstance(change, DialChange) and change.set.keys() == {"shed"} and last is not None:
            less = change.set["shed"] < self.door.service(key).dials.shed
            if less and last.verdict == "effective":  # what was refused is let in again: also when all is over
                rail("shed" in last.set and last.undone is None, "let in what another action refuses")
                asked = {name for name, d in self.door.service(key).dials.variants.items() if d.weight > 0}
                carried = sum(r.state == "ready" and r.variant in asked for r in self.replicas[key]) / COMPUTE
                rail(self.coming(key) * (1.0 - change.set["shed"]) <= carried, "let in what is too much")
                rail(not self.door.frozen, "acted under the kill switch")
                rail(change.ttl is not None, "a refusal without an end")
                SEEN["eased"] += 1
                return
        rail(incident.closed is None, "acted for a closed incident")
        if last is not None and change == last.undo:
            rail(
                last.verdict in ("ineffective", "inconclusive", "harmful"),
                "took back what had helped, or was not judged",
            )
            rail(last.undone is None, "took back twice")
            SEEN["taken back"] += 1
            return
        rail(incident.escalated is None, "acted after a person was called")
        ours = isinstance(change, DialChange) and any(path.endswith(".replicas") for path in change.set)
        rail(not (ours and key in self.theirs), "asked for replicas that somebody else sets")
        rail(not ops.shadow, "acted in shadow mode")
        rail(not self.door.frozen, "acted under the kill switch")
        rail(not self.doubt, "acted upon a doubted diagnosis")
        cause = incident.causes[0]
        rail(cause.confidence >= ops.min_confidence and cause.name != "unknown", "acted upon an uncertain cause")
        rail(case.service in self.firing, "acted upon a condition that is gone")
        rail(last is None or last.verdict is not None, "acted twice at once")
        failed = [a for a in incident.actions if a.verdict in ("ineffective", "inconclusive", "harmful")]
        row = self.runbook.row(cause.name, incident.severity)
        attempts = ops.attempts if row.limits.attempts is None else row.limits.attempts
        rail(len(failed) < attempts, "went on although attempts were used up")
        rail(all(a.verdict != "harmful" for a in failed), "went on after it did harm")
        others = [c for c in self.book.cases if c is not case and c.trying and c.last is not None]
        rail(sum(not c.waiting for c in others) < ops.concurrent, "too many actions at once")
        for other in others:
            assert other.last is not None
            rail(key not in (other.service, other.last.service), f"two changes of {key} at once")
        name, step = self.step_of(change, row, why)
        rail(step.autonomy == "act", "did what is only recommended")
        rail(bool(ask) == bool(step.asks), "asked for approval otherwise than the runbook says")
        newest = self.door.kept[key].history[-1]
        under_way = newest.by.startswith("human:") and newest.number > self.lookouts[key]._whole
        fresh = self.now - newest.at <= ops.verify_timeout
        rail(not (under_way and fresh) or name in DURING_DEPLOY, "acted in the middle of a deploy")
        fault = cause.name if "#" not in cause.subject else f"{cause.name} of {cause.subject}"
        everyone = [a for c in self.book.cases if c.service == case.service for a in c.incident.actions]
        tried = [a for a in everyone if a.about == fault and self.now - a.at < row.limits.window]
        rail(len(tried) < row.limits.most, "acted more often than the window allows")
        useless = [a for a in tried if a.remedy == name and a.verdict not in (None, "effective")]
        most = sum(s.tries for s in row.steps if s.name == name)
        rail(len(useless) < most, f"{name} was tried again against {fault}, which it had not helped")
        self.bounded(key, change, step.limits)

    def step_of(self, change: Change, row: Any, why: str) -> tuple[str, Any]:
        """By the kind of the change, which tells each step of these runbooks apart; two that evict by their words."""
        if isinstance(change, JobChange):
            name = "command" if change.job.command else "webhook"
        elif isinstance(change, SpecChange):
            old = self.door.service(change.spec.key).spec
            same = [v.digest for v in old.variants] == [v.digest for v in change.spec.variants]
            name = "rollback" if not same else "batching" if old.limits == change.spec.limits else "limits"
        else:
            assert isinstance(change, DialChange)
            path = next(iter(change.set))
            less = path.endswith("replicas") and change.service != (self.acting and self.acting.service)
            shed = "shed" if why.startswith("refuse") else "scale"  # until somebody else has started more
            ends = {"epoch": "restart", "replicas": "preempt" if less else "scale", "weight": "degrade", "shed": shed}
            one = "recycle" if "before its limit" in why else "evict"
            heads = {"evict": one, "quarantine": "quarantine"}
            name = heads.get(path.partition(".")[0]) or ends.get(path.rpartition(".")[2], "fallback_off")
        step = row.step(name)
        rail(step is not None, f"{name} is no step of the row for {row.cause}")
        return step.name, step

    def bounded(self, key: Key, change: Change, limits: Any) -> None:
        service = self.door.service(key)
        wished = sum(d.replicas for d in service.dials.variants.values())
        if isinstance(change, SpecChange):
            new = {v.name: v.digest for v in change.spec.variants}
            goes = sum(
                service.dials.variants[v.name].replicas for v in service.spec.variants if new.get(v.name) != v.digest
            )
            rail(goes <= 1 or goes / wished <= limits.share, "the blast radius is larger than its limit")
        if not isinstance(change, DialChange):
            return
        ends = change.lasts("shed")
        rail("shed" not in change.set or (ends is not None and ends <= 120.0), "a refusal without an end")
        if held := [p for p, value in change.set.items() if p.startswith(QUARANTINE) and value]:
            rail(change.ttl is not None and change.ttl <= 86400, "a quarantine without an end")
            rail(len({*service.dials.quarantine, *held}) <= MOST_RULES, "more rules of quarantine than are looked at")
            rail(self.refused <= MOST_QUARANTINED, "a quarantine of what many send")
        ready = {r.id for r in self.replicas[key] if r.state == "ready"}
        out = {p.removeprefix("evict.") for p in change.set if p.startswith("evict.")}
        if out & ready and wished > 1:
            rail(len(ready - out) >= min(limits.ready, wished - 1), "took a replica that had to stay ready")
        if any(p.endswith(".epoch") for p in change.set):
            rail(wished <= 1 or limits.share >= 1.0, "the blast radius is larger than its limit")
        for path, value in change.set.items():
            if path.endswith(".replicas"):
                rail(service.spec.scale.min <= value <= service.spec.scale.max, "scaled out of bounds")
                rail(value >= 1, "took the last replica")

    def was_admitted(self, made: Proposal, world: DoorWorld) -> None:
        """Held against everything that the door let through."""
        SEEN["admitted " + made.by.partition(":")[0] + (" by approval" if made.approved_by else "")] += 1
        if made.by.startswith("human:"):
            return
        admit = self.settings.admit
        rail(not self.door.frozen, "admitted under the kill switch")
        rail(bool(made.approved_by) or not made.ask, "admitted without the approval that was asked for")
        rail(made.reasons is not None and made.expires > self.now, "admitted after its time")
        if made.approved_by:
            return
        recent = [p for p in world.recent if p.id != made.id]
        rail(
            all(self.now - p.at >= admit.cooldown for p in recent if p.service == made.service),
            "two automatic changes of one service within the cool-down",
        )
        rail(
            sum(self.now - p.at < admit.pace_seconds for p in recent) < admit.pace_count, "faster than the global pace"
        )

    def was_judged(self, case: Case, before: Incident, fires: bool) -> None:
        """Held against every verdict and every action that was kept."""
        for old, new in zip(before.actions, case.incident.actions, strict=False):
            if old.verdict is None and new.verdict is not None:
                SEEN[new.verdict] += 1
                expired = new.detail == "it was not approved"  # which no telemetry has to say
                rail(not self.stale or expired, "judged on stale telemetry")
                if new.verdict == "effective":
                    seen = case.service not in self.silent or self.lookouts[case.service].requests > case.since[0]
                    rail(seen, "effective without samples")
                    rail(not fires, "effective while it fires")
                    whole = self.lookouts[case.service].converged_since is not None
                    rail(whole, "effective before what runs is as wished")
        if before.closed is None and case.incident.closed is not None:
            rail(not fires, "closed while it fires")
        for action in case.incident.actions[len(before.actions) :]:
            plan = next((e for e in reversed(case.incident.evidence) if e.kind == "plan"), None)
            if action.proposal is not None:
                made = self.door.proposals[action.proposal]
                rail(plan is not None and plan.data["hash"] == made.hash, "no plan was recorded before the action")
                rail(
                    isinstance(made.change, JobChange) or bool(plan is not None and plan.data["preview"]),
                    "a plan without a preview",
                )


__all__ = ["ANA", "OPS", "SEEN", "Broken", "Guarded", "settings_of"]
