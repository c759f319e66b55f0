"""What a gateway in a pod of its own tells control and ops: Envoy's counters, what its edge holds, requests for traces.

``GET /-/ready``, ``/held``, ``/-/held?after=``, ``/metrics`` (the edge's), ``/stats...`` (Envoy's); and for who knows
the namespace's secret ``/access?after=<place>``: a line of JSON that names the next place, then lines of requests.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import re
from urllib.parse import parse_qs

import orjson

from leptonai.edge.http import Connection, Request
from leptonai.errors import Denied, LeptonError, NotFound, PlatformError
from leptonai.plan.access import FILE
from leptonai.platforms.kubernetes.gate import Gate
from leptonai.platforms.local.probe import Unanswered, UnixClient

BLOCK = 1 << 20  # bytes of lines in one answer
TIMEOUT = 2.0  # seconds that Envoy or the edge may take for a page
HELD = 15.0  # the edge answers within 10 s that nothing has changed
TEXT = b"text/plain; charset=utf-8"


class Pages:
    """The handler of the port. ``secret``: "" tells nobody of requests."""

    def __init__(self, gate: Gate, secret: str) -> None:
        self._gate, self._secret = gate, secret.encode()
        self._access = gate.home / "envoy" / FILE
        self._tasks: dict[Request, asyncio.Task[None]] = {}

    async def serve(self, host: str, port: int) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        try:
            return await loop.create_server(lambda: Connection(self, loop.time), host, port)
        except OSError as e:
            raise PlatformError(f"cannot listen on {host}:{port}: {e.strerror}", hint="see --pages") from e

    # --- what connections ask ----------------------------------------------------------------------------------------

    def reserve(self, count: int, size: int) -> LeptonError | None:
        return None if size == 0 else NotFound("nothing is taken here", hint="GET /metrics")

    def release(self, count: int, size: int) -> None: ...

    def left(self, request: Request) -> None:
        if task := self._tasks.get(request):
            task.cancel()

    def handle(self, request: Request) -> None:
        task = asyncio.create_task(self._answer(request))
        self._tasks[request] = task
        task.add_done_callback(lambda _: self._tasks.pop(request, None))

    async def _answer(self, request: Request) -> None:
        target = request.target.decode("latin-1")
        path, _, query = target.partition("?")
        front = self._gate.front
        told = front.describe()
        try:
            if request.method != b"GET":
                raise NotFound("everything here is a GET", hint="GET /metrics")
            if path == "/-/ready":
                said = {"healthy": told["gateway"]["healthy"], "trouble": self._gate.trouble}
                request.answer(200, orjson.dumps(said), [])
            elif path in ("/held", "/-/held", "/metrics"):
                await self._pass(request, str(told["edge"]["socket"]), target, HELD if path == "/-/held" else TIMEOUT)
            elif path in ("/stats", "/stats/prometheus"):
                await self._pass(request, str(told["gateway"]["admin"]), target, TIMEOUT)
            elif path == "/access":
                self._check(request)
                request.answer(
                    200, await asyncio.to_thread(self._lines, parse_qs(query).get("after", [""])[0]), [], TEXT
                )
            else:
                raise NotFound(f"there is nothing at {path[:80]!r}", hint="/-/ready, /held, /metrics, /stats, /access")
        except LeptonError as e:
            request.fail(e)

    async def _pass(self, request: Request, socket: str, target: str, timeout: float) -> None:
        client = UnixClient(socket)
        try:
            answer = await client.request("GET", target, timeout)
        except Unanswered as e:
            raise PlatformError("the gateway does not say", hint="is it being started?", status=503, retry=True) from e
        finally:
            client.close()
        request.answer(answer.status, answer.body, [], TEXT)

    def _check(self, request: Request) -> None:
        given = request.header(b"authorization")
        if not self._secret or not hmac.compare_digest(given, b"Bearer " + self._secret):
            raise Denied("requests are told of to control alone", hint="the secret is in Secret/leptonai-orders")

    def _lines(self, after: str) -> bytes:
        """Whole lines after ``<inode>:<offset>``; from the file's end when no place is named, from its start when
        it is another file or was cut short."""
        try:
            file = os.open(self._access, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b'{"place": "0:0"}\n'
        try:
            found = os.fstat(file)
            inode, _, offset = after.partition(":")
            start = found.st_size if not after else int(offset) if re.fullmatch("[0-9]{1,18}", offset) else 0
            if after and (inode != str(found.st_ino) or start > found.st_size):
                start = 0
            block = os.pread(file, BLOCK, start)
        finally:
            os.close(file)
        whole = block[: block.rfind(b"\n") + 1]
        return orjson.dumps({"place": f"{found.st_ino}:{start + len(whole)}"}) + b"\n" + whole
