"""The gateway's connection manager: what is done to every request before it is routed, and error bodies. Pure."""

from __future__ import annotations

from typing import Any

from leptonai.plan.route import RATE_FILTER, SHED
from leptonai.settings import Gateway

Json = dict[str, Any]

_EXTENSIONS = "type.googleapis.com/envoy.extensions"
_HCM = f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = f"{_EXTENSIONS}.filters.http.router.v3.Router"
_BUFFER = f"{_EXTENSIONS}.filters.http.buffer.v3.Buffer"
_UUID = f"{_EXTENSIONS}.request_id.uuid.v3.UuidRequestIdConfig"
_LOCAL_RATE = f"{_EXTENSIONS}.filters.http.local_ratelimit.v3.LocalRateLimit"


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
            # Probes of old balancers and tools like ab speak it; the answer then ends with its connection.
            "http_protocol_options": {"accept_http_10": True, "default_host_for_http_10": "leptonai"},
            "local_reply_config": _local_replies(gateway),
            "http_filters": [
                {
                    "name": "envoy.filters.http.buffer",
                    "typed_config": {"@type": _BUFFER, "max_request_bytes": gateway.max_body},
                },
                # After the buffer, so that the whole request has been read: a refusal then keeps the connection.
                {"name": RATE_FILTER, "typed_config": {"@type": _LOCAL_RATE, "stat_prefix": "gateway"}},
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
    later: Json = {"status_code": 429, "headers_to_add": [_header("retry-after", "1")]}
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
            _body("too many requests are waiting", "overloaded", "the service's limits; try again later", True),
        ),
        (
            _status(429),
            _body("too many requests of this caller", "rate_limited", "the limit is the service's rate_limit", True),
        ),
        (
            _status(SHED),
            _body("some requests are refused for now so that the others are answered", "shed", "try again later", True),
        ),
        (
            _status(413),
            _body(f"the request body is over {mib:g} MiB", "too_large", "raise gateway.max_body in settings", False),
        ),
        (_status(404), _body("not found", "not_found", "paths under /-/ are internal", False)),
        (_status(503), _body("every variant has weight 0", "no_ready_replica", "raise a weight dial", True)),
        (
            _status(400, "GE"),
            _body(
                "the gateway refused the request: %RESPONSE_CODE_DETAILS%",
                "gateway",
                "a request has one host, one plain path and one length",
                False,
            ),
        ),
    ]
    mappers: list[Json] = [{"filter": match, "body_format_override": {"json_format": body}} for match, body in table]
    # Shedding is never a 503: clients and retries must tell "too much" from "broken".
    for mapper in mappers:
        if mapper["filter"] in (_flags("UO"), _status(SHED)):
            mapper |= later
    return {"mappers": mappers}


def _body(error: str, code: str, hint: str, retry: bool) -> Json:
    return {"error": error, "code": code, "hint": hint, "retry": retry}


def _header(name: str, value: str) -> Json:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _flags(*flags: str) -> Json:
    return {"response_flag_filter": {"flags": list(flags)}}


def _status(code: int, op: str = "EQ") -> Json:
    value = {"default_value": code, "runtime_key": f"leptonai.status.{code}"}
    return {"status_code_filter": {"comparison": {"op": op, "value": value}}}
