"""What the drilled service calls: ``python -m leptonai.drill.dependency PORT_FILE MOOD_FILE``, until its input ends.

It answers ``GET`` with a few numbers. The mood file says ``ok``, ``slow`` (each answer is late), ``denied`` (401, as of
an expired token), ``dead`` (nobody listens any more) or ``cold`` (who starts has WARM seconds of work before it is
ready), and may change at any time.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

USUAL = 0.04  # seconds of an answer: what bounds the drilled service, whatever machine it runs on
SLOW = 0.16
LOOK = 0.1  # seconds between two looks at the mood
BODY = b'{"scanner": 4, "dpi": 300}'
COLD = b'{"scanner": 4, "dpi": 300, "warm": 8}'


class Dependency:
    def __init__(self) -> None:
        self.mood = "ok"
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def open(self) -> None:
        """Listens, on the port it had before if it had one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def turn(self, mood: str) -> None:
        """In this mood from now on."""
        self.mood = mood
        if mood == "dead" and self._server is not None:
            self._server.close()
            self._server = None
            for writer in list(self._open):
                writer.transport.abort()
        elif mood != "dead" and self._server is None:
            await self.open()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(SLOW if self.mood == "slow" else USUAL)
                status = b"401 Unauthorized" if self.mood == "denied" else b"200 OK"
                body = COLD if self.mood == "cold" else BODY
                writer.write(b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the caller has gone, or we go
        finally:
            self._open.discard(writer)
            writer.close()


async def main(port_file: Path, mood_file: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop.set)
    dependency = Dependency()
    await dependency.open()
    fresh = port_file.with_suffix(".new")
    fresh.write_text(str(dependency.port))
    fresh.rename(port_file)
    while not stop.is_set():
        if mood_file.exists() and (mood := mood_file.read_text().strip()) != dependency.mood:
            await dependency.turn(mood)
        await asyncio.sleep(LOOK)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
