"""A request through a real gateway and replica leaves a trace that can be asked for by its x-request-id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest
from waiting import eventually

from leptonai.cli.trace import tree
from leptonai.client import Client
from leptonai.errors import NotFound
from leptonai.types import Span

if TYPE_CHECKING:
    from daemon_machine import Machine

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
MODEL = """
import time


class Sleeper:
    def predict(self, x: float) -> float:
        time.sleep(x)
        if x < 0.001:
            raise ValueError("too short")
        return x
"""

pytestmark = pytest.mark.world


def test_slow_and_failed_requests_leave_traces_and_quick_ones_none(machine: Machine) -> None:
    machine.home.mkdir()
    (machine.home / "settings.yaml").write_text(
        "gateway: {trace_share: 0.0, trace_slow: 0.3, port: 0}\napi: {port: 0}\n"
    )
    model = machine.work / "sleeper.py"
    model.write_text(MODEL)
    machine.run("up")
    machine.run("deploy", str(model))
    with machine.client() as client:
        traced(client)
    assert "compute" in machine.run("trace", "slow").stdout and "failed" in machine.run("trace").stdout
    assert "no trace of 'quick'" in machine.run("trace", "quick", check=False).stderr


def traced(client: Client) -> None:
    url = client.service("sleeper").url

    def ask(x: float, id: str, **headers: str) -> int:
        answer = httpx.post(f"{url}/predict", json={"x": x}, headers={"x-request-id": id, **headers}, timeout=30.0)
        assert answer.headers["x-request-id"] == id
        return answer.status_code

    assert ask(0.01, "quick") == 200
    assert ask(0.5, "slow", traceparent=PARENT) == 200
    assert ask(0.0, "failed") == 500

    def spans(id: str) -> Any:
        try:
            return client.trace(id)
        except NotFound:
            return None

    slow = eventually(lambda: (s := spans("slow")) and len(s) >= 5 and s, "the trace of the slow request")
    names = [s.name for s in slow]
    assert names[:2] == ["gateway sleeper", "predict sleeper"] and set(names[2:]) == {"queue", "batch wait", "compute"}
    assert {s.trace for s in slow} == {PARENT.split("-")[1]} and slow[0].parent == PARENT.split("-")[2]
    (compute,) = (s for s in slow if s.name == "compute")
    assert 0.5 <= compute.seconds <= slow[1].seconds <= slow[0].seconds + 0.002
    failed = eventually(lambda: (s := spans("failed")) and len(s) >= 2 and s, "the trace of the failed request")
    assert failed[0].failed and failed[1].failed
    assert spans("quick") is None
    assert [(e.caller, e.callee, e.calls) for e in client.graph().edges] == [("gateway", "sleeper", 2)]
    assert [t.request for t in client.traces(failed=True)] == ["failed"]


def test_the_tree_survives_loops_and_missing_parents() -> None:
    spans = [
        Span(
            trace="1" * 32,
            id=str(i),
            parent=str(parent) if parent else "",
            name=str(i),
            service="s",
            start=i,
            seconds=1.0,
        )
        for i, parent in ((1, 0), (2, 1), (3, 9), (4, 5), (5, 4), (6, 6))
    ]
    found = tree(spans)
    assert sorted(s.id for _, s in found) == list("123456")
    assert {s.id: depth for depth, s in found} | {"4": 0, "5": 1} == {"1": 0, "2": 1, "3": 0, "4": 0, "5": 1, "6": 0}
