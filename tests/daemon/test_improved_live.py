"""An improvement ends in a canary that real users judge through Envoy: a good one stays, a bad one is taken back."""

from __future__ import annotations

import json
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from waiting import eventually

if TYPE_CHECKING:
    from daemon_machine import Machine

pytestmark = pytest.mark.world

SERVICE = """
name: digits
model: ./first/model.skops
replicas: 2
idempotent: true
rollout: {steps: [0.3, 1], step_seconds: 1s, min_samples: 30, effect: 0.4, slower: 5, verify_seconds: 1s}
"""
FIRST = "data: base.npz\nestimator: sklearn.linear_model.LogisticRegression\nargs: {max_iter: 50, C: 0.002}\n"
FLOW = """
name: digits
collect: [ROWS.npz]
train: {estimator: sklearn.neural_network.MLPClassifier, args: {hidden_layer_sizes: [64], max_iter: 25}}
evaluate: {test: ROWS-test.npz, at_least: 0.8}
compress: {budget: accuracy=5%, only: [int8 stored]}
canary: {service: digits, timeout: 250}
"""


class Users(threading.Thread):
    """Ask without pause and say of every answer what was right."""

    def __init__(self, url: str, token: str, x: Any, y: Any) -> None:
        super().__init__(daemon=True)
        self.url, self.x, self.y = url, x, y
        self.headers = {"authorization": f"Bearer {token}"}
        self.codes, self.over = Counter[str](), threading.Event()

    def run(self) -> None:
        feedback = f"{self.url.partition('/services/')[0]}/feedback"
        with httpx.Client(trust_env=False, timeout=60.0) as http:
            while not self.over.wait(0.01):
                i = sum(self.codes.values()) % len(self.y)
                answer = http.post(f"{self.url}/predict", json=[self.x[i]])
                self.codes[str(answer.status_code)] += 1
                said = {"about": answer.headers["x-request-id"], "service": "digits", "label": self.y[i]}
                self.codes[f"feedback {http.post(feedback, json=said, headers=self.headers).status_code}"] += 1

    def stop(self) -> Counter[str]:
        self.over.set()
        self.join(60)
        assert not self.is_alive()
        return self.codes


@pytest.mark.timeout(900)  # a minute of a quiet machine
def test_a_better_model_is_promoted_and_one_that_only_looks_better_is_rolled_back(machine: Machine) -> None:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = ((x - 4.9) / 6).astype(np.float32)
    parts = {"base": slice(0, 150), "good": slice(0, 900), "good-test": slice(900, 1200)}
    for name, part in parts.items():
        np.savez(machine.work / f"{name}.npz", x=x[part], y=y[part])
    # a labelling job that went wrong: rows and test rows agree with each other, and with nobody else
    np.savez(machine.work / "spoilt.npz", x=x[:900], y=(y[:900] + 1) % 10)
    np.savez(machine.work / "spoilt-test.npz", x=x[900:1200], y=(y[900:1200] + 1) % 10)
    for name, content in (("service", SERVICE), ("first", FIRST)):
        (machine.work / f"{name}.yaml").write_text(content)
    machine.run("train", "first.yaml", "--out", "first")
    machine.run("up", "--api-port", "0", "--gateway-port", "0")
    machine.run("deploy", "service.yaml")
    with machine.client() as client:
        token = client.create_token("users", role="operator").secret
        users = Users(client.service("digits").url, token, x[1200:].tolist(), y[1200:].tolist())
        users.start()
        eventually(lambda: users.codes["200"] > 20, "answers through Envoy")

        (machine.work / "good.yaml").write_text(FLOW.replace("ROWS", "good"))
        done = machine.json("pipeline", "run", "good.yaml")
        assert done["values"]["outcome"] == "promoted" and done["values"]["chosen"]
        stable = eventually(lambda: settled(client), "only the new ones")

        (machine.work / "spoilt.yaml").write_text(FLOW.replace("ROWS", "spoilt"))
        ended = machine.run("pipeline", "run", "spoilt.yaml", "--json", check=False)
        assert ended.returncode == 10, ended.stderr
        values = json.loads(ended.stdout)["values"]
        assert values["quality"] > 0.8 and values["outcome"] == "rolled back" and "labels say" in values["why"]
        assert eventually(lambda: settled(client), "only the old ones") == stable, "nobody was restarted"
        assert machine.run("pipeline", "run", "spoilt.yaml", check=False).returncode == 10, "the same is told again"
    assert {k for k in users.stop() if k.isdigit()} == {"200"}, "no request was lost"


def settled(client: Any) -> set[int] | None:
    """The processes, once there are just the two that are wished, and ready."""
    service = client.service("digits").service
    replicas = client.replicas("digits")
    ready = {r.pid for r in replicas if r.state == "ready" and r.digest == service.spec.variants[0].digest}
    return ready if len(ready) == len(replicas) == 2 and service.canary is None else None
