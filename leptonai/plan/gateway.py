"""The gateway's whole configuration as plain data: what Envoy reads from files, made from wishes and replicas. Pure.

Every file is a discovery response that Envoy takes over when it is renamed into place; ``updates`` gives the order
that never routes to a missing cluster. ``cluster``, ``route`` and ``http`` make the parts.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from leptonai.plan import edge as at_edge
from leptonai.plan import http
from leptonai.plan.access import access_log
from leptonai.plan.cluster import address, assignment, cluster, cluster_name, fixed
from leptonai.plan.lanes import lanes, shares
from leptonai.plan.route import Table, fixed_routes, rate_limits, service_routes, usual_retry
from leptonai.plan.stats import stats
from leptonai.settings import Gateway
from leptonai.types import TEST_HEADER, Key, Replica, Service

Json = dict[str, Any]
Snapshot = dict[str, Json]  # file name under the gateway's folder -> content, in a safe order of writing

_LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
_ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
_ROUTE_LIST = "type.googleapis.com/envoy.config.route.v3.RouteList"
_HEADER_INPUT = "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput"
CONTROL = "control"


class Part(NamedTuple):
    """What one service adds to the configuration."""

    endpoints: Snapshot
    clusters: list[Json]
    routes: dict[str, Json]  # longest prefix of the path -> what the matcher does


class Known(NamedTuple):
    """What was made of one service, and of what. ``ranks``: its clusters as candidates for a file of their own."""

    service: Service
    replicas: list[Replica]
    ranks: list[tuple[bool, int, str]]
    usual: Json | None = None
    files: frozenset[str] | None = None
    part: Part | None = None


Memo = dict[Key, Known]


def routes(
    services: Sequence[Service],
    replicas: Sequence[Replica],
    gateway: Gateway,
    *,
    folder: str,
    control: str = "",
    edge: str = "",
    watches: int | None = None,
    memo: Memo | None = None,
) -> Snapshot:
    """Every file Envoy reads after its bootstrap, so that requests reach the ready replicas of ``services``.

    Endpoints are the replicas that are ready; requests in flight on a host that is left out finish there. A service
    with nothing ready keeps its route and is answered 503 ``no_ready_replica``.

    ``folder``: absolute path of the folder the files are written to. ``control``: address of the control API
    (``host:port`` or ``unix:/path``) for ``/feedback``; "" leaves that route out. ``edge``: the folder of the edge's
    sockets, one for each cluster; "": no edge, and nothing ready is 503. ``watches``: how many clusters may take
    their endpoints from their file; those of the others also stand in cds.json (Envoy holds one inotify instance a
    file, and aborts when the kernel has none left). ``memo``: kept between calls with otherwise equal settings, it
    makes a call cost what changed. Equal arguments give equal snapshots whatever the order of ``services`` and
    ``replicas``.
    """
    services = sorted(services, key=lambda s: s.key)
    mine: defaultdict[Key, list[Replica]] = defaultdict(list)
    for replica in sorted(replicas, key=lambda r: (r.service, r.variant, r.id)):
        mine[replica.service].append(replica)
    memo = memo if memo is not None else {}
    usual = usual_retry(services, gateway)
    known = [_known(s, mine.get(s.key, []), usual, memo.get(s.key)) for s in services]
    watched = _watched([rank for k in known for rank in k.ranks], watches)
    made: list[Part] = []
    for one in known:
        files = frozenset(name for _, _, name in one.ranks if watched is None or name in watched)
        if one.part is None or one.files != files:
            part = _part(one.service, one.replicas, usual, gateway, folder, edge, files)
            one = memo[one.service.key] = one._replace(files=files, part=part)
        assert one.part is not None
        made.append(one.part)
    for gone in memo.keys() - {s.key for s in services}:
        del memo[gone]
    endpoints = {name: content for part in made for name, content in part.endpoints.items()}
    clusters = [c for part in made for c in part.clusters]
    table = {prefix: action for part in made for prefix, action in part.routes.items()}
    if control:
        clusters.append(fixed(CONTROL, control))
    return {
        **endpoints,
        "cds.json": _response(clusters),
        "rds.json": _response([_table(services, table, usual, control)]),
        "lds.json": _response([_listener(gateway, folder)]),
    }


def updates(old: Snapshot, new: Snapshot) -> list[tuple[str, Json | None]]:
    """The files to write, in order, to get from ``old`` to ``new``; None: delete the file.

    Endpoints before clusters, clusters before routes, and a cluster leaves only after the routes that name it. The
    writer lets each step be taken over (``update_success``) before the next, where it matters to it.
    """
    # Parts that did not change are mostly the same objects: looking at that first makes thousands of files cheap.
    steps: list[tuple[str, Json | None]] = [
        (n, c) for n, c in new.items() if n.startswith("eds/") and old.get(n) is not c and old.get(n) != c
    ]
    if old.get("cds.json") != new["cds.json"]:
        staying = {c["name"] for c in new["cds.json"]["resources"]}
        leaving = [c for c in old.get("cds.json", {}).get("resources", []) if c["name"] not in staying]
        steps.append(("cds.json", _response([*new["cds.json"]["resources"], *leaving])))
    else:
        leaving = []
    steps += [(n, new[n]) for n in ("rds.json", "lds.json") if old.get(n) != new[n]]
    if leaving:
        steps.append(("cds.json", new["cds.json"]))
    steps += [(n, None) for n in old if n not in new]
    return steps


def bootstrap(gateway: Gateway, *, folder: str, admin: str, node: str = "leptonai") -> Json:
    """What Envoy is started with. ``admin``: ``unix:/path`` (nobody else on the machine) or ``host:port``."""
    return {
        "node": {"id": node, "cluster": node},
        "admin": {"address": address(admin)},
        "dynamic_resources": {
            "cds_config": _file(f"{folder}/cds.json"),
            "lds_config": _file(f"{folder}/lds.json"),
        },
        "stats_config": stats(),
        # Histograms are merged when the page is read, not every 5 s: ops reads it every second.
        "stats_flush_on_admin": True,
        # No heap profiler, no global limit of connections: the operating system's limits hold.
        "layered_runtime": {"layers": [{"name": "admin", "admin_layer": {}}]},
    }


def usual_threads(cores: int) -> int:
    """Half of the cores, at least two where there are two: lean replicas answer more than one thread carries."""
    return min(cores, max(2, cores // 2))


def _response(resources: list[Json]) -> Json:
    return {"resources": resources}


def _file(path: str) -> Json:
    return {"path_config_source": {"path": path}, "resource_api_version": "V3"}


def _known(service: Service, replicas: list[Replica], usual: Json | None, before: Known | None) -> Known:
    if before is not None and (before.service, before.replicas, before.usual) == (service, replicas, usual):
        return before
    ranks: list[tuple[bool, int, str]] = []
    for lane in lanes(service):
        name = cluster_name(service.key, lane.name)
        idle = lane.wanted == 0 and not any(map(lane.routes, replicas))
        ranks.append((idle, zlib.crc32(name.encode()), name))
    return Known(service, replicas, ranks, usual)


def _watched(ranks: list[tuple[bool, int, str]], watches: int | None) -> frozenset[str] | None:
    """The clusters that take their endpoints from their file, those with replicas first; None: all.

    One more moves at most one other."""
    if watches is None or len(ranks) <= watches:
        return None
    return frozenset(name for _, _, name in sorted(ranks)[:watches])


def _part(
    service: Service,
    replicas: list[Replica],
    usual: Json | None,
    gateway: Gateway,
    folder: str,
    edge: str,
    files: frozenset[str],
) -> Part:
    names = {cluster_name(service.key, lane.name): lane for lane in lanes(service)}
    endpoints: Snapshot = {}
    clusters: list[Json] = []
    ready: set[str] = set()
    for name, lane in names.items():
        load = assignment(name, [r for r in replicas if lane.routes(r)])
        if load["endpoints"][0]["lb_endpoints"]:
            ready.add(name)
        if lane.only is not None:  # users before canaries: whom a version on probation cannot answer, the old one does
            old = next(x for x in names.values() if x.variant.name == lane.variant.name)
            spare = assignment(name, [r for r in replicas if old.holds(r)])["endpoints"][0]
            load["endpoints"].append(spare | {"priority": 1})
        elif edge:
            load["endpoints"].append(at_edge.endpoint(service, lane.variant, name, edge))
            load["policy"] = at_edge.POLICY
        path = f"eds/{name}.json"
        endpoints[path] = _response([load])
        eds = _file(f"{folder}/{path}") if name in files else None
        clusters.append(cluster(service, name, gateway, eds, load, beside=1 if edge and lane.only is None else 0))
    table = service_routes(service, _targets(service, replicas, ready), _mirrors(service, ready), gateway, usual)
    return Part(endpoints, clusters, _match(table))


def _match(table: Table) -> dict[str, Json]:
    return {
        prefix: {"action": {"name": "routes", "typed_config": {"@type": _ROUTE_LIST, "routes": routes}}}
        for prefix, routes in table.items()
    }


def _table(services: Sequence[Service], table: dict[str, Json], usual: Json | None, control: str) -> Json:
    """One host for all names. A tree of prefixes finds the service: a list would be walked for every request."""
    path = {"name": "path", "typed_config": {"@type": _HEADER_INPUT, "header_name": ":path"}}
    rest = _match({"/": fixed_routes(CONTROL if control else "")})
    host: Json = {
        "name": "gateway",
        "domains": ["*"],
        "matcher": {"matcher_tree": {"input": path, "prefix_match_map": {"map": {**rest, **table}}}},
    }
    if usual is not None:
        host["retry_policy"] = usual
    if limits := rate_limits([s.spec for s in services]):
        host["typed_per_filter_config"] = limits
    return {
        "@type": _ROUTES,
        "name": "gateway",
        "validate_clusters": False,
        "request_headers_to_remove": [TEST_HEADER],  # what users ask counts
        "virtual_hosts": [host],
    }


def _targets(service: Service, replicas: Sequence[Replica], ready: set[str]) -> list[tuple[str, float]]:
    """Clusters and weights. While some lane can answer, one that cannot gets nothing: users before canaries."""
    weighed = [(cluster_name(service.key, lane.name), weight) for lane, weight in shares(service, replicas)]
    weighed = [(name, weight) for name, weight in weighed if weight > 0]
    return [(name, weight) for name, weight in weighed if name in ready] or weighed


def _mirrors(service: Service, ready: set[str]) -> list[tuple[str, float]]:
    copies = [(cluster_name(service.key, lane.name), lane.mirror) for lane in lanes(service)]
    return [(name, share) for name, share in copies if share > 0 and name in ready]


def _manager(gateway: Gateway, folder: str) -> Json:
    manager = http.connection_manager(gateway, _file(f"{folder}/rds.json"))
    manager["typed_config"]["access_log"] = access_log(gateway, folder)
    return manager


def _listener(gateway: Gateway, folder: str) -> Json:
    return {
        "@type": _LISTENER,
        "name": "gateway",
        "address": {"socket_address": {"address": gateway.host, "port_value": gateway.port}},
        "filter_chains": [
            {"filters": [_manager(gateway, folder)]},
        ],
    }
