"""The yardstick of gateway_cost.py: the leanest Python HTTP server of the replica's kind (uvloop and httptools).

It reads the request, parses its JSON body and answers a JSON body; no routes, no model, no metrics.
``python benchmarks/bare_server.py SOCKET``
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import httptools
import orjson
import uvloop


class Bare(asyncio.Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.body = b""

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        answer = orjson.dumps(orjson.loads(self.body) if self.body else {})
        self.transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(answer), answer)
        )


async def serve(path: str) -> None:
    Path(path).unlink(missing_ok=True)
    server = await asyncio.get_running_loop().create_unix_server(Bare, path)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
