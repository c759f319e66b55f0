"""From one Envoy to another on the same port: what is kept of each, and how one leaves. Nobody notices.

Both listen with SO_REUSEPORT. The new one takes connections from the moment it is ready; the old one then answers with
``connection: close``, stops listening after DRAIN seconds, answers what it still has, and ends.
"""

from __future__ import annotations

import asyncio

from leptonai.platforms.local.probe import Unanswered, UnixClient
from leptonai.platforms.local.process import Process
from leptonai.types import Noun

DRAIN = 2  # seconds in which a leaving Envoy tells its clients to connect anew: each asks at least once, if it is busy
_QUIET = 8.0  # seconds more for connections on which nothing is asked
PATIENCE = 90.0  # seconds for requests that were under way
_ACTIVE = r"/stats?filter=^http\.gateway\.downstream_(rq|cx)_active$"


class Envoy(Noun, frozen=True, kw_only=True):
    """One process that was started as a gateway, and where it is asked."""

    pid: int
    ticks: int
    boot: str
    identity: str
    admin: str

    def adopt(self) -> Process | None:
        return Process.adopt(self.pid, self.ticks, self.boot)


async def leave(process: Process, admin: str) -> None:
    """It has answered all it was asked and has ended. Calling it again for one that is leaving is safe."""
    client = UnixClient(admin)
    try:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while process.alive and loop.time() - began < PATIENCE:
            try:
                await client.request("POST", "/drain_listeners?graceful", 1.0)
                break
            except Unanswered:
                await asyncio.sleep(0.1)
        while process.alive and (passed := loop.time() - began) < PATIENCE:
            requests, connections = await _active(client)
            if passed > DRAIN and (connections == 0 or (requests == 0 and passed > DRAIN + _QUIET)):
                break
            await asyncio.sleep(0.1)
    finally:
        client.close()
    await process.stop(grace=5.0)


async def _active(client: UnixClient) -> tuple[int, int]:
    """Requests and connections that it has; as if it had some when it does not say."""
    try:
        page = (await client.request("GET", _ACTIVE, 1.0)).body.decode()
    except Unanswered:
        return 1, 1
    found = {k: int(v) for k, _, v in (line.partition(": ") for line in page.splitlines())}
    return found.get("http.gateway.downstream_rq_active", 0), found.get("http.gateway.downstream_cx_active", 0)
