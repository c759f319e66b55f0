"""Last good answers, fetched from ready replicas of the services that want them; off the path of every request.

The edge asks, so a replica can speak for itself only; a replica that nobody has asked for a while keeps nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

import msgspec
import orjson

from leptonai.edge.cluster import Cluster
from leptonai.types import Answered

log = logging.getLogger(__name__)

PERIOD = 1.0  # seconds: the newest answers that the sudden death of every replica costs
TIMEOUT = 5.0
MAX_PAGE = 32 << 20  # bytes of one replica's new answers; it keeps 8 MiB
REFRESH = 0.25  # of the age: an answer that is asked again and again is taken over so often

_PAGE = msgspec.msgpack.Decoder(list[Answered])


async def collect_for_ever(clusters: Callable[[], Iterable[Cluster]]) -> None:
    while True:
        asked = [(c, a) for c in clusters() if c.answers.on for a in c.ready]
        await asyncio.gather(*(collect(cluster, address) for cluster, address in asked))
        await asyncio.sleep(PERIOD)


async def collect(cluster: Cluster, address: str) -> None:
    """Take over what one replica answered since it was last asked; nothing when it does not answer."""
    fallback = cluster.standby.fallback
    if fallback is None:
        return
    asked = {"every": REFRESH * fallback.max_age, "max_bytes": fallback.max_bytes}
    try:
        async with asyncio.timeout(TIMEOUT):
            page = await _post(address, orjson.dumps(asked))
        cluster.answers.add(_PAGE.decode(page))
    except (OSError, EOFError, ValueError, TimeoutError, asyncio.LimitOverrunError, msgspec.MsgspecError) as e:
        log.info("%s has no answers for us: %s", address, e)


async def _post(address: str, body: bytes) -> bytes:
    if "/" in address:
        reader, writer = await asyncio.open_unix_connection(address)
    else:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
    try:
        head = b"POST /-/answers HTTP/1.1\r\nhost: edge\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        writer.write(head % len(body) + body)
        lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        status = int(lines[0].split(b" ", 2)[1])
        size = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
        if status != 200 or size > MAX_PAGE:
            raise ValueError(f"status {status}, {size} bytes")
        return await reader.readexactly(size)
    finally:
        writer.close()
