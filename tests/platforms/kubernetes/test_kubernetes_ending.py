"""Taking a platform down while its cluster does not answer: it ends, says what was left, and can be said again."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from gate_stage import Api
from waiting import free_port

from leptonai.errors import LeptonError, PlatformError
from leptonai.platforms.kubernetes.ending import heard, left_running
from leptonai.types import Dials, Service, Spec, Variant


def down(home: Path, config: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "leptonai.cli", "--home", str(home), "down", "--json"]
    environment = os.environ | {"KUBECONFIG": str(config)}
    return subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)


@pytest.mark.world
@pytest.mark.parametrize("pods", [False, True])
def test_down_while_the_cluster_is_away_cleans_this_machine_and_says_what_was_left(tmp_path: Path, pods: bool) -> None:
    home = tmp_path / "home"
    (home / "run").mkdir(parents=True)
    (home / "envoy").mkdir()
    wish = Service(spec=Spec(name="digits", variants=(Variant(model="m"),)), dials=Dials(), revision=1)
    (home / "envoy" / "services.json").write_bytes(msgspec.json.encode([wish]))
    chosen: dict[str, Any] = {"enabled": True, "namespace": "models", "gateway_pods": pods}
    (home / "settings.yaml").write_bytes(msgspec.yaml.encode({"kubernetes": chosen, "gateway": {"port": 0}}))
    api = Api()
    api.port = free_port()  # where nobody listens
    config = api.kubeconfig(tmp_path / "config")
    for _ in range(2):  # the second time, too: nothing of it was forgotten
        done = down(home, config)
        assert done.returncode == PlatformError.exit_code, done
        said = json.loads(done.stdout or done.stderr)
        assert said["code"] == "left_running" and f"http://127.0.0.1:{api.port}" in said["error"]
        assert "On this machine nothing runs any more" in said["error"]
        assert "1 service (digits) may still run in namespace models" in said["error"] or pods
        assert "`leptonai down` again" in said["hint"] and "kubectl -n models delete" in said["hint"]
        assert not json.loads((home / "envoy" / "envoy.json").read_bytes())["pid"] if not pods else True


def test_what_is_done_ends_and_what_hears_nothing_does_not_wait_for_ever() -> None:
    async def story() -> None:
        await heard(asyncio.sleep(0), lambda: "away")  # done all the same
        with pytest.raises(PlatformError, match="away") as failed:
            await heard(asyncio.sleep(60.0), lambda: "away", silence=0.1)
        assert failed.value.code == "unreachable"

        async def refused() -> None:
            raise LeptonError("no")

        with pytest.raises(LeptonError, match="no"):
            await heard(refused(), lambda: "")

    asyncio.run(story())


def test_many_services_are_counted_not_listed() -> None:
    error = left_running([f"s{n}" for n in range(9)], "models", "https://c", PlatformError("no answer"))
    assert (
        "9 services (s0, s1, s2, s3, s4 and 4 others) may still run in namespace models of https://c" in error.message
    )
