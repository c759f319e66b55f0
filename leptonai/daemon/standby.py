"""While another copy of the platform holds the store: whoever asks us is led to that one, and we try to take over.

So a copy that stands by is ready as long as it can see one that answers, and no more: its readiness probe is answered
by that one. What is led is bytes: tokens, uploads and long answers are no concern of ours.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from urllib.parse import urlsplit

from leptonai.client.home import Home
from leptonai.daemon.seats import Seats
from leptonai.errors import LeptonError
from leptonai.platforms.kubernetes import lease
from leptonai.platforms.kubernetes.cluster import Cluster
from leptonai.platforms.kubernetes.lead import ADDRESS
from leptonai.settings import Settings

log = logging.getLogger("leptonai.control")
PERIOD = 2.0  # seconds between two looks who leads
CONNECT = 2.0  # seconds to reach it
OPS_PATIENCE = 15.0  # seconds for ops to end by itself
_PIECE = 1 << 16


def stop_ops(home: Home, seats: Seats) -> None:
    """No ops of this home acts: a new one finds no control. By what is led on it would act beside that of the leader.

    ``home.control`` is gone.
    """
    home.control.unlink(missing_ok=True)
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not seats.end_holder("ops", number, OPS_PATIENCE):
            return


class Relay:
    """Connections to ``listener`` are led to whoever the namespace's Lease names; without one they are closed."""

    def __init__(self, listener: socket.socket, settings: Settings) -> None:
        self._listener = listener.dup()  # the socket itself is for whoever leads here later
        self._cluster = Cluster(settings.kubernetes.context, settings.kubernetes.namespace)
        self._own = os.environ.get(ADDRESS, "")
        self._leader: tuple[str, int] | None = None
        self._server: asyncio.Server | None = None
        self._led: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._lead_on, sock=self._listener)

    async def look(self) -> None:
        """The leader is who the Lease names now; while the cluster tells nothing, who it named last."""
        try:
            found = await self._cluster.get(lease.API, "Lease", lease.NAME)
        except LeptonError as e:
            log.warning("who leads is not known: %s", e)
            return
        where = urlsplit(lease.read(found).control if found else "")
        known = where.hostname and where.port and where.hostname != self._own.strip("[]")
        self._leader = (str(where.hostname), int(where.port or 0)) if known else None

    async def close(self) -> None:
        """Nobody is led any more."""
        if self._server is not None:
            self._server.close()
        for task in self._led:
            task.cancel()
        await asyncio.gather(*self._led, return_exceptions=True)
        await self._cluster.close()

    async def _lead_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._led.add(task)
        try:
            if self._leader is not None:
                async with asyncio.timeout(CONNECT):
                    there, back = await asyncio.open_connection(*self._leader)
                try:
                    await asyncio.gather(_copy(reader, back), _copy(there, writer))
                finally:
                    back.transport.abort()
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass
        finally:
            self._led.discard(task)
            writer.transport.abort() if writer.transport.is_closing() else writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until one side has said all; the other is told."""
    while piece := await reader.read(_PIECE):
        writer.write(piece)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
