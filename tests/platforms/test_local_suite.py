"""LocalPlatform keeps the promises of every platform, with real processes and a real Envoy."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from suite_models import ENDLESS, FAILING, GOOD

from leptonai.platforms.local import LocalPlatform
from leptonai.platforms.local.rundir import runtime_folder
from leptonai.settings import Gateway, Local, Settings
from leptonai.store import Artifacts
from leptonai.testing import PlatformSuite
from leptonai.types import Variant

SETTINGS = Settings(
    gateway=Gateway(port=0),
    local=Local(probe_interval=0.1, hung_after=1.0, backoff_first=0.1, stable_after=1.0, kill_after=0.5),
)


@pytest.mark.world
class TestLocalPlatform(PlatformSuite):
    @pytest.fixture(autouse=True)
    def _home(self, tmp_path: Path) -> Iterator[None]:
        self.home = tmp_path / "home"
        self.artifacts = Artifacts(self.home / "artifacts")
        yield
        asyncio.run(self._end())

    async def _end(self) -> None:
        platform = self.platform()
        await platform.start()
        await platform.shutdown()
        assert not runtime_folder(self.home).exists()

    def platform(self) -> LocalPlatform:
        return LocalPlatform(self.home, SETTINGS, self.artifacts)

    def good(self, tag: str = "a") -> Variant:
        return self._variant(GOOD + f"# {tag}\n")

    def failing(self) -> Variant:
        return self._variant(FAILING)

    def endless(self) -> Variant:
        return self._variant(ENDLESS)

    def _variant(self, code: str) -> Variant:
        source = self.home.parent / "source"
        source.mkdir(exist_ok=True)
        (source / "model.py").write_text(code)
        return Variant(model=self.artifacts.put_tree(source))
