"""A whole platform whose telemetry a real Prometheus keeps: it serves, detects and repairs as with its own files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "daemon"))

from daemon_machine import machine  # noqa: F401 - a fixture
from test_prometheus_store import NEEDED, prometheus  # noqa: F401 - a fixture
from waiting import eventually

if TYPE_CHECKING:
    from daemon_machine import Machine

pytestmark = [pytest.mark.world, pytest.mark.skipif(shutil.which("prometheus") is None, reason=NEEDED)]


def asked(url: str, query: str) -> list[dict[str, Any]]:
    return list(httpx.get(f"{url}/api/v1/query", params={"query": query}, trust_env=False).json()["data"]["result"])


def test_ops_detects_and_repairs_with_a_prometheus_as_its_store(machine: Machine, prometheus: str) -> None:  # noqa: F811
    machine.home.mkdir()
    (machine.home / "settings.yaml").write_text(
        f"prometheus: {{url: '{prometheus}', labels: {{platform: mill}}}}\napi: {{port: 0}}\ngateway: {{port: 0}}\n"
    )
    machine.run("up")
    machine.run("deploy", str(machine.model(2)), "--replicas", "2")
    with machine.client() as client:
        url = client.service("doubler").url

        def ask() -> int:
            return httpx.post(f"{url}/predict", json={"x": 3}, timeout=30.0).status_code

        def rate() -> Any:
            ask()
            found = client.signals("request_rate_per_second", time.time() - 60, time.time(), {"service": "doubler"})
            return found and max(found[0].value) > 0 and found

        eventually(rate, "the rate of requests is read through Prometheus")
        # the same is in Prometheus itself, under the label that tells platforms apart, and nothing is kept in files
        told = 'last_over_time(request_rate_per_second{service="doubler",platform="mill"}[5m])'
        eventually(lambda: asked(prometheus, told), "Prometheus has it")
        assert not (machine.home / "telemetry" / "segments").exists()
        assert "request_rate_per_second" in client.signal_names()

        victim = client.replicas("doubler")[0]
        assert victim.pid is not None
        subprocess.run(["kill", "-STOP", str(victim.pid)], check=True)
        found = eventually(
            lambda: (ask(), [i for i in client.incidents() if i.causes])[1], "an incident with a cause", 120.0
        )
        assert found[0].causes[0].name == "hung_replica"
        eventually(lambda: all(i.closed for i in client.incidents()), "the incident is over", 120.0)

        # ops starts anew: what was before is asked of Prometheus
        note = machine.home / "ops.json"
        before = json.loads(note.read_text())["pid"]
        subprocess.run(["kill", "-9", str(before)], check=True)
        eventually(lambda: note.exists() and json.loads(note.read_text())["pid"] != before, "ops is back")

        def old() -> Any:
            end = time.time()
            found = client.signals("ready_count", end - 600, end, {"service": "doubler"})
            return found and found[0].at[0] < json.loads(note.read_text())["started"] and found

        eventually(old, "what came before the restart is read again")
    log = (machine.home / "logs" / "ops.log").read_text()
    assert "Traceback" not in log, log
