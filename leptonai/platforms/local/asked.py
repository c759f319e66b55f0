"""What a gateway has been asked, as Envoy counts it for each cluster, and for whom that counts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from leptonai.plan import cluster_name
from leptonai.plan.lanes import lanes
from leptonai.types import Key, Service

ASKED = r"/stats?usedonly&filter=^cluster\.[^@]%2B@[^.]%2B\.upstream_rq_(total|active)$"
Count = tuple[int, int]  # requests so far, and under way


def clusters(page: str) -> dict[str, Count]:
    """By cluster, of the answer to ``ASKED``."""
    found: dict[str, Count] = {}
    for line in page.splitlines():
        name, _, value = line.partition(": ")
        cluster, _, what = name.removeprefix("cluster.").rpartition(".upstream_rq_")
        total, active = found.get(cluster, (0, 0))
        found[cluster] = (int(value), active) if what == "total" else (total, int(value))
    return found


def variants(services: Iterable[Service], counts: Mapping[str, Count]) -> dict[tuple[Key, str], Count]:
    """As ``Platform.asked``."""
    found: dict[tuple[Key, str], Count] = {}
    for service in services:
        for lane in lanes(service):
            count = counts.get(cluster_name(service.key, lane.name))
            if count is not None and (lane.only is None or lane.share > 0):  # copies ask for nothing
                at = (service.key, lane.variant.name)
                total, active = found.get(at, (0, 0))
                found[at] = (total + count[0], active + count[1])
    return found
