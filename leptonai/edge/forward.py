"""One request to one replica: sent on, and the answer given through byte by byte, streams included."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal

from leptonai.edge.http import Request

# "refused": nothing was sent. "lost": sent, and not one byte came back. Else the status of an answer that was asked
# to be kept from the client. "done": the answer was given through, whole or cut off.
Outcome = Literal["refused", "lost", "done"] | int
_STATUS_AT, _STATUS_END = len(b"HTTP/1.1 "), len(b"HTTP/1.1 200")


class Forward(asyncio.Protocol):
    """``ended`` is called once. Answers with a status in ``kept`` are not given through."""

    def __init__(self, request: Request, kept: frozenset[int], ended: Callable[[Request, Outcome], None]) -> None:
        self._request, self._kept, self._ended = request, kept, ended
        self._transport: Any = None
        self._head = b""
        self._passing = False
        self._over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        if self._over:
            self._transport.abort()
        else:
            self._transport.write(self._request.wire())

    def data_received(self, data: bytes) -> None:
        connection = self._request.connection
        if not self._passing:
            self._head += data
            if len(self._head) < _STATUS_END:
                return
            status = self._head[_STATUS_AT:_STATUS_END]
            if status.isdigit() and int(status) in self._kept:
                self._end(int(status))
                return
            self._passing, data, self._head = True, self._head, b""
            connection.resumed = self._transport.resume_reading
        if not self._over:
            connection.transport.write(data)
            if not connection.writable:
                self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("done" if self._passing else "lost")

    def cancel(self) -> None:
        """The client is gone: so is the replica's reason to compute."""
        self._over = True
        if self._transport is not None:
            self._transport.abort()

    def _end(self, outcome: Outcome) -> None:
        if self._over:
            return
        self._over = True
        self._transport.abort()
        connection = self._request.connection
        connection.resumed = None
        if outcome == "done":
            connection.finish(self._request)
        self._ended(self._request, outcome)

    async def connect(self, address: str) -> None:
        """Open the connection to the replica; "refused" when nobody listens."""
        loop = asyncio.get_running_loop()
        try:
            if "/" in address:
                await loop.create_unix_connection(lambda: self, address)
            else:
                host, _, port = address.rpartition(":")
                await loop.create_connection(lambda: self, host, int(port))
        except OSError:
            if not self._over:
                self._over = True
                self._ended(self._request, "refused")
