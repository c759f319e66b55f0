"""The body of an OTLP/HTTP request as a message: protobuf or JSON, gzip or not, within limits.

Source: opentelemetry.io/docs/specs/otlp (OTLP/HTTP, JSON Protobuf Encoding): ids are hex in JSON, not base64, and
fields that are not known are passed over.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any, Literal

import msgspec

from leptonai.errors import SpecError

What = Literal["metrics", "logs", "traces"]
HINT = "send OTLP/HTTP: application/x-protobuf or application/json, plain or gzip"
_IDS = {"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"}
_SERVICES = {
    "metrics": ("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2", "ExportMetricsService"),
    "logs": ("opentelemetry.proto.collector.logs.v1.logs_service_pb2", "ExportLogsService"),
    "traces": ("opentelemetry.proto.collector.trace.v1.trace_service_pb2", "ExportTraceService"),
}
_REJECTED = {"metrics": "rejected_data_points", "logs": "rejected_log_records", "traces": "rejected_spans"}


def media_type(content_type: str) -> str:
    """``application/x-protobuf`` or ``application/json``; SpecError 415 for anything else."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in ("application/x-protobuf", "application/json"):
        return kind
    raise SpecError(f"OTLP: content type {kind or 'none'!r} is not spoken here", hint=HINT, status=415)


def unpack(body: bytes, encoding: str, limit: int) -> bytes:
    """The body without its content encoding. SpecError: another one than gzip, broken, or over ``limit`` bytes."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        if len(body) > limit:
            raise _too_large(len(body), limit)
        return body
    if encoding != "gzip":
        raise SpecError(f"content encoding {encoding!r} is not spoken here", hint=HINT, status=415)
    opened = zlib.decompressobj(31)
    try:
        out = opened.decompress(body, limit + 1)
    except zlib.error as e:
        raise SpecError(f"{len(body)} bytes are no gzip: {e}", hint=HINT) from e
    if len(out) > limit:
        raise _too_large(len(out), limit)
    if not opened.eof:
        raise SpecError(f"{len(body)} bytes of gzip end too early", hint=HINT)
    return out


def _too_large(size: int, limit: int) -> SpecError:
    return SpecError(
        f"the request has {size} bytes or more, the limit is {limit}",
        hint="export smaller batches, or raise telemetry.request_bytes",
        code="too_large",
        status=413,
    )


def read(what: What, body: bytes, content_type: str) -> Any:
    """The Export...ServiceRequest that ``body`` (already unpacked) spells. SpecError says where it does not."""
    from google.protobuf import json_format
    from google.protobuf.message import DecodeError

    message = _service(what, "Request")()
    if media_type(content_type) == "application/x-protobuf":
        try:
            message.ParseFromString(body)
        except DecodeError as e:
            raise SpecError(f"OTLP {what}: {len(body)} bytes are no {type(message).__name__}: {e}", hint=HINT) from e
        return message
    try:
        tree = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise SpecError(f"OTLP {what}: the body is no JSON: {e}", hint=HINT) from e
    if not isinstance(tree, dict):
        raise SpecError(f"OTLP {what}: the body is JSON but no object", hint=HINT)
    try:
        json_format.ParseDict(_ids_as_base64(tree), message, ignore_unknown_fields=True)
    except (json_format.Error, ValueError, TypeError, AttributeError, RecursionError, OverflowError) as e:
        said = str(e)[:300] or type(e).__name__
        raise SpecError(f"OTLP {what}: no {type(message).__name__}: {said}", hint=HINT) from e
    return message


def answer(what: What, rejected: int, why: str, content_type: str) -> bytes:
    """The Export...ServiceResponse: empty when all was taken, else a partial success that says what was not."""
    message = _service(what, "Response")()
    if rejected or why:
        setattr(message.partial_success, _REJECTED[what], rejected)
        message.partial_success.error_message = why
    if media_type(content_type) == "application/x-protobuf":
        return bytes(message.SerializeToString())
    from google.protobuf import json_format

    return str(json_format.MessageToJson(message, indent=None)).encode()


def _service(what: What, half: str) -> Any:
    import importlib

    module, name = _SERVICES[what]
    return getattr(importlib.import_module(module), name + half)


def _ids_as_base64(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {
            k: _hex(v) if k in _IDS and isinstance(v, str) else _ids_as_base64(v)
            for k, v in tree.items()
            if v is not None  # null stands for a field that is not there
        }
    if isinstance(tree, list):
        return [_ids_as_base64(v) for v in tree]
    return tree


def _hex(text: str) -> str:
    try:
        return base64.b64encode(bytes.fromhex(text)).decode()
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no hex id") from None


def any_value(value: Any) -> str:
    """An AnyValue as the text it is shown as; nested ones as JSON."""
    kind = value.WhichOneof("value")
    if kind is None:
        return ""
    if kind == "string_value":
        return str(value.string_value)
    if kind == "bool_value":
        return "true" if value.bool_value else "false"
    if kind in ("int_value", "double_value"):
        return str(getattr(value, kind))
    return msgspec.json.encode(_plain(value)).decode()


def _plain(value: Any, depth: int = 0) -> Any:
    kind = value.WhichOneof("value")
    if kind is None or depth > 8:
        return None
    if kind == "array_value":
        return [_plain(v, depth + 1) for v in value.array_value.values]
    if kind == "kvlist_value":
        return {pair.key: _plain(pair.value, depth + 1) for pair in value.kvlist_value.values}
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    return getattr(value, kind)
