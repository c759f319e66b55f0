"""Pushing to a real Envoy: confirmed, refused, no room on the disk, started again, adopted or not."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from local_world import World

from leptonai.plan import Snapshot, routes
from leptonai.platforms.local import envoy
from leptonai.platforms.local.envoy import Gateway
from leptonai.settings import Gateway as GatewaySettings
from leptonai.settings import Settings
from leptonai.types import Dials, Replica, Service, Spec, Variant, VariantDials

pytestmark = pytest.mark.world


class Bench:
    """A gateway of its own in a folder, and its events."""

    def __init__(self, folder: Path, settings: GatewaySettings | None = None) -> None:
        self.folder = folder
        self.events: list[tuple[str, dict[str, Any]]] = []
        (folder / "run").mkdir(exist_ok=True)
        self.gateway = Gateway(
            folder / "envoy",
            folder / "run",
            folder / "envoy.log",
            settings or GatewaySettings(port=0),
            lambda kind, _, detail: self.events.append((kind, detail)),
        )
        self.gateway.prepare()

    def snapshot(self, *names: str, ready: int = 0) -> Snapshot:
        services, replicas = [], []
        for name in names:
            variant = Variant(model="sha256:" + "0" * 64)
            dials = Dials(variants={"main": VariantDials(replicas=1)})
            services.append(Service(spec=Spec(name=name, variants=(variant,)), dials=dials, revision=1))
            for n in range(ready):
                address = f"unix:{self.folder}/run/{name}{n}"
                replicas.append(
                    Replica(
                        id=f"{name}-{n}",
                        service=name,
                        variant="main",
                        digest="d",
                        state="ready",
                        since=0,
                        address=address,
                    )
                )
        return routes(services, replicas, self.gateway.settings, folder=str(self.gateway.folder))

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.events]

    def names(self, kind: str) -> list[Any]:
        return [detail for found, detail in self.events if found == kind]


Story = Callable[[Bench], Awaitable[None]]


@pytest.fixture
def live(tmp_path: Path) -> Callable[[Story], None]:
    def run(story: Story) -> None:
        async def whole() -> None:
            bench = Bench(tmp_path)
            await bench.gateway.start(bench.snapshot())
            try:
                await story(bench)
            finally:
                await bench.gateway.stop()

        asyncio.run(whole())

    return run


def test_a_push_is_confirmed_and_only_changed_files_are_written(live: Callable[[Story], None]) -> None:
    async def story(bench: Bench) -> None:
        assert await bench.gateway.push(bench.snapshot("a", "b"))
        bench.events.clear()
        untouched = (bench.gateway.folder / "eds" / "b@main.json").stat()
        more = bench.snapshot("a", "b") | {"eds/a@main.json": bench.snapshot("a", ready=2)["eds/a@main.json"]}
        assert await bench.gateway.push(more)
        assert bench.names("gateway.pushed") == [{"files": ["eds/a@main.json"]}]
        assert (bench.gateway.folder / "eds" / "b@main.json").stat() == untouched
        bench.events.clear()
        assert await bench.gateway.push(more) and bench.events == []

    live(story)


def test_endpoints_that_change_while_a_push_waits_are_written_at_once_and_stay(live: Callable[[Story], None]) -> None:
    async def story(bench: Bench) -> None:
        gateway = bench.gateway
        assert await gateway.push(bench.snapshot("a"))
        slow = bench.snapshot("a", "b")
        under_way = asyncio.create_task(gateway.push(slow))
        await asyncio.sleep(0)  # it has written what comes first, and waits for Envoy to take the clusters
        assert not under_way.done()
        newer = slow | {"eds/a@main.json": bench.snapshot("a", ready=2)["eds/a@main.json"]}
        gateway.hasten(newer)
        written = (gateway.folder / "eds" / "a@main.json").read_text()
        assert written.count("lb_endpoints") and written.count("replica") >= 2 and not under_way.done()
        assert await under_way, "what was hastened is confirmed like the rest"
        assert "eds/a@main.json" in bench.names("gateway.pushed")[-1]["files"]
        bench.events.clear()
        assert await gateway.push(newer) and bench.events == [], "nothing is left to write"

    live(story)


def test_a_refused_file_is_told_once_and_holds_up_no_other(
    live: Callable[[Story], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(bench: Bench) -> None:
        good = bench.snapshot("a", "b")
        assert await bench.gateway.push(good)
        bad = copy.deepcopy(good)
        bad["cds.json"]["resources"][0]["connect_timeout"] = "0s"  # Envoy wants more than none
        assert not await bench.gateway.push(bad)
        (refused,) = bench.names("gateway.rejected")
        assert refused["files"] == ["cds.json"]
        assert "refused cds.json" in bench.gateway.trouble and "ConnectTimeout" in bench.gateway.trouble
        bench.events.clear()
        for _ in range(3):
            assert not await bench.gateway.push(bad)
        assert len(bench.events) <= 1, "a failure that goes on is told once"
        monkeypatch.setattr(envoy, "_TAKEN_WITHIN", 30.0)
        began = asyncio.get_running_loop().time()
        assert not await bench.gateway.push(bad | {"eds/b@main.json": bench.snapshot("b", ready=1)["eds/b@main.json"]})
        assert asyncio.get_running_loop().time() - began < 20.0, "it is not waited for"
        assert "eds/b@main.json" not in bench.gateway._unconfirmed, "what is good is in force"
        assert bench.gateway.trouble
        assert await bench.gateway.push(good)
        assert bench.gateway.trouble == ""

    live(story)


def test_a_full_disk_keeps_the_old_configuration_and_is_tried_again(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], check=True)
    try:

        async def story() -> None:
            bench = Bench(folder)
            await bench.gateway.start(bench.snapshot("a"))
            try:
                before = (bench.gateway.folder / "cds.json").read_bytes()
                with (folder / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError):
                    while True:
                        filler.write(b"x" * 4096)
                assert not await bench.gateway.push(bench.snapshot("a", "b", "c"))
                (event,) = bench.names("gateway.push_failed")
                assert "No space left" in event["error"] and "No space left" in bench.gateway.trouble
                assert (bench.gateway.folder / "cds.json").read_bytes() == before
                assert not [p for p in bench.gateway.folder.rglob(".*") if p.is_file()], "no temporary file is left"
                (folder / "filler").unlink()
                assert await bench.gateway.push(bench.snapshot("a", "b", "c"))
                assert bench.gateway.trouble == ""
            finally:
                (folder / "filler").unlink(missing_ok=True)
                await bench.gateway.stop()

        asyncio.run(story())
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def settings() -> Iterator[list[GatewaySettings]]:
    yield [GatewaySettings(port=0), GatewaySettings(port=0, threads=3)]


def test_the_port_is_kept_and_other_settings_start_another_envoy(
    tmp_path: Path, settings: list[GatewaySettings]
) -> None:
    async def story() -> None:
        pids: list[int] = []
        urls: list[str] = []
        try:
            for asked in (settings[0], settings[0], settings[1]):
                bench = Bench(tmp_path, asked)
                await bench.gateway.start(bench.snapshot("a"))
                assert bench.gateway.pid
                pids.append(bench.gateway.pid)
                urls.append(bench.gateway.url)
                bench.gateway.close()
        finally:
            for pid in set(pids):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        assert pids[0] == pids[1] != pids[2], "adopted when started the same way only"
        assert len(set(urls)) == 1

    asyncio.run(story())


def test_a_killed_envoy_serves_what_was_pushed_last(tmp_path: Path) -> None:
    """The routes of a service outlive Envoy, and a push while none runs is read by the next."""
    world = World(tmp_path, Settings(gateway=GatewaySettings(port=0)))

    async def story() -> None:
        await world.platform.start()
        try:
            await world.settle(world.service(1))
            process = world.platform._front.the_gateway._process
            assert process
            process.kill()
            await world.platform.apply(world.service(0))
            async with asyncio.timeout(30):
                while True:
                    try:
                        status, body = await world.ask("double")
                    except (OSError, EOFError):
                        await asyncio.sleep(0.02)
                        continue
                    if status == 503 and body["code"] == "no_ready_replica":
                        break
        finally:
            await world.platform.shutdown()

    asyncio.run(story())


def test_a_service_of_another_workspace_is_confirmed_and_answers(tmp_path: Path) -> None:
    world = World(tmp_path, Settings(gateway=GatewaySettings(port=0)))

    async def story() -> None:
        await world.platform.start()
        try:
            await world.settle(world.service(1, workspace="team"))
            assert "/workspaces/team/services/double" in world.platform.url("team/double")
            assert await world.ask("team/double") == (200, 42.0)
            assert not world.kinds()["gateway.unconfirmed"]
        finally:
            await world.platform.shutdown()

    asyncio.run(story())


def test_files_of_nobody_are_no_configuration(tmp_path: Path) -> None:
    """A folder with half a configuration, as a crash of the very first start would leave, is started over."""
    (tmp_path / "envoy" / "eds").mkdir(parents=True)
    (tmp_path / "envoy" / "rds.json").write_text("{")
    (tmp_path / "envoy" / "eds" / "old@main.json").write_bytes(msgspec.json.encode({"resources": []}))

    async def story() -> None:
        bench = Bench(tmp_path)
        await bench.gateway.start(bench.snapshot("a"))
        assert bench.gateway.healthy
        await bench.gateway.stop()

    asyncio.run(story())
