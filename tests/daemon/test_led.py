"""What only the copy that leads does: begun when it is, ended when it is not any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from leptonai.daemon.led import Alone, led


class Turns:
    """A lead that a test gives and takes."""

    def __init__(self) -> None:
        self.leads = False
        self._moved = asyncio.Condition()

    async def turn(self, leads: bool) -> None:
        async with self._moved:
            self.leads = leads
            self._moved.notify_all()

    def closed(self) -> None:
        return None

    async def gained(self) -> None:
        async with self._moved:
            await self._moved.wait_for(lambda: self.leads)

    async def lost(self) -> None:
        async with self._moved:
            await self._moved.wait_for(lambda: not self.leads)


def lasting(name: str, running: set[str]) -> Callable[[], Coroutine[Any, Any, None]]:
    async def loop() -> None:
        running.add(name)
        try:
            await asyncio.Event().wait()
        finally:
            running.discard(name)

    return loop


async def until(running: set[str], wanted: set[str]) -> None:
    async with asyncio.timeout(10):
        while running != wanted:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0)


def test_loops_run_while_it_leads_and_others_meanwhile() -> None:
    async def story() -> None:
        running: set[str] = set()
        turns = Turns()
        work = asyncio.create_task(
            led(turns, [lasting("act", running), lasting("tidy", running)], lasting("follow", running))
        )
        for _ in range(3):
            await until(running, {"follow"})
            await turns.turn(True)
            await until(running, {"act", "tidy"})
            await turns.turn(False)
        await until(running, {"follow"})
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        assert running == set()

    asyncio.run(story())


def test_a_loop_that_fails_or_ends_ends_it_and_the_others() -> None:
    async def fails() -> None:
        raise ValueError("no")

    async def ends() -> None:
        return

    async def story() -> None:
        for loop, error in ((fails, ValueError), (ends, RuntimeError)):
            running: set[str] = set()
            with pytest.raises(error):
                await led(Alone(), [lasting("act", running), loop], lasting("follow", running))
            assert running == set()

    asyncio.run(story())
