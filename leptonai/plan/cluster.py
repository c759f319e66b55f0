"""One cluster of the gateway: the replicas of one variant, how they are chosen, checked, left out and limited. Pure.

Where a knob is set, Envoy's own default was found wanting; each says why. docs/gateway.md explains them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leptonai.plan.units import seconds
from leptonai.settings import Gateway
from leptonai.types import Balance, Key, Limits, Outlier, Replica, Retry, Service, Spec

Json = dict[str, Any]

CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
_ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
_UPSTREAM = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_UNLIMITED = 100_000
_EJECTIONS = 10.0  # times Outlier.eject at most: a replica that is bad for good is looked at every few minutes


def cluster_name(key: Key, variant: str) -> str:
    """``team/digits``, ``main`` -> ``team.digits@main``."""
    return f"{key.replace('/', '.')}@{variant}"


def assignment(name: str, replicas: Sequence[Replica]) -> Json:
    """The endpoints of a cluster: the ready ones of its ``replicas``."""
    hosts = [_host(r) for r in replicas if r.state == "ready" and r.address]
    return {"@type": _ENDPOINTS, "cluster_name": name, "endpoints": [{"lb_endpoints": hosts}]}


def cluster(service: Service, name: str, gateway: Gateway, eds: Json | None, load: Json, *, beside: int = 0) -> Json:
    """A cluster that takes its endpoints from ``eds``, or, when that is None, has those of ``load`` built in.

    ``beside``: hosts of it that are no replicas: the edge.
    """
    spec = service.spec
    if eds is None and not load["endpoints"][0]["lb_endpoints"]:
        return _dormant(name, load, spec)
    made: Json = {
        "@type": CLUSTER,
        "name": name,
        "connect_timeout": "1s",
        # Default false keeps a host that was taken out for as long as its health check passes.
        "ignore_health_on_host_removal": True,
        "health_checks": [
            {
                "timeout": seconds(gateway.health_timeout),
                "interval": seconds(gateway.health_interval),
                # Default 60 s without traffic: recovery after a quiet time would take a minute.
                "no_traffic_interval": seconds(gateway.health_interval),
                "no_traffic_healthy_interval": seconds(gateway.health_interval),
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "http_health_check": {"path": "/-/ready", "host": "replica"},
            }
        ],
        "circuit_breakers": _breakers(spec.limits, spec.retry),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _UPSTREAM,
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    } | _policy(spec.balancing)
    if spec.outlier:
        made["outlier_detection"] = _outlier(spec.outlier, beside)
    if eds is None:
        return made | {"type": "STATIC", "load_assignment": {k: v for k, v in load.items() if k != "@type"}}
    return made | {"type": "EDS", "eds_cluster_config": {"eds_config": eds}}


def _dormant(name: str, load: Json, spec: Spec) -> Json:
    """One without a replica and without a file: only the edge, and as little as Envoy can be told of it."""
    edge = [
        {**locality, "lb_endpoints": [{"endpoint": host["endpoint"]} for host in locality["lb_endpoints"]]}
        for locality in load["endpoints"][1:]
    ]
    return {
        "@type": CLUSTER,
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": _breakers(spec.limits, spec.retry),
        "load_assignment": {"cluster_name": name, "endpoints": edge} | {k: load[k] for k in ("policy",) if k in load},
    }


def fixed(name: str, at: str) -> Json:
    """A cluster of one host that is not checked."""
    host = {"endpoint": {"address": address(at)}}
    return {
        "@type": CLUSTER,
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [host]}]},
    }


def address(at: str) -> Json:
    """``unix:/path`` or ``host:port`` as Envoy writes it."""
    if at.startswith("unix:"):
        return {"pipe": {"path": at.removeprefix("unix:")}}
    host, _, port = at.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def _host(replica: Replica) -> Json:
    return {
        "endpoint": {"address": address(replica.address), "hostname": replica.id},
        "metadata": {"filter_metadata": {"leptonai": {"replica": replica.id, "digest": replica.digest}}},
    }


def _policy(balance: Balance) -> Json:
    # Panic (default 50 %) would send requests to replicas known to be sick.
    # Changes of health are merged for 1 s by default: new replicas and sick ones would be noticed that much later.
    common: Json = {"healthy_panic_threshold": {"value": 0}, "update_merge_window": "0s"}
    if balance.load_factor:
        common["consistent_hashing_lb_config"] = {"hash_balance_factor": round(100 * balance.load_factor)}
    made: Json = {"lb_policy": balance.policy.upper(), "common_lb_config": common}
    if balance.slow_start:
        made[f"{balance.policy}_lb_config"] = {"slow_start_config": {"slow_start_window": seconds(balance.slow_start)}}
    return made


def _outlier(outlier: Outlier, beside: int) -> Json:
    return {
        "consecutive_5xx": outlier.errors,
        "base_ejection_time": seconds(outlier.eject),
        "max_ejection_time": seconds(outlier.eject * _EJECTIONS),
        # Default 10 s: one that is to come back would wait for that long again.
        "interval": "1s",
        # Of all hosts, the edge too: with it, half of the hosts would be all of one replica.
        "max_ejection_percent": max(1, int(100 * outlier.max_share) - beside),
        # Default true ejects one host whatever the share allows, also the only one there is.
        "always_eject_one_host": False,
        # Default true: the probe of a replica that fails requests passes, and would bring it back at once.
        "successful_active_health_check_uneject_host": False,
        # Counted twice otherwise; statistics over few hosts say nothing.
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
    }


def _breakers(limits: Limits, retry: Retry) -> Json:
    # Defaults (1024 requests, 3 retries) fail requests when a replica dies under load. Replicas shed by 429.
    thresholds: Json = {
        "max_connections": limits.connections or _UNLIMITED,
        "max_pending_requests": _UNLIMITED if limits.pending is None else limits.pending,
        "max_requests": limits.requests or _UNLIMITED,
        "retry_budget": {"budget_percent": {"value": 100.0 * retry.budget}, "min_retry_concurrency": retry.min},
    }
    made: Json = {"thresholds": [thresholds]}
    if limits.replica_connections:
        made["per_host_thresholds"] = [{"max_connections": limits.replica_connections}]
    return made


def hash_policies(spec: Spec) -> list[Json]:
    """What a request is recognised by, the first that it has; [] for policies that do not hash."""
    balance = spec.balancing
    if balance.policy not in HASHING:
        return []
    return [_hash(where, balance.cookie_ttl) for where in balance.hash_on or DEFAULT_HASH]


def _hash(where: str, cookie_ttl: float | None) -> Json:
    kind, _, name = where.partition(":")
    match kind:
        case "header":
            found: Json = {"header": {"header_name": name}}
        case "query":
            found = {"query_parameter": {"name": name}}
        case "cookie":
            ttl = {} if cookie_ttl is None else {"ttl": seconds(cookie_ttl), "path": "/"}
            found = {"cookie": {"name": name} | ttl}
        case _:
            found = {"connection_properties": {"source_ip": True}}
    return found | {"terminal": True}


HASHING = ("ring_hash", "maglev")
DEFAULT_HASH = ("header:x-session-id", "source")
