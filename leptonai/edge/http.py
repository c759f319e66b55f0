"""HTTP/1.1 from Envoy: whole requests in, one at a time for each connection; answers out, ours or a replica's own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import httptools
import orjson

from leptonai.errors import LeptonError

MAX_PIPELINED = 16  # requests waiting on one connection; Envoy sends the next only after an answer
REASONS = {200: b"OK", 400: b"Bad Request", 404: b"Not Found", 429: b"Too Many Requests", 503: b"Service Unavailable"}
JSON = b"application/json"
_DROPPED = frozenset({b"connection", b"keep-alive", b"content-length", b"transfer-encoding", b"expect"})
Header = tuple[bytes, bytes]


class Handler(Protocol):
    """Who answers the requests of a connection."""

    def reserve(self, count: int, size: int) -> LeptonError | None:
        """Make room for so many requests and bytes that begin to arrive; the error says why there is none."""

    def release(self, count: int, size: int) -> None:
        """What had that room has been answered, or its client is gone."""

    def handle(self, request: Request) -> None:
        """Answer now or later, once."""

    def left(self, request: Request) -> None:
        """The client of a request that was handed over is gone."""


class Request:
    """One whole request. Header names are as they came: Envoy writes them in lower case."""

    __slots__ = ("arrived", "body", "connection", "gone", "headers", "keep_alive", "method", "size", "state", "target")

    def __init__(
        self,
        connection: Connection,
        method: bytes,
        target: bytes,
        headers: list[Header],
        body: bytes,
        keep_alive: bool,
        size: int,
        arrived: float,
    ) -> None:
        self.connection, self.method, self.target, self.headers = connection, method, target, headers
        self.body, self.keep_alive, self.size, self.arrived = body, keep_alive, size, arrived
        self.gone = False
        self.state: Any = None  # the handler's own

    def header(self, name: bytes) -> bytes:
        """The value of a header, b"" when it was not given."""
        for key, value in self.headers:
            if key == name or (len(key) == len(name) and key.lower() == name):
                return value
        return b""

    def answer(self, status: int, body: bytes, headers: list[Header], content_type: bytes = JSON) -> None:
        """Send the answer, once; nothing happens when the client is gone."""
        lines = [b"HTTP/1.1 %d %b" % (status, REASONS.get(status, b"Error")), b"content-type: " + content_type]
        lines.append(b"content-length: %d" % len(body))
        lines += [b"%b: %b" % header for header in headers]
        if self.method == b"HEAD":
            body = b""
        self.connection.answer(self, b"\r\n".join(lines), body)

    def fail(self, error: LeptonError) -> None:
        """Send the one JSON shape of an error, with Retry-After when it says so."""
        headers = [] if error.retry_after is None else [(b"retry-after", b"%d" % max(1, round(error.retry_after)))]
        self.answer(error.status, orjson.dumps(error.body(), default=str), headers)

    def wire(self) -> bytes:
        """The request as it is sent on: the same, on a connection that ends with the answer."""
        lines = [b"%b %b HTTP/1.1" % (self.method, self.target)]
        lines += [b"%b: %b" % (k, v) for k, v in self.headers if k.lower() not in _DROPPED]
        lines.append(b"content-length: %d\r\nconnection: close\r\n\r\n" % len(self.body))
        return b"\r\n".join(lines) + self.body


class Connection(asyncio.Protocol):
    """The protocol of one connection from Envoy."""

    def __init__(self, handler: Handler, clock: Callable[[], float]) -> None:
        self._handler, self._clock = handler, clock
        self._parser: Any = httptools.HttpRequestParser(self)
        self.transport: Any = None
        self.writable = True
        self.resumed: Callable[[], None] | None = None  # told when what was written has left again
        self._target: list[bytes] = []
        self._headers: list[Header] = []
        self._chunks: list[bytes] = []
        self._reserved = 0  # bytes of the request being read that there is room for
        self._reading = False  # there is room for the request being read ...
        self._sized = True  # ... and it said how much it needs
        self._current: Request | None = None
        self._waiting: deque[Request] = deque()
        self._closed = False

    # --- transport ----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        if self._reading:
            self._handler.release(1, self._reserved)
        current, self._current = self._current, None
        if current is not None:
            current.gone = True
            self._handler.left(current)
            self._handler.release(1, current.size)
        for request in self._waiting:
            self._handler.release(1, request.size)
        self._waiting.clear()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        if self.resumed is not None:
            self.resumed()

    def data_received(self, data: bytes) -> None:
        if self._closed:
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as e:
            if not self._closed:
                self._refuse(LeptonError(f"malformed HTTP: {e}", hint="send HTTP/1.1", code="malformed", status=400))

    # --- reading ------------------------------------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        self._target.append(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        length = next((int(v) for k, v in self._headers if k.lower() == b"content-length" and v.isdigit()), None)
        self._reading = self._room(1, length or 0)
        self._sized = length is not None

    def on_body(self, data: bytes) -> None:
        if self._reading and (self._sized or self._room(0, len(data))):
            self._chunks.append(data)

    def _room(self, count: int, size: int) -> bool:
        if self._closed:
            return False
        refusal = self._handler.reserve(count, size)
        if refusal is None:
            self._reserved += size
        else:
            self._refuse(refusal)
        return refusal is None

    def on_message_complete(self) -> None:
        if self._closed:
            return
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        request = Request(
            self,
            self._parser.get_method(),
            b"".join(self._target),
            self._headers,
            body,
            self._parser.should_keep_alive(),
            self._reserved,
            self._clock(),
        )
        self._target, self._headers, self._chunks = [], [], []
        self._reading, self._reserved = False, 0
        self._waiting.append(request)
        if len(self._waiting) > MAX_PIPELINED:
            self.transport.abort()
        else:
            self._next()

    def _next(self) -> None:
        if self._current is None and self._waiting and not self._closed:
            self._current = self._waiting.popleft()
            self._handler.handle(self._current)

    # --- answering ----------------------------------------------------------------------------------------------------

    def answer(self, request: Request, head: bytes, body: bytes) -> None:
        if request is not self._current:
            return
        self._current = None
        self._handler.release(1, request.size)
        if request.keep_alive:
            self.transport.write(b"%b\r\n\r\n%b" % (head, body))
            if self._waiting:
                asyncio.get_running_loop().call_soon(self._next)
        else:
            self.transport.write(b"%b\r\nconnection: close\r\n\r\n%b" % (head, body))
            self._close()

    def finish(self, request: Request) -> None:
        """What was piped through has been an answer whose end is the connection's end."""
        if request is self._current:
            self._current = None
            self._handler.release(1, request.size)
            self._close()

    def _refuse(self, error: LeptonError) -> None:
        """Answer before the request was read, and end: what follows on the wire is not read."""
        extra = b"" if error.retry_after is None else b"retry-after: %d\r\n" % max(1, round(error.retry_after))
        body = orjson.dumps(error.body(), default=str)
        reason = REASONS.get(error.status, b"Error")
        head = b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n"
        self.transport.write(head % (error.status, reason, JSON, len(body), extra) + body)
        self._close()

    def _close(self) -> None:
        self._closed = True
        self.transport.close()
