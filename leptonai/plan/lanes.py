"""Lanes: which replicas answer together. One per variant; two while its new version is on probation. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from leptonai.types import Replica, Service, Variant, VariantDials

NEW = "-new"  # ends the lane of a version on probation; no variant may be named so


class Lane(NamedTuple):
    """``wanted`` replicas of ``variant`` get ``share`` of the variant's requests and copies of ``mirror`` of them."""

    name: str
    variant: Variant
    dials: VariantDials
    wanted: int
    share: float
    mirror: float
    excluded: frozenset[str]  # digests whose replicas do not belong here
    only: str | None = None  # the one digest whose replicas do; None: all that are not excluded
    warms: str | None = None  # a digest whose replicas are made known to the gateway under this name beforehand

    def holds(self, replica: Replica) -> bool:
        if replica.variant != self.variant.name or replica.digest in self.excluded:
            return False
        return self.only is None or replica.digest == self.only

    def routes(self, replica: Replica) -> bool:
        """Whether the gateway is to know ``replica`` as a host of this lane."""
        return self.holds(replica) or (replica.variant == self.variant.name and replica.digest == self.warms)


def lanes(service: Service) -> list[Lane]:
    """The lanes of ``service`` in the order of its variants, an old version before the new one.

    Without a rollout, a variant's lane holds all its replicas that are not of a rejected version. A variant that the
    head does not change has one lane during a rollout too.
    """
    rejected = frozenset(service.rejected)
    canary = service.canary
    before = {v.name: v for v in canary.stable} if canary else {}
    out = []
    for variant in service.spec.variants:
        dials = service.dials.variants.get(variant.name, VariantDials(replicas=service.spec.scale.replicas))
        wanted = max(0, dials.replicas)
        old, digest = before.get(variant.name), variant.digest
        if canary is None or old is None or old.digest == digest:
            out.append(Lane(variant.name, variant, dials, wanted, 1.0, dials.mirror, rejected))
            continue
        # At the full share nobody is asked under the old name: its hosts may already be those that take it over, so
        # that the gateway has found them healthy before it needs them.
        warms = digest if canary.weight >= 1.0 else None
        rest = 1.0 - canary.weight
        out.append(Lane(variant.name, old, dials, wanted, rest, dials.mirror, rejected | {digest}, warms=warms))
        # Where somebody else sets replicas, ours say nothing of how many the old version has.
        few = min(canary.replicas, wanted) if service.spec.scale.owner == "leptonai" else canary.replicas
        out.append(Lane(f"{variant.name}{NEW}", variant, dials, few, canary.weight, canary.mirror, rejected, digest))
    return out


def shares(service: Service, replicas: Sequence[Replica]) -> list[tuple[Lane, float]]:
    """Each lane with its weight among all, as the replicas of now can bear it.

    A version on probation gets no more than its ready replicas are of those wanted: when one of two dies, its part
    goes back to the old version.
    """
    found = lanes(service)
    able: dict[str, float] = {}
    for lane in found:
        if lane.only is not None:
            ready = sum(r.state == "ready" and r.service == service.key and lane.holds(r) for r in replicas)
            able[lane.variant.name] = min(lane.share, ready / max(1, lane.dials.replicas, lane.wanted))
    out = []
    for lane in found:
        new = able.get(lane.variant.name, 0.0)
        out.append((lane, lane.dials.weight * (new if lane.only is not None else 1.0 - new)))
    return out
