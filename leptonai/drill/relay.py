"""The network between the drilled service and what it calls, until its input ends:
``python -m leptonai.drill.relay PORT_FILE TARGET MOOD_FILE``. TARGET is a port of this machine.

The mood file says ``ok``, ``far SECONDS`` (each piece of data takes so much longer, in each direction) or ``lossy
SHARE``: that share of pieces is lost, and comes when it is sent again. Whoever talks over TCP sees time, not loss: the
first repetition comes after RTO, each further one after twice the time before (RFC 6298).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from pathlib import Path

RTO = 0.2  # seconds: Linux' least time to the first repetition (TCP_RTO_MIN)
MOST = 6  # repetitions that are waited for; then the connection is broken
LOOK = 0.1  # seconds between two looks at the mood
PIECE = 65536


class Relay:
    """Forwards connections to ``target``; ``far`` and ``lossy`` act on every piece from now on, on open ones, too."""

    def __init__(self, target: int, seed: int = 0) -> None:
        self.far, self.lossy = 0.0, 0.0
        self.port = 0
        self._target, self._random = target, random.Random(seed)
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    def turn(self, mood: str) -> None:
        what, _, much = mood.partition(" ")
        self.far = float(much) if what == "far" else 0.0
        self.lossy = float(much) if what == "lossy" else 0.0

    def late(self) -> float | None:
        """Seconds that one piece is late; None: it never comes."""
        lost = 0
        while lost <= MOST and self._random.random() < self.lossy:
            lost += 1
        return None if lost > MOST else self.far + RTO * (2.0**lost - 1.0)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            above, below = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()  # refused there, broken here
            return
        ways = [asyncio.ensure_future(self._carry(*way)) for way in ((reader, below), (above, writer))]
        with contextlib.suppress(asyncio.CancelledError):  # we end
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        for end in (writer, below):
            end.transport.abort()

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await source.read(PIECE):
                late = self.late()
                if late is None:
                    return
                if late:
                    await asyncio.sleep(late)
                sink.write(piece)
                await sink.drain()


async def main(port_file: Path, target: int, mood_file: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop.set)
    relay = Relay(target)
    await relay.open()
    fresh = port_file.with_suffix(".new")
    fresh.write_text(str(relay.port))
    fresh.rename(port_file)
    mood = ""
    while not stop.is_set():
        if mood_file.exists() and (said := mood_file.read_text().strip()) != mood:
            mood = said
            relay.turn(mood)
        await asyncio.sleep(LOOK)
    relay.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
