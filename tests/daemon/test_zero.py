"""A service that nobody asks goes to zero; the first request starts it and is answered, and control is not needed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest
from waiting import eventually

if TYPE_CHECKING:
    from daemon_machine import Machine

pytestmark = pytest.mark.world


def test_to_zero_and_back(machine: Machine) -> None:
    machine.home.mkdir(mode=0o700)
    (machine.home / "settings.yaml").write_text("admit: {cooldown: 0}\n")
    machine.run("up", "--api-port", "0", "--gateway-port", "0")
    machine.model(2)
    text = machine.work / "doubler.yaml"
    text.write_text("name: doubler\nmodel: doubler.py\nidempotent: true\nscale: {idle: 1s, max: 4}\n")
    view = machine.json("deploy", str(text))

    def asleep() -> bool:
        found = client.service("doubler")
        return found.wanted == 0 and not found.replicas

    def ask(x: int) -> tuple[int, object]:
        answer = httpx.post(f"{view['url']}/predict", json={"x": x}, timeout=60, trust_env=False)
        return answer.status_code, answer.json()

    with machine.client() as client:
        eventually(asleep, "zero replicas after a second without a request")
        assert ask(3) == (200, 6)
        eventually(asleep, "zero again")
        with ThreadPoolExecutor(32) as pool:
            assert list(pool.map(ask, range(32))) == [(200, 2 * n) for n in range(32)]
        said = [str(e.detail) for e in client.events(subject="doubler") if e.kind == "proposal.admitted"]
        assert any("wait for a first replica" in d for d in said) and any("scale.idle" in d for d in said), said
