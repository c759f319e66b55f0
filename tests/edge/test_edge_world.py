"""Real Envoy, real edge, real replicas: requests are held while nothing can answer them, within bounds."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from edge_stage import edge_page, holding, outcomes, play, routed
from local_world import World

from leptonai.types import Hold, Scale

pytestmark = pytest.mark.world
SLEEPS = Scale(min=0, idle=3600.0)


def test_a_service_wakes_from_zero_under_load_and_no_request_fails(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        asleep = world.service(0, scale=SLEEPS)
        awake = world.service(1, asleep.spec.variants[0], scale=SLEEPS)
        await routed(world, asleep)
        asked = [asyncio.create_task(world.ask("double", n)) for n in range(100)]
        await holding(world, 100)
        await world.until(lambda: world.platform.held().get(("double", "main"), 0) > 0)  # told a moment later
        await world.until(lambda: any(r.state == "ready" for r in world.platform.observe()), awake)
        assert await asyncio.gather(*asked) == [(200, 2.0 * n) for n in range(100)]
        await world.until(lambda: not world.platform.held())
        # "client_gone": the gateway hedged one that waited for 2 s, and the replica answered it directly
        seen = await outcomes(world)
        assert seen["forwarded"] > 0 and set(seen) <= {"forwarded", "client_gone"}

    play(tmp_path, story)


def test_bounds_of_count_time_and_sleep_are_kept_and_said(tmp_path: Path) -> None:
    """One more than the bound is 429 at once; what waited too long is 503; what nobody wakes is 503 at once."""

    async def story(world: World) -> None:
        hold = Hold(max_wait=1.0, max_count=5)
        asleep = world.service(0, scale=SLEEPS, hold=hold)
        await routed(world, asleep)
        asked = [asyncio.create_task(world.ask("double")) for _ in range(5)]
        await holding(world, 5)
        status, body = await world.ask("double")
        assert (status, body["code"], body["retry"]) == (429, "hold_full", True) and "5" in body["error"]
        began = time.monotonic()
        answers = await asyncio.gather(*asked)
        assert {status for status, _ in answers} == {503} and {b["code"] for _, b in answers} == {"no_ready_replica"}
        assert all(b["retry_after"] >= 1 and "1 s" in b["error"] for _, b in answers)
        assert time.monotonic() - began < 10.0, "Envoy's retries did not make it wait anew"
        assert (await outcomes(world))["timed_out"] == 5
        await world.platform.apply(world.service(0, asleep.spec.variants[0], hold=hold))
        async with asyncio.timeout(30):
            while True:
                began = time.monotonic()
                status, body = await world.ask("double")
                assert (status, body["code"]) == (503, "no_ready_replica")
                if time.monotonic() - began < 0.5:
                    return

    play(tmp_path, story)


def test_the_only_replica_is_killed_under_load_and_no_request_fails(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        service = world.service(1)
        (replica,) = await world.settle(service)
        async with world.users("double", 16) as users:
            assert replica.pid
            os.kill(replica.pid, signal.SIGKILL)
            await world.until(
                lambda: [r for r in world.platform.observe() if r.state == "ready" and r.pid != replica.pid], service
            )
            await users.more(100)
        assert users.failures == []

    play(tmp_path, story)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_dead_or_stopped_edge_is_not_noticed_while_a_replica_lives(tmp_path: Path, number: int) -> None:
    async def story(world: World) -> None:
        await world.settle(world.service(2))
        edge = world.platform.describe()["edge"]["pid"]
        async with world.users("double", 16) as users:
            os.kill(edge, number)
            await users.more(500)
            if number == signal.SIGKILL:
                await world.until(lambda: world.platform.describe()["edge"]["pid"] not in (None, edge))
                await edge_page(world, "/-/ready")
            else:
                os.kill(edge, signal.SIGCONT)
        assert users.failures == []
        assert await outcomes(world) == Counter(), "no request went through it"

    play(tmp_path, story)


def test_the_edge_is_adopted_and_shutdown_leaves_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path)
        await world.platform.start()
        pid = world.platform.describe()["edge"]["pid"]
        await world.settle(world.service(1))
        await world.platform.close()
        world.platform = world.fresh()
        await world.platform.start()
        described: Any = world.platform.describe()["edge"]
        assert described["pid"] == pid and world.kinds()["edge.adopted"] == 1
        await world.platform.shutdown()
        assert not Path(described["socket"]).exists() and not Path(described["socket"]).parent.exists()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    asyncio.run(story())
