"""One keep-alive HTTP connection to a replica or the gateway, over a Unix socket or TCP: to read and to ask."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from leptonai.errors import TelemetryError

MAX_BODY = 4 << 20  # bytes; a replica's page is about 10 kB, Envoy's about 0.5 kB per service


class Gone(TelemetryError):
    """Nothing listens at the address: the process is gone, or was never there."""

    code = "gone"


class Unanswered(TelemetryError):
    """Somebody holds the socket open and does not answer in time: what a stopped or hung process looks like."""

    code = "unanswered"


class Refused(TelemetryError):
    """Another status than 200. ``text``: the body."""

    code = "refused"

    def __init__(self, message: str, status: int, text: str) -> None:
        super().__init__(message)
        self.answered, self.text = status, text


class Peer:
    """A place to ask. One request at a time; the connection is kept and made again when it broke."""

    def __init__(self, address: str) -> None:
        """``address``: ``unix:/path`` or ``/path`` of a Unix socket, else ``host:port``."""
        self.address = address
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def get(self, path: str, timeout: float) -> bytes:
        """The body of a 200 answer.

        Raises Gone when nothing listens, Unanswered when ``timeout`` seconds pass first, Refused for any other status,
        and TelemetryError for an answer that is not HTTP.
        """
        return await self._within(timeout, path, f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())

    async def post(self, path: str, body: bytes, timeout: float, headers: Mapping[str, str] = {}) -> bytes:
        """The same of a JSON body. It is sent again when a kept connection broke: post what may be asked twice."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{lines}"
        return await self._within(timeout, path, f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)

    async def _within(self, timeout: float, path: str, request: bytes) -> bytes:
        try:
            async with asyncio.timeout(timeout):
                return await self._ask(path, request)
        except TimeoutError as e:
            self.close()
            raise Unanswered(f"{self.address}: no answer to {path} within {timeout:g} s") from e
        except (OSError, EOFError) as e:
            self.close()
            raise Gone(f"{self.address}: {e or type(e).__name__}") from e
        except (ValueError, LookupError, asyncio.LimitOverrunError) as e:
            self.close()
            raise TelemetryError(f"{self.address}: the answer to {path} is not HTTP: {e}") from e

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    async def _ask(self, path: str, request: bytes) -> bytes:
        kept = self._writer is not None
        try:
            return await self._exchange(path, request)
        except (ConnectionError, EOFError):
            if not kept:
                raise
        self.close()  # the peer closed an idle connection; that says nothing of its health
        return await self._exchange(path, request)

    async def _exchange(self, path: str, request: bytes) -> bytes:
        if self._reader is None or self._writer is None:
            if self.address.startswith(("unix:", "/")):
                opened = await asyncio.open_unix_connection(self.address.removeprefix("unix:"))
            else:
                host, _, port = self.address.rpartition(":")
                opened = await asyncio.open_connection(host, int(port))
            self._reader, self._writer = opened
        reader = self._reader
        self._writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        status, *lines = head.split(b"\r\n")
        headers = {name: value for name, _, value in (line.partition(b":") for line in lines if line)}
        if b"chunked" in headers.get(b"transfer-encoding", b""):
            body = await self._chunks(reader)
        else:
            body = await reader.readexactly(_bounded(int(headers[b"content-length"])))
        if b"close" in headers.get(b"connection", b""):
            self.close()
        if (code := int(status.split()[1])) != 200:
            said = f"{self.address}: {path} answered {status.decode('latin-1')}"
            raise Refused(said, code, body.decode("utf-8", "replace"))
        return body

    async def _chunks(self, reader: asyncio.StreamReader) -> bytes:
        parts: list[bytes] = []
        while size := _bounded(int((await reader.readline()).split(b";")[0], 16)):
            parts.append(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readline()
        return b"".join(parts)


def _bounded(size: int) -> int:
    if not 0 <= size <= MAX_BODY:
        raise ValueError(f"a body of {size} bytes, the limit is {MAX_BODY}")
    return size
