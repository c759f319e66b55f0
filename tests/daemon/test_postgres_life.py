"""A platform whose store is a PostgreSQL server: its whole life, the server's death, and the way there from a file."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from waiting import eventually

from leptonai.client.home import Home, read_json
from leptonai.daemon.seats import NAMES, Seats
from leptonai.errors import LeptonError
from leptonai.testing.postgres import PostgresServer, programs

if TYPE_CHECKING:
    from daemon_machine import Machine

pytestmark = pytest.mark.world


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    if programs() is None:
        pytest.skip("NOT TESTED: no PostgreSQL server is installed; sh tests/setup.sh")
    with PostgresServer() as server:
        yield server


def settings(machine: Machine, url: str) -> None:
    machine.home.mkdir(mode=0o700, exist_ok=True)
    text = f'{{api: {{port: 0}}, gateway: {{port: 0}}, store: {{url: "{url}"}}}}'
    (machine.home / "settings.yaml").write_text(text)


def head(machine: Machine) -> int:
    try:
        with machine.client() as client:
            return client.service("doubler").service.revision
    except LeptonError:
        return 0


def predicts(machine: Machine, url: str, answer: int) -> bool:
    try:
        return httpx.post(f"{url}/predict", json={"x": 21}, trust_env=False, timeout=10.0).text == str(answer)
    except httpx.HTTPError:
        return False


def test_a_platform_lives_through_the_death_of_its_control_and_of_its_server(
    machine: Machine, server: PostgresServer
) -> None:
    settings(machine, server.database())
    machine.run("up")
    machine.run("deploy", str(machine.model(2)))
    assert not (machine.home / "store.db").exists()
    with machine.client() as client:
        url = client.service("doubler").url
    seats = Seats(Home(machine.home))

    control = seats.holder("control")
    assert control is not None
    os.kill(control, signal.SIGKILL)
    eventually(lambda: seats.holder("control") not in (None, control), "the parent starts another control")
    eventually(lambda: head(machine) == 1, "which finds what was deployed")
    eventually(lambda: predicts(machine, url, 42), "served on")
    control = seats.holder("control")

    server.kill()
    refused = eventually(lambda: _refusal(machine), "a change is refused")
    assert "store_unreachable" in refused
    assert predicts(machine, url, 42), "serving needs no store"
    assert "NOTHING CAN BE CHANGED" in machine.run("status").stdout
    with machine.client() as client:
        replica = client.service("doubler").replicas[0]
    assert replica.pid is not None
    os.kill(replica.pid, signal.SIGKILL)
    eventually(lambda: _another(machine, replica.pid), "what crashed is started again by the last wish")
    server.start()
    eventually(lambda: not _refusal(machine), "the store is back")
    machine.run("deploy", str(machine.model(3)))
    eventually(lambda: predicts(machine, url, 63), "the new revision answers")
    assert seats.holder("control") == control, "it was the same control all the time"


def _refusal(machine: Machine) -> str:
    return machine.run("scale", "doubler", "1", "--json", check=False).stderr


def _another(machine: Machine, pid: int | None) -> bool:
    with machine.client() as client:
        return any(r.state == "ready" and r.pid != pid for r in client.service("doubler").replicas)


def test_a_store_moves_into_postgresql_and_nothing_is_taken_down_by_mistake(
    machine: Machine, server: PostgresServer
) -> None:
    url = server.database()
    settings(machine, "")
    machine.run("up")
    machine.run("deploy", str(machine.model(2)))
    machine.run("down")

    settings(machine, url)
    refused = machine.run("up", check=False)
    assert refused.returncode == 5
    assert "services would be gone" in refused.stderr
    assert "leptonai store copy" in refused.stderr

    copied = machine.run("store", "copy", str(machine.home / "store.db"), url)
    assert "1 revisions" in copied.stdout
    machine.run("up")
    eventually(lambda: head(machine) == 1, "the service is there")
    with machine.client() as client:
        served = client.service("doubler").url
    eventually(lambda: predicts(machine, served, 42), "and answers")
    locked = machine.run("store", "copy", url, str(Path(machine.work) / "back.db"), check=False)
    assert "held by another platform (leptonai " in locked.stderr


def test_another_home_waits_for_the_store_and_takes_over_when_the_first_one_dies(
    machine: Machine, server: PostgresServer, tmp_path: Path
) -> None:
    url = server.database()
    settings(machine, url)
    machine.run("up")
    secret = machine.json("token", "create", "ana", "--role", "viewer")["secret"]
    first, heir = Home(machine.home), replace(machine, home=tmp_path / "heir")
    settings(heir, url)
    waiting = heir.foreground()
    try:
        told = eventually(lambda: read_json(Home(heir.home).failure), "the second one is refused")
        assert (told["code"], told["status"]) == ("store_locked", 409)
        assert f":{Seats(first).holder('control')} " in told["error"], "who holds it is named"
        for name in NAMES:  # the parent first: it would start the others again
            pid = Seats(first).holder(name)
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: asked(heir, secret), "the second one answers, and knows the first one's tokens")
        assert waiting.poll() is None
    finally:
        waiting.terminate()
        waiting.communicate(timeout=60)
        heir.run("down")
    assert not heir.processes()


def asked(machine: Machine, secret: str) -> bool:
    url = (read_json(Home(machine.home).control) or {}).get("url")
    header = {"Authorization": f"Bearer {secret}"}
    try:
        return bool(url) and httpx.get(f"{url}/api/v1/services", headers=header, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("postgresql://ana:s3cret@127.0.0.1:9/x", "holds a secret"),
        ("postgresql://ana@127.0.0.1:9/x", "cannot be reached"),
    ],
)
def test_a_wrong_address_is_told_and_nothing_is_left_running(machine: Machine, url: str, names: str) -> None:
    settings(machine, url)
    refused = machine.run("up", check=False)
    assert refused.returncode in (2, 6)
    assert names in refused.stderr
    assert "hint: " in refused.stderr
    said = refused.stderr + "".join(p.read_text() for p in machine.home.glob("logs/*.log"))
    assert "s3cret" not in said
    assert not machine.processes()
