"""The gateway's whole configuration as plain data: what Envoy reads from files, made from wishes and replicas. Pure.

Where a knob is set, Envoy's own default was found wanting; each says why. Every file is a discovery response that
Envoy takes over when it is renamed into place; ``updates`` gives the order that never routes to a missing cluster.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leptonai.plan import edge as at_edge
from leptonai.plan import http
from leptonai.settings import Gateway
from leptonai.types import Key, Replica, Service, Variant, VariantDials

Json = dict[str, Any]
Snapshot = dict[str, Json]  # file name under the gateway's folder -> content, in a safe order of writing

_CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
_ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
_LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
_ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
_UPSTREAM = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_BALANCE = {
    "least_request": "LEAST_REQUEST",
    "round_robin": "ROUND_ROBIN",
    "random": "RANDOM",
    "ring_hash": "RING_HASH",
    "maglev": "MAGLEV",
}
CONTROL = "control"


def cluster_name(key: Key, variant: str) -> str:
    """``team/digits``, ``main`` -> ``team.digits@main``."""
    return f"{key.replace('/', '.')}@{variant}"


def routes(
    services: Sequence[Service],
    replicas: Sequence[Replica],
    gateway: Gateway,
    *,
    folder: str,
    control: str = "",
    edge: str = "",
) -> Snapshot:
    """Every file Envoy reads after its bootstrap, so that requests reach the ready replicas of ``services``.

    Endpoints are the replicas that are ready; requests in flight on a host that is left out finish there. A service
    with nothing ready keeps its route and is answered 503 ``no_ready_replica``.

    ``folder``: absolute path of the folder the files are written to. ``control``: address of the control API
    (``host:port`` or ``unix:/path``) for ``/feedback``; "" leaves that route out. ``edge``: the folder of the edge's
    sockets, one for each cluster; "": no edge, and nothing ready is 503. Equal arguments give equal
    snapshots whatever the order of ``services`` and ``replicas``.
    """
    services = sorted(services, key=lambda s: s.key)
    replicas = sorted(replicas, key=lambda r: (r.service, r.variant, r.id))
    endpoints: Snapshot = {}
    clusters: list[Json] = []
    ready: set[str] = set()
    for service in services:
        for variant in service.spec.variants:
            name = cluster_name(service.key, variant.name)
            mine = [r for r in replicas if r.service == service.key and r.variant == variant.name and r.address]
            hosts = [_host(r) for r in mine if r.state == "ready"]
            if hosts:
                ready.add(name)
            assignment: Json = {"@type": _ENDPOINTS, "cluster_name": name, "endpoints": [{"lb_endpoints": hosts}]}
            if edge:
                assignment["endpoints"].append(at_edge.endpoint(service, variant, name, edge))
                assignment["policy"] = at_edge.POLICY
            endpoints[f"eds/{name}.json"] = _response([assignment])
            clusters.append(_cluster(service, name, gateway, f"{folder}/eds/{name}.json"))
    if control:
        clusters.append(_control(control))
    routed = [r for s in services for r in http.service_routes(s, _targets(s, ready), _mirrors(s, ready), gateway)]
    table = {
        "@type": _ROUTES,
        "name": "gateway",
        "validate_clusters": False,
        "virtual_hosts": [
            {
                "name": "gateway",
                "domains": ["*"],
                "routes": [*http.fixed_routes(CONTROL if control else ""), *routed],
            }
        ],
    }
    return {
        **endpoints,
        "cds.json": _response(clusters),
        "rds.json": _response([table]),
        "lds.json": _response([_listener(gateway, folder)]),
    }


def updates(old: Snapshot, new: Snapshot) -> list[tuple[str, Json | None]]:
    """The files to write, in order, to get from ``old`` to ``new``; None: delete the file.

    Endpoints before clusters, clusters before routes, and a cluster leaves only after the routes that name it. The
    writer lets each step be taken over (``update_success``) before the next, where it matters to it.
    """
    steps: list[tuple[str, Json | None]] = [(n, c) for n, c in new.items() if n.startswith("eds/") and old.get(n) != c]
    before = {c["name"]: c for c in old.get("cds.json", {}).get("resources", [])}
    after = {c["name"]: c for c in new["cds.json"]["resources"]}
    leaving = [c for name, c in before.items() if name not in after]
    if old.get("cds.json") != new["cds.json"]:
        steps.append(("cds.json", _response([*new["cds.json"]["resources"], *leaving])))
    steps += [(n, new[n]) for n in ("rds.json", "lds.json") if old.get(n) != new[n]]
    if leaving:
        steps.append(("cds.json", new["cds.json"]))
    steps += [(n, None) for n in old if n not in new]
    return steps


def bootstrap(gateway: Gateway, *, folder: str, admin: str, node: str = "leptonai") -> Json:
    """What Envoy is started with. ``admin``: ``unix:/path`` (nobody else on the machine) or ``host:port``."""
    return {
        "node": {"id": node, "cluster": node},
        "admin": {"address": _address(admin)},
        "dynamic_resources": {
            "cds_config": _file(f"{folder}/cds.json"),
            "lds_config": _file(f"{folder}/lds.json"),
        },
        "stats_config": http.stats(),
        # Histograms are merged when the page is read, not every 5 s: ops reads it every second.
        "stats_flush_on_admin": True,
        # No heap profiler, no global limit of connections: the operating system's limits hold.
        "layered_runtime": {"layers": [{"name": "admin", "admin_layer": {}}]},
    }


def _response(resources: list[Json]) -> Json:
    return {"resources": resources}


def _file(path: str) -> Json:
    return {"path_config_source": {"path": path}, "resource_api_version": "V3"}


def _address(address: str) -> Json:
    if address.startswith("unix:"):
        return {"pipe": {"path": address.removeprefix("unix:")}}
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def _host(replica: Replica) -> Json:
    return {
        "endpoint": {"address": _address(replica.address), "hostname": replica.id},
        "metadata": {"filter_metadata": {"leptonai": {"replica": replica.id, "digest": replica.digest}}},
    }


def _dials(service: Service, variant: Variant) -> VariantDials:
    return service.dials.variants.get(variant.name, VariantDials())


def _targets(service: Service, ready: set[str]) -> list[tuple[str, float]]:
    """Clusters and weights. While some variant can answer, one that cannot gets nothing: users before canaries."""
    weighed = [(cluster_name(service.key, v.name), _dials(service, v).weight) for v in service.spec.variants]
    weighed = [(name, weight) for name, weight in weighed if weight > 0]
    return [(name, weight) for name, weight in weighed if name in ready] or weighed


def _mirrors(service: Service, ready: set[str]) -> list[tuple[str, float]]:
    shares = [(cluster_name(service.key, v.name), _dials(service, v).mirror) for v in service.spec.variants]
    return [(name, share) for name, share in shares if share > 0 and name in ready]


def _cluster(service: Service, name: str, gateway: Gateway, eds: str) -> Json:
    return {
        "@type": _CLUSTER,
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": _file(eds)},
        "connect_timeout": "1s",
        "lb_policy": _BALANCE[service.spec.balance],
        # Panic (default 50 %) would send requests to replicas known to be sick.
        # Changes of health are merged for 1 s by default: new replicas and sick ones would be noticed that much later.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}, "update_merge_window": "0s"},
        # Default false keeps a host that was taken out for as long as its health check passes.
        "ignore_health_on_host_removal": True,
        "health_checks": [
            {
                "timeout": http.seconds(gateway.health_timeout),
                "interval": http.seconds(gateway.health_interval),
                # Default 60 s without traffic: recovery after a quiet time would take a minute.
                "no_traffic_interval": http.seconds(gateway.health_interval),
                "no_traffic_healthy_interval": http.seconds(gateway.health_interval),
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "http_health_check": {"path": "/-/ready", "host": "replica"},
            }
        ],
        # Defaults (1024 requests, 3 retries) fail requests when a replica dies under load. Replicas shed by 429.
        "circuit_breakers": {
            "thresholds": [
                {"max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000}
                | {"max_retries": 1000}
            ]
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _UPSTREAM,
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }


def _control(address: str) -> Json:
    host = {"endpoint": {"address": _address(address)}}
    return {
        "@type": _CLUSTER,
        "name": CONTROL,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": CONTROL, "endpoints": [{"lb_endpoints": [host]}]},
    }


def _listener(gateway: Gateway, folder: str) -> Json:
    return {
        "@type": _LISTENER,
        "name": "gateway",
        "address": {"socket_address": {"address": gateway.host, "port_value": gateway.port}},
        "filter_chains": [
            {"filters": [http.connection_manager(gateway, _file(f"{folder}/rds.json"))]},
        ],
    }
