"""What an edge holds, as it says at once, so that waking loses no time to polling."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from leptonai.platforms.local.probe import Unanswered, UnixClient
from leptonai.types import Key

_ASKED = 15.0  # seconds to wait for an answer that the edge gives after 10 s at the latest


class _Held(msgspec.Struct):
    service: Key
    variant: str
    count: int


class _Page(msgspec.Struct):
    """The answer to ``/-/held``."""

    version: int
    held: list[_Held]


class Held:
    """``counts``: (service, variant) -> requests that wait for a replica; {} while it is not known."""

    def __init__(self, woken: Callable[[Key], None]) -> None:
        """``woken`` is called with a service's key when requests begin to be held for it."""
        self.counts: dict[tuple[Key, str], int] = {}
        self._woken = woken

    async def follow(self, edge: str, pause: float) -> None:
        """For ever. ``edge``: where it answers; ``pause``: seconds until one that does not is asked again."""
        client, version = UnixClient(edge), ""
        try:
            while True:
                try:
                    answer = await client.request("GET", f"/-/held?after={version}", _ASKED)
                    page = msgspec.json.decode(answer.body, type=_Page)
                except (Unanswered, msgspec.MsgspecError):
                    version, self.counts = "", {}
                    await asyncio.sleep(pause)
                    continue
                version = str(page.version)
                before, self.counts = self.counts, {(h.service, h.variant): h.count for h in page.held}
                for key in {key for key, variant in self.counts if (key, variant) not in before}:
                    self._woken(key)
        finally:
            client.close()
