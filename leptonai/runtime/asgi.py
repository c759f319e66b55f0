"""A user's ASGI app beside the model: it answers every path that is not the replica's own.

It runs on the loop of users' asynchronous code. Its lifespan begins when the model is loaded; an app without one is
fine. Requests come whole; WebSockets are not supported.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from leptonai.errors import LeptonError, ModelError
from leptonai.runtime.background import BACKGROUND
from leptonai.runtime.http import Request
from leptonai.runtime.loaders import one_line

log = logging.getLogger(__name__)

LIFESPAN = 60.0  # seconds an app may take to start
VERSIONS = {"version": "3.0", "spec_version": "2.3"}
OURS = {b"content-length", b"transfer-encoding", b"connection", b"date", b"x-request-id", b"content-type"}


class Mounted:
    """``soon`` runs a call on the I/O loop. Each request ends in exactly one call of ``done(code)`` there."""

    def __init__(self, app: Any, soon: Callable[..., None]) -> None:
        self._app = app
        self._soon = soon
        self._state: dict[str, Any] = {}

    def start(self) -> None:
        """Run the app's start-up; waits for it, in the compute thread. ModelError when it fails."""
        BACKGROUND.wait(self._lifespan())

    async def _lifespan(self) -> None:
        begun: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        forever: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asked = False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "lifespan.startup"}
            await forever  # shut-down is the end of the process
            raise AssertionError("unreachable")

        async def send(message: dict[str, Any]) -> None:
            if not begun.done():
                begun.set_result(message["type"] != "lifespan.startup.failed")

        async def run() -> None:
            scope = {"type": "lifespan", "asgi": VERSIONS, "state": self._state}
            try:
                await self._app(scope, receive, send)
            except BaseException as e:  # noqa: BLE001 - by the ASGI specification: an app without a lifespan raises
                log.info("the app has no lifespan: %s", one_line(e))
            if not begun.done():
                begun.set_result(True)

        self._lifetime = asyncio.get_running_loop().create_task(run())
        try:
            started = await asyncio.wait_for(begun, LIFESPAN)
        except TimeoutError:
            started = False
        if not started:
            raise ModelError("the app does not start", hint="see the replica's log")

    def handle(self, request: Request, done: Callable[[int], None]) -> None:
        """Have the app answer; on the I/O loop."""
        headers = [(name.lower(), value) for name, value in request.headers.items()]
        path, _, query = request.target.partition(b"?")
        scope = {
            "type": "http",
            "asgi": VERSIONS,
            "http_version": "1.1",
            "method": request.method.decode(),
            "scheme": "http",
            "path": unquote(path.decode("latin-1")),
            "raw_path": path,
            "root_path": "",
            "query_string": query,
            "headers": headers,
            "client": None,
            "server": None,
            "state": dict(self._state),
        }
        request.left = BACKGROUND.begin(_run(self._app, scope, request, self._soon, done))


async def _run(
    app: Any, scope: dict[str, Any], request: Request, soon: Callable[..., None], done: Callable[[int], None]
) -> None:
    code = 0
    begun = False
    ended = False
    body: bytes | None = request.body
    head: tuple[bytes, bytes] = (b"", b"")

    async def receive() -> dict[str, Any]:
        nonlocal body
        if body is not None:
            got, body = body, None
            return {"type": "http.request", "body": got, "more_body": False}
        while not request.gone and not ended:  # noqa: ASYNC110 - the other loop says so by a flag
            await asyncio.sleep(0.05)
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        nonlocal code, begun, ended, head
        if message["type"] == "http.response.start":
            code, head = int(message["status"]), _head(message.get("headers", ()))
            return
        if message["type"] != "http.response.body" or not code or ended:
            raise RuntimeError(f"unexpected ASGI message {message['type']!r}")
        data, ended = bytes(message.get("body", b"")), not message.get("more_body", False)
        if ended and not begun:
            begun = True
            soon(request.answer, code, data, *head)
            return
        if not begun:
            begun = True
            soon(request.begin, code, *head)
        soon(request.write, data)
        if ended:
            soon(request.end)
        while request.full and not request.gone:  # noqa: ASYNC110 - see receive
            await asyncio.sleep(0.01)

    try:
        await app(scope, receive, send)
        problem = "" if ended else "it ended without an answer"
    except asyncio.CancelledError:
        problem = "its client has gone"
    except BaseException as e:
        log.exception("the app fails")
        problem = one_line(e)
    if not ended and begun:
        soon(request.cut)
    elif not ended:
        code = 500
        soon(request.fail, LeptonError(f"the app failed: {problem}", hint="see the replica's log", code="app_failed"))
    soon(done, code)


def _head(headers: Any) -> tuple[bytes, bytes]:
    """An app's headers as lines, those left out that the connection writes; and its content type."""
    extra, kind = b"", b"application/octet-stream"
    for name, value in headers:
        name, value = bytes(name), bytes(value)
        if any(c in name + value for c in b"\r\n"):
            raise ValueError(f"a header of the app holds a line break: {name!r}")
        if name.lower() == b"content-type":
            kind = value
        elif name.lower() not in OURS:
            extra += b"\r\n%b: %b" % (name, value)
    return extra, kind
