"""KubernetesPlatform keeps the promises of every platform, on a real cluster."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from kube_stage import Namespace, image, needs_cluster

from leptonai.platforms.kubernetes import KubernetesPlatform
from leptonai.settings import Gateway, Kubernetes, Local, Settings
from leptonai.testing import PlatformSuite
from leptonai.types import Variant


@needs_cluster
@pytest.mark.world
@pytest.mark.timeout(600)
class TestKubernetesPlatform(PlatformSuite):
    deadline = 120.0  # a pod takes some seconds, and one that ends leaves slowly
    period = 0.2

    @pytest.fixture(autouse=True)
    def _world(self, tmp_path: Path) -> Iterator[None]:
        self.home = tmp_path / "home"
        self.image, self.digests = image()
        self.space = Namespace(f"suite-{secrets.token_hex(4)}")
        yield
        asyncio.run(self._end())
        self.space.delete()

    async def _end(self) -> None:
        platform = self.platform()
        await platform.start()
        await platform.shutdown()

    def platform(self) -> KubernetesPlatform:
        settings = Settings(
            kubernetes=Kubernetes(namespace=self.space.name, image=self.image),
            gateway=Gateway(port=0),
            local=Local(stable_after=1.0),
        )
        return KubernetesPlatform(self.home, settings)

    def good(self, tag: str = "a") -> Variant:
        return Variant(model=self.digests[tag])

    def failing(self) -> Variant:
        return Variant(model=self.digests["failing"])

    def endless(self) -> Variant:
        return Variant(model=self.digests["endless"])
