"""Two copies on one namespace of a real cluster: one acts, the other stands by or is refused, and says who leads."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kube_stage import Namespace, needs_cluster, until

from leptonai.client import Client
from leptonai.errors import Conflict, LeptonError
from leptonai.platforms.kubernetes import KubernetesPlatform
from leptonai.settings import Gateway, Kubernetes, Settings
from leptonai.types import Dials, Service, Spec, Variant, VariantDials

pytestmark = [needs_cluster, pytest.mark.world, pytest.mark.timeout(600)]

LEASE = 6.0


@pytest.fixture
def space() -> Iterator[Namespace]:
    made = Namespace(f"lead-{secrets.token_hex(4)}")
    yield made
    made.delete()


def copy(home: Path, space: Namespace, store: str) -> KubernetesPlatform:
    home.mkdir()
    (home / "identity").write_text(store)
    settings = Settings(kubernetes=Kubernetes(namespace=space.name, lease=LEASE), gateway=Gateway(port=0))
    return KubernetesPlatform(home, settings)


def wish() -> Service:
    spec = Spec(name="digits", variants=(Variant(model="sha256:" + "0" * 64),))
    return Service(spec=spec, dials=Dials(variants={"main": VariantDials(replicas=0)}), revision=1)


def leads(platform: KubernetesPlatform) -> bool:
    return platform.leader is not None and platform.leader.leads


def holder(space: Namespace) -> str:
    return str(space.json("get", "lease", "leptonai")["spec"]["holderIdentity"])


def test_of_two_copies_of_one_store_one_acts_and_the_other_takes_over(space: Namespace, tmp_path: Path) -> None:
    first, second = copy(tmp_path / "a", space, "shared"), copy(tmp_path / "b", space, "shared")

    async def story() -> None:
        try:
            await first.start()
            await second.start()
            assert leads(first) and not leads(second)
            await first.apply(wish())
            with pytest.raises(Conflict, match="leads namespace") as refused:
                await second.apply(wish())
            assert refused.value.detail["holder"] == holder(space)
            with pytest.raises(Conflict):
                await second.remove("digits")
            second.route([wish()])
            assert second.describe()["services"] == ["digits"], "its gateway routes what it is told"
            await first.close()
            await until(lambda: leads(second), 3 * LEASE)
            assert await second.apply(wish()) == [], "adopted: nothing is made anew"
        finally:
            await second.shutdown()
        assert space.kubectl("get", "lease", "leptonai", check=False) == "", "who has removed all leaves no claim"

    try:
        asyncio.run(story())
    finally:  # who was closed let go of its gateway and edge; they are ended as `leptonai down` of that home does
        asyncio.run(KubernetesPlatform(first.home, first.settings).shutdown())


# --- whole platforms -------------------------------------------------------------------------------------------------


def cli(home: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "leptonai.cli", "--home", str(home), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


def home_of(folder: Path, space: Namespace) -> Path:
    folder.mkdir()
    chosen: dict[str, Any] = {"api": {"port": 0}, "gateway": {"port": 0}}
    chosen["kubernetes"] = {"enabled": True, "namespace": space.name, "lease": LEASE, "image": "localhost/none:1"}
    (folder / "settings.yaml").write_bytes(msgspec.yaml.encode(chosen))
    return folder


def test_a_second_home_is_refused_by_name_and_a_killed_control_goes_on_at_once(
    space: Namespace, tmp_path: Path
) -> None:
    one, two = home_of(tmp_path / "one", space), home_of(tmp_path / "two", space)
    try:
        done = cli(one, "up")
        assert done.returncode == 0, done.stderr
        first = holder(space)
        refused = cli(two, "up")
        assert refused.returncode == 5, refused
        assert f"namespace {space.name} is led by {first} at http://127.0.0.1:" in refused.stderr
        assert "kubernetes.namespace" in refused.stderr, "what to do"
        down = cli(two, "down")
        assert down.returncode == 0, down.stderr
        assert holder(space) == first

        def known() -> dict[str, Any]:
            return dict(json.loads((one / "control.json").read_text()))

        before = known()
        os.kill(before["pid"], signal.SIGKILL)
        deadline = time.monotonic() + 120.0
        while True:
            assert time.monotonic() < deadline
            try:
                with Client(home=one) as client:
                    leader = client.platform()["leader"]
                if known()["pid"] != before["pid"]:
                    break
            except LeptonError:
                pass
            time.sleep(0.1)
        assert leader["leads"] and leader["holder"] == first, "the same home is the same holder: no lease's time passes"
        assert space.json("get", "lease", "leptonai")["spec"]["leaseTransitions"] == 0
    finally:
        assert cli(one, "down").returncode == 0
        cli(two, "down")
