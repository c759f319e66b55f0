"""Autoscaling on real processes: real load through Envoy, the wish follows it, and nobody loses a request."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import httpx
import pytest
from waiting import eventually

from leptonai.ops.scale.scaler import UNITS
from leptonai.plan.scale import Learner, Pilot, Reading, made
from leptonai.types import Auto, Event

if TYPE_CHECKING:
    from daemon_machine import Machine

    from leptonai.client import Client

pytestmark = pytest.mark.world
TIME = 0.1  # seconds of compute a request takes
TEXT = """
name: sleeper
model: {model}
slo: {{latency: 10s}}
scale:
  min: 1
  max: 4
  auto: {{policy: ours, target: 1, window: 2s, hold: 2s}}
"""
AUTO = Auto(policy="ours", target=1.0, window=2.0, hold=2.0)
COUNTS = ("ready", "starting", "least", "most", "missing")
MODEL = f"""
import time

class Sleeper:
    def predict(self, x: int) -> int:
        time.sleep({TIME})
        return 2 * x
"""


class Load(threading.Thread):
    """Asks at ``rate`` a second whatever the answers take, so that the offered concurrency is rate x TIME."""

    def __init__(self, url: str, rate: float) -> None:
        super().__init__(daemon=True)
        self.url, self.rate = url, rate
        self.answers: Counter[str] = Counter()
        self.ending = threading.Event()

    def run(self) -> None:
        asyncio.run(self._all())

    async def _all(self) -> None:
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
        async with httpx.AsyncClient(trust_env=False, timeout=60.0, limits=limits) as http:
            asking = set()
            due = time.monotonic()
            while not self.ending.is_set():
                asking.add(asyncio.create_task(self._one(http)))
                due += 1 / self.rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            await asyncio.gather(*asking)

    async def _one(self, http: httpx.AsyncClient) -> None:
        try:
            answer = await http.post(f"{self.url}/predict", json={"x": 21})
            self.answers[f"{answer.status_code} {answer.text}"] += 1
        except httpx.HTTPError as e:
            self.answers[type(e).__name__] += 1

    def end(self) -> Counter[str]:
        self.ending.set()
        self.join(timeout=60)
        assert not self.is_alive()
        return self.answers


def test_one_to_four_replicas_and_back_without_a_failed_request(machine: Machine) -> None:
    machine.run("up", "--api-port", "0", "--gateway-port", "0")
    (machine.work / "sleeper.py").write_text(MODEL)
    text = machine.work / "sleeper.yaml"
    text.write_text(TEXT.format(model="./sleeper.py"))
    view = machine.json("deploy", str(text))
    with machine.client() as client:

        def replicas() -> tuple[int, int]:
            seen = client.service("sleeper")
            return seen.wanted, seen.ready

        assert replicas() == (1, 1)
        low = Load(view["url"], 2.0)
        low.start()
        high = Load(view["url"], 32.0)  # 3.4 requests at once with the low load
        high.start()
        began = time.monotonic()
        eventually(lambda: replicas() == (4, 4), "4 replicas ready")
        print(f"4 ready after {time.monotonic() - began:.1f} s")
        answers = high.end()
        eventually(lambda: replicas() == (1, 1), "back at 1 replica", patience=90)
        print(f"1 again after {time.monotonic() - began:.1f} s")
        answers += low.end()
        assert set(answers) == {"200 42"}, answers
        assert client.incidents() == [], "scaling is no trouble"

        events = [e for e in client.why("sleeper", limit=1000) if e.kind == "scale.decided"]
        assert {e.actor for e in events} == {"ops"}
        ups = [e for e in events if e.detail["target"] > e.detail["wished"]]
        downs = [e for e in events if e.detail["target"] < e.detail["wished"]]
        assert ups and downs
        assert all(e.detail["terms"] and e.detail["age"] < 5 for e in ups + downs)
        assert any(key.startswith("evict.") for e in downs for key in e.detail["set"]), "the idlest are named"
        assert "replicas; the policy wants" in machine.run("why", "sleeper", "-n", "500").stdout
        same_decisions_as_in_the_replay(client, events)

        # a person's word stands
        assert machine.json("scale", "sleeper", "2")["wanted"] == 2
        assert client.service("sleeper").service.dials.variants["main"].auto is False
        eventually(
            lambda: bounded(client.why("sleeper", limit=1000), "a person set it"), "the scaler says why it waits"
        )
        assert replicas()[0] == 2
        machine.run("scale", "sleeper", "auto", "--no-wait")
        eventually(lambda: replicas()[0] == 1, "handed back")


def bounded(events: list[Event], bound: str) -> bool:
    return any(e.kind == "scale.decided" and e.detail["bound"] == bound for e in events)


def same_decisions_as_in_the_replay(client: Client, events: list[Event]) -> None:
    """What production read, second by second, given to the code of the replay: the very same decisions and terms."""
    by_field = {
        field: dict(zip(series.at, series.value, strict=True))
        for field, name in UNITS.items()
        for series in client.signals(name, 0.0, time.time() + 1.0, {"service": "sleeper"})
    }
    readings = [
        Reading(at=at, **{f: int(v[at]) if f in COUNTS else v[at] for f, v in by_field.items()})
        for at in sorted(by_field["demand"])
    ]
    learner = Learner(readings[0].startup)
    pilot = Pilot(made(AUTO), AUTO.concurrency, 1, readings[0].at - readings[0].seconds, learner)
    decided = {reading.at: pilot.step(reading) for reading in readings}
    compared = 0
    for event in events:
        decision = decided.get(event.detail["reading"]["at"])
        assert decision is not None
        assert (event.detail["desired"], event.detail["reason"]) == (decision.desired, decision.reason)
        assert event.detail["terms"] == decision.terms
        compared += 1
    assert compared >= 3
