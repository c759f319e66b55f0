"""Remedies that replace replicas or wish for more of them."""

from __future__ import annotations

import math
from typing import ClassVar

from leptonai.ops.remedies.wishing import Reversal, Risk, Seen, Wishing
from leptonai.types import Change, DialChange

LEAST_FACTOR, MOST_FACTOR = 1.5, 4.0  # of replicas at once: less helps nobody, more is a guess that costs
TAKEN = 0.95  # share of the processors that are busy, from which on one more replica computes at the others' expense
SPARE = 1.25  # times its usual traffic that a replica carries in any case
BEHIND, LATER = 2.0, 0.05  # times as long, and seconds more, that calls take: as what opens an incident of it


class Evict(Wishing, frozen=True, kw_only=True):
    """Ask for one replica to be replaced: the planner starts another first where there is room."""

    name: ClassVar[str] = "evict"
    reversal: ClassVar[Reversal] = "none"

    def wish(self, seen: Seen) -> tuple[Change, str] | None:
        """None when the cause is not about a replica, or the replica is being evicted already."""
        replica = seen.cause.subject
        if seen.about != "replica" or replica in seen.service.dials.evict:
            return None
        change = DialChange(service=seen.service.key, set={f"evict.{replica}": 1.0})
        return change, f"replace {replica}: {seen.cause.name}"


class Recycle(Wishing, frozen=True, kw_only=True):
    """Ask for the replica that is nearest to its memory limit to be replaced before it is killed there."""

    name: ClassVar[str] = "recycle"
    reversal: ClassVar[Reversal] = "none"
    above: float = 0.8  # share of the limit

    def wish(self, seen: Seen) -> tuple[Change, str] | None:
        """None when no replica is known to hold as much, or the fullest is being evicted already."""
        shares: dict[str, float] = {}
        for fact in seen.facts("memory_share"):
            shares.setdefault(str(fact["subject"]), float(fact["memory_share"]))
        full = {r: share for r, share in shares.items() if share >= self.above and r not in seen.service.dials.evict}
        if not full:
            return None
        replica = max(full, key=lambda r: (full[r], r))
        change = DialChange(service=seen.service.key, set={f"evict.{replica}": 1.0})
        return change, f"replace {replica} before its limit: it holds {full[replica]:.0%} of it"


class Restart(Wishing, frozen=True, kw_only=True):
    """Ask for every replica of every variant to be replaced, one after another, by raising the epoch."""

    name: ClassVar[str] = "restart"
    risk: ClassVar[Risk] = "medium"
    reversal: ClassVar[Reversal] = "none"

    def wish(self, seen: Seen) -> tuple[Change, str] | None:
        dials = seen.service.dials.variants
        epochs = {
            f"{v.name}.epoch": float(dials[v.name].epoch + 1 if v.name in dials else 1)
            for v in seen.service.spec.variants
        }
        change = DialChange(service=seen.service.key, set=epochs)
        return change, f"restart all replicas of {seen.service.key}: {seen.cause.name}"


class Scale(Wishing, frozen=True, kw_only=True):
    """Ask for more replicas of the variants that answer, within the bounds of the spec, for ``seconds``.

    ``factor``: times those wished; None: as many times as the traffic is of before, between 1.5 and 4.
    """

    name: ClassVar[str] = "scale"
    factor: float | None = None
    seconds: float = 1800.0

    def wish(self, seen: Seen) -> tuple[Change, str] | None:
        """None at ``scale.max``, and where even so many would not carry the traffic; where the machine has no processor
        left; where what it calls does not keep up (more replicas would ask it for more); where an autoscaler is at work
        above its floor: it sees more than we do."""
        spec = seen.service.spec
        times, later = seen.latest("dependency_slowdown") or 0.0, seen.latest("dependency_delay") or 0.0
        if (seen.latest("host_cpu_ratio") or 0.0) >= TAKEN or (times >= BEHIND and later >= LATER):
            return None
        traffic = seen.latest("traffic_ratio") or 0.0
        factor = self.factor or min(max(traffic, LEAST_FACTOR), MOST_FACTOR)
        more = {}
        for name, dials in seen.service.dials.variants.items():
            busy = spec.scale.auto is not None and dials.auto and dials.replicas > spec.scale.min
            wanted = min(max(math.ceil(dials.replicas * factor), dials.replicas + 1), spec.scale.max)
            enough = traffic * dials.replicas <= SPARE * spec.scale.max
            if dials.weight > 0 and dials.replicas > 0 and not busy and wanted > dials.replicas and enough:
                more[f"{name}.replicas"] = float(wanted)
        if not more:
            return None
        change = DialChange(service=seen.service.key, set=more, ttl=self.seconds)
        return change, f"more replicas for {self.seconds:g} s: {seen.cause.name}"
