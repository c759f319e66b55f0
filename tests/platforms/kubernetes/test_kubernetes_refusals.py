"""A whole platform on a cluster that refuses something: what else it does, and what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from whole_api import WholeApi

from leptonai.errors import Denied, PlatformError
from leptonai.plan.render import names
from leptonai.platforms.kubernetes import KubernetesPlatform
from leptonai.settings import Gateway, Kubernetes, Settings
from leptonai.types import Dials, Scale, Service, Spec, Variant, VariantDials

pytestmark = pytest.mark.world

Start = Callable[[], KubernetesPlatform]


def wish(name: str, owner: Any = "leptonai") -> Service:
    spec = Spec(name=name, variants=(Variant(model="sha256:" + "0" * 64),), scale=Scale(owner=owner, min=1, max=2))
    return Service(spec=spec, dials=Dials(variants={"main": VariantDials(replicas=1)}), revision=1)


def play(
    api: WholeApi, home: Path, patch: pytest.MonkeyPatch, pods: bool, story: Callable[[Start], Awaitable[None]]
) -> None:
    chosen = Kubernetes(namespace="models", gateway_pods=pods, prometheus="http://prometheus:9090")

    async def run() -> None:
        await api.start()
        patch.setenv("KUBECONFIG", str(api.kubeconfig(home.parent / "config")))
        await story(lambda: KubernetesPlatform(home, Settings(kubernetes=chosen, gateway=Gateway(port=0))))
        await api.stop()

    asyncio.run(run())


@pytest.mark.parametrize("pods", [False, True])
def test_a_service_that_the_cluster_does_not_give_up_is_named_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pods: bool
) -> None:
    api, home = WholeApi(), tmp_path / "home"

    async def story(start: Start) -> None:
        platform = start()
        await platform.start()
        for name in ("digits", "other", "third"):
            await platform.apply(wish(name))
        kept = names.lane_name("digits", "main")
        api.kept = {kept}
        with pytest.raises(PlatformError, match=r"1 service \(digits\) may still run in namespace models") as left:
            await platform.shutdown()
        assert left.value.code == "left_running" and "webhook" in left.value.message
        assert "deployments" in left.value.hint and "scaledobjects" not in left.value.hint, "what is served there"
        assert list(api.objects["deployments"]) == [kept], "one that is refused keeps no other"
        assert (home / "run").is_dir(), "for the next `down`"
        api.kept.clear()
        platform = start()
        await platform.start()
        await platform.shutdown()
        assert not api.objects["deployments"] and not (home / "run").exists()

    play(api, home, monkeypatch, pods, story)


def test_without_rights_to_keda_s_objects_only_a_wish_for_them_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster may have KEDA for others, and an account that was made before we knew of it."""
    api = WholeApi("keda.sh/v1alpha1")
    api.denied.add("scaledobjects")

    async def story(start: Start) -> None:
        platform = start()
        await platform.start()
        assert "ScaledObjects" in platform.describe()["cluster"]["blind"]
        assert await platform.apply(wish("digits"))
        with pytest.raises(Denied, match=r"may not get scaledobjects\.keda\.sh") as refused:
            await platform.apply(wish("other", "keda"))
        assert refused.value.code == "rbac" and "leptonai export rbac" in refused.value.hint
        await platform.shutdown()
        api.denied.add("deployments")
        platform = start()
        with pytest.raises(Denied, match="may not get deployments") as refused:
            await platform.start()
        assert "get scaledobjects.keda.sh" not in refused.value.detail["missing"]
        await platform.close()

    play(api, tmp_path / "home", monkeypatch, True, story)
