"""Behind the walls: real models that try to read, write and use what is not theirs."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from local_world import SETTINGS, World

from leptonai.platforms.local import isolate
from leptonai.types import Resources

pytestmark = [pytest.mark.world, pytest.mark.skipif(os.geteuid() != 0, reason="isolation needs root")]

BURGLAR = """
import ctypes, glob, json, os, signal, socket

def attempt(what):
    try:
        return str(what())[:200]
    except Exception as e:
        return "refused: " + type(e).__name__

class Burglar:
    def setup(self):
        home, run = os.environ["TARGET"], os.environ["HOME"]
        found = {name: attempt(lambda: open(f"{home}/{name}").read()) for name in ("token", "ops.token", "store.db")}
        found["home"] = attempt(lambda: sorted(os.listdir(home)))
        found["runs"] = attempt(lambda: sorted(os.listdir(home + "/run")))
        found["outside"] = attempt(lambda: open(os.environ["OUTSIDE"]).read())
        found["write_home"] = attempt(lambda: open(f"{home}/mine", "w").write("x"))
        found["write_model"] = attempt(lambda: open(os.path.dirname(__file__) + "/mine", "w").write("x"))
        found["record"] = attempt(lambda: open(run + "/replica.json").read())
        found["replace"] = attempt(lambda: os.replace(run + "/launch.json", run + "/replica.json"))
        found["unlink"] = attempt(lambda: os.unlink(run + "/replica.json"))
        found["own_file"] = attempt(lambda: open(run + "/scratch", "w").write("x"))
        found["kill"] = attempt(lambda: os.kill(int(os.environ["VICTIM"]), 0))
        found["admin"] = attempt(lambda: socket.socket(socket.AF_UNIX).connect(os.environ["ADMIN"]))
        found["become_root"] = attempt(lambda: os.setuid(0))
        found["mount"] = ctypes.CDLL(None).umount2(home.encode(), 2)
        found["ids"] = [os.getuid(), os.geteuid(), os.getgid(), os.getgroups()]
        found["no_new_privs"] = ctypes.CDLL(None).prctl(39, 0, 0, 0, 0)
        found["env"] = sorted(os.environ)
        print("FOUND " + json.dumps(found), flush=True)

    def predict(self, x: float) -> float:
        return 2 * x
"""
GREEDY = """
import time

class Greedy:
    def setup(self):
        self.held = [bytearray(b"x") * (1 << 20) for _ in range(400)]
        time.sleep(600)

    def predict(self, x: float) -> float:
        return x
"""


def run(world: World, story: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await world.platform.start()
        try:
            await story()
        finally:
            await world.platform.shutdown()

    asyncio.run(whole())


def test_a_burglar_finds_nothing_and_can_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEPTONAI_TOKEN", "of the shell that started us")
    world = World(tmp_path)
    for name in ("token", "ops.token", "store.db"):
        path = world.home / name
        path.write_text("the secret")
        path.chmod(0o600)
    outside = tmp_path / "outside"  # pytest's folders are 0700, as a user's home is
    outside.write_text("the secret")
    found: dict[str, Any] = {}

    async def story() -> None:
        other = await world.settle(world.service(1, name="other"))
        env = {
            "TARGET": str(world.home),
            "OUTSIDE": str(outside),
            "VICTIM": str(other[0].pid),
            "ADMIN": world.platform.describe()["gateway"]["admin"],
            "LEPTONAI_TOKEN": "smuggled",
        }
        replica = (await world.settle(world.service(1, world.variant(BURGLAR, env=env))))[0]
        line = next(n.text for n in world.platform.logs(replica.id) if n.text.startswith("FOUND "))
        found.update(json.loads(line.removeprefix("FOUND ")))
        found["id"] = replica.id
        assert world.platform.describe()["isolation"]["active"]
        assert await world.ask("double") == (200, 42.0)

    run(world, story)
    allowed = {"home", "runs", "own_file", "mount", "ids", "no_new_privs", "env", "id"}
    assert {k: v for k, v in found.items() if k not in allowed and not str(v).startswith("refused")} == {}
    assert "the secret" not in json.dumps(found)
    assert found["home"] == "['artifacts', 'run']" and found["runs"] == f"['{found['id']}']"
    assert found["own_file"] == "1" and found["mount"] == -1 and found["no_new_privs"] == 1
    uid = isolate.uid_of("double", {isolate.uid_of("other", {}): "other"})
    assert found["ids"] == [uid, uid, uid, []]
    assert [name for name in found["env"] if name.startswith("LEPTONAI")] == ["LEPTONAI_MAX_BODY"]


@pytest.mark.parametrize("isolated", [True, False])
def test_a_replica_over_its_memory_ends_as_oom_and_its_neighbour_stays(tmp_path: Path, isolated: bool) -> None:
    """With control groups where there are any, else by watching: the reason is the same."""
    local = msgspec.structs.replace(SETTINGS.local, isolate=isolated)
    world = World(tmp_path, msgspec.structs.replace(SETTINGS, local=local))

    async def story() -> None:
        neighbour = (await world.settle(world.service(1, name="neighbour")))[0]
        greedy = world.service(1, world.variant(GREEDY, resources=Resources(memory=200 << 20, cpu=0.5)))
        await world.platform.apply(greedy)
        gone = await world.until(lambda: [r for r in world.platform.observe() if r.gone])
        assert gone[0].reason == "oom" and "200 MiB" in gone[0].detail
        assert neighbour.id in [r.id for r in world.platform.observe() if r.state == "ready"]
        assert world.platform.describe()["isolation"]["active"] == isolated
        if not isolated:
            assert "local.isolate" in world.platform.describe()["isolation"]["reason"]

    run(world, story)


def test_room_counts_what_live_replicas_declared(tmp_path: Path) -> None:
    world = World(tmp_path)
    cores = len(os.sched_getaffinity(0))

    async def story() -> None:
        small = world.variant(resources=Resources(cpu=cores / 4))
        assert world.platform.room(small) == 4
        assert world.platform.room(world.variant()) is None
        await world.settle(world.service(1, small))
        assert world.platform.room(small) == 3
        assert (
            world.platform.room(world.variant(resources=Resources(gpu=1))) == 0 or Path("/proc/driver/nvidia").exists()
        )

    run(world, story)
