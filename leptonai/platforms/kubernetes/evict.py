"""Which pods an eviction lets go of, and when they may end. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from leptonai.plan.lanes import lanes
from leptonai.plan.render.names import EVICTED, OWN
from leptonai.platforms.kubernetes.pods import said_ready
from leptonai.types import Service

Json = dict[str, Any]


class Leaving(NamedTuple):
    """``release``: pods whose Deployment is to make another. ``end``: with seconds of grace, None: the pod's own."""

    release: list[Json]
    end: list[tuple[Json, int | None]]


def leaving(service: Service, pods: Sequence[Json], theirs: Mapping[str, int] = MappingProxyType({})) -> Leaving:
    """A released pod serves until as many others of its lane are ready as are wished; one that is not ready goes at
    once, and without waiting for requests that it will not finish. ``theirs``: see ``converge.theirs``."""
    wanted = _wanted(service, theirs)
    here = [p for p in pods if not p["metadata"].get("deletionTimestamp")]
    release = [p for p in here if p["metadata"]["name"] in service.dials.evict and _label(p, EVICTED) != "yes"]
    end: list[tuple[Json, int | None]] = []
    for pod in here:
        if _label(pod, EVICTED) == "yes":
            lane = _label(pod, f"{OWN}/lane")
            mates = [p for p in here if _label(p, f"{OWN}/lane") == lane and _label(p, EVICTED) != "yes"]
            if not said_ready(pod):
                end.append((pod, 1))
            elif sum(map(said_ready, mates)) >= wanted.get(lane, 0):
                end.append((pod, None))
    return Leaving(release, end)


def short(service: Service, pods: Sequence[Json], theirs: Mapping[str, int] = MappingProxyType({})) -> bool:
    """Whether a lane has fewer pods than wished that its Deployment counts."""
    held = [_label(p, f"{OWN}/lane") for p in pods if _label(p, EVICTED) != "yes"]
    return any(held.count(lane) < count for lane, count in _wanted(service, theirs).items())


def _wanted(service: Service, theirs: Mapping[str, int]) -> dict[str, int]:
    return {
        lane.name: lane.wanted if lane.only is not None else theirs.get(lane.variant.name, lane.wanted)
        for lane in lanes(service)
    }


def _label(pod: Json, name: str) -> str:
    return str((pod["metadata"].get("labels") or {}).get(name, ""))
