"""What others may ask of ops: signals, over a Unix socket. The control API passes the questions on."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from leptonai.errors import LeptonError, PlatformError, SpecError
from leptonai.ops.receive import Receiver
from leptonai.protocols import TelemetryStore
from leptonai.types import DEFAULT_WORKSPACE


def app(store: TelemetryStore, receiver: Receiver | None = None) -> Starlette:
    """``POST /write?workspace=`` takes Prometheus remote-write, ``GET /telemetry`` counts what became of it.

    ``GET /signals?name=&start=&end=&step=&<label>=``, ``GET /signals/names``, ``GET /healthz``.

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

    async def names(request: Request) -> Response:
        return _json(await run_in_threadpool(store.names))

    async def write(request: Request) -> Response:
        try:
            if receiver is None:
                raise SpecError("this store takes no remote-write", hint="the embedded one does", status=501)
            receiver.remote_write(await request.body(), request.query_params.get("workspace") or DEFAULT_WORKSPACE)
        except LeptonError as e:
            return _json(e.body(), e.status)
        return Response(status_code=204)

    async def telemetry(request: Request) -> Response:
        received: dict[str, dict[str, int]] = {}
        for (workspace, what), n in receiver.counts.items() if receiver else ():
            received.setdefault(workspace, {})[what] = n
        return _json({"received": received, "store": getattr(store, "counts", {})})

    async def health(request: Request) -> Response:
        return _json({"status": "ok"})

    return Starlette(
        routes=[
            Route("/signals", signals),
            Route("/signals/names", names),
            Route("/telemetry", telemetry),
            Route("/write", write, methods=["POST"]),
            Route("/healthz", health),
        ]
    )


def _number(params: dict[str, str], name: str, default: float) -> float:
    text = params.pop(name, "")
    try:
        return float(text) if text else default
    except ValueError as e:
        raise SpecError(f"{name} is {text!r}, wanted seconds", hint="times are unix seconds, step is seconds") from e


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

    def __init__(self, store: TelemetryStore, receiver: Receiver | None = None) -> None:
        config = uvicorn.Config(app(store, receiver), log_level="warning", access_log=False, lifespan="off", ws="none")
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's business, not ours."""
        yield
