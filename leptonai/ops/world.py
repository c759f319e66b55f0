"""Questions about wish and world that more than one decision asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from leptonai.plan.lanes import lanes, shares
from leptonai.types import Replica, Service, Signal


def wished_replicas(service: Service) -> int:
    """How many replicas the dials ask for, over all variants."""
    return sum(dials.replicas for dials in service.dials.variants.values())


def of_service(service: Service, replicas: Sequence[Replica]) -> list[Replica]:
    return [r for r in replicas if r.service == service.key]


def ready(replicas: Sequence[Replica]) -> int:
    return sum(r.state == "ready" for r in replicas)


def answering(service: Service, replicas: Sequence[Replica]) -> list[Replica]:
    """Those, ready or not, that users' requests go to: no spare of weight 0, nothing that only gets copies."""
    asked = [lane for lane, weight in shares(service, replicas) if weight > 0]
    return [r for r in of_service(service, replicas) if any(lane.holds(r) for lane in asked)]


def unscheduled(services: Sequence[Service], replicas: Sequence[Replica], now: float) -> list[Signal]:
    """``replicas_unscheduled_count`` of services with replicas that their cluster has no node for, and of those that
    run in one at all: known to be 0."""
    waiting = Counter(r.service for r in replicas if r.state == "starting" and r.reason == "unschedulable")
    placed = {r.service for r in replicas if r.address and "/" not in r.address} | waiting.keys()
    return [
        Signal(name="replicas_unscheduled_count", labels={"service": s.key}, at=now, value=float(waiting[s.key]))
        for s in services
        if s.key in placed
    ]


def converged(service: Service, replicas: Sequence[Replica]) -> bool:
    """What runs is what is wished: as many ready replicas of the wished digest and epoch as wished, and no other.

    Replicas that are being stopped do not count, those to be evicted must be on their way out.
    """
    mine = [r for r in of_service(service, replicas) if r.state != "stopping"]
    found = lanes(service)
    for lane in found:
        here = [r for r in mine if lane.holds(r)]
        fitting = [
            r
            for r in here
            if r.state == "ready"
            and r.digest == lane.variant.digest
            and r.epoch == lane.dials.epoch
            and r.id not in service.dials.evict
        ]
        if len(fitting) < lane.wanted or len(here) != len(fitting):
            return False
    names = {lane.variant.name for lane in found}
    return not any(r.digest in service.rejected and r.variant in names for r in mine)
