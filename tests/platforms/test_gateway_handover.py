"""One Envoy takes over from another while users never stop asking; what was cut off in the middle is finished."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import msgspec
import pytest
from local_world import SETTINGS, World
from test_local_gateway import Bench
from waiting import until

from leptonai.platforms.local.process import Process
from leptonai.settings import Gateway as GatewaySettings

pytestmark = pytest.mark.world


def test_a_changed_setting_starts_another_envoy_and_no_request_fails(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def story() -> None:
        await world.platform.start()
        try:
            await world.settle(world.service(2))
            before = world.platform.describe()["gateway"]
            async with world.users("double", 64) as users:
                await users.more(500)
                for threads in (3, 4):
                    await world.platform.close()
                    changed = msgspec.structs.replace(SETTINGS.gateway, threads=threads)
                    world.settings = msgspec.structs.replace(SETTINGS, gateway=changed)
                    world.platform = world.fresh()
                    await world.platform.start()
                    await users.more(500)
                await until(lambda: world.kinds()["gateway.left"] == 2, "the old ones have left")
                await users.more(500)
            after = world.platform.describe()["gateway"]
            assert users.failures == []
            assert before["pid"] != after["pid"] and before["url"] == after["url"]
            assert world.kinds()["gateway.handed_over"] == 2
            assert await world.ask("double") == (200, 42.0)
        finally:
            await world.platform.shutdown()
        assert [k for k in world.kinds() if k.startswith("gateway") and "exited" not in k]

    asyncio.run(story())


@pytest.mark.parametrize("dead", ["control", "control and the old Envoy", "control and the new Envoy"])
def test_what_was_cut_off_in_the_middle_is_finished(tmp_path: Path, dead: str) -> None:
    """As SIGKILL of control leaves it, after the new Envoy was written down and before it took over."""

    async def story() -> None:
        first = Bench(tmp_path)
        await first.gateway.start(first.snapshot("a"))
        gateway = first.gateway
        old, known = gateway.pid, gateway._known
        process, coming = gateway._launch(tmp_path / "run" / "envoy2.sock")
        process.watch()
        await gateway._up(process)
        gateway._remember(msgspec.structs.replace(known, coming=coming))
        gateway.close()
        gone = {"control and the old Envoy": old, "control and the new Envoy": coming.pid}.get(dead)
        if gone:
            os.kill(gone, signal.SIGKILL)
            await until(lambda: not _alive(gone), "it is dead")
        bench = Bench(tmp_path)
        try:
            await bench.gateway.start(bench.snapshot("a", "b"))
            assert bench.gateway.pid == (coming.pid if gone == old else old)
            await until(lambda: not bench.gateway._known.leaving, "the other one has left")
            assert await bench.gateway.push(bench.snapshot("c")), "it is the one that is asked"
            alive = [p for p in (old, coming.pid) if p and _alive(p)]
            assert alive == [bench.gateway.pid], "and the only one"
        finally:
            await bench.gateway.stop()
            for pid in (old, coming.pid):
                with contextlib.suppress(ProcessLookupError, TypeError):
                    os.kill(pid, signal.SIGKILL)  # type: ignore[arg-type]

    asyncio.run(story())


def _alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return False


def test_the_old_envoy_goes_on_when_the_new_one_does_not_come_up(tmp_path: Path) -> None:
    async def story() -> None:
        first = Bench(tmp_path)
        await first.gateway.start(first.snapshot("a"))
        pid, port = first.gateway.pid, first.gateway.settings.port
        first.gateway.close()
        bench = Bench(tmp_path, GatewaySettings(host="203.0.113.1", port=port))  # not an address of this machine
        try:
            await bench.gateway.start(bench.snapshot("a"))
            (failed,) = bench.names("gateway.handover_failed")
            assert "203.0.113.1" in failed["error"]
            assert bench.gateway.pid == pid and bench.gateway.healthy
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            await writer.wait_closed()
        finally:
            found = Process.adopt(bench.gateway._known.pid, bench.gateway._known.ticks, bench.gateway._known.boot)
            await bench.gateway.stop()
            if found:
                found.release()

    asyncio.run(story())
