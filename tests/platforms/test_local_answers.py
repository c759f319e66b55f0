"""Long answers and big models on the real platform: streams live past the time limit, unloaded memory comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from local_world import World, closed

pytestmark = pytest.mark.world

TICKS = """
import time

class Ticks:
    def predict(self, n: int):
        for i in range(n):
            time.sleep(0.3)
            yield i
"""
BIG = """
import numpy as np

class Big:
    def setup(self):
        self.weights = np.ones(200_000_000, np.uint8)

    def predict(self, x: float) -> float:
        return 2 * x
"""


def play(folder: Path, story: Callable[[World], Awaitable[None]]) -> None:
    async def whole() -> None:
        world = World(folder)
        await world.platform.start()
        try:
            await story(world)
        finally:
            await world.platform.shutdown()

    asyncio.run(whole())


def test_a_stream_outlives_the_time_limit_and_an_answer_in_one_piece_does_not(tmp_path: Path) -> None:
    """The limit of 2 s is the longest silence of a stream; the same answer, gathered, takes 3 s and is cut off."""

    async def asked(world: World, headers: str) -> bytes:
        url = urlsplit(world.platform.url("ticks"))
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        body = b'{"n": 10}'
        head = (
            f"POST {url.path}/predict HTTP/1.1\r\nhost: t\r\nconnection: close\r\n{headers}content-length: {len(body)}"
        )
        writer.write(head.encode() + b"\r\n\r\n" + body)
        try:
            async with asyncio.timeout(60):
                return await reader.read()
        finally:
            await closed(writer)

    async def story(world: World) -> None:
        service = world.service(1, world.variant(TICKS), name="ticks", timeout=2.0)
        await world.until(lambda: any(r.state == "ready" for r in world.platform.observe()), service)
        async with asyncio.timeout(30):
            while not (await asked(world, "accept: text/event-stream\r\n")).startswith(b"HTTP/1.1 200"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        whole = await asked(world, "accept: text/event-stream\r\n")
        assert [b"data: %d\n" % i in whole for i in range(10)] == [True] * 10, whole
        late = await asked(world, "")
        assert late.startswith(b"HTTP/1.1 504") and b'"code":"timeout"' in late, late[:200]

    play(tmp_path, story)


def test_a_model_that_is_unloaded_gives_its_memory_back(tmp_path: Path) -> None:
    """Measured as PSS, of every process that runs because of the platform: shared pages count once."""

    def pss() -> int:
        total = 0
        for process in psutil.Process().children(recursive=True):
            try:
                total += process.memory_full_info().pss
            except psutil.Error:
                continue
        return total

    async def story(world: World) -> None:
        variant = world.variant(BIG)
        (replica,) = await world.settle(world.service(1, variant))
        loaded = pss()
        assert replica.pid and psutil.Process(replica.pid).memory_full_info().pss > 200e6
        await world.settle(world.service(0, variant))
        await world.until(lambda: not psutil.pid_exists(replica.pid or 0))
        assert loaded - pss() > 200e6
        await world.settle(world.service(1, variant))
        assert await world.ask("double") == (200, 42.0), "and it can be loaded again"

    play(tmp_path, story)
