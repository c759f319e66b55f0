"""Traffic by Istio: what docs/gateway.md says of our own gateway, as far as Istio can be told it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leptonai.errors import PlatformError
from leptonai.plan.lanes import Lane
from leptonai.plan.render import names, weights
from leptonai.plan.render.apis import Apis
from leptonai.plan.render.objects import metadata
from leptonai.plan.units import seconds
from leptonai.settings import Gateway
from leptonai.types import TEST_HEADER, Balance, Service

Json = dict[str, Any]

PARTS = 100
_COOKIE_TTL = 0.0  # Istio demands one: until the browser closes
_UNLIMITED = 100_000  # as our own gateway: the defaults (1024) fail requests under load


def host(service: Service, name: str, namespace: str) -> str:
    return f"{name}.{namespace}.svc.cluster.local"


def virtual_service(service: Service, lanes: Sequence[Lane], namespace: str, apis: Apis) -> Json:
    """Weights, copies, time limit, repetition and shedding of requests to the front Service, within the mesh."""
    version = apis.version("VirtualService")
    shares = weights.parts(weights.weighed(lanes, service.key), PARTS)
    rule: Json = {"route": [{"destination": _destination(service, x, namespace), "weight": n} for x, n in shares]}
    copies = [lane for lane in lanes if lane.mirror > 0]
    if len(copies) == 1:
        rule["mirror"] = _destination(service, copies[0], namespace)
        rule["mirrorPercentage"] = {"value": 100.0 * copies[0].mirror}
    elif copies:
        apis.require(25, "mirroring to more than one variant (Istio 1.17)", "mirror to one variant only")
        rule["mirrors"] = [
            {"destination": _destination(service, x, namespace), "percentage": {"value": 100.0 * x.mirror}}
            for x in copies
        ]
    rule["headers"] = {"request": {"remove": [TEST_HEADER]}}
    rule["timeout"] = seconds(service.spec.timeout)
    rule["retries"] = _retries(service)
    if service.dials.shed > 0:
        rule["fault"] = {"abort": {"httpStatus": 429, "percentage": {"value": 100.0 * service.dials.shed}}}
    name = names.front_name(service.key)
    return {
        "apiVersion": version,
        "kind": "VirtualService",
        "metadata": metadata(name, namespace, service.key),
        "spec": {"hosts": [host(service, name, namespace)], "http": [rule]},
    }


def destination_rule(service: Service, lane: Lane, namespace: str, apis: Apis) -> Json:
    """How a replica of ``lane`` is chosen and left out, and what they may hold at once."""
    spec = service.spec
    limits = spec.limits
    connections: Json = {
        "tcp": {"maxConnections": limits.connections or _UNLIMITED, "connectTimeout": "1s"},
        "http": {
            "http1MaxPendingRequests": _UNLIMITED if not limits.pending else limits.pending,
            "http2MaxRequests": limits.requests or _UNLIMITED,
            "maxRetries": spec.retry.min,
        },
    }
    traffic: Json = {"connectionPool": connections, "loadBalancer": _balance(spec.balancing, apis)}
    if spec.outlier is not None:
        traffic["outlierDetection"] = {
            "consecutive5xxErrors": spec.outlier.errors,
            "interval": "1s",
            "baseEjectionTime": seconds(spec.outlier.eject),
            "maxEjectionPercent": max(1, int(100 * spec.outlier.max_share)),
            "minHealthPercent": 0,
        }
    name = names.lane_name(service.key, lane.name)
    return {
        "apiVersion": apis.version("VirtualService"),
        "kind": "DestinationRule",
        "metadata": metadata(name, namespace, service.key, lane),
        "spec": {"host": host(service, name, namespace), "trafficPolicy": traffic},
    }


def _destination(service: Service, lane: Lane, namespace: str) -> Json:
    name = names.lane_name(service.key, lane.name)
    return {"host": host(service, name, namespace), "port": {"number": 80}}


def _retries(service: Service) -> Json:
    """As our own gateway: what may have run is repeated only where every variant is idempotent."""
    canary = service.canary.stable if service.canary else ()
    safe = all(v.idempotent for v in (*service.spec.variants, *canary))
    attempts = Gateway().retries if service.spec.retry.attempts is None else service.spec.retry.attempts
    if attempts == 0:
        return {"attempts": 0}
    when = "connect-failure,refused-stream"
    return {"attempts": attempts, "retryOn": f"{when},reset,503" if safe else when}


def _balance(balance: Balance, apis: Apis) -> Json:
    made: Json
    match balance.policy:
        case "least_request":  # named so since Istio 1.14, which begins at Kubernetes 1.21
            made = {"simple": "LEAST_REQUEST" if apis.minor >= 21 else "LEAST_CONN"}
        case "round_robin":
            made = {"simple": "ROUND_ROBIN"}
        case "random":
            made = {"simple": "RANDOM"}
        case _:
            made = {"consistentHash": _hash(balance, apis)}
    if balance.slow_start:
        if "consistentHash" in made or made["simple"] == "RANDOM":
            raise PlatformError(
                f"Istio starts replicas slowly with least_request and round_robin, not with {balance.policy}",
                hint="leave balance.slow_start out, or choose another policy",
            )
        made["warmupDurationSecs"] = seconds(balance.slow_start)
    return made


def _hash(balance: Balance, apis: Apis) -> Json:
    kind, _, name = (balance.hash_on or ("header:x-session-id",))[0].partition(":")
    match kind:
        case "header":
            made: Json = {"httpHeaderName": name}
        case "query":
            made = {"httpQueryParameterName": name}
        case "cookie":
            ttl = _COOKIE_TTL if balance.cookie_ttl is None else balance.cookie_ttl
            made = {"httpCookie": {"name": name, "ttl": seconds(ttl)}}
        case _:
            made = {"useSourceIp": True}
    if balance.policy == "maglev":
        apis.require(22, "balance maglev (Istio 1.16)", "choose ring_hash")
        made["maglev"] = {}
    return made
