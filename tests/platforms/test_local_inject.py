"""Faults are real, injected also from a process the platform does not know, and heal by themselves."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import psutil
import pytest
from local_world import World

from leptonai.errors import NotFound, PlatformError
from leptonai.platforms.local.probe import UnixClient
from leptonai.types import Fault, Replica

pytestmark = pytest.mark.world


async def from_outside(*arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "leptonai.platforms.local.inject", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


def socket_of(replica: Replica) -> str:
    return replica.address.removeprefix("unix:")


def test_every_fault_is_felt_and_ends(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def story() -> None:
        service = world.service(1)
        replica = (await world.settle(service))[0]
        process = psutil.Process(replica.pid)
        inject = world.platform.inject

        fault = await inject(Fault(kind="error", replica=replica.id, amount=1.0))
        assert (await world.ask("double"))[0] >= 500
        await world.platform.heal(fault)
        assert await world.ask("double") == (200, 42.0)

        fault = await inject(Fault(kind="delay", replica=replica.id, amount=0.4))
        began = time.monotonic()
        await world.ask("double")
        assert time.monotonic() - began >= 0.4
        await world.platform.heal(fault)

        before = process.memory_info().rss
        code, _ = await from_outside("leak", "--socket", socket_of(replica), "--amount", "5e7", "--heal-after", "20")
        assert code == 0
        await world.until(lambda: process.memory_info().rss > before + (20 << 20))

        stopped = asyncio.create_task(world.until(lambda: process.status() == psutil.STATUS_STOPPED))
        code, _ = await from_outside("stop", "--pid", str(replica.pid), "--heal-after", "2")
        assert code == 0
        await stopped  # which may be over by now
        await world.until(lambda: process.status() != psutil.STATUS_STOPPED)

        code, _ = await from_outside("kill", "--pid", str(replica.pid))
        assert code == 0
        after = await world.settle(service)
        assert after[0].id != replica.id

    run(world, story)


def test_on_a_full_disk_answers_go_on_and_the_prediction_log_does_after_it(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def story() -> None:
        replica = (await world.settle(world.service(1)))[0]
        folder = world.home / "run" / replica.id / "predictions"

        def size() -> int:
            return sum(p.stat().st_size for p in folder.glob("*.jsonl"))

        client = UnixClient(socket_of(replica))

        async def lost() -> float:
            assert await world.ask("double") == (200, 42.0)
            page = (await client.request("GET", "/metrics", 30.0)).body.decode()
            return float(page.partition("\nleptonai_prediction_log_dropped_total ")[2].split()[0])

        async def grows() -> bool:
            assert await world.ask("double") == (200, 42.0)
            return size() > full

        await world.until(size)
        fault = await world.platform.inject(Fault(kind="disk_full", replica=replica.id))
        full, before = size(), await lost()
        async with asyncio.timeout(60):
            while await lost() < before + 3:  # noqa: ASYNC110 - lines are written every 0.2 s
                await asyncio.sleep(0.05)
        assert size() == full
        await world.platform.heal(fault)
        async with asyncio.timeout(60):
            while not await grows():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        client.close()

    run(world, story)


def test_what_cannot_be_injected_says_so(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def story() -> None:
        with pytest.raises(PlatformError, match="nobody"):
            await world.platform.inject(Fault(kind="kill", replica="nobody"))
        with pytest.raises(NotFound, match="no-such-fault"):
            await world.platform.heal("no-such-fault")

    run(world, story)
    code, text = asyncio.run(from_outside("kill", "--pid", "4194305"))
    assert code == PlatformError.exit_code and "4194305" in text and "Traceback" not in text
    code, text = asyncio.run(from_outside("leak", "--socket", str(tmp_path / "none"), "--amount", "1"))
    assert code == PlatformError.exit_code and "does not answer" in text and "Traceback" not in text
    code, text = asyncio.run(from_outside("leak", "--pid", "1"))
    assert code == 2 and "--socket" in text


def run(world: World, story: object) -> None:
    async def whole() -> None:
        assert callable(story)
        await world.platform.start()
        try:
            await story()
        finally:
            await world.platform.shutdown()

    asyncio.run(whole())
