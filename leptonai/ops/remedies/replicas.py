"""Remedies that replace replicas or wish for more of them."""

from __future__ import annotations

import math
from typing import ClassVar

from leptonai.ops.load import ROOM
from leptonai.ops.remedies.traffic import LEAST_SHED, admitted, uncarried
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

    ``factor``: times those wished; None: as many times as the traffic is of before, between 1.5 and 4. ``refuse``:
    seconds for which, with them, what the replicas that are there do not carry is refused with 429, 0 for not at all:
    new ones need their time, and what waits for those that are full would keep them full; less and less is refused as
    they come (``ops.respond.ease``). Where somebody else sets the replicas, that is all that is asked for: he starts
    them, within the same bounds.
    """

    name: ClassVar[str] = "scale"
    factor: float | None = None
    seconds: float = 1800.0
    refuse: float = 0.0

    def wish(self, seen: Seen) -> tuple[Change, str] | None:
        """None at ``scale.max``, and where even so many would not carry the traffic; where the machine has no processor
        left; where what it calls does not keep up (more replicas would ask it for more); where an autoscaler is at work
        above its floor: it sees more than we do; where somebody else sets the replicas and nothing is to be refused."""
        spec, theirs = seen.service.spec, seen.service.key in seen.theirs
        slower, later = seen.latest("dependency_slowdown") or 0.0, seen.latest("dependency_delay") or 0.0
        if (seen.latest("host_cpu_ratio") or 0.0) >= TAKEN or (slower >= BEHIND and later >= LATER):
            return None
        traffic = max(seen.latest("traffic_ratio") or 0.0, seen.latest("arrivals_ratio") or 0.0)
        factor = self.factor or min(max(traffic, LEAST_FACTOR), MOST_FACTOR)
        more = {}
        for name, dials in seen.service.dials.variants.items():
            busy = not theirs and spec.scale.auto is not None and dials.auto and dials.replicas > spec.scale.min
            needed = _needed(seen, dials.replicas)
            enough = (needed or traffic * dials.replicas / SPARE) <= spec.scale.max
            times = factor if self.factor else max(factor, min((needed or 0.0) / max(dials.replicas, 1), MOST_FACTOR))
            wanted = min(max(math.ceil(dials.replicas * times), dials.replicas + 1), spec.scale.max)
            if dials.weight > 0 and dials.replicas > 0 and not busy and wanted > dials.replicas and enough:
                more[f"{name}.replicas"] = float(wanted)
        if not more:
            return None
        why = f"more replicas for {self.seconds:g} s: {seen.cause.name}"
        share = round(uncarried(seen) or 0.0, 2) if self.refuse else 0.0
        refuses = share >= LEAST_SHED and seen.service.dials.shed < share
        if theirs:
            change = DialChange(service=seen.service.key, set={"shed": share}, ttl=self.refuse)
            why = f"{share:.0%} of the requests are refused until {spec.scale.owner} has more replicas there"
            return (change, f"{why}: {seen.cause.name}") if refuses else None
        if not refuses:
            return DialChange(service=seen.service.key, set=more, ttl=self.seconds), why
        change = DialChange(
            service=seen.service.key, set={**more, "shed": share}, ttl=self.seconds, sooner={"shed": self.refuse}
        )
        return change, f"{why}; until they are there {share:.0%} of the requests are refused"


def _needed(seen: Seen, replicas: int) -> float | None:
    """How many in place of ``replicas`` would carry what comes, by what those that are ready carry each; None where the
    load is not known."""
    fact = next((f for f in seen.facts("load") if "carried_per_second" in f), None)
    if fact is None or float(fact["carried_per_second"]) <= 0:
        return None
    wished = sum(d.replicas for d in seen.service.dials.variants.values() if d.weight > 0)
    there = float(fact.get("carrying_count", wished)) / max(wished, 1)  # the others start, or are broken
    carried = ROOM * float(fact["carried_per_second"])
    return there * replicas * float(fact["arrivals_per_second"]) / admitted(seen) / carried
