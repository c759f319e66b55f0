"""What only the copy that leads does, begun and ended as the lead comes and goes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from leptonai.errors import LeptonError

log = logging.getLogger("leptonai.control")
Loop = Callable[[], Coroutine[Any, Any, None]]


class Lead(Protocol):
    @property
    def leads(self) -> bool: ...

    def closed(self) -> LeptonError | None:
        """Why no wish is taken here; None where one is."""

    async def gained(self) -> None: ...

    async def lost(self) -> None: ...


class Alone:
    """A platform of which there cannot be two: it leads, always."""

    leads = True

    def closed(self) -> None:
        return None

    async def gained(self) -> None:
        return

    async def lost(self) -> None:
        await asyncio.Event().wait()


async def led(lead: Lead, loops: Sequence[Loop], meanwhile: Loop) -> None:
    """``loops`` run while we lead, ``meanwhile`` while we do not. None of ``loops`` may end: that ends this.

    What was under way when the lead is lost is cancelled; whoever leads next takes it up.
    """
    while True:
        await _until(lead.gained, [meanwhile])
        await _until(lead.lost, loops)
        log.warning("this copy does not lead any more: it stands by")


async def _until(over: Loop, loops: Sequence[Loop]) -> None:
    end = asyncio.create_task(over())
    work = [asyncio.create_task(loop()) for loop in loops]
    try:
        done, _ = await asyncio.wait([end, *work], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {end}:
            task.result()
            raise RuntimeError("a loop of control ended")
    finally:
        for task in (end, *work):
            task.cancel()
        await asyncio.gather(end, *work, return_exceptions=True)
