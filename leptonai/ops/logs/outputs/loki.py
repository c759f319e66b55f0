"""Loki's push API: streams named by a few labels, lines by time within each.

https://grafana.com/docs/loki/latest/reference/loki-http-api/#ingest-logs
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from leptonai.errors import SpecError
from leptonai.ops.logs.outputs.send import Verdict
from leptonai.ops.logs.query import level_name
from leptonai.types import LogEntry

MOST_LABELS = 15  # of a stream, Loki's default limit (max_label_names_per_series)
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_encode = msgspec.json.Encoder().encode


class Push:
    """Labels of a stream: those configured, ``service`` and ``level``. A line is JSON: ``message``, ``template_id``,
    the replica and what else varies, for labels of many values would make as many streams."""

    name = "loki"
    path = "/loki/api/v1/push"
    content_type = "application/json"

    def __init__(self, labels: Mapping[str, str]) -> None:
        """SpecError: Loki would refuse the labels."""
        for name in labels:
            if not _NAME.fullmatch(name) or name.startswith("__") or name in ("service", "level"):
                raise SpecError(
                    f"logs.loki.labels: {name!r} is no label that Loki takes, or one of ours",
                    hint="letters, digits and _, not a digit first; service and level are set by us",
                )
        if len(labels) + 3 > MOST_LABELS:
            raise SpecError(
                f"logs.loki.labels: {len(labels)} labels and 3 of ours, Loki takes {MOST_LABELS}", hint="give fewer"
            )
        self._labels = {"job": "leptonai", **labels}

    def encode(self, entries: Sequence[LogEntry]) -> bytes:
        streams: dict[tuple[str, str], list[tuple[int, str]]] = {}
        for entry in entries:
            more: dict[str, object] = {"trace_id": entry.trace, "span_id": entry.span}
            line: dict[str, object] = {"message": entry.body, "template_id": entry.template_id, **entry.source}
            line |= {k: v for k, v in more.items() if v}
            level = level_name(entry.severity) or "unknown"
            streams.setdefault((entry.service, level), []).append((round(entry.at * 1e9), _encode(line).decode()))
        body: list[dict[str, object]] = [
            {
                "stream": {**self._labels, "service": service, "level": level},
                "values": [[str(at), line] for at, line in sorted(lines, key=lambda found: found[0])],
            }
            for (service, level), lines in streams.items()
        ]
        return _encode({"streams": body})

    def judge(self, body: bytes, entries: Sequence[LogEntry]) -> Verdict:
        return Verdict([], [])  # 204 says that all is kept
