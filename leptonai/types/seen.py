"""What is seen of the world: samples, logs, spans."""

from __future__ import annotations

from typing import Literal

from leptonai.types.keys import DEFAULT_WORKSPACE, Noun


class Signal(Noun, frozen=True, kw_only=True):
    """One sample. The name ends in its unit: ``_seconds``, ``_bytes``, ``_ratio``, ``_per_second``, ``_count``."""

    name: str
    labels: dict[str, str]
    at: float
    value: float


class Series(Noun, frozen=True, kw_only=True):
    """A stretch of one signal over ``[start, end)``, times ascending; nan where nothing was seen."""

    name: str
    labels: dict[str, str]
    at: list[float]
    value: list[float]


class LogRecord(Noun, frozen=True, kw_only=True):
    """One line or event that something wrote. ``source``: what wrote it, ``{"service": "till", "host": "shop-3"}``."""

    at: float
    source: dict[str, str]
    body: str
    severity: int = 0  # OpenTelemetry's number: 1 trace, 5 debug, 9 info, 13 warning, 17 error, 21 fatal; 0: not told
    trace: str = ""  # 32 hex digits of the trace it belongs to, when it says so
    span: str = ""


class LogEntry(Noun, frozen=True, kw_only=True):
    """One kept line, as a search answers. ``seq`` rises in order of arrival; what is secret in it is masked."""

    seq: int
    at: float
    service: str
    source: dict[str, str] = {}  # what else is known of who wrote it: replica, host, file ...
    severity: int = 0
    template_id: int = 0
    template: str = ""
    body: str
    trace: str = ""
    span: str = ""
    workspace: str = DEFAULT_WORKSPACE  # "*": of the platform itself


class LogPage(Noun, frozen=True, kw_only=True):
    """``items``: newest first. ``next``: give it as ``before`` to go on; None: nothing older is kept."""

    items: list[LogEntry]
    next: int | None


class Span(Noun, frozen=True, kw_only=True):
    """One piece of work of one service within a trace. Ids are hex as in W3C trace context; parent "": a root."""

    trace: str  # 32 hex digits
    id: str  # 16 hex digits
    parent: str = ""
    name: str
    service: str  # a key of ours, or the ``service.name`` that a foreign one gives itself
    kind: Literal["internal", "server", "client", "producer", "consumer"] = "internal"
    start: float
    seconds: float
    failed: bool = False
    request: str = ""  # the x-request-id, where there is one
    workspace: str = DEFAULT_WORKSPACE
    attributes: dict[str, str] = {}
