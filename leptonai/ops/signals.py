"""What others may ask of ops: signals, over a Unix socket. The control API passes the questions on."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from time import time as clock
from typing import Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from leptonai.errors import LeptonError, PlatformError, SpecError
from leptonai.ops import page
from leptonai.ops.detect.again import WARM, judge_again
from leptonai.ops.feeds import Feeds
from leptonai.ops.logs.pipeline import Pipeline
from leptonai.ops.logs.query import Query, level_number
from leptonai.ops.otlp.message import What
from leptonai.ops.trace.graph import call_graph
from leptonai.platforms.embedded import Embedded
from leptonai.protocols import TelemetryStore
from leptonai.types import DEFAULT_WORKSPACE, Alert, Anomaly

MOST = float(1 << 53)  # of any number that is asked with
MOST_SPAN = 3600.0  # seconds that are judged for one question


def app(
    store: TelemetryStore,
    feeds: Feeds | None = None,
    alerts: Callable[[], list[Alert]] = list,
    families: Callable[[], list[page.Family]] = list,
    anomalies: Callable[[], list[Anomaly]] = list,
) -> Starlette:
    """What ops answers. ``covers`` in a query names the workspaces that may be seen, by commas; without it, all.

    ``POST /write?workspace=`` takes Prometheus remote-write, ``GET /telemetry`` counts what became of it.

    ``POST /otlp/metrics|logs|traces?workspace=`` and ``POST /agent?workspace=`` take those, ``GET /traces`` lists what
    is kept, ``GET /traces/{trace or request id}`` shows one, ``GET /graph?seconds=`` who called whom.

    ``GET /alerts`` lists what fires, ``families`` are on the page of ``GET /metrics``.

    ``GET /logs?search=&service=&template=&level=&since=&until=&before=&limit=`` is a page of kept lines, newest first,
    ``GET /logs/templates?service=`` what was mined of one service.

    ``GET /signals?name=&start=&end=&step=&<label>=``, ``GET /signals/names``, ``GET /healthz``.

    ``GET /signals/judged`` asks as ``/signals`` and answers with bands, scores, and the ``anomalies`` open now.

    Every other parameter is a label that must agree. Times are unix seconds; what was not seen is null.
    """

    async def signals(request: Request) -> Response:
        params = dict(request.query_params)
        try:
            name = params.pop("name", "")
            if not name:
                raise SpecError("which signal? `name` is missing", hint="GET /signals/names lists them")
            start, end, step = (
                _number(params, key, default) for key, default in (("start", 0.0), ("end", 0.0), ("step", 0.0))
            )
            return _json(await run_in_threadpool(store.read, name, start, end, params, step))
        except LeptonError as e:
            return _json(e.body(), e.status)

    async def judged(request: Request) -> Response:
        params = dict(request.query_params)
        try:
            name = params.pop("name", "")
            start, end = (_number(params, key, 0.0) for key in ("start", "end"))
            if not name or not 0 < end - start <= MOST_SPAN:
                raise SpecError(
                    f"wanted a name and 0 to {MOST_SPAN:g} seconds", hint="a stretch is judged anew each time"
                )
            found = await run_in_threadpool(store.read, name, start - WARM, end, params, 0.0)
            told = await run_in_threadpool(judge_again, found, start)
        except LeptonError as e:
            return _json(e.body(), e.status)
        now: dict[str, list[Anomaly]] = {}
        for anomaly in anomalies():
            if anomaly.signal.partition(":")[0] == name:
                now.setdefault(str(sorted(anomaly.labels.items())), []).append(anomaly)
        return _json(
            [msgspec.structs.replace(one, anomalies=now.get(str(sorted(one.labels.items())), [])) for one in told]
        )

    async def names(request: Request) -> Response:
        found, covers = await run_in_threadpool(store.names), _covers(request)
        sent = feeds.receiver.names if feeds else {}
        foreign = {n for w, own in sent.items() if not covers(w) for n in own}
        foreign -= {n for w, own in sent.items() if covers(w) for n in own}
        return _json([n for n in found if n not in foreign])

    async def write(request: Request) -> Response:
        try:
            _feeds().receiver.remote_write(await request.body(), _workspace(request))
        except LeptonError as e:
            return _json(e.body(), e.status)
        return Response(status_code=204)

    async def import_(request: Request) -> Response:
        """Samples of any age; what is older than memory reaches is read from segments, so the end makes one."""
        try:
            body = await request.body()
            if body:
                _feeds().receiver.remote_write(body, _workspace(request), any_age=True)
            if request.query_params.get("done") == "true" and isinstance(store, Embedded):
                store.seal()
                await run_in_threadpool(store.settle)
        except LeptonError as e:
            return _json(e.body(), e.status)
        return _json(None)

    async def otlp(request: Request) -> Response:
        kind, encoding = (request.headers.get(h, "") for h in ("content-type", "content-encoding"))
        what: What = request.path_params["what"]
        try:
            answer = _feeds().otlp(what, await request.body(), kind, encoding, _workspace(request))
        except LeptonError as e:
            return _json(e.body(), e.status)
        return Response(answer, media_type=kind.partition(";")[0].strip())

    async def agent(request: Request) -> Response:
        encoding = request.headers.get("content-encoding", "")
        try:
            return _json({"taken": _feeds().agent(await request.body(), encoding, _workspace(request))})
        except LeptonError as e:
            return _json(e.body(), e.status)

    async def traces(request: Request) -> Response:
        params = dict(request.query_params)
        try:
            found = _feeds().traces.search(
                service=params.get("service", ""),
                failed=params.get("failed", "") in ("true", "1"),
                slower_than=_number(params, "slower_than", 0.0),
                start=_number(params, "start", 0.0),
                limit=min(1000, int(_number(params, "limit", 50.0))),
                covers=_covers(request),
            )
        except LeptonError as e:
            return _json(e.body(), e.status)
        return _json(found)

    async def trace(request: Request) -> Response:
        covers = _covers(request)
        try:
            return _json([s for s in _feeds().traces.trace(request.path_params["id"]) if covers(s.workspace)])
        except LeptonError as e:
            return _json(e.body(), e.status)

    async def graph(request: Request) -> Response:
        covers, params = _covers(request), dict(request.query_params)
        try:
            since = clock() - _number(params, "seconds", 3600.0)
            return _json(call_graph(s for s in _feeds().traces.spans(since) if covers(s.workspace)))
        except LeptonError as e:
            return _json(e.body(), e.status)

    async def logs(request: Request) -> Response:
        params = dict(request.query_params)
        try:
            covers = params.get("covers")
            query = Query(
                text=params.get("search", ""),
                service=params.get("service", ""),
                template=int(_number(params, "template", 0.0)),
                level=level_number(params.get("level", "")),
                since=_number(params, "since", 0.0),
                until=_number(params, "until", 1e11),
                workspaces=frozenset(covers.split(",")) if covers is not None else None,
            )
            before = int(_number(params, "before", 0.0)) or None
            limit = int(_number(params, "limit", 100.0))
            return _json(await run_in_threadpool(_pipeline().search, query, before, limit))
        except LeptonError as e:
            return _json(e.body(), e.status)

    async def templates(request: Request) -> Response:
        service = request.query_params.get("service", "")
        try:
            return _json(await run_in_threadpool(_pipeline().templates, service))
        except LeptonError as e:
            return _json(e.body(), e.status)

    async def telemetry(request: Request) -> Response:
        told = feeds.counts() if feeds else {"received": {}}
        return _json(told | {"store": getattr(store, "counts", {})})

    def _feeds() -> Feeds:
        if feeds is None:
            raise SpecError("this store takes nothing from others", hint="the embedded one does", status=501)
        return feeds

    def _pipeline() -> Pipeline:
        if (pipeline := _feeds().pipeline) is None:
            raise SpecError("no logs are kept here", hint="ops of a home folder keeps some", status=501)
        return pipeline

    async def metrics(request: Request) -> Response:
        told = feeds.counts() if feeds else {}
        shown = [*page.process("ops"), *families()]
        shown.append(
            page.Family(
                "leptonai_telemetry_received_total", "counter", "Samples, series, requests, records, by what became.",
                [({"workspace": w, "what": k}, float(n)) for w, by in told.get("received", {}).items()
                 for k, n in by.items()],
            )
        )  # fmt: skip
        sent = [
            ({"output": output, "what": what}, float(n))
            for output, counts in told.get("log_outputs", {}).items()
            for what, n in counts.items()
            if what != "waiting"
        ]
        shown.append(page.Family("leptonai_logs_sent_total", "counter", "Log lines for outputs.", sent))
        for name, help, by in (
            ("leptonai_telemetry_store_total", "What the store had to do.", dict(getattr(store, "counts", {}))),
            ("leptonai_traces_total", "Spans by what became of them.", told.get("traces", {})),
            ("leptonai_traces_export_total", "Spans sent to the collector.", told.get("export", {})),
            ("leptonai_logs_total", "Log lines by what became of them.", told.get("log_pipeline", {})),
        ):
            shown.append(page.Family(name, "counter", help, [({"what": k}, float(n)) for k, n in by.items()]))
        if feeds:
            kept = float(len(feeds.traces))
            shown.append(page.Family("leptonai_traces_spans", "gauge", "Spans that are kept.", [({}, kept)]))
        return Response(page.text(shown), media_type=page.TYPE)

    async def listed(request: Request) -> Response:
        return _json(alerts())

    async def health(request: Request) -> Response:
        return _json({"status": "ok"})

    return Starlette(
        routes=[
            Route("/signals", signals),
            Route("/signals/judged", judged),
            Route("/signals/names", names),
            Route("/telemetry", telemetry),
            Route("/write", write, methods=["POST"]),
            Route("/otlp/{what:str}", otlp, methods=["POST"]),
            Route("/import", import_, methods=["POST"]),
            Route("/metrics", metrics),
            Route("/agent", agent, methods=["POST"]),
            Route("/traces", traces),
            Route("/traces/{id}", trace),
            Route("/graph", graph),
            Route("/alerts", listed),
            Route("/logs", logs),
            Route("/logs/templates", templates),
            Route("/healthz", health),
        ],
        exception_handlers={Exception: _failed},
    )


def _failed(request: Request, error: Exception) -> Response:
    """A mistake of ours; the server writes its traceback into ops.log."""
    said = LeptonError(f"{request.method} {request.url.path} failed inside ops", hint="ops.log tells more")
    return _json(said.body(), said.status)


def _workspace(request: Request) -> str:
    return request.query_params.get("workspace") or DEFAULT_WORKSPACE


def _covers(request: Request) -> Callable[[str], bool]:
    given = request.query_params.get("covers")
    covered = given.split(",") if given is not None else []
    return lambda workspace: given is None or workspace in covered


def _number(params: dict[str, str], name: str, default: float) -> float:
    text = params.pop(name, "")
    try:
        value = float(text) if text else default
    except ValueError as e:
        raise SpecError(f"{name} is {text!r}, wanted seconds", hint="times are unix seconds, step is seconds") from e
    if not abs(value) <= MOST:
        raise SpecError(f"{name} is {text!r}, wanted a number under 2^53", hint="times are unix seconds")
    return value


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def listen(path: Path) -> socket.socket:
    """A socket at ``path`` that only its owner may use; what lay there is removed. PlatformError if it cannot be."""
    made = socket.socket(socket.AF_UNIX)
    try:
        path.unlink(missing_ok=True)
        made.bind(str(path))
        path.chmod(0o600)
    except OSError as e:
        made.close()
        raise PlatformError(f"ops cannot listen on {path}: {e}", hint="the path of a socket has 107 bytes") from e
    made.listen(64)
    made.setblocking(False)
    return made


class Server(uvicorn.Server):
    """Serves the signals inside the loop of ops; ends when ``should_exit`` is set."""

    def __init__(
        self,
        store: TelemetryStore,
        feeds: Feeds | None = None,
        alerts: Callable[[], list[Alert]] = list,
        families: Callable[[], list[page.Family]] = list,
        anomalies: Callable[[], list[Anomaly]] = list,
    ) -> None:
        config = uvicorn.Config(
            app(store, feeds, alerts, families, anomalies),
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
        )
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's business, not ours."""
        yield
