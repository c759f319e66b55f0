"""Which requests the gateway tells of, one JSON line each: all that fail or are slow, and a share of the others. Pure.

Envoy decides after the answer, so nothing is paid for a request that is not kept: no span is built and sent for each.
"""

from __future__ import annotations

from typing import Any

from leptonai.settings import Gateway

Json = dict[str, Any]
FILE = "access.jsonl"
_ACCESS = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"


def access_log(gateway: Gateway, folder: str) -> list[Json]:
    """The connection manager's access log into ``folder/access.jsonl``; fields as ``ops.trace.gateway.Access`` has."""
    fields = {
        "id": "%REQ(X-REQUEST-ID)%",
        "trace": "%REQ(TRACEPARENT)%",
        "at": "%START_TIME(%s.%6f)%",
        "us": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
        "ms": "%DURATION%",
        "code": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%",
        "cluster": "%UPSTREAM_CLUSTER%",
        "host": "%UPSTREAM_HOST%",
        "tries": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        "method": "%REQ(:METHOD)%",
        "path": "%PATH(NQ:ORIG)%",
    }
    kept = [
        _status("GE", 500),
        _status("EQ", 429),
        {"response_flag_filter": {"flags": ["DC"]}},  # the client left before its answer: it has no status
        {"duration_filter": _compare("GE", round(1000 * gateway.trace_slow), "leptonai.trace_slow")},
        {
            "runtime_filter": {
                "runtime_key": "leptonai.trace_share",
                "percent_sampled": {
                    "numerator": min(1_000_000, round(gateway.trace_share * 1e6)),
                    "denominator": "MILLION",
                },
                # By its id alone: the same request is kept or not at every gateway it passes.
                "use_independent_randomness": False,
            }
        },
    ]
    return [
        {
            "name": "envoy.access_loggers.file",
            "filter": {"or_filter": {"filters": kept}},
            "typed_config": {
                "@type": _ACCESS,
                "path": f"{folder}/{FILE}",
                "log_format": {"json_format": fields, "omit_empty_values": True},
            },
        }
    ]


def _status(op: str, code: int) -> Json:
    return {"status_code_filter": _compare(op, code, f"leptonai.trace_{op.lower()}_{code}")}


def _compare(op: str, value: int, key: str) -> Json:
    return {"comparison": {"op": op, "value": {"default_value": value, "runtime_key": key}}}
