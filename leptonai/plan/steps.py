"""Wish and world in, safe steps out. Pure: the same arguments always give the same list.

Words, per lane (a variant, or one of its two versions during a rollout): *current* replicas run the wished digest and
epoch and are not evicted; *old* are all others that are present; *gone* ones no longer run (``Replica.gone``). A
current replica is *proven* when it is ready and either never crashed before or has been ready for ``stable_after``:
only proven replicas may displace healthy old ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from leptonai.plan.lanes import Lane, lanes
from leptonai.settings import Local
from leptonai.types import Forget, Replica, Retire, Service, Start, Step, Tune, Tuning, Variant

Room = Callable[[Variant], int | None] | Mapping[str, int | None]


def delay(attempt: int, local: Local) -> float:
    """Seconds to wait before replacing a replica that had crashed ``attempt`` times before: 0, 1, 2, 4 ... 64.

    Exponential back-off as kubelet and systemd do it; the first crash is replaced at once because most are one-off.
    """
    if attempt <= 0:
        return 0.0
    return min(local.backoff_first * 2.0 ** min(attempt - 1, 60), local.backoff_max)


def plan(service: Service, replicas: Sequence[Replica], room: Room, now: float, local: Local) -> list[Step]:
    """The steps that are safe now towards the wish; [] when nothing is to be done at this moment.

    True after the steps, per lane with n wanted:

    - ready replicas in rotation number at least min(n, ready before), except where nothing can be started and an old
      one holds the room (then exactly one old one goes first);
    - no healthy old replica is retired for a revision that does not become and stay ready;
    - at most n + ``rollout.surge`` are live, beside those already stopping;
    - a gone replica is replaced ``delay(attempt)`` after it went, its Start carrying ``attempt + 1``.

    Hung replicas that are current and not evicted are left alone: present but sick is not for serve to repair.
    What runs in the wished way but was told of other batching is told anew, and keeps running.
    ``room`` may be a function or a dict by variant name; None is no known limit. Starts come before Forgets, Forgets
    before Retires, Retires before Tunes. Replicas of other services are ignored.
    """
    mine = [r for r in replicas if r.service == service.key]
    steps = _Steps()
    outcomes = []
    for lane in lanes(service):
        left = room.get(lane.variant.name) if isinstance(room, Mapping) else room(lane.variant)
        if left is not None:  # what this plan already starts may need the same room
            left = max(0, left - len(steps.starts))
        here = [r for r in mine if lane.holds(r)]
        outcomes.append(_lane(service, lane, here, left, now, local, steps))
    known = {v.name for v in service.spec.variants}
    _reject([r for r in mine if r.variant in known and r.digest in service.rejected], steps)
    leaving = _leaving([r for r in mine if r.variant not in known], all(o.satisfied for o in outcomes), steps)
    # Nothing can start and nothing is under way: one old replica makes room, so that a full machine can still change.
    blocked = [o for o in outcomes if o.blocked]
    if blocked and not steps.starts and not steps.retires and not any(r.state == "stopping" for r in mine):
        for replica in [*(r for o in blocked for r in o.old), *leaving][:1]:
            steps.retire(replica, "making room")
    return [*steps.starts, *steps.forgets, *steps.retires, *steps.tunes]


@dataclass
class _Steps:
    starts: list[Start] = field(default_factory=list)
    forgets: list[Forget] = field(default_factory=list)
    retires: list[Retire] = field(default_factory=list)
    tunes: list[Tune] = field(default_factory=list)

    def retire(self, replica: Replica, reason: str) -> None:
        self.retires.append(Retire(replica=replica.id, reason=reason))

    def forget(self, replica: Replica) -> None:
        self.forgets.append(Forget(replica=replica.id))


@dataclass(frozen=True)
class _Outcome:
    satisfied: bool  # as many proven ready as wished
    blocked: bool  # something should start and cannot, and no current one fails, hangs or loads
    old: list[Replica]  # those that still serve, the most dispensable first


def _lane(
    service: Service,
    lane: Lane,
    replicas: list[Replica],
    room: int | None,
    now: float,
    local: Local,
    steps: _Steps,
) -> _Outcome:
    variant, wanted, epoch = lane.variant, lane.wanted, lane.dials.epoch
    rollout, digest = service.spec.rollout, variant.digest
    evicted = set(service.dials.evict)

    def proven(r: Replica) -> bool:
        return r.state == "ready" and (r.attempt == 0 or now - r.since >= local.stable_after)

    def wished(r: Replica) -> bool:
        return r.digest == digest and r.epoch == epoch

    gone = sorted((r for r in replicas if r.gone), key=lambda r: (r.since + delay(r.attempt, local), r.id))
    present = [r for r in replicas if not r.gone and r.state != "stopping"]
    current = [r for r in present if wished(r) and r.id not in evicted]
    old = [r for r in present if not (wished(r) and r.id not in evicted)]

    # Scale down: what does not serve goes first, then the youngest.
    current.sort(key=lambda r: (r.state != "ready", r.started or r.since, r.id), reverse=True)
    for replica in current[: max(0, len(current) - wanted)]:
        steps.retire(replica, "scaled down")
    current = current[max(0, len(current) - wanted) :]

    # A load that outlasts its time is tried again; its patience grows like the back-off, so no delay is added.
    late = [
        r for r in current if r.state == "starting" and now - r.since > rollout.start_timeout + delay(r.attempt, local)
    ]
    for replica in late:
        steps.retire(replica, "start_timeout")
    current = [r for r in current if r not in late]

    # Old ones: those that do not serve at once, those that do as far as enough proven ones serve without them.
    ready_old = sorted(
        (r for r in old if r.state == "ready"), key=lambda r: (r.id not in evicted, -(r.started or r.since), r.id)
    )
    for replica in old:
        if replica.state != "ready":
            steps.retire(replica, "evicted" if replica.id in evicted else "replaced")
    surplus = min(len(ready_old), max(0, sum(map(proven, current)) + len(ready_old) - wanted))
    for replica in ready_old[:surplus]:
        steps.retire(replica, "evicted" if replica.id in evicted else "replaced")
    ready_old = ready_old[surplus:]

    # Scaled down in the middle of a rollout: what is not ready makes way for what serves.
    excess = max(0, len(current) + len(ready_old) - wanted - rollout.surge)
    for replica in [r for r in current if r.state != "ready"][:excess]:
        steps.retire(replica, "scaled down")
        current.remove(replica)

    tuning = Tuning.of(service.spec, variant, service.dials.quarantine)
    for replica in sorted(current, key=lambda r: r.id):
        if replica.tuning is not None and replica.tuning != tuning and replica.reason != "hung":
            steps.tunes.append(Tune(replica=replica.id, tuning=tuning))

    # Fill up: gone ones when their back-off is over (each holds its place until then), then fresh ones.
    missing = wanted - len(current)
    successors: list[tuple[Replica, float]] = [(r, now) for r in late]
    successors += [(r, r.since + delay(r.attempt, local)) for r in gone if wished(r)]
    for replica in gone:
        if not wished(replica) or replica not in [r for r, _ in successors[:missing]]:
            steps.forget(replica)
    successors = successors[:missing]
    waiting = sum(due > now for _, due in successors)
    due = [r for r, at in successors if at <= now]
    budget = wanted + rollout.surge - len(current) - len(ready_old) - waiting
    if room is not None:
        budget = min(budget, room)
    startable = missing - waiting
    count = max(0, min(startable, budget))
    for replica in due[:count]:
        steps.starts.append(_start(service, variant, epoch, replica.attempt + 1))
        if replica.gone:
            steps.forget(replica)
    for _ in range(count - len(due[:count])):
        steps.starts.append(_start(service, variant, epoch, 0))

    blocked = startable > 0 and count == 0 and not successors and all(map(proven, current))
    return _Outcome(satisfied=sum(map(proven, current)) >= wanted, blocked=blocked, old=ready_old)


def _start(service: Service, variant: Variant, epoch: int, attempt: int) -> Start:
    return Start(service=service.key, variant=variant.name, digest=variant.digest, epoch=epoch, attempt=attempt)


def _reject(replicas: list[Replica], steps: _Steps) -> None:
    """Replicas of a version that did not get through its rollout go at once: they answer nobody any more."""
    for replica in replicas:
        if replica.gone:
            steps.forget(replica)
        elif replica.state != "stopping":
            steps.retire(replica, "rolled back")


def _leaving(replicas: list[Replica], satisfied: bool, steps: _Steps) -> list[Replica]:
    """Replicas of variants the spec no longer has serve until every variant that it has does; returns those."""
    for replica in replicas:
        if replica.gone:
            steps.forget(replica)
        elif replica.state != "stopping" and (satisfied or replica.state != "ready"):
            steps.retire(replica, "variant removed")
    return [] if satisfied else sorted((r for r in replicas if r.state == "ready"), key=lambda r: r.id)
