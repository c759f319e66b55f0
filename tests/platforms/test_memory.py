from __future__ import annotations

import pytest

from leptonai.platforms.memory import Behaviour, MemoryPlatform, World
from leptonai.protocols import Platform
from leptonai.settings import Local, Settings
from leptonai.testing import PlatformSuite
from leptonai.types import Variant

QUICK = Settings(local=Local(backoff_first=0.05, backoff_max=0.4, hung_after=0.1, stable_after=0.1))


def behaviour(variant: Variant) -> Behaviour:
    if variant.model == "failing":
        return Behaviour(start_delay=0.1, exit_after=0.02)
    if variant.model == "endless":
        return Behaviour(start_delay=1e9)
    return Behaviour(start_delay=0.02, jitter=0.03, drain=0.02)


class TestMemory(PlatformSuite):
    period = 0.01

    @pytest.fixture(autouse=True)
    def world(self) -> None:
        self._world = World(behaviour=behaviour)

    def platform(self) -> Platform:
        return MemoryPlatform(self._world, QUICK)

    def good(self, tag: str = "a") -> Variant:
        return Variant(model=tag)

    def failing(self) -> Variant:
        return Variant(model="failing")

    def endless(self) -> Variant:
        return Variant(model="endless")
