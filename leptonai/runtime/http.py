"""HTTP/1.1 on one connection: llhttp parses, answers go out in the order of their requests, limits are enforced.

Requests of one connection are handled one after the other; pipelined ones wait here, and reading pauses when many wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

import httptools
import orjson

if TYPE_CHECKING:
    from leptonai.errors import LeptonError

MAX_HEADER = 64 << 10  # bytes of request line and headers; Envoy's own default limit is 60 KiB
MAX_PIPELINED = 16  # requests waiting on one connection before reading pauses
READ_TIMEOUT = 30.0  # seconds from the first byte of a request to its last: against a slow loris
REASONS = {
    200: b"OK",
    400: b"Bad Request",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Content Too Large",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}
JSON = b"application/json"
_HEAD = {
    code: b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: " % (code, reason)
    for code, reason in REASONS.items()
}


class Request:
    """One parsed request. ``gone`` turns true when its client has left: nobody waits for the answer."""

    __slots__ = ("arrived", "body", "connection", "gone", "id", "keep_alive", "method", "target")

    def __init__(self, connection: Connection, method: bytes, target: bytes, id: bytes, body: bytes, alive: bool):
        self.connection = connection
        self.method = method
        self.target = target
        self.id = id
        self.body = body
        self.keep_alive = alive
        self.arrived = 0.0
        self.gone = False

    def answer(self, code: int, body: bytes, extra: bytes = b"", content_type: bytes = JSON) -> None:
        """Send the answer, once. ``extra``: header lines, each ended by CRLF. No effect when the client is gone."""
        self.connection.answer(self, code, body, extra, content_type)

    def fail(self, error: LeptonError) -> None:
        """Send the one JSON shape of an error, with Retry-After when it says so."""
        extra = b"" if error.retry_after is None else b"retry-after: %d\r\n" % max(1, round(error.retry_after))
        self.answer(error.status, orjson.dumps(error.body(), default=str), extra)


class Handler(Protocol):
    """What a server gives its connections."""

    max_body: int
    closing: bool  # answers end their connection
    connections: set[Connection]

    def handle(self, request: Request) -> None:
        """Answer now or later, exactly once."""

    def refused(self, code: int) -> None:
        """A request was answered with ``code`` before it could be handled."""

    def clock(self) -> float: ...

    def make_id(self) -> bytes: ...


class Connection(asyncio.Protocol):
    """The protocol of one client connection."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self._current: Request | None = None
        self._waiting: deque[Request] = deque()
        self._writable = True
        self._paused = False
        self._last = False  # nothing more is read: the connection ends with the answers owed
        self._refusal: tuple[int, str, str] | None = None
        self._reset()
        self.began: float | None = None  # when the request now being read began

    def _reset(self) -> None:
        self._target = b""
        self._id = b""
        self._body = b""
        self._chunks: list[bytes] | None = None
        self._size = 0
        self._header = 0
        self._in_header = True
        self._expects = False

    # --- transport ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._handler.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._handler.connections.discard(self)
        self._last = True
        if self._current is not None:
            self._current.gone = True
        self._waiting.clear()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        if self._current is None:
            self._next()

    def data_received(self, data: bytes) -> None:
        if self._last:
            return
        if self.began is None:
            self.began = self._handler.clock()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400, "protocol upgrades are not supported", "speak plain HTTP/1.1")
        except httptools.HttpParserError as e:
            self._refuse(
                400, f"malformed HTTP: {e.__cause__ or e or type(e).__name__}", "send a valid HTTP/1.1 request"
            )
        else:
            if self.began is not None and self._in_header:
                self._header += len(data)
                if self._header > MAX_HEADER:
                    self._refuse(431, f"request headers are over {MAX_HEADER} bytes", "send fewer or shorter headers")
            if self._refusal is not None:
                self._refuse(*self._refusal)
        if len(self._waiting) >= MAX_PIPELINED and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._last = True
        return self._current is not None or bool(self._waiting)  # half-closed clients still get their answers

    def check(self, now: float) -> None:
        """Refuse a request that has been arriving for longer than READ_TIMEOUT seconds."""
        if self.began is not None and now - self.began > READ_TIMEOUT:
            self._refuse(
                408,
                f"the request did not arrive within {READ_TIMEOUT:g} s",
                "send it faster",
            )

    def close(self) -> None:
        """End the connection once what was written has left."""
        self._last = True
        if self._transport is not None:
            self._transport.close()

    @property
    def busy(self) -> bool:
        """True while a request is being read or an answer is owed."""
        return self._current is not None or self.began is not None

    # --- parser callbacks --------------------------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        if self.began is None:
            self.began = self._handler.clock()
        self._target = self._target + url if self._target else url

    def on_header(self, name: bytes, value: bytes) -> None:
        size = len(name)
        if size == 12 and name.lower() == b"x-request-id":
            self._id = value[:128]
        elif size == 14 and name.lower() == b"content-length":
            if int(value) > self._handler.max_body:
                self._refusal = self._too_large()
        elif size == 6 and name.lower() == b"expect":
            self._expects = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        self._in_header = False
        if self._expects and self._refusal is None and self._current is None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > self._handler.max_body:
            self._refusal = self._too_large()
        elif self._size == len(body):
            self._body = body
        else:
            if self._chunks is None:
                self._chunks = [self._body]
            self._chunks.append(body)

    def on_message_complete(self) -> None:
        if self._refusal is not None or self._last:
            return
        parser = self._parser
        body = self._body if self._chunks is None else b"".join(self._chunks)
        request = Request(
            self,
            parser.get_method(),
            self._target,
            self._id or self._handler.make_id(),
            body,
            parser.should_keep_alive(),
        )
        self._reset()
        self.began = None
        if self._current is None and self._writable:
            self._current = request
            self._handler.handle(request)
        else:
            self._waiting.append(request)

    def _too_large(self) -> tuple[int, str, str]:
        return 413, f"the request body is over {self._handler.max_body} bytes", "send less, or split the batch"

    # --- answers -----------------------------------------------------------------------------------------------------

    def answer(self, request: Request, code: int, body: bytes, extra: bytes, content_type: bytes) -> None:
        if request is not self._current or self._transport is None:
            return
        self._current = None
        if content_type is JSON:
            head = b"%b%d\r\nx-request-id: %b\r\n%b" % (_HEAD[code], len(body), request.id, extra)
        else:
            head = b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n%b" % (
                code, REASONS[code], content_type, len(body), extra,
            )  # fmt: skip
        ends = not request.keep_alive or (self._handler.closing and not self._waiting)
        if ends:
            head += b"connection: close\r\n"
        if request.method == b"HEAD":
            body = b""
        self._transport.write(head + b"\r\n" + body)
        if ends or (self._last and not self._waiting and self._refusal is None):
            self.close()
        elif self._waiting or self._paused or self._refusal is not None:
            self._next()

    def _next(self) -> None:
        """Begin the next waiting request; when none waits, give the answer that ends a refused connection."""
        if self._current is not None or not self._writable:
            return
        if self._waiting:
            self._current = self._waiting.popleft()
            if self._paused and len(self._waiting) < MAX_PIPELINED // 2:
                self._paused = False
                self._transport.resume_reading()
            self._handler.handle(self._current)
        elif self._refusal is not None:
            self._refuse(*self._refusal)
        elif self._last:
            self.close()

    def _refuse(self, code: int, message: str, hint: str) -> None:
        """Answer ``code`` after the answers still owed, then close: what follows on the wire cannot be trusted."""
        self._refusal = (code, message, hint)
        self._last = True
        self.began = None
        if self._current is not None or self._waiting:
            return
        self._handler.refused(code)
        body = orjson.dumps({"error": message, "code": "bad_request", "hint": hint, "retry": code == 408})
        self._transport.write(b"%b%d\r\nconnection: close\r\n\r\n%b" % (_HEAD[code], len(body), body))
        self.close()
