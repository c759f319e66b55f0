"""Real Envoy, edge and replicas: the last good answers while no replica can answer, marked, and never otherwise."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import signal
import struct
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import pytest
from edge_stage import edge_page, outcomes, play
from local_world import World, closed

from leptonai.types import Batching, Fallback, Hold, Service, Variant

pytestmark = pytest.mark.world
SLOW = """
import time
class Slow:
    def predict(self, x: float) -> float:
        time.sleep(0.2 if x >= 100 else 0)
        return 2 * x
"""


class Got(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def stale(self) -> bool:
        return "x-leptonai-stale" in self.headers


async def post(world: World, path: str, body: Any, **headers: str) -> Got:
    url = urlsplit(world.platform.url("x"))
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        lines = [f"POST {path} HTTP/1.1", "host: t", f"content-length: {len(content)}"]
        lines += [f"{k.replace('_', '-')}: {v}" for k, v in headers.items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + content)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        found = dict(line.split(": ", 1) for line in head[1:] if ": " in line)
        return Got(int(head[0].split()[1]), found, await reader.readexactly(int(found["content-length"])))
    finally:
        await closed(writer)


async def kept(world: World, count: int, again: Callable[[], Awaitable[Got]] | None = None) -> None:
    """The edge has taken over so many answers. ``again`` asks once more: one that nobody fetches for 5 s is let go."""
    async with asyncio.timeout(60):
        for looks in itertools.count(1):
            page = (await edge_page(world, "/metrics")).decode()
            if any(s.startswith("leptonai_edge_answers{") and s.endswith(f" {count}") for s in page.splitlines()):
                return
            await asyncio.sleep(0.02)
            if again is not None and not looks % 100:
                await again()


async def asked_for(world: World, service: Service) -> None:
    """Answers are being kept: a first one has arrived at the edge."""
    async with asyncio.timeout(30):
        while b"} 1" not in await edge_page(world, "/metrics"):
            await post(world, f"/services/{service.spec.name}/predict", {"x": 0})
            await asyncio.sleep(0.1)


async def kill_all(world: World) -> None:
    for replica in world.platform.observe():
        assert replica.pid
        os.kill(replica.pid, signal.SIGKILL)
    await world.until(lambda: not [r for r in world.platform.observe() if r.state == "ready"])


def test_when_all_replicas_are_dead_the_known_is_answered_marked_and_the_unknown_waits(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        service = world.service(2, fallback=Fallback(), hold=Hold(max_wait=0.5))
        await world.settle(service)
        path = "/services/double/predict"
        await asked_for(world, service)
        fresh = await post(world, path, {"x": 21}, authorization="Bearer ana")
        assert (fresh.status, fresh.body, fresh.stale) == (200, b"42.0", False)
        await kept(world, 2, lambda: post(world, path, {"x": 21}, authorization="Bearer ana"))
        await kill_all(world)
        old = await post(world, path, b'{ "x" : 21 }', authorization="Bearer ana")
        assert (old.status, old.body, old.stale) == (200, b"42.0", True)
        assert 0 <= float(old.headers["x-leptonai-stale"]) < 60 and old.headers["age"].isdigit()
        assert old.headers["warning"].startswith("110") and old.headers["content-type"] == fresh.headers["content-type"]
        for unknown in ({"x": 22}, {"x": 21}):  # another question; another token
            got = await post(world, path, unknown)
            assert (got.status, json.loads(got.body)["code"], got.stale) == (503, "no_ready_replica", False)
        seen = await outcomes(world)
        assert seen["stale"] == 1 and seen["timed_out"] == 2
        # the dial takes it out of force at once
        off = msgspec.structs.replace(service.dials, fallback=False)
        await world.platform.apply(msgspec.structs.replace(service, dials=off))
        await kept(world, 0)

    play(tmp_path, story)


def test_while_one_of_two_replicas_lives_no_answer_is_stale(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        service = world.service(2, fallback=Fallback())
        first, _ = await world.settle(service)
        await asked_for(world, service)
        async with world.users("double", 16) as users:
            await users.more(200)
            assert first.pid
            os.kill(first.pid, signal.SIGKILL)
            await users.more(500)
        assert users.failures == []
        assert (await outcomes(world))["stale"] == 0

    play(tmp_path, story)


def test_a_replica_that_sheds_is_helped_out_with_what_is_known(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        variant = world.variant(SLOW, batching=Batching(max_size=1, max_queue=1), idempotent=True)
        service = world.service(1, variant, "slow", fallback=Fallback())
        await world.settle(service)
        path = "/services/slow/predict"
        await asked_for(world, service)
        assert (await post(world, path, {"x": 1})).body == b"2.0"
        await kept(world, 2, lambda: post(world, path, {"x": 1}))
        enough = asyncio.Event()

        async def ask_on(x: int) -> list[Got]:
            got = []
            while not enough.is_set():
                got.append(await post(world, path, {"x": x}))
            return got

        flood = [asyncio.create_task(ask_on(100 + n)) for n in range(12)]
        try:
            async with asyncio.timeout(60):
                while not (got := await post(world, path, {"x": 1})).stale:
                    assert (got.status, got.body) == (200, b"2.0")
        finally:
            enough.set()
            answers = [a for found in await asyncio.gather(*flood) for a in found]
        assert (got.status, got.body) == (200, b"2.0")
        assert all(json.loads(a.body) >= 200 for a in answers if a.status == 200), "each its own answer"
        assert {a.status for a in answers} == {200, 429}
        assert all("retry-after" in a.headers for a in answers if a.status == 429)

    play(tmp_path, story)


def doubling(folder: Path) -> Path:
    """An ONNX model of a few bytes: y = x + x."""
    from onnx import TensorProto, helper, save

    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 2]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder.mkdir()
    save(model, folder / "model.onnx")
    return folder


def test_a_question_asked_in_json_is_answered_in_binary_and_the_other_way_round(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        variant = Variant(model=world.artifacts.put_tree(doubling(tmp_path / "onnx")), idempotent=True)
        service = world.service(1, variant, "sum", fallback=Fallback(sensitive=True))
        await world.platform.apply(service)
        await world.until(lambda: [r for r in world.platform.observe() if r.state == "ready"], service)
        path = "/v2/models/sum/infer"

        def as_json(*values: float) -> dict[str, Any]:
            return {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [list(values)]}]}

        def as_binary(*values: float) -> tuple[bytes, str]:
            tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
            head = json.dumps({"id": "b", "inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
            return head + struct.pack("<2f", *values), str(len(head))

        async with asyncio.timeout(30):
            while b"leptonai_edge_answers" not in (page := await edge_page(world, "/metrics")) or b"} 2" not in page:
                assert (await post(world, path, as_json(1, 2))).status in (200, 404, 503)
                body, size = as_binary(3, 4)
                await post(world, path, body, inference_header_content_length=size)
                await asyncio.sleep(0.1)
        if shutil.which("promtool"):  # the page is valid, with samples on it
            checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, timeout=60)  # noqa: ASYNC221
            assert checked.returncode == 0 and not checked.stderr, checked.stderr.decode()
        await kill_all(world)
        body, size = as_binary(1, 2)
        got = await post(world, path, body, inference_header_content_length=size)
        head = int(got.headers["inference-header-content-length"])
        assert got.stale and got.body[head:] == struct.pack("<2f", 2, 4) and json.loads(got.body[:head])["id"] == "b"
        got = await post(world, path, as_json(3, 4))
        answer = json.loads(got.body)
        assert got.stale and answer["outputs"][0]["data"] == [6.0, 8.0] and "id" not in answer

    play(tmp_path, story)
