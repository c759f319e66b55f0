"""Telemetry in and out: signals, traces and the call graph are asked of ops; what others send is passed on to it.

A token of some workspaces sees what was sent to them and what the platform measured of their services.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.responses import Response

from leptonai import __version__
from leptonai.api.route import Asked, Labels, Query, Route
from leptonai.client.wire import Graph, JudgedView, SeriesView, TraceView
from leptonai.errors import NotFound, SpecError, TelemetryError
from leptonai.ops import page
from leptonai.ops.world import of_service
from leptonai.plan.lanes import lanes
from leptonai.plan.render.keda import HELD, READY
from leptonai.types import DEFAULT_WORKSPACE, Service, Span, parse_key

OTLP = ("metrics", "logs", "traces")
JSON = "application/json"


class TracesQuery(Query, frozen=True, kw_only=True, forbid_unknown_fields=True):
    service: str = ""
    failed: bool = False
    slower_than: float = 0.0  # seconds
    start: float = 0.0  # unix seconds
    limit: int = 50


class ImportQuery(Query, frozen=True, kw_only=True, forbid_unknown_fields=True):
    done: bool = False


class GraphQuery(Query, frozen=True, kw_only=True, forbid_unknown_fields=True):
    seconds: float = 3600.0


def workspace_of(labels: dict[str, str]) -> str:
    """Whose a series is: of the workspace it was sent to, or of the service it tells of."""
    if "workspace" in labels:
        return labels["workspace"]
    return parse_key(labels["service"])[0] if "service" in labels else DEFAULT_WORKSPACE


async def signals(asked: Asked[Any, None]) -> Any:
    """The series of one signal over a stretch of time, by labels; what was not seen is null."""
    return await _series(asked, "/signals", SeriesView)


async def judged(asked: Asked[Any, None]) -> Any:
    """The same with bands and scores, over an hour at most: judged again by the base tier. And the anomalies of now."""
    return await _series(asked, "/signals/judged", JudgedView)


async def _series(asked: Asked[Any, None], path: str, view: type[SeriesView] | type[JudgedView]) -> Any:
    params = dict(asked.query)
    workspace = params.pop("workspace", None)
    if "name" not in params:
        raise SpecError("which signal? `name` is missing", hint="GET /api/v1/signals/names lists them")
    if "service" in params:
        asked.caller.require_workspace(parse_key(params["service"])[0])
    elif workspace is not None:
        asked.caller.require_workspace(workspace)
        if asked.caller.covers("*") and workspace != DEFAULT_WORKSPACE:
            params["workspace"] = workspace  # ops reads less then; a service's own series are asked for by service
    if asked.caller.covers("*"):
        return await _ops(asked, path, params)
    body = await _ops(asked, path, params)
    found: list[Any] | None = msgspec.json.decode(body.body, type=list[view]) if body.status_code == 200 else None  # type: ignore[valid-type]
    if found is None:
        return body
    wanted: Callable[[str], bool] = asked.caller.covers if workspace is None else workspace.__eq__
    return [s for s in found if wanted(workspace_of(s.labels)) and asked.caller.covers(workspace_of(s.labels))]


async def signal_names(asked: Asked[Query, None]) -> Response:
    """The names of all signals that are kept; a token of some workspaces sees no name that only others send."""
    return await _ops(asked, "/signals/names", _covers(asked))


async def write(asked: Asked[Query, None]) -> Response:
    """Takes Prometheus remote-write 1.0 into the workspace; 400 names what was refused, all else is kept then."""
    workspace = _workspace(asked)
    if "io.prometheus.write.v2" in asked.request.headers.get("content-type", ""):
        raise SpecError("remote-write 2.0 is not spoken here", hint="send 1.0, the default of Prometheus", status=415)
    status, answer = await asked.world.signals.post("/write", {"workspace": workspace}, await _body(asked))
    return Response(answer, status, media_type=JSON if answer else None)


async def import_(asked: Asked[ImportQuery, None]) -> Response:
    """Takes samples of any age, as remote-write 1.0; with `done` and no body, all that was imported can be read."""
    params = {"workspace": _workspace(asked), "done": str(asked.query.done).lower()}
    status, answer = await asked.world.signals.post("/import", params, await _body(asked))
    return Response(answer, status, media_type=JSON)


async def otlp(what: str, asked: Asked[Query, None]) -> Response:
    workspace = _workspace(asked)
    told = asked.request.headers
    headers = {h: told[h] for h in ("content-type", "content-encoding") if h in told}
    status, answer = await asked.world.signals.post(
        f"/otlp/{what}", {"workspace": workspace}, await _body(asked), headers
    )
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if status < 400:
        return Response(answer, status, media_type=kind)
    body = msgspec.json.decode(answer, type=dict[str, Any])
    said = f"{body.get('error', '')} ({body.get('hint', '')})"
    if kind == "application/x-protobuf":  # the standard wants a google.rpc.Status
        return Response(_status(said), status, media_type=kind)
    return Response(msgspec.json.encode(body | {"message": said}), status, media_type=JSON)


def _status(message: str) -> bytes:
    """google.rpc.Status with code 3 (INVALID_ARGUMENT): field 1 the code, field 2 the message."""
    text = message.encode()[:16_000]
    size, length = len(text), b""
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return b"\x08\x03\x12" + length + bytes([size]) + text


async def otlp_metrics(asked: Asked[Query, None]) -> Response:
    """Takes OTLP/HTTP metrics, protobuf or JSON; a partial success says what a limit refused."""
    return await otlp("metrics", asked)


async def otlp_logs(asked: Asked[Query, None]) -> Response:
    """Takes OTLP/HTTP logs, protobuf or JSON."""
    return await otlp("logs", asked)


async def otlp_traces(asked: Asked[Query, None]) -> Response:
    """Takes OTLP/HTTP spans, protobuf or JSON; a partial success says what a limit refused."""
    return await otlp("traces", asked)


async def agent(asked: Asked[Query, None]) -> Response:
    """Takes one batch of `leptonai agent`; one that comes again is answered `{"taken": false}` and not taken twice."""
    encoding = asked.request.headers.get("content-encoding", "")
    status, answer = await asked.world.signals.post(
        "/agent", {"workspace": _workspace(asked)}, await _body(asked), {"content-encoding": encoding}
    )
    return Response(answer, status, media_type=JSON)


async def telemetry(asked: Asked[Query, None]) -> Response:
    """What became of telemetry that was sent, by workspace and policy, and what the store had to give up."""
    answer = await _ops(asked, "/telemetry", {})
    if asked.caller.covers("*") or answer.status_code != 200:
        return answer
    told = msgspec.json.decode(answer.body, type=dict[str, Any])
    own = {w: counts for w, counts in told.get("received", {}).items() if asked.caller.covers(w)}
    return Response(msgspec.json.encode({"received": own}), media_type=JSON)


async def metrics(asked: Asked[Query, None]) -> Response:
    """The platform itself as one page of Prometheus text: control, ops, services and replicas."""
    world = asked.world
    now = world.clock()
    seen = world.callers.ops_seen
    replicas: dict[tuple[str, str], int] = {}
    seen_now, held = world.platform.observe(), world.platform.held()
    for replica in seen_now:
        if asked.caller.covers(parse_key(replica.service)[0]):
            key = (replica.service, replica.state)
            replicas[key] = replicas.get(key, 0) + 1
    services = [w.service for w in world.wishes.all(now)]
    services = [s for s in services if asked.caller.covers(s.spec.workspace)]
    families = [
        *page.process("control"),
        page.Family("leptonai_build_info", "gauge", "The version that runs.", [({"version": __version__}, 1.0)]),
        page.Family(
            "leptonai_replicas", "gauge", "Replicas by service and state.",
            [({"service": s, "state": t}, float(n)) for (s, t), n in sorted(replicas.items())],
        ),
        page.Family(
            HELD, "gauge", "Requests that wait for a replica, by variant.",
            [(_named(s) | {"variant": v.name}, float(held.get((s.key, v.name), 0)))
             for s in services for v in s.spec.variants],
        ),
        page.Family(
            READY, "gauge", "Ready replicas by lane: a variant, or its version on probation.",
            [(_named(s) | {"lane": lane.name}, float(sum(r.state == "ready" and lane.holds(r) for r in own)))
             for s in services for own in [of_service(s, seen_now)] for lane in lanes(s)],
        ),
        page.Family(
            "leptonai_ops_alive", "gauge", "Whether ops gave a sign of life in time.",
            [({}, float(seen is not None and now - seen <= world.settings.api.ops_deadman))],
        ),
    ]  # fmt: skip
    text = page.text(families)
    if asked.caller.covers("*"):
        try:
            status, body = await world.signals.get("/metrics", {})
        except TelemetryError:  # ops is away, as leptonai_ops_alive says
            status, body = 502, b""
        if status == 200:
            text = joined(text, body.decode())
    return Response(text, media_type=page.TYPE)


def _named(service: Service) -> dict[str, str]:
    return {"workspace": service.spec.workspace, "service": service.spec.name}


def joined(*pages: str) -> str:
    """Several pages as one: what is told of one metric stands together, under its first HELP and TYPE."""
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for line in (line for p in pages for line in p.splitlines()):
        if line.startswith("# "):
            name = line.split(" ", 3)[2]
            known = heads.setdefault(name, [])
            if not any(h.split(" ", 3)[1] == line.split(" ", 3)[1] for h in known):
                known.append(line)
        elif line:
            samples.setdefault(line.partition("{")[0].partition(" ")[0], []).append(line)
    return "\n".join(x for name in samples for x in [*heads.get(name, []), *samples[name]]) + "\n"


async def traces(asked: Asked[TracesQuery, None]) -> Response:
    """The newest traces that are kept, newest first; all that failed or were slow, and a share of the others."""
    q = asked.query
    params = {"service": q.service, "failed": str(q.failed).lower(), "slower_than": str(q.slower_than)}
    return await _ops(asked, "/traces", params | {"start": str(q.start), "limit": str(q.limit)} | _covers(asked))


async def trace(asked: Asked[Query, None]) -> Response:
    """The spans of one trace in order of their start; ``id`` is a trace's or a request's."""
    answer = await _ops(asked, f"/traces/{quote(asked.path['id'], safe='')}", _covers(asked))
    if answer.status_code == 200 and answer.body == b"[]":
        raise NotFound(
            f"no trace of {asked.path['id'][:80]!r} is kept",
            hint="kept are all that failed or were slow and gateway.trace_share of the others, some seconds later",
        )
    return answer


async def graph(asked: Asked[GraphQuery, None]) -> Response:
    """Who called whom in the last ``seconds``, from the spans that are kept, foreign ones too."""
    return await _ops(asked, "/graph", {"seconds": str(asked.query.seconds)} | _covers(asked))


def _workspace(asked: Asked[Any, None]) -> str:
    workspace = asked.query.workspace or DEFAULT_WORKSPACE
    asked.caller.require_workspace(workspace)
    return workspace


def _covers(asked: Asked[Any, None]) -> dict[str, str]:
    """The workspaces whose things may be in the answer, as ops takes them; nothing when all may."""
    if asked.query.workspace is not None:
        asked.caller.require_workspace(asked.query.workspace)
        return {"covers": asked.query.workspace}
    return {} if asked.caller.covers("*") else {"covers": ",".join(asked.caller.token.workspaces)}


async def _body(asked: Asked[Any, None]) -> bytes:
    limit = asked.world.settings.telemetry.request_bytes
    return b"".join([piece async for piece in asked.stream(limit)])


async def _ops(asked: Asked[Any, None], path: str, params: dict[str, str]) -> Response:
    status, body = await asked.world.signals.get(path, params)
    return Response(body, status, media_type=JSON)


ROUTES = [
    Route("GET", "/signals", "viewer", signals, list[SeriesView], query=Labels),
    Route("GET", "/signals/judged", "viewer", judged, list[JudgedView], query=Labels),
    Route("GET", "/signals/names", "viewer", signal_names, list[str]),
    Route("GET", "/telemetry", "viewer", telemetry, dict[str, Any]),
    Route("POST", "/write", "operator", write, None, stream=True),
    Route("POST", "/import", "operator", import_, None, query=ImportQuery, stream=True),
    Route("POST", "/otlp/v1/metrics", "operator", otlp_metrics, None, stream=True),
    Route("POST", "/otlp/v1/logs", "operator", otlp_logs, None, stream=True),
    Route("POST", "/otlp/v1/traces", "operator", otlp_traces, None, stream=True),
    Route("POST", "/agent", "operator", agent, dict[str, bool], stream=True),
    Route("GET", "/metrics", "viewer", metrics, None),
    Route("GET", "/traces", "viewer", traces, list[TraceView], query=TracesQuery),
    Route("GET", "/traces/{id}", "viewer", trace, list[Span]),
    Route("GET", "/graph", "viewer", graph, Graph, query=GraphQuery),
]
