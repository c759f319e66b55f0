"""Rollouts on real processes behind a real Envoy, with users who ask all the while."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import httpx
import pytest
from waiting import eventually

from leptonai.client.home import Home
from leptonai.daemon.seats import Seats
from leptonai.serve import spec as texts
from leptonai.types import Spec

if TYPE_CHECKING:
    from pathlib import Path

    from daemon_machine import Machine

    from leptonai.client import Client

pytestmark = pytest.mark.world

MODEL = """
import random

class Doubler:
    def predict(self, x: int) -> int:
        if random.random() < {errors}:
            raise ValueError("{version}")
        return 2 * x
"""


def spec(machine: Machine, version: str, strategy: str, errors: float = 0.0) -> Spec:
    return texts.load(text(machine, version, strategy, errors))[0]


class Users(threading.Thread):
    """A few connections that ask without pause; counts what they got."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url, self.codes, self.over = url, Counter[str](), threading.Event()
        self.refused: list[str] = []  # what was said with every other code

    def run(self) -> None:
        asyncio.run(self.all())

    async def all(self) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=60.0) as http:
            await asyncio.gather(*(self.one(http) for _ in range(4)))

    async def one(self, http: httpx.AsyncClient) -> None:
        while not self.over.is_set():
            try:
                answer = await http.post(f"{self.url}/predict", json={"x": 21})
                self.codes[str(answer.status_code)] += 1
                if answer.status_code != 200:
                    self.refused.append(f"{time.time():.3f} {answer.status_code} {dict(answer.headers)} {answer.text}")
            except httpx.HTTPError as e:
                self.codes[type(e).__name__] += 1
            await asyncio.sleep(0.02)

    def stop(self) -> Counter[str]:
        self.over.set()
        self.join(60)
        assert not self.is_alive()
        return self.codes


def text(machine: Machine, version: str, strategy: str, errors: float = 0.0) -> Path:
    folder = machine.work / version
    folder.mkdir()
    (folder / "model.py").write_text(MODEL.format(version=version, errors=errors))
    rollout = (
        f"{{strategy: {strategy}, step_seconds: 1s, steps: [0.05, 0.5, 1], min_samples: 30, effect: 0.4, "
        "slower: 5, start_timeout: 30s}"  # a busy machine's noise is no subject of this test
    )
    path = folder / "service.yaml"
    path.write_text(f"name: doubler\nmodel: ./model.py\nidempotent: true\nreplicas: 2\nrollout: {rollout}\n")
    return path


@pytest.mark.timeout(300)
def test_good_versions_take_over_without_a_lost_request_or_a_restarted_replica(machine: Machine) -> None:
    machine.run("up", "--api-port", "0", "--gateway-port", "0")
    with machine.client() as client:
        view = client.deploy(spec(machine, "first", "replace"))
        users = Users(view.url)
        users.start()
        eventually(lambda: users.codes["200"] > 50, "answers through Envoy")

        # a canary is promoted while control is killed in the middle; its replicas are those that serve afterwards
        machine.run("deploy", str(text(machine, "second", "replace")), "--canary", "--no-wait")
        eventually(lambda: client.service("doubler").service.canary.weight > 0, "the first requests")  # type: ignore[union-attr]
        [canary] = [r.pid for r in client.replicas("doubler") if r.digest == head(client)]
        seats = Seats(Home(machine.home))
        killed = seats.holder("control")
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: seats.holder("control") not in (None, killed), "another control")
        judged = machine.run("wait", "doubler", "--judged", "--timeout", "200")
        assert "promoted" in judged.stdout
        assert canary in eventually(lambda: alone(client), "only the new ones"), "nobody is restarted for a promotion"
        words = machine.run("why", "doubler", "-n", "500").stdout
        assert "rollout.judged" in words and "log_evidence=" in words

        # blue-green: all at once
        client.deploy(spec(machine, "third", "blue_green"), wait=False)
        assert client.wait_judged("doubler", 200).outcome == "promoted"
        events = [e.detail["set"] for e in client.why("doubler", limit=2000) if "set" in e.detail]
        assert [dials["rollout.3.weight"] for dials in events if "rollout.3.weight" in dials] == [1.0]
        eventually(lambda: alone(client), "only the new ones")
        assert set(users.stop()) == {"200"}, users.refused


@pytest.mark.timeout(300)
def test_bad_versions_are_taken_back_by_what_is_measured_and_manual_ones_by_a_person(machine: Machine) -> None:
    machine.run("up", "--api-port", "0", "--gateway-port", "0")
    with machine.client() as client:
        view = client.deploy(spec(machine, "first", "replace"))
        stable = alone(client)
        users = Users(view.url)
        users.start()
        eventually(lambda: users.codes["200"] > 50, "answers through Envoy")

        # one that fails its requests is rolled back on copies of them: nobody noticed
        client.deploy(spec(machine, "broken", "canary", errors=0.5), wait=False)
        ended = machine.run("wait", "doubler", "--judged", "--timeout", "200", check=False)
        assert ended.returncode == 10 and "rolled back" in ended.stdout and "errors" in ended.stdout
        assert eventually(lambda: alone(client), "only the old ones") == stable

        # a person moves a manual one, and takes it back in the middle
        client.deploy(spec(machine, "by-hand", "manual"))
        machine.run("promote", "doubler", "--to", "50")
        assert client.service("doubler").service.canary.weight == 0.5  # type: ignore[union-attr]
        waiting = machine.run("wait", "doubler", "--judged", "--timeout", "0.1", check=False)
        assert waiting.returncode == 11 and "not enough evidence" in waiting.stdout
        assert "leptonai promote doubler" in waiting.stdout and "leptonai undo doubler" in waiting.stdout
        client.undo("doubler")
        assert client.service("doubler").service.canary is None
        assert eventually(lambda: alone(client), "only the old ones") == stable
        assert set(users.stop()) == {"200"}, users.refused


def head(client: Client) -> str:
    return client.service("doubler").service.spec.variants[0].digest


def alone(client: Client) -> set[int | None] | None:
    """The processes, once there are just the two that are wished, and ready."""
    replicas = client.replicas("doubler")
    ready = {r.pid for r in replicas if r.state == "ready" and r.digest == head(client)}
    return ready if len(ready) == len(replicas) == 2 else None
