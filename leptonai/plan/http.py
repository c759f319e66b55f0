"""The HTTP half of the gateway's configuration: the connection manager, routes, retries and error bodies. Pure."""

from __future__ import annotations

from typing import Any

from leptonai.settings import Gateway
from leptonai.types import DEFAULT_WORKSPACE, Service

Json = dict[str, Any]

_EXTENSIONS = "type.googleapis.com/envoy.extensions"
_HCM = f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = f"{_EXTENSIONS}.filters.http.router.v3.Router"
_BUFFER = f"{_EXTENSIONS}.filters.http.buffer.v3.Buffer"
_UUID = f"{_EXTENSIONS}.request_id.uuid.v3.UuidRequestIdConfig"
_PREVIOUS = f"{_EXTENSIONS}.retry.host.previous_hosts.v3.PreviousHostsPredicate"
_PRIORITIES = f"{_EXTENSIONS}.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
WEIGHTS = 10_000  # parts that weights are rounded to
HEDGE_LATENCIES = 4.0  # times the promised latency: one that is only slow should rarely be asked for twice
SESSION_HEADER = "x-session-id"  # what ring_hash and maglev keep on one replica; without it, the client's address


def seconds(value: float) -> str:
    """Protobuf's JSON duration, to the microsecond."""
    return f"{value:.6f}".rstrip("0").rstrip(".") + "s"


def service_routes(
    service: Service, targets: list[tuple[str, float]], mirrors: list[tuple[str, float]], gateway: Gateway
) -> list[Json]:
    """The routes of one service: its protocol paths as they are, its own paths with the prefix stripped."""
    spec = service.spec
    prefix = "" if spec.workspace == DEFAULT_WORKSPACE else f"/workspaces/{spec.workspace}"
    models, own = f"{prefix}/v2/models/{spec.name}", f"{prefix}/services/{spec.name}"
    if not targets:
        return [{"match": {"path_separated_prefix": p}, "direct_response": {"status": 503}} for p in (models, own)]
    action = _action(service, targets, mirrors, gateway)
    return [
        {"match": {"path_separated_prefix": f"{own}/-"}, "direct_response": {"status": 404}},
        {
            "match": {"path_separated_prefix": models},
            "route": action | ({"prefix_rewrite": f"/v2/models/{spec.name}"} if prefix else {}),
        },
        {"match": {"prefix": f"{own}/"}, "route": action | {"prefix_rewrite": "/"}},
    ]


def fixed_routes(control: str) -> list[Json]:
    live = {
        "match": {"path": "/v2/health/live"},
        "direct_response": {"status": 200, "body": {"inline_string": '{"live":true}'}},
        "response_headers_to_add": [_header("content-type", "application/json")],
    }
    if not control:
        return [live]
    retry = {
        # control may be restarting: nothing was sent yet, so this is safe for any method
        "retry_on": "connect-failure",
        "num_retries": 5,
        "retry_back_off": {"base_interval": "0.2s", "max_interval": "1s"},
    }
    feedback = {
        "match": {"path": "/feedback"},
        "route": {"cluster": control, "prefix_rewrite": "/api/v1/feedback", "timeout": "10s", "retry_policy": retry},
    }
    return [live, feedback]


def _action(
    service: Service, targets: list[tuple[str, float]], mirrors: list[tuple[str, float]], gateway: Gateway
) -> Json:
    spec = service.spec
    idempotent = all(v.idempotent for v in spec.variants)
    total = sum(weight for _, weight in targets)
    action: Json = {
        "timeout": seconds(spec.timeout),
        # A stalled upload ends like a stalled answer; the default (5 min) would also cut longer timeouts short.
        "idle_timeout": seconds(spec.timeout + 5.0),
        "retry_policy": _retry(idempotent, gateway),
    }
    # A failed health check takes a hung replica out of rotation, but nothing resets the requests that wait on it. So
    # a request without an answer for long is sent to another replica too, and the first answer wins. Cutting it off
    # instead (a per-try timeout without hedging) would make every slow service fail.
    patience = max(gateway.hedge_after, HEDGE_LATENCIES * spec.slo.latency)
    if idempotent and gateway.hedge_after > 0 and patience < spec.timeout:
        action["retry_policy"]["per_try_timeout"] = seconds(patience)
        action["hedge_policy"] = {"hedge_on_per_try_timeout": True}
    if len(targets) == 1:
        action["cluster"] = targets[0][0]
    else:
        parts = [{"name": name, "weight": max(1, round(WEIGHTS * weight / total))} for name, weight in targets]
        action["weighted_clusters"] = {"clusters": parts}
    if mirrors:
        action["request_mirror_policies"] = [
            {
                "cluster": name,
                "runtime_fraction": {
                    "default_value": {"numerator": min(1_000_000, round(share * 1e6)), "denominator": "MILLION"}
                },
            }
            for name, share in mirrors
        ]
    if spec.balance in ("ring_hash", "maglev"):
        action["hash_policy"] = [
            {"header": {"header_name": SESSION_HEADER}, "terminal": True},
            {"connection_properties": {"source_ip": True}},
        ]
    return action


def _retry(idempotent: bool, gateway: Gateway) -> Json:
    """Always on another replica and almost at once. What may have run is repeated only when it is idempotent."""
    when = "connect-failure,refused-stream"
    policy: Json = {
        "retry_on": f"{when},reset,retriable-status-codes" if idempotent else when,
        "num_retries": gateway.retries,
        "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.01s"},
        "retry_host_predicate": [
            {"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {"@type": _PREVIOUS}}
        ],
        "host_selection_retry_max_attempts": 8,
        # When two tries have found no replica that answers, the third asks the edge, which holds the request.
        "retry_priority": {
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {"@type": _PRIORITIES, "update_frequency": 2},
        },
    }
    if idempotent:
        policy["retriable_status_codes"] = [503]
    return policy


def connection_manager(gateway: Gateway, rds: Json) -> Json:
    """The listener's filter. Clients are never trusted with Envoy's own headers; a given ``x-request-id`` is kept."""
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": _HCM,
            "stat_prefix": "gateway",
            "server_name": "leptonai",
            "rds": {"route_config_name": "gateway", "config_source": rds},
            "use_remote_address": True,
            # An empty list would mean the default, which trusts every private address: so, one that is nobody's.
            "internal_address_config": {"cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]},
            "generate_request_id": True,
            "preserve_external_request_id": True,
            "always_set_request_id_in_response": True,
            "request_id_extension": {
                "typed_config": {
                    "@type": _UUID,
                    "pack_trace_reason": False,  # would alter given ids
                    "use_request_id_for_trace_sampling": False,
                }
            },
            # One spelling of a path before routing, so that no spelling reaches /-/ in a replica.
            "normalize_path": True,
            "merge_slashes": True,
            "path_with_escaped_slashes_action": "REJECT_REQUEST",
            "request_headers_timeout": "10s",
            "local_reply_config": _local_replies(gateway),
            "http_filters": [
                {
                    "name": "envoy.filters.http.buffer",
                    "typed_config": {"@type": _BUFFER, "max_request_bytes": gateway.max_body},
                },
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": _ROUTER, "suppress_envoy_headers": True, "dynamic_stats": True},
                },
            ],
        },
    }


def _local_replies(gateway: Gateway) -> Json:
    """Envoy's own answers in our one error shape; each tells whether a retry can help."""
    mib = gateway.max_body / (1 << 20)
    table: list[tuple[Json, Json]] = [
        (
            _flags("NR"),
            _body("no service answers this path", "not_found", "see the service's URL: leptonai ls", False),
        ),
        (
            _flags("UH", "NC"),
            _body("no replica of this service is ready", "no_ready_replica", "see leptonai status NAME", True),
        ),
        (
            _flags("UT", "SI", "DT"),
            _body("the request was not answered in time", "timeout", "the limit is the service's timeout", True),
        ),
        (
            _flags("UF", "UC", "URX", "LR", "UR", "DC"),
            _body("the replica went away while answering", "replica_lost", "see leptonai status NAME", True),
        ),
        (
            _flags("UO"),
            _body("too many requests are waiting", "overloaded", "try again with back-off", True),
        ),
        (
            _status(413),
            _body(f"the request body is over {mib:g} MiB", "too_large", "raise gateway.max_body in settings", False),
        ),
        (_status(404), _body("not found", "not_found", "paths under /-/ are internal", False)),
        (_status(503), _body("every variant has weight 0", "no_ready_replica", "raise a weight dial", True)),
        (_status(400, "GE"), _body("%LOCAL_REPLY_BODY%", "gateway", "the gateway refused the request", False)),
    ]
    return {"mappers": [{"filter": match, "body_format_override": {"json_format": body}} for match, body in table]}


def _body(error: str, code: str, hint: str, retry: bool) -> Json:
    return {"error": error, "code": code, "hint": hint, "retry": retry}


def _header(name: str, value: str) -> Json:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _flags(*flags: str) -> Json:
    return {"response_flag_filter": {"flags": list(flags)}}


def _status(code: int, op: str = "EQ") -> Json:
    value = {"default_value": code, "runtime_key": f"leptonai.status.{code}"}
    return {"status_code_filter": {"comparison": {"op": op, "value": value}}}


def stats() -> Json:
    """A short inclusion list: each statistic costs memory per cluster and time per scrape."""
    return {
        "use_all_default_tags": False,
        "stats_tags": [
            # The default expression ends a cluster's name at its first dot.
            {"tag_name": "envoy.cluster_name", "regex": r"^cluster\.(([^@]+@[a-z0-9-]+)\.)"},
            {"tag_name": "envoy.response_code_class"},
        ],
        "stats_matcher": {
            "inclusion_list": {
                "patterns": [
                    {"safe_regex": {"regex": regex}}
                    for regex in (
                        r"cluster\..*\.(membership_(healthy|total)|update_(success|rejected|failure)|version_text)",
                        r"cluster\..*\.upstream_rq_(total|active|time|timeout|\dxx|503|504|retry.*)",
                        r"cluster\..*\.upstream_(cx_connect_fail|cx_none_healthy|cx_active|rq_pending_overflow)",
                        r"cluster\..*\.health_check\.(failure|healthy|success)",
                        r"cluster_manager\.(cds\.(update_.*|version_text)|warming_clusters|active_clusters)",
                        r"listener_manager\.(lds\.(update_.*|version_text)|total_listeners_.*)",
                        r"http\.gateway\.(downstream_rq_(total|\dxx|active|time)|downstream_cx_active|no_route)",
                        r"http\.gateway\.rds\.gateway\.(update_.*|version_text)",
                        r"server\.(live|uptime|memory_allocated|version|state)",
                    )
                ]
            }
        },
    }
