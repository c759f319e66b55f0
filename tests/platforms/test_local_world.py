"""What users notice of the local platform: real replicas, a real Envoy, 64 keep-alive connections."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import psutil
import pytest
from local_world import DOUBLE, SETTINGS, World, closed

from leptonai.errors import StartError
from leptonai.platforms.local.probe import UnixClient
from leptonai.platforms.local.rundir import runtime_folder
from leptonai.settings import Gateway
from leptonai.types import Dials, Fault, Replica, Service, Spec, VariantDials

SLOW = """
import time

class Slow:
    def predict(self, x: float) -> float:
        time.sleep(0.5)
        return 2 * x
"""
pytestmark = pytest.mark.world
Story = Callable[[World], Awaitable[None]]


@pytest.fixture
def live(tmp_path: Path) -> Callable[[Story], None]:
    """Run a story in a world that is shut down afterwards, with nothing left of it."""

    def run(story: Story) -> None:
        world = World(tmp_path)

        async def whole() -> None:
            await world.platform.start()
            try:
                await story(world)
            finally:
                await world.platform.shutdown()

        asyncio.run(whole())
        assert_nothing_left(world)

    return run


def assert_nothing_left(world: World) -> None:
    home = str(world.home.resolve())
    mine = [p for p in psutil.process_iter() if home in " ".join(_command(p))]
    assert not mine, f"processes left: {mine}"
    assert not runtime_folder(world.home).exists()
    assert not list(Path("/sys/fs/cgroup").glob(f"**/leptonai-{runtime_folder(world.home).name}-*"))
    assert home not in Path("/proc/mounts").read_text()


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


async def out_of_rotation(world: World, replica: Replica) -> None:
    """Until Envoy gives this replica nothing."""
    client = UnixClient(world.platform.describe()["gateway"]["admin"])
    async with asyncio.timeout(30):
        while True:
            seen = msgspec.json.decode((await client.request("GET", "/clusters?format=json", 5.0)).body)
            hosts = [h for c in seen["cluster_statuses"] for h in c.get("host_statuses", [])]
            mine = [h["health_status"] for h in hosts if h.get("hostname") == replica.id]
            if not mine or mine[0].get("failed_active_health_check") or mine[0]["eds_health_status"] != "HEALTHY":
                client.close()
                return
            await asyncio.sleep(0.02)


def test_kill_of_a_replica_fails_no_idempotent_request(live: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        service = world.service(2)
        victim = (await world.settle(service))[0]
        async with world.users("double") as users:
            await world.platform.inject(Fault(kind="kill", replica=victim.id))
            await world.until(lambda: victim.id not in [r.id for r in world.platform.observe()], service)
            await world.settle(service)
            await users.more(500)
        assert users.failures == []
        failed = [d for kind, subject, d in world.events if kind == "replica.failed"]
        assert [(d["reason"], d["detail"]) for d in failed] == [("killed", "killed by SIGKILL")]

    live(story)


def test_deploying_and_scaling_lose_no_request_that_must_not_be_repeated(live: Callable[[Story], None]) -> None:
    """Not idempotent, so that no retry of the gateway hides a loss."""

    async def story(world: World) -> None:
        await world.settle(world.service(2, world.variant(idempotent=False)))
        async with world.users("double") as users:
            deployed = world.variant(DOUBLE + "# another\n", idempotent=False)
            for wish in (world.service(2, deployed), world.service(3, deployed), world.service(1, deployed)):
                await world.settle(wish)
                await users.more(200)
        assert users.failures == []

    live(story)


def test_a_stopped_replica_leaves_rotation_and_its_requests_are_answered(live: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        service = world.service(2)
        victim = (await world.settle(service))[0]
        async with world.users("double") as users:
            fault = await world.platform.inject(Fault(kind="stop", replica=victim.id, heal_after=60))
            await out_of_rotation(world, victim)
            await world.platform.heal(fault)
            await world.settle(service)
            await users.more(500)
        assert users.failures == []

    live(story)


def test_a_stop_heals_by_itself_after_its_time(live: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        service = world.service(1)
        victim = (await world.settle(service))[0]
        await world.platform.inject(Fault(kind="stop", replica=victim.id, heal_after=5.0))
        await world.until(lambda: world.platform.observe()[0].reason == "hung", service)
        await world.until(lambda: world.platform.observe()[0].state == "ready", service)
        assert world.platform.observe()[0].id == victim.id

    live(story)


def test_a_fresh_platform_adopts_with_no_request_lost(live: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        service = world.service(2)
        before = await world.settle(service)
        gateway = world.platform.describe()["gateway"]
        async with world.users("double") as users:
            await world.platform.close()
            world.platform = world.fresh()
            await world.platform.start()
            await users.more(500)
            assert (await world.settle(service))[0].id == before[0].id
            await users.more(500)
        assert users.failures == []
        assert [(r.id, r.pid) for r in world.platform.observe()] == [(r.id, r.pid) for r in before]
        after = world.platform.describe()["gateway"]
        assert (after["pid"], after["url"]) == (gateway["pid"], gateway["url"])

    live(story)


def test_what_died_while_nobody_watched_is_found_gone_and_replaced(live: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        service = world.service(2)
        victim = (await world.settle(service))[0]
        await world.platform.close()
        assert victim.pid
        os.kill(victim.pid, signal.SIGKILL)
        world.platform = world.fresh()
        await world.platform.start()
        found = next(r for r in world.platform.observe() if r.id == victim.id)
        assert found.gone and found.reason == "exited" and found.detail
        after = await world.settle(service)
        assert victim.id not in {r.id for r in after}

    live(story)


def test_a_retirement_that_was_cut_short_is_finished_by_the_next(live: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        service = world.service(2)
        await world.settle(service)
        for replica in world.platform.observe():
            await world.platform.inject(Fault(kind="stop", replica=replica.id, heal_after=600))
        await world.platform.apply(world.service(0))
        assert {r.state for r in world.platform.observe()} == {"stopping"}
        await world.platform.close()
        world.platform = world.fresh()
        await world.platform.start()
        await world.until(lambda: not world.platform.observe())

    live(story)


def test_envoy_killed_is_back_on_the_same_port(live: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        service = world.service(1)
        await world.settle(service)
        before = world.platform.describe()["gateway"]
        async with world.users("double", 8) as users:
            os.kill(before["pid"], signal.SIGKILL)
            await world.until(lambda: world.platform.describe()["gateway"]["pid"] not in (before["pid"], None))
            await users.more(500)
        after = world.platform.describe()["gateway"]
        assert after["url"] == before["url"] and after["healthy"]
        assert world.kinds()["gateway.exited"] == 1 and world.kinds()["gateway.started"] == 2

    live(story)


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    async def story() -> None:
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        world = World(tmp_path)
        world.settings = msgspec.structs.replace(world.settings, gateway=Gateway(port=port))
        platform = world.fresh()
        with pytest.raises(StartError, match=f"port {port}") as caught:
            await platform.start()
        assert "gateway.port" in caught.value.hint
        await platform.shutdown()
        server.close()
        await server.wait_closed()
        assert_nothing_left(world)

    asyncio.run(story())


def test_without_its_port_a_platform_can_still_be_shut_down(tmp_path: Path) -> None:
    async def story() -> None:
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        world = World(tmp_path, msgspec.structs.replace(SETTINGS, gateway=Gateway(port=port)))
        await world.platform.start()
        await world.settle(world.service(1))
        await world.platform.close()
        os.kill(world.platform.describe()["gateway"]["pid"], signal.SIGKILL)
        world.platform = world.fresh()
        async with asyncio.timeout(30):
            while True:
                try:
                    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", port)
                    break
                except OSError:
                    await asyncio.sleep(0.02)
        with pytest.raises(StartError):
            await world.platform.start()
        await world.platform.shutdown()
        server.close()
        await server.wait_closed()
        assert_nothing_left(world)

    asyncio.run(story())


def test_a_changed_artifact_is_a_failed_replica_and_nothing_else(live: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        service = world.service(1)
        await world.settle(service)
        other = world.service(
            1, world.variant("class Other:\n    def predict(self, x: float) -> float: return x\n"), "other"
        )
        file = world.artifacts.path(other.spec.variants[0].model) / "model.py"
        file.chmod(0o644)
        file.write_text("import os\n")
        await world.platform.apply(other)
        bad = next(r for r in world.platform.observe() if r.service == "other")
        assert (bad.state, bad.reason, bad.pid) == ("failed", "artifact_changed", None)
        assert "model.py" in bad.detail
        assert await world.ask("double") == (200, 42.0)

    live(story)


def test_a_model_that_does_not_load_says_why(live: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        code = "class Bad:\n    def setup(self):\n        raise RuntimeError('no such weights')\n"
        service = world.service(1, world.variant(code + "    def predict(self, x: float) -> float: return x\n"))
        await world.platform.apply(service)
        bad = await world.until(lambda: [r for r in world.platform.observe() if r.gone])
        assert "no such weights" in bad[0].detail and bad[0].reason not in ("exited", "killed")
        await world.until(lambda: bad[0].id not in [r.id for r in world.platform.observe()], service)
        assert any("no such weights" in line.text for line in world.platform.logs(bad[0].id)), "kept after it is gone"

    live(story)


def test_no_interpreter_is_a_failed_replica(live: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        service = world.service(1, world.variant(python="/no/such/python"))
        await world.platform.apply(service)
        bad = await world.until(lambda: [r for r in world.platform.observe() if r.gone])
        assert bad[0].reason in ("start_failed", "launch_failed") and "/no/such/python" in bad[0].detail

    live(story)


def test_requests_in_flight_finish_while_their_replica_is_retired(live: Callable[[Story], None]) -> None:
    async def story(world: World) -> None:
        service = world.service(1, world.variant(SLOW), drain=20.0)
        await world.settle(service)
        asked = asyncio.create_task(world.ask("double"))
        while not asked.done() and not await world.gateway_stat("cluster.double@main.upstream_rq_active"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await world.platform.apply(world.service(0, service.spec.variants[0], drain=20.0))
        assert await asked == (200, 42.0)
        await world.until(lambda: not world.platform.observe())

    live(story)


def test_a_request_still_being_sent_is_answered_though_its_variant_leaves(
    live: Callable[[Story], None],
) -> None:
    """Envoy had chosen its cluster by the headers; the variant's part of the service has it answered."""

    async def story(world: World) -> None:
        variant = world.variant()
        both = tuple(msgspec.structs.replace(variant, name=name) for name in ("main", "other"))
        dials = {"main": VariantDials(replicas=1, weight=0.0), "other": VariantDials(replicas=1, weight=1.0)}
        spec = Spec(name="double", variants=both, drain=2.0)
        service = Service(spec=spec, dials=Dials(variants=dials), revision=1)
        platform = world.platform

        def ready() -> list[Replica]:
            return [r for r in platform.observe() if r.state == "ready"]

        await world.until(lambda: len(ready()) == 2, service)
        while (await world.ask("double"))[0] != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        url = urlsplit(platform.url("double"))
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        head = f"POST {url.path}/predict HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: 9\r\n"
        writer.write(head.encode() + b'\r\n{"x":')
        while not await world.gateway_stat("http.gateway.downstream_rq_active"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        alone = msgspec.structs.replace(
            service,
            spec=msgspec.structs.replace(spec, variants=both[:1]),
            dials=Dials(variants={"main": VariantDials(replicas=1)}),
            revision=2,
        )
        await world.until(lambda: [r.variant for r in platform.observe()] == ["main"], alone)
        assert (await world.ask("double"))[0] == 200
        writer.write(b" 21}")
        assert b" 200 " in await reader.readline()
        await closed(writer)
        clusters = json.loads((world.home / "envoy" / "cds.json").read_bytes())["resources"]
        assert {c["name"] for c in clusters} == {"double@main", "double@other"}, "it stays a while"

    live(story)
