"""The yardsticks of gateway_cost.py: the leanest Python HTTP servers of the replica's kind (uvloop and httptools).

``python benchmarks/bare_server.py SOCKET [fixed]``

Without ``fixed`` it does what any server of this API must do: parse HTTP and its headers, find the path, decode the
JSON body, call the function with its fields, encode what it returns. With ``fixed`` it answers a constant and looks at
nothing: the stricter yardstick, which no server of any API can meet. Neither has metrics, a log or limits.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import httptools
import orjson
import uvloop

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"


def predict(x: int) -> int:
    return x


def ready() -> bool:
    return True


ROUTES: dict[bytes, Callable[..., object]] = {b"/predict": predict, b"/-/ready": ready}  # the gateway asks for both


class Bare(asyncio.Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.headers: dict[bytes, bytes] = {}
        self.target: list[bytes] = []
        self.body: list[bytes] = []
        self.on_header = self.headers.__setitem__  # no Python frame runs for these
        self.on_url = self.target.append
        self.on_body = self.body.append
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        call = ROUTES[b"".join(self.target)]
        answer = orjson.dumps(call(**orjson.loads(b"".join(self.body) or b"{}")))
        self.headers.clear()
        self.target.clear()
        self.body.clear()
        self.transport.write(HEAD % (len(answer), answer))


class Fixed(asyncio.Protocol):
    answer = HEAD % (1, b"1")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.transport.write(self.answer)


async def serve(path: str, protocol: type[asyncio.Protocol]) -> None:
    Path(path).unlink(missing_ok=True)
    server = await asyncio.get_running_loop().create_unix_server(protocol, path)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], Fixed if "fixed" in sys.argv[2:] else Bare))
