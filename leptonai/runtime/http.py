"""HTTP/1.1 on one connection: llhttp parses, answers go out in the order of their requests, limits are enforced.

Requests of one connection are handled one after the other; pipelined ones wait here, and reading pauses when many wait.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from math import ceil
from time import monotonic
from typing import Any, NamedTuple, Protocol

import httptools
import orjson
from msgspec import Struct

from leptonai.errors import LeptonError
from leptonai.runtime.answers import LastAnswers

MAX_HEADER = 64 << 10  # bytes of request line and headers; Envoy's own default limit is 60 KiB
MAX_PIPELINED = 16  # requests waiting on one connection before reading pauses
MAX_ID = 128  # bytes of an x-request-id that are kept
CODES = {408: "read_timeout", 413: "too_large", 431: "headers_too_large"}
REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
JSON = b"application/json"
BINARY = b"application/octet-stream"
EVENTS = b"text/event-stream"
WHOLE = 1 << 16  # bytes of a body up to which copying it behind its head is cheaper than a second buffer


class Parts(NamedTuple):
    """A body of several buffers, sent as they are: JSON of ``json_size`` bytes, then the tensors it speaks of."""

    buffers: list[bytes | memoryview]
    size: int  # bytes of all of them
    json_size: int


@lru_cache(maxsize=4096)
def _head(code: int, size: int, content_type: bytes) -> bytes:
    """Everything of a response's head up to the request id."""
    return b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d\r\nx-request-id: " % (
        code,
        REASONS.get(code, b"Error"),
        content_type,
        size,
    )


class Request(Struct, eq=False):
    """One parsed request. ``gone`` turns true when its client has left: nobody waits for the answer."""

    connection: Connection
    method: bytes
    target: bytes
    id: bytes
    body: bytes
    keep_alive: bool
    arrived: float  # monotonic seconds
    headers: dict[bytes, bytes]  # names as they were spelled; valid while the request is handled, copy to keep
    gone: bool = False
    asked: tuple[bytes, bytes, bytes, bytes] | None = None  # what LastAnswers.add takes, while answers are kept
    left: Callable[[], None] | None = None  # called on the I/O loop when the client leaves before the answer's end
    trace: bytes = b""  # its traceparent, as it came

    def header(self, name: bytes) -> bytes:
        """A header whatever its capitals; gateways write lower case, which is looked up before. b"" when missing."""
        return self.headers.get(name) or _spelled(self.headers, name)

    def answer(self, code: int, body: bytes | Parts, extra: bytes = b"", content_type: bytes = JSON) -> None:
        """Send the answer, once. ``extra``: header lines, each begun by CRLF. No effect when the client is gone."""
        self.connection.answer(self, code, body, extra, content_type)

    def begin(self, code: int, extra: bytes = b"", content_type: bytes = EVENTS) -> None:
        """Send the head of an answer that comes in pieces: ``write`` them, then ``end``."""
        self.connection.begin(self, code, extra, content_type)

    def write(self, piece: bytes) -> None:
        """Send a piece of the body; empty ones are skipped. No effect when the client is gone."""
        self.connection.piece(self, piece)

    def end(self) -> None:
        """The answer is whole."""
        self.connection.end(self)

    def cut(self) -> None:
        """The answer stays unfinished: the connection is closed so that the client can tell."""
        self.connection.cut(self)

    @property
    def full(self) -> bool:
        """Whether the client reads slower than it is written to: wait before writing more. Readable in any thread."""
        return not self.connection.writable

    def fail(self, error: LeptonError, body: dict[str, Any] | None = None) -> None:
        """Send the one JSON shape of an error, or the ``body`` that its door wants, with Retry-After if it says so."""
        extra = b"" if error.retry_after is None else b"\r\nretry-after: %d" % max(1, ceil(error.retry_after))
        self.answer(error.status, orjson.dumps(body or error.body(), default=str), extra)


def _spelled(headers: dict[bytes, bytes], name: bytes) -> bytes:
    size = len(name)
    for key, value in headers.items():
        if len(key) == size and key.lower() == name:
            return value
    return b""


class Handler(Protocol):
    """What a server gives its connections."""

    max_body: int
    read_timeout: float  # seconds from a request's first byte to its last: against a slow loris
    closing: bool  # answers end their connection
    connections: set[Connection]
    answers: LastAnswers
    recorded: LastAnswers

    def handle(self, request: Request) -> None:
        """Answer now or later, exactly once."""

    def refused(self, code: int) -> None:
        """A request was answered with ``code`` before it could be handled."""

    def make_id(self) -> bytes: ...


class Connection(asyncio.Protocol):
    """The protocol of one client connection.

    The parser's per-header and per-chunk callbacks are methods of a list and a dict: no Python frame runs for them.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._target: list[bytes] = []
        self._chunks: list[bytes] = []
        self._headers: dict[bytes, bytes] = {}
        self.on_url = self._target.append
        self.on_body = self._chunks.append
        self.on_header = self._headers.__setitem__
        self._unread = [True]  # empty once the request being read has all its headers
        self.on_headers_complete = self._unread.clear
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self._current: Request | None = None
        self._waiting: deque[Request] = deque()
        self.writable = True
        self._chunked = False  # the answer being written in pieces has its pieces framed
        self._paused = False
        self._advancing = False
        self._last = False  # nothing more is read: the connection ends with the answers owed
        self._refusal: tuple[int, str, str] | None = None
        self._whole = False  # the data just fed ended a request
        self._checked = False  # the headers of the request being read were looked at
        self._read = 0  # bytes of the request being read, when it comes in pieces
        self._began: float | None = None  # when the request being read began, when it comes in pieces

    # --- transport ----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._handler.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._handler.connections.discard(self)
        self._last = True
        if self._current is not None:
            self._current.gone = True
            if self._current.left is not None:
                self._current.left()
            self._current = None
        self._waiting.clear()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self._next()

    def data_received(self, data: bytes) -> None:
        if self._last:
            return
        self._whole = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400, "protocol upgrades are not supported", "speak plain HTTP/1.1")
        except httptools.HttpParserError as e:
            reason = e.__context__ or e
            self._refuse(400, f"malformed HTTP: {reason}", "send a valid HTTP/1.1 request")
        else:
            if not self._whole or self._target:
                self._piece(len(data))

    def eof_received(self) -> bool:
        """A client that only shut its sending side still gets its answers; one that closed its Unix socket is gone."""
        self._last = True
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket"), 0)
        hung_up = any(event & select.POLLHUP for _, event in poll.poll(0))
        return not hung_up and (self._current is not None or bool(self._waiting))

    def check(self, now: float) -> None:
        """Refuse a request that has been arriving for longer than the handler's ``read_timeout``."""
        limit = self._handler.read_timeout
        if self._began is not None and now - self._began > limit:
            self._refuse(408, f"the request did not arrive within {limit:g} s", "send it faster")

    def close(self) -> None:
        """End the connection once what was written has left."""
        self._last = True
        if self._transport is not None:
            self._transport.close()

    # --- reading ------------------------------------------------------------------------------------------------------

    def on_message_complete(self) -> None:
        if self._last:
            return
        headers, chunks, target, parser = self._headers, self._chunks, self._target, self._parser
        handler = self._handler
        id = headers.get(b"x-request-id") or _spelled(headers, b"x-request-id") or handler.make_id()
        if len(id) > MAX_ID:
            id = id[:MAX_ID]
        body = (chunks[0] if len(chunks) == 1 else b"".join(chunks)) if chunks else b""
        request = Request(
            self,
            parser.get_method(),
            target[0] if len(target) == 1 else b"".join(target),
            id,
            body,
            parser.should_keep_alive(),
            monotonic(),
            headers,
        )
        if b"traceparent" in headers:
            request.trace = headers[b"traceparent"][:MAX_ID]
        if handler.answers.on or handler.recorded.on:
            token, json_size = (request.header(n) for n in (b"authorization", b"inference-header-content-length"))
            request.asked = (request.target, token, json_size, body)
        chunks.clear()
        target.clear()
        self._unread.append(True)
        self._whole = True
        if self._began is not None:
            self._checked, self._began = False, None
        if len(body) > handler.max_body:
            self._refusal = self._too_large()
            self._last = True
            self._next()
        elif self._current is None and self.writable:
            self._current = request
            handler.handle(request)
        else:
            request.headers = headers.copy()
            self._waiting.append(request)
            if len(self._waiting) >= MAX_PIPELINED and not self._paused:
                self._paused = True
                self._transport.pause_reading()
        headers.clear()

    def _piece(self, size: int) -> None:
        """A part of a request has come: begin its clock, hold it to the limits, ask for the rest when told to."""
        if self._began is None:
            self._began, self._read = monotonic(), 0
        self._read += size
        max_body = self._handler.max_body
        if self._unread:
            if self._read > MAX_HEADER:
                self._refuse(431, f"request headers are over {MAX_HEADER} bytes", "send fewer or shorter headers")
            return
        if not self._checked:
            self._checked = True
            length = _spelled(self._headers, b"content-length")
            if length and int(length) > max_body:
                self._refuse(*self._too_large())
                return
            if _spelled(self._headers, b"expect").lower() == b"100-continue" and self._current is None:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self._read > max_body + MAX_HEADER:
            self._refuse(*self._too_large())

    def _too_large(self) -> tuple[int, str, str]:
        return 413, f"the request body is over {self._handler.max_body} bytes", "send less, or split the batch"

    # --- answering ----------------------------------------------------------------------------------------------------

    def answer(self, request: Request, code: int, body: bytes | Parts, extra: bytes, content_type: bytes) -> None:
        if request is not self._current:
            return
        self._current = None
        usual = request.keep_alive and not extra and request.method != b"HEAD" and not self._handler.closing
        if usual and isinstance(body, bytes) and len(body) <= WHOLE:  # what follows is for the others
            head = _head(code, len(body), content_type)
            self._transport.write(b"".join((head, request.id, b"\r\n\r\n", body)))
            if self._waiting or self._last:
                self._next()
            return
        buffers: list[bytes | memoryview]
        if body.__class__ is bytes:
            size, buffers = len(body), [body]
        else:
            assert isinstance(body, Parts)
            size, buffers = body.size, body.buffers
            extra += b"\r\ninference-header-content-length: %d" % body.json_size
        head = _head(code, size, content_type)
        keep = request.keep_alive and not (self._handler.closing and not self._waiting)
        if not keep:
            extra += b"\r\nconnection: close"
        if request.method == b"HEAD":
            self._transport.write(b"%b%b%b\r\n\r\n" % (head, request.id, extra))
        elif size <= WHOLE:
            self._transport.write(b"".join((head, request.id, extra, b"\r\n\r\n", *buffers)))
        else:
            self._transport.writelines([b"%b%b%b\r\n\r\n" % (head, request.id, extra), *buffers])
        self._done(keep)

    def _done(self, keep: bool) -> None:
        """An answer is written: go on with what waits, or end the connection."""
        if not keep:
            self.close()
        elif self._waiting or self._last:
            self._next()

    def begin(self, request: Request, code: int, extra: bytes, content_type: bytes) -> None:
        if request is not self._current:
            return
        # HTTP/1.0 has no chunks: the end of its connection ends the answer
        if (self._handler.closing and not self._waiting) or self._parser.get_http_version() == "1.0":
            request.keep_alive = False
        self._chunked = request.keep_alive
        framing = b"transfer-encoding: chunked" if self._chunked else b"connection: close"
        head = b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\n%b\r\nx-request-id: %b%b\r\n\r\n"
        reason = REASONS.get(code, b"Unknown")
        self._transport.write(head % (code, reason, content_type, framing, request.id, extra))

    def piece(self, request: Request, data: bytes) -> None:
        if request is self._current and data and request.method != b"HEAD":
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end(self, request: Request) -> None:
        if request is not self._current:
            return
        self._current = None
        if self._chunked and request.method != b"HEAD":
            self._transport.write(b"0\r\n\r\n")
        self._done(request.keep_alive)

    def cut(self, request: Request) -> None:
        if request is self._current:
            self._current = None
            self._waiting.clear()
            self.close()

    def _next(self) -> None:
        """Begin waiting requests until one is not answered at once; when none waits, end a connection that ends."""
        if self._advancing:  # an answer given at once comes back here: a loop, since recursion has a limit
            return
        self._advancing = True
        try:
            while self._current is None and self.writable:
                if self._waiting:
                    self._current = self._waiting.popleft()
                    if self._paused and len(self._waiting) < MAX_PIPELINED // 2:
                        self._paused = False
                        self._transport.resume_reading()
                    self._handler.handle(self._current)
                elif self._refusal is not None:
                    self._refuse(*self._refusal)
                    return
                else:
                    if self._last:
                        self.close()
                    return
        finally:
            self._advancing = False

    def _refuse(self, code: int, message: str, hint: str) -> None:
        """Answer ``code`` after the answers still owed, then close: what follows on the wire cannot be trusted."""
        self._refusal = (code, message, hint)
        self._last = True
        self._began = None
        if self._current is not None or self._waiting:
            return
        self._handler.refused(code)
        error = LeptonError(message, hint=hint, code=CODES.get(code, "malformed"), status=code, retry=code == 408)
        body = orjson.dumps(error.body())
        head = _head(code, len(body), JSON) + self._handler.make_id() + b"\r\nconnection: close\r\n\r\n"
        self._transport.write(head + body)
        self.close()
