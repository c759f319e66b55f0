"""A volume that fills up under a platform on a real cluster: it leads and serves on, and loses nothing acknowledged."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from kube_stage import Namespace, image, needs_cluster
from waiting import eventually

from leptonai.client import Client
from leptonai.errors import LeptonError
from leptonai.types import DialChange, Scale, Spec, SpecChange, Variant

pytestmark = [needs_cluster, pytest.mark.world, pytest.mark.timeout(600)]


@pytest.fixture
def space() -> Iterator[Namespace]:
    made = Namespace(f"full-{secrets.token_hex(4)}")
    yield made
    made.delete()


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB, as a volume claim of that size would be."""
    made = tmp_path / "home"
    made.mkdir(mode=0o700)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(made)], capture_output=True).returncode:
        pytest.skip("NOT TESTED: a full volume needs root and mount -t tmpfs")
    yield made
    subprocess.run(["umount", str(made)], check=True)


def run(home: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "leptonai.cli", "--home", str(home), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_on_a_full_volume_it_leads_and_serves_on_says_so_and_goes_on_once_there_is_room(
    space: Namespace, volume: Path
) -> None:
    template, digests = image()
    settings = {"kubernetes": {"namespace": space.name, "image": template}, "gateway": {"port": 0}, "api": {"port": 0}}
    (volume / "settings.yaml").write_text(json.dumps(settings))
    variant = Variant(model=digests["a"], idempotent=True)
    spec = Spec(name="digits", variants=(variant,), scale=Scale(replicas=2, max=4), drain=1.0)
    filler, known = volume / "filler", set[int]()
    run(volume, "up", "--on", "kubernetes")
    try:
        with Client(home=volume) as client:

            def ready() -> list[str]:
                return sorted(r.id for r in client.replicas("digits") if r.state == "ready")

            def answers() -> bool:
                return httpx.post(f"{url}/predict", json={"x": 21}, trust_env=False).status_code == 200

            def renewed() -> str:
                return str(space.json("get", "lease", "leptonai")["spec"]["renewTime"])

            client.propose(SpecChange(spec=spec, base=0), "")
            eventually(lambda: len(ready()) == 2, "two pods are ready", 240)
            url = client.service("digits").url
            control = client.platform()["started"]
            known.add(client.record("kept", "digits", {"n": -1}).seq)
            with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
                while True:
                    file.write(bytes(4096))
            with pytest.raises(LeptonError) as refused:
                for n in range(4000):  # the log before the store has room left for some
                    known.add(client.record("kept", "digits", {"n": n, "pad": "x" * 3000}).seq)
            assert refused.value.code == "disk_full" and f"free space under {volume}" in refused.value.hint
            assert str(volume) in client.platform()["store"]["full"] and client.healthz().status == "read_only"
            assert "NOTHING CAN BE CHANGED OR RECORDED" in run(volume, "status")

            at, before = renewed(), ready()
            space.kubectl("delete", "pod", before[0], "--wait=false")
            eventually(lambda: len(ready()) == 2 and before[0] not in ready(), "another pod takes its place", 240)
            eventually(lambda: renewed() > at, "its Lease is renewed")
            about = client.platform()
            assert about["leader"]["leads"] and about["store"]["full"] and about["started"] == control
            assert answers()
            with pytest.raises(LeptonError, match="is full"):
                client.propose(DialChange(service="digits", set={"main.replicas": 3}), "")

            filler.unlink()
            eventually(lambda: client.platform()["store"]["full"] == "", "there is room again")
            assert client.healthz().status == "ok"
            told = next(e for e in client.events(subject="platform", limit=1000) if e.kind == "store.full")
            assert told.detail["seconds"] > 0
            assert known <= {e.seq for e in client.events(after=min(known) - 1, limit=10_000)}
            assert client.platform()["started"] == control, "nothing had to be started again"
            assert client.propose(DialChange(service="digits", set={"main.replicas": 1}), "").status == "admitted"
            eventually(lambda: len(client.replicas("digits")) == 1, "and what was refused is done", 240)
            assert answers()
    finally:
        run(volume, "down")
