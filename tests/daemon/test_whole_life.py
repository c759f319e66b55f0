"""The whole life of a platform on real processes: requests flow through Envoy while everything of ours is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest
from waiting import eventually

from leptonai.client import Client
from leptonai.client.home import Home
from leptonai.daemon.seats import NAMES, Seats
from leptonai.errors import PlatformError
from leptonai.platforms.local.rundir import runtime_folder

if TYPE_CHECKING:
    from daemon_machine import Machine

pytestmark = pytest.mark.world


class Users(threading.Thread):
    """A few keep-alive connections that ask without pause; counts what they got."""

    def __init__(self, url: str, connections: int = 4) -> None:
        super().__init__(daemon=True)
        self.url, self.connections = url, connections
        self.answers: Counter[str] = Counter()
        self.stopping = threading.Event()

    def run(self) -> None:
        asyncio.run(self._all())

    async def _all(self) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=30.0) as http:
            await asyncio.gather(*(self._one(http) for _ in range(self.connections)))

    async def _one(self, http: httpx.AsyncClient) -> None:
        while not self.stopping.is_set():
            try:
                answer = await http.post(f"{self.url}/predict", json={"x": 21})
                self.answers[f"{answer.status_code} {answer.text}"] += 1
            except httpx.HTTPError as e:
                self.answers[type(e).__name__] += 1
            await asyncio.sleep(0.01)

    def stop(self) -> Counter[str]:
        self.stopping.set()
        self.join(timeout=60)
        assert not self.is_alive()
        return self.answers


def test_the_whole_life_of_a_platform(machine: Machine) -> None:
    up = machine.json("up", "--api-port", "0", "--gateway-port", "0")
    home = Home(machine.home)
    assert (machine.home.stat().st_mode & 0o777, home.token.stat().st_mode & 0o777) == (0o700, 0o600)
    seats = Seats(home)

    # served through Envoy
    view = machine.json("deploy", str(machine.model(2)), "--replicas", "2")
    assert (view["ready"], view["wanted"]) == (2, 2)
    users = Users(view["url"])
    users.start()
    eventually(lambda: users.answers["200 42"] > 20, "answers through Envoy")
    assert view["url"].startswith(up["gateway"])

    # scaled
    assert machine.json("scale", "doubler", "3")["ready"] == 3

    with machine.client() as client:
        # kill -9 of each of our processes: all come back, replicas and Envoy are untouched
        replicas = {r.pid for r in client.replicas("doubler")}
        envoy = client.platform()["gateway"]["pid"]
        eventually(lambda: all(seats.holder(n) for n in NAMES), "parent, control and ops at work")
        for name in NAMES:
            pid = seats.holder(name)
            os.kill(pid or 0, signal.SIGKILL)
            eventually(lambda n=name, pid=pid: seats.holder(n) not in (None, pid), f"{name} is back")
            eventually(lambda: answers(client), "control answers again")
        assert client.platform()["gateway"]["pid"] == envoy
        assert {r.pid for r in client.replicas("doubler")} == replicas
        eventually(lambda: client.platform()["ops"]["alive"], "ops watches again")

        # a new revision, and back
        view = machine.json("deploy", str(machine.model(3)))
        assert view["service"]["revision"] == 2
        eventually(lambda: users.answers["200 63"] > 5, "answers of the new revision")
        assert machine.json("undo", "doubler")["service"]["revision"] == 3
        before_undo = users.answers["200 42"]
        eventually(lambda: users.answers["200 42"] > before_undo + 5, "answers of the old revision again")

        got = users.stop()
        assert set(got) == {"200 42", "200 63"}, got

        # told why
        kinds = [e.kind for e in client.why("doubler", limit=1000)]
        assert kinds.count("proposal.admitted") == 4
        assert "plan.start" in kinds

    # gone
    machine.run("delete", "doubler")
    assert httpx.post(f"{view['url']}/predict", json={"x": 1}, trust_env=False).status_code == 404
    stopped = machine.json("down")
    assert set(stopped["processes"]) == set(NAMES)
    nothing_is_left(machine)


def answers(client: Client) -> bool:
    try:
        return bool(client.services())
    except PlatformError:
        return False


def nothing_is_left(machine: Machine) -> None:
    eventually(lambda: not machine.processes(), "no process is left", patience=10.0)
    assert not runtime_folder(machine.home).exists()
    assert str(machine.home) not in Path("/proc/self/mounts").read_text()
    assert not (machine.home / "control.json").exists()
    assert not (machine.home / "ops.json").exists()
    assert not list(Path("/sys/fs/cgroup").glob(f"**/*{runtime_folder(machine.home).name}*"))


def alive(pid: int) -> bool:
    """A zombie is dead: who started it is gone, and not every machine has an init that buries others' dead."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_down_works_when_everything_of_ours_is_dead(machine: Machine) -> None:
    """Replicas and Envoy outlive parent, control and ops; ``down`` finds and stops them all the same, ``up`` adopts."""
    machine.json("up", "--api-port", "0", "--gateway-port", "0")
    view = machine.json("deploy", str(machine.model(2)))
    seats = Seats(Home(machine.home))

    def kill_all() -> None:
        # Control stands still first: it would start a new parent, perhaps only after all three were seen dead.
        os.kill(eventually(lambda: seats.holder("control"), "control at work"), signal.SIGSTOP)
        for name in ("parent", "control", "ops"):  # then the parent, so that it starts nothing again
            pid = eventually(lambda name=name: seats.holder(name), f"{name} at work")
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: all(kill(seats.holder(n)) for n in NAMES), "all three are dead")

    def kill(pid: int | None) -> bool:
        if pid is not None:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return pid is None

    kill_all()
    answer = httpx.post(f"{view['url']}/predict", json={"x": 4}, trust_env=False)
    assert answer.json() == 8
    refused = machine.run("ls", check=False)
    assert refused.returncode == 6
    assert "leptonai up" in refused.stderr

    pids = {r["pid"] for r in view["replicas"]}
    machine.json("up")
    with machine.client() as client:
        assert {r.pid for r in client.replicas("doubler")} == pids

    kill_all()
    stopped = machine.json("down")
    assert len(stopped["replicas"]) == 1
    assert stopped["gateway"]
    assert not any(alive(pid) for pid in pids)
    nothing_is_left(machine)
    assert machine.run("down").stdout == "Nothing was running.\n"


def test_a_second_platform_on_a_folder_and_a_taken_port_are_refused_by_name(machine: Machine, tmp_path: Path) -> None:
    up = machine.json("up", "--api-port", "0", "--gateway-port", "0")
    second = machine.run("up", "--json", check=False)
    assert second.returncode == 5
    assert str(machine.home) in second.stderr
    assert "leptonai down" in second.stderr
    api, gateway = (httpx.URL(up[k]).port for k in ("url", "gateway"))
    other = type(machine)(tmp_path / "other", machine.work)
    taken = other.run("up", "--api-port", str(api), "--gateway-port", "0", check=False)
    assert taken.returncode == 6
    assert f":{api}" in taken.stderr
    taken = other.run("up", "--api-port", "0", "--gateway-port", str(gateway), check=False)
    assert taken.returncode == 6
    assert str(gateway) in taken.stderr
    eventually(lambda: not other.processes(), "nothing of the refused platform runs", patience=10.0)
    other.run("down")
    assert machine.json("status")["platform"]["gateway"]["healthy"]


def test_in_the_foreground_the_parent_is_adopted_and_left_as_a_supervisor_does(machine: Machine) -> None:
    """As under systemd: after kill -9 of the parent the next one adopts; SIGTERM ends all but replicas and Envoy."""
    machine.home.mkdir(mode=0o700)
    (machine.home / "settings.yaml").write_text("{api: {port: 0}, gateway: {port: 0}}")
    seats = Seats(Home(machine.home))
    parent = machine.foreground()
    eventually(lambda: (machine.home / "control.json").exists() and seats.holder("ops"), "control and ops")
    control = seats.holder("control")
    parent.kill()
    parent.communicate()
    assert machine.run("up", check=False).returncode == 5  # control is there: only a supervisor takes it over
    parent = machine.foreground()
    eventually(lambda: seats.holder("parent") == parent.pid, "the next parent sits")
    assert seats.holder("control") == control
    with machine.client() as client:
        envoy = client.platform()["gateway"]["pid"]
    parent.terminate()
    parent.communicate(timeout=60)
    assert parent.returncode == 0
    assert [seats.holder(n) for n in NAMES] == [None, None, None]
    assert alive(envoy)


@pytest.mark.parametrize(
    ("file", "content", "code", "names"),
    [
        ("settings.yaml", b"api: {port: many}", 2, "settings.yaml"),
        ("settings.yaml", b"colour: red", 2, "colour"),
        ("settings.yaml", b"api: [", 2, "settings.yaml"),
        ("store.db", b"no database, for sure" * 100, 6, "store.db"),
    ],
)
def test_a_home_that_was_damaged_is_told_and_nothing_is_left_running(
    machine: Machine, file: str, content: bytes, code: int, names: str
) -> None:
    machine.home.mkdir(mode=0o700)
    (machine.home / "settings.yaml").write_text("{api: {port: 0}, gateway: {port: 0}}")
    (machine.home / file).write_bytes(content)
    refused = machine.run("up", check=False)
    assert refused.returncode == code
    assert names in refused.stderr
    assert "hint: " in refused.stderr
    assert not machine.processes()
