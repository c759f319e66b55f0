"""A revision whose golden set fails is caught without a single request of a user, and taken back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import pytest
from waiting import eventually

if TYPE_CHECKING:
    from daemon_machine import Machine

pytestmark = pytest.mark.world

TEXT = """
name: doubler
model: {model}
scale: {{min: 0}}
tests: {{every: 1s, golden: golden.json, invariances: [repeat]}}
rollout: {{verify_seconds: 1s, verify_requests: 1, strategy: {strategy}}}
"""


@pytest.mark.timeout(400)
def test_a_failing_golden_set_is_caught_without_a_user(machine: Machine) -> None:
    machine.home.mkdir(mode=0o700)
    (machine.home / "settings.yaml").write_text("admit: {cooldown: 0}\nops: {settle: 2}\n")
    machine.run("up", "--api-port", "0", "--gateway-port", "0")
    (machine.work / "golden.json").write_text(json.dumps([{"inputs": {"x": x}, "outputs": 2 * x} for x in (1, 2)]))
    text = machine.work / "doubler.yaml"

    def deploy(factor: int, strategy: str = "replace") -> None:
        model = machine.model(factor)
        text.write_text(TEXT.format(model=model.name, strategy=strategy))
        machine.run("deploy", str(text))

    deploy(2)
    with machine.client() as client:
        url = client.service("doubler").url

        def verified() -> bool:
            assert httpx.post(f"{url}/predict", json={"x": 1}, timeout=60, trust_env=False).json() == 2
            return client.service("doubler").verified == 1

        eventually(verified, "the first revision is verified-good, by the requests of users")
        eventually(lambda: "golden: passed on 1" in machine.run("status", "doubler").stdout, "status tells of tests")

        deploy(3)  # a model of its own that loads and answers: wrongly
        found = eventually(
            lambda: [i for i in client.incidents() if i.causes and i.causes[0].name == "bad_revision_wrong_answers"],
            "an incident that names the revision",
        )
        told = [e.text for e in found[0].evidence if e.kind == "model_test"]
        assert told and "Model test golden fails on 2 of 2 examples" in told[0], found[0].evidence
        assert "output 'output' is 3, should be 2" in told[0] and found[0].causes[0].subject == "doubler#2"
        eventually(lambda: client.service("doubler").service.revision == 3, "it is rolled back")
        eventually(lambda: client.incident(found[0].id).closed, "it is closed")
        closed = client.incident(found[0].id)
        assert closed.actions[-1].remedy == "rollback" and closed.actions[-1].verdict == "effective"
        assert httpx.post(f"{url}/predict", json={"x": 4}, timeout=60, trust_env=False).json() == 8
        why = machine.run("why", "doubler").stdout
        assert "model_tests.failed" in why and "model_tests.passed" in why, why

        deploy(5, "canary")  # on probation it never gets as far as a copy of a request
        said = eventually(
            lambda: [e for e in client.events(subject="doubler") if e.kind == "rollout.convicted"], "it is convicted"
        )
        assert "model test golden fails on 2 of 2" in said[0].detail["text"]
        assert said[0].detail["weight"] == said[0].detail["mirror"] == 0.0
