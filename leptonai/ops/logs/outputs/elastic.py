"""Elasticsearch's ``_bulk``: newline-delimited JSON, documents in the Elastic Common Schema.

https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk, https://www.elastic.co/docs/reference/ecs
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from leptonai.ops.logs.outputs.send import Verdict
from leptonai.ops.logs.query import level_name
from leptonai.types import LogEntry

ECS = "8.11.0"
_encode = msgspec.json.Encoder().encode


class Bulk:
    """Documents are created under ids of ours: one that comes again is known (409), as data streams want it."""

    name = "elasticsearch"
    path = "/_bulk"
    content_type = "application/x-ndjson"

    def __init__(self, index: str) -> None:
        self._index = index
        self._run = secrets.token_hex(6)

    def encode(self, entries: Sequence[LogEntry]) -> bytes:
        parts = []
        for entry in entries:
            parts.append(_encode({"create": {"_index": self._index, "_id": f"{self._run}-{entry.seq}"}}))
            parts.append(_encode(document(entry)))
        return b"\n".join(parts) + b"\n"  # the last line, too, must end

    def judge(self, body: bytes, entries: Sequence[LogEntry]) -> Verdict:
        try:
            found = msgspec.json.decode(body)
            items = [next(iter(item.values())) for item in found["items"]] if found["errors"] else []
            states = [(int(item["status"]), item.get("error")) for item in items]
        except (msgspec.DecodeError, LookupError, TypeError, ValueError, AttributeError, StopIteration):
            return Verdict([], [(e, "the answer was not one of _bulk") for e in entries])
        again, dead = [], []
        for entry, (status, error) in zip(entries, states, strict=False):
            if status == 429 or status >= 500:
                again.append(entry)
            elif status >= 300 and status != 409:
                dead.append((entry, f"{status}: {_why(error)}"))
        return Verdict(again, dead)


def document(entry: LogEntry) -> dict[str, Any]:
    """The entry in the Elastic Common Schema; what is not known is left out."""
    at = datetime.fromtimestamp(entry.at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    source = entry.source
    found: dict[str, Any] = {
        "@timestamp": at,
        "ecs": {"version": ECS},
        "message": entry.body,
        "event": {"dataset": "leptonai.logs", "sequence": entry.seq},
        "service": {"name": entry.service},
        "labels": {"template_id": str(entry.template_id), "workspace": entry.workspace},
        "log": {},
    }
    if "replica" in source:
        found["service"]["node"] = {"name": source["replica"]}
    if entry.severity:
        found["log"]["level"] = level_name(entry.severity)
    if "file" in source:
        found["log"]["file"] = {"path": source["file"]}
    if "host" in source:
        found["host"] = {"name": source["host"]}
    if entry.trace:
        found["trace"] = {"id": entry.trace}
    if entry.span:
        found["span"] = {"id": entry.span}
    more = {k: v for k, v in source.items() if k not in ("replica", "file", "host")}
    found["labels"].update({k.replace(".", "_"): v for k, v in more.items()})
    if not found["log"]:
        del found["log"]
    return found


def _why(error: Any) -> str:
    if isinstance(error, dict):
        return f"{error.get('type')}: {error.get('reason')}"[:300]
    return str(error)[:300]
