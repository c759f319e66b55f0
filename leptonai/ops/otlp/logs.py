"""OTLP logs as records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from leptonai.ops.otlp.message import any_value
from leptonai.ops.units import prometheus_name
from leptonai.types import DEFAULT_WORKSPACE, LogRecord

MAX_BODY = 64_000  # characters of one record that are kept; a longer one is cut and says so
MAX_SOURCE = 16  # attributes of its resource that name where a record comes from


def records(request: Any, now: float, workspace: str = DEFAULT_WORKSPACE) -> Iterator[LogRecord]:
    """Every record of the request, in its order. One without a time of its own gets that of its observation, or now.

    ``source``: ``service`` (its ``service.name``) and the other attributes of its resource; outside the default
    workspace also ``workspace``.
    """
    for resource in request.resource_logs:
        given = {prometheus_name(a.key): any_value(a.value)[:256] for a in resource.resource.attributes[:MAX_SOURCE]}
        source = {k: v for k, v in given.items() if k != "workspace"}
        if "service_name" in source:
            source["service"] = source.pop("service_name")
        if workspace != DEFAULT_WORKSPACE:
            source["workspace"] = workspace
        for scope in resource.scope_logs:
            for record in scope.log_records:
                at = (record.time_unix_nano or record.observed_time_unix_nano) / 1e9
                yield LogRecord(
                    at=at or now,
                    source=source,
                    body=cut(any_value(record.body)),
                    severity=record.severity_number if 0 <= record.severity_number <= 24 else 0,
                    trace=record.trace_id.hex() if len(record.trace_id) == 16 else "",
                    span=record.span_id.hex() if len(record.span_id) == 8 else "",
                )


def cut(body: str) -> str:
    """At most MAX_BODY characters of it, saying how many are missing."""
    return body if len(body) <= MAX_BODY else f"{body[:MAX_BODY]} ... {len(body) - MAX_BODY} characters cut"
