"""Spans of our own requests: the gateway's line and the replica's prediction line of one x-request-id, put together.

The gateway tells of requests that failed, were slow, or are in the sample; a replica tells of every answer. What is
kept is decided here, after the end: every line of the gateway, and every answer that failed or took longer than the
service promises. See docs/traces.md.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from leptonai.ops.predictions import Line
from leptonai.ops.trace.ids import span_of, trace_of, traceparent
from leptonai.types import DEFAULT_WORKSPACE, Key, Replica, Span, make_key, parse_key

SETTLE = 4.0  # seconds a line waits for those of the same request: both files are written within one
HELD = 12.0  # seconds an answer is remembered in case the gateway tells of it
MOST = 100_000  # answers remembered at once


class Access(msgspec.Struct):
    """One line of the gateway, as ``plan.access`` has it written."""

    id: str
    at: float | str
    ms: float = 0.0
    us: float | None = None
    trace: str = ""
    code: int = 0
    flags: str = ""
    cluster: str = ""
    host: str = ""
    tries: int = 1
    method: str = ""
    path: str = ""

    @property
    def start(self) -> float:
        return float(self.at)

    @property
    def seconds(self) -> float:
        return (self.ms if self.us is None else self.us / 1e3) / 1e3

    @property
    def failed(self) -> bool:
        return self.code >= 500 or self.code in (0, 429)


class _Answer(NamedTuple):
    replica: str
    service: Key
    line: Line
    seen: float
    kept: bool


class Assembler:
    """``slow``: seconds from which an answer of a service is kept whatever the gateway says."""

    def __init__(self, slow: Callable[[Key], float]) -> None:
        self._slow = slow
        self._answers: OrderedDict[str, list[_Answer]] = OrderedDict()
        self._passed: OrderedDict[str, tuple[Access, float]] = OrderedDict()

    def answered(self, replica: Replica, line: Line, now: float) -> None:
        """A replica has answered."""
        failed = line.code >= 500 or line.code == 429
        kept = failed or line.seconds > self._slow(replica.service)
        self._answers.setdefault(line.id, []).append(_Answer(replica.id, replica.service, line, now, kept))
        while len(self._answers) > MOST:
            self._answers.popitem(last=False)

    def passed(self, access: Access, now: float) -> None:
        """The gateway has told of a request."""
        self._passed[access.id] = (access, now)
        while len(self._passed) > MOST:
            self._passed.popitem(last=False)

    def finished(self, now: float) -> list[Span]:
        """The spans of all requests whose lines have had time to arrive; each request is told once."""
        out: list[Span] = []
        while self._passed:
            id, (access, seen) = next(iter(self._passed.items()))
            if now - seen < SETTLE:
                break
            del self._passed[id]
            out += spans_of(access, self._answers.pop(id, []))
        while self._answers:
            id, answers = next(iter(self._answers.items()))
            if now - answers[0].seen < HELD or id in self._passed:
                break
            del self._answers[id]
            if any(a.kept for a in answers):
                out += spans_of(None, answers)
        return out


def spans_of(access: Access | None, answers: list[_Answer]) -> list[Span]:
    """The gateway's span, below it one a replica that answered, below that its phases. Pure.

    A request that brought a traceparent stays in that trace, below the span named there.
    """
    request = access.id if access else answers[0].line.id
    header = (access.trace if access else "") or next((a.line.trace for a in answers if a.line.trace), "")
    trace, above = traceparent(header) or (trace_of(request), "")
    out: list[Span] = []
    if access is not None:
        service = _service(access)
        above, parent = span_of(trace, request, "gateway", f"{access.start:.6f}"), above
        told = {
            "http.request.method": access.method,
            "http.response.status_code": str(access.code),
            "url.path": access.path,
            "leptonai.service": service,
            "envoy.response_flags": access.flags.strip("-"),
            "leptonai.attempts": str(access.tries),
        }
        out.append(
            Span(
                trace=trace,
                id=above,
                parent=parent,
                name=f"gateway {service}" if service else "gateway",
                service="gateway",
                kind="server",
                start=access.start,
                seconds=access.seconds,
                failed=access.failed,
                request=request,
                workspace=parse_key(service)[0] if service else DEFAULT_WORKSPACE,
                attributes={k: v for k, v in told.items() if v},
            )
        )
    for answer in answers:
        out += _replica(trace, above, request, answer)
    return out


def _replica(trace: str, above: str, request: str, answer: _Answer) -> list[Span]:
    line, workspace = answer.line, parse_key(answer.service)[0]
    start = line.at - line.seconds
    own = span_of(trace, request, answer.replica, f"{line.at:.6f}")
    told = {
        "leptonai.replica": answer.replica,
        "leptonai.digest": line.digest,
        "http.response.status_code": str(line.code),
    }
    failed = line.code >= 500 or line.code == 429
    out = [
        Span(
            trace=trace,
            id=own,
            parent=above,
            name=f"predict {answer.service}",
            service=answer.service,
            kind="server",
            start=start,
            seconds=line.seconds,
            failed=failed,
            request=request,
            workspace=workspace,
            attributes=told,
        )
    ]
    at = start
    for phase, seconds in (("queue", line.queue), ("batch wait", line.wait), ("compute", line.compute)):
        if seconds is None or seconds < 0.0:  # negative: it never came to that
            continue
        out.append(
            Span(
                trace=trace,
                id=span_of(trace, own, phase),
                parent=own,
                name=phase,
                service=answer.service,
                start=at,
                seconds=seconds,
                failed=failed and phase == "compute",
                request=request,
                workspace=workspace,
            )
        )
        at += seconds
    return out


def _service(access: Access) -> Key:
    """The service that a request was for: of its cluster, else of its path; "" when it was for none."""
    if "@" in access.cluster:
        return access.cluster.partition("@")[0].replace(".", "/", 1)
    parts = access.path.strip("/").split("/")
    workspace = DEFAULT_WORKSPACE
    if parts[:1] == ["workspaces"] and len(parts) > 2:
        workspace, parts = parts[1], parts[2:]
    if parts[:2] == ["v2", "models"] and len(parts) > 2:
        return make_key(parts[2], workspace)
    if parts[:1] == ["services"] and len(parts) > 1:
        return make_key(parts[1], workspace)
    return ""
