"""Clusters that no route names any more stay for a while: requests that are still being read had chosen them. Pure.

Envoy chooses a request's cluster by its headers and looks it up once its body is there; what has gone in between is
answered 503. On a busy machine that happened to one request in a few promotions, 29 ms after its headers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from leptonai.plan.edge import METADATA
from leptonai.plan.lanes import NEW

Json = dict[str, Any]
Snapshot = dict[str, Json]

LINGER = 60.0  # seconds: twice the usual spec.timeout, and longer than a body of gateway.max_body takes at 10 Mbit/s


def linger(
    old: Snapshot, new: Snapshot, until: Mapping[str, float], now: float, watches: int | None = None
) -> tuple[Snapshot, dict[str, float]]:
    """``new`` with the clusters of ``old`` that it lacks since less than LINGER, and until when each of them stays.

    Such a cluster has the hosts that answer its service's users now, the same variant's other version first. One whose
    service has gone goes with it, and one that had nothing but copies goes at once: nobody waits for their answers.
    ``until``: what this returned last, on the clock of ``now``. ``watches``: as of ``routes``; those that would be more
    have their hosts built in.
    """
    there = {c["name"] for c in new["cds.json"]["resources"]}
    left = [c for c in old.get("cds.json", {}).get("resources", []) if c["name"] not in there]
    if not left:
        return new, {}
    asked, before, copies = _asked(new), _asked(old), _copies(old)
    made, stay, clusters = dict(new), dict[str, float](), list[Json]()
    watched = sum(c["type"] == "EDS" for c in new["cds.json"]["resources"])
    for cluster in left:
        name = cluster["name"]
        path, at = f"eds/{name}.json", until.get(name, now + LINGER)
        service = name.partition("@")[0]
        heirs = [n for n in asked if n.partition("@")[0] == service and f"eds/{n}.json" in new]
        if not heirs or path not in old or at <= now or (name in copies and name not in before):
            continue
        heir = max(heirs, key=lambda n: (n == name.removesuffix(NEW), asked[n], n))
        load = _load(name, new[f"eds/{heir}.json"])
        made[path] = {**old[path], "resources": [load]}
        if cluster["type"] == "EDS":
            watched += 1
            if watches is not None and watched > watches:
                rest = {k: v for k, v in cluster.items() if k != "eds_cluster_config"}
                cluster = {**rest, "type": "STATIC", "load_assignment": {}}
        if "load_assignment" in cluster:
            cluster = {**cluster, "load_assignment": {k: v for k, v in load.items() if k != "@type"}}
        clusters.append(cluster)
        stay[name] = at
    if clusters:
        made["cds.json"] = {**new["cds.json"], "resources": [*new["cds.json"]["resources"], *clusters]}
    return made, stay


def _asked(snapshot: Snapshot) -> dict[str, float]:
    """The clusters that answer users, with the most of its weight that a route gives each."""
    found: dict[str, float] = {}
    for action in _actions(snapshot):
        parts = action.get("weighted_clusters", {}).get("clusters", ())
        total = sum(part["weight"] for part in parts)
        for name, share in [(p["name"], p["weight"] / total) for p in parts] or [(action["cluster"], 1.0)]:
            found[name] = max(share, found.get(name, 0.0))
    return found


def _copies(snapshot: Snapshot) -> set[str]:
    """The clusters that are sent copies."""
    return {copy["cluster"] for action in _actions(snapshot) for copy in action.get("request_mirror_policies", ())}


def _actions(snapshot: Snapshot) -> Iterator[Json]:
    """Of all routes. What another version of us wrote in another shape has none."""
    for table in snapshot.get("rds.json", {}).get("resources", ()):
        for host in table.get("virtual_hosts", ()):
            tree = host.get("matcher", {}).get("matcher_tree", {}).get("prefix_match_map", {}).get("map", {})
            for match in tree.values():
                yield from (r["route"] for r in match["action"]["typed_config"]["routes"] if "route" in r)


def _load(name: str, heir: Json) -> Json:
    """The endpoints of ``heir``, the edge among them, which is told nothing of this name: it listens for the heir's."""
    (found,) = heir["resources"]
    localities = []
    for locality in found["endpoints"]:
        hosts = [
            {k: v for k, v in h.items() if k != "metadata" or METADATA not in v["filter_metadata"]}
            for h in locality["lb_endpoints"]
        ]
        localities.append({**locality, "lb_endpoints": hosts})
    return {**found, "cluster_name": name, "endpoints": localities}
