"""Advice over the API and the command line: told from ops' telemetry, proposed through the one door, waiting there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from test_api_signals import ops

from leptonai.cli.main import run
from leptonai.client.advice import Advice
from leptonai.platforms.telemetry import Memory
from leptonai.types import Signal

if TYPE_CHECKING:
    from api_stage import Stage


def kept(now: float, each: float = 0.01) -> Memory:
    """Ten minutes of 30 to 50 requests a second."""
    store = Memory(keep=1e9)
    for n in range(600):
        at, rate = now - 600 + n, 40.0 + 10.0 * float(np.sin(n / 60.0))
        about = {"service": "digits"}
        replica = {**about, "replica": "r1", "digest": "d"}
        values = {"request_rate_per_second": rate, "ready_count": 1.0}
        own = {
            "replica_service_seconds": each, "replica_compute_seconds": each, "replica_queue_seconds": 0.001,
            "replica_cpu_ratio": rate * each, "replica_concurrency_count": rate * each,
        }  # fmt: skip
        store.write([Signal(name=k, labels=about, at=at, value=v) for k, v in values.items()])
        store.write([Signal(name=k, labels=replica, at=at, value=v) for k, v in own.items()])
    return store


def test_advice_is_told_and_proposed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.service()
    monkeypatch.setenv("LEPTONAI_HOST", stage.url)
    monkeypatch.setenv("LEPTONAI_TOKEN", stage.token("ana", "admin"))
    with ops(stage.home / "ops.sock", kept(stage.now())), stage.http("viewer") as http:
        answer = http.get("/services/digits/advice", params={"seconds": 700})
        assert answer.status_code == 200, answer.text
        found = msgspec.json.decode(answer.content, type=Advice)
        assert found.first is not None and found.first.name == "compute"
        assert found.windows > 100 and 48.0 < found.peak < 51.0
        assert http.get("/services/digits/advice", params={"seconds": 1}).status_code == 400
        assert run(["advise", "--last", "10min"]) == 0
        assert "compute" in capsys.readouterr().out
        assert run(["advise", "digits", "--last", "10min"]) == 0
        said = capsys.readouterr().out
        assert "digits ends at" in said and "--propose" in said
        assert run(["advise", "digits", "--last", "10min", "--propose", "--json"]) == 0
        made = json.loads(capsys.readouterr().out)
    assert made["status"] == "pending" and "the advisor proposes it" in made["reasons"][0]
    assert stage.store.proposal(made["id"]).change.set["main.replicas"] >= 2


def test_without_ops_the_command_says_so(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.service()
    monkeypatch.setenv("LEPTONAI_HOST", stage.url)
    monkeypatch.setenv("LEPTONAI_TOKEN", stage.token("ana", "admin"))
    assert run(["advise", "digits"]) != 0 and "ops does not run" in capsys.readouterr().err
    assert run(["advise", "--propose"]) == 2 and "needs a service" in capsys.readouterr().err
