"""A real platform with its edge, and what the edge says of itself; shared by the tests of the edge."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from local_world import World

from leptonai.platforms.local.probe import Unanswered, UnixClient
from leptonai.types import Service

Story = Callable[[World], Awaitable[None]]


@asynccontextmanager
async def living(folder: Path) -> AsyncIterator[World]:
    world = World(folder)
    await world.platform.start()
    try:
        yield world
    finally:
        await world.platform.shutdown()


def play(folder: Path, story: Story) -> None:
    async def whole() -> None:
        async with living(folder) as world:
            await story(world)

    asyncio.run(whole())


async def routed(world: World, service: Service) -> None:
    """The service has a route, whoever answers."""
    await world.platform.apply(service)
    await known(world, service.key)


async def known(world: World, key: str) -> None:
    async with asyncio.timeout(30):
        while not await world.gateway_stat(f"cluster.{key}@main.update_success"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        while True:
            page = await edge_page(world, "/-/ready")
            if b'"clusters":0' not in page and await world.gateway_stat("http.gateway.rds.gateway.update_success") > 1:
                return
            await asyncio.sleep(0.02)


async def edge_page(world: World, path: str) -> bytes:
    """What the edge says, as soon as there is one that listens."""
    client = UnixClient(world.platform.describe()["edge"]["socket"])
    try:
        async with asyncio.timeout(30):
            while True:
                try:
                    return (await client.request("GET", path, 5.0)).body
                except Unanswered:
                    await asyncio.sleep(0.02)
    finally:
        client.close()


async def outcomes(world: World) -> Counter[str]:
    found: Counter[str] = Counter()
    for line in (await edge_page(world, "/metrics")).decode().splitlines():
        if "outcome=" in line:
            found[line.split('outcome="')[1].split('"')[0]] += int(line.rpartition(" ")[2])
    return found


async def holding(world: World, count: int) -> None:
    async with asyncio.timeout(30):
        while f"}} {count}".encode() not in await edge_page(world, "/metrics"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
