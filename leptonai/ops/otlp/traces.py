"""OTLP spans to ours and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from leptonai.ops.otlp.message import any_value
from leptonai.types import DEFAULT_WORKSPACE, Span

KINDS = ("internal", "internal", "server", "client", "producer", "consumer")  # trace.proto, Span.SpanKind
MAX_ATTRIBUTES = 32  # of one span that are kept
MAX_TEXT = 512  # characters of one attribute or name
MAX_SECONDS = 86400.0  # a span that lasted longer is one with a broken clock


def spans(request: Any, workspace: str = DEFAULT_WORKSPACE) -> tuple[list[Span], Counter[str]]:
    """The spans that are whole, and how many are not by what is wrong: ``bad_id``, ``bad_time``."""
    found: list[Span] = []
    wrong: Counter[str] = Counter()
    for resource in request.resource_spans:
        about = {a.key: any_value(a.value)[:MAX_TEXT] for a in resource.resource.attributes[:MAX_ATTRIBUTES]}
        service = about.get("service.name") or "unknown_service"
        for scope in resource.scope_spans:
            for span in scope.spans:
                trace, id = span.trace_id, span.span_id
                if len(trace) != 16 or len(id) != 8 or not any(trace) or not any(id):
                    wrong["bad_id"] += 1
                    continue
                start = span.start_time_unix_nano / 1e9
                seconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9  # whole numbers keep the digits
                if not start > 0.0 or not 0.0 <= seconds <= MAX_SECONDS:
                    wrong["bad_time"] += 1
                    continue
                own = {a.key: any_value(a.value)[:MAX_TEXT] for a in span.attributes[:MAX_ATTRIBUTES]}
                found.append(
                    Span(
                        trace=trace.hex(),
                        id=id.hex(),
                        parent=span.parent_span_id.hex() if len(span.parent_span_id) == 8 else "",
                        name=span.name[:MAX_TEXT] or "unnamed",
                        service=service,
                        kind=KINDS[span.kind] if 0 <= span.kind < len(KINDS) else "internal",  # type: ignore[arg-type]
                        start=start,
                        seconds=seconds,
                        failed=span.status.code == 2,
                        workspace=workspace,
                        attributes=own,
                    )
                )
    return found, wrong


def request(found: Iterable[Span]) -> bytes:
    """An ExportTraceServiceRequest in protobuf, one resource a service."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    message: Any = ExportTraceServiceRequest()
    scopes: dict[str, Any] = {}
    for span in found:
        scope = scopes.get(span.service)
        if scope is None:
            resource = message.resource_spans.add()
            named = resource.resource.attributes.add()
            named.key, named.value.string_value = "service.name", span.service
            scope = scopes[span.service] = resource.scope_spans.add()
            scope.scope.name = "leptonai"
        out = scope.spans.add()
        out.trace_id, out.span_id = bytes.fromhex(span.trace), bytes.fromhex(span.id)
        out.parent_span_id = bytes.fromhex(span.parent)
        out.name = span.name
        out.kind = KINDS.index(span.kind, 1)
        out.start_time_unix_nano = round(span.start * 1e9)
        out.end_time_unix_nano = out.start_time_unix_nano + round(span.seconds * 1e9)
        out.status.code = 2 if span.failed else 0
        for key, value in {**span.attributes, **({"request.id": span.request} if span.request else {})}.items():
            pair = out.attributes.add()
            pair.key, pair.value.string_value = key, value
    return bytes(message.SerializeToString())
