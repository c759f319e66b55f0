"""A replica that answers garbage, and clients that send it: Envoy gives a clean error, and the gateway goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from plan_stage import Stage, TinyReplica, stage, until

from leptonai.types import Dials, Service, Spec, Variant

pytestmark = pytest.mark.world


class Garbage(TinyReplica):
    """Ready, and says ``words`` to every other request, then closes."""

    words = b""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b" /-/ready " not in head:
                    writer.write(self.words)
                    await writer.drain()
                    return
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


SPOKEN = [
    b"",
    b"\x00" * 500,
    b"SSH-2.0-OpenSSH_9.9\r\n",
    b"HTTP/1.1 \r\n\r\n",
    b"HTTP/1.1 20x OK\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
]


def test_garbage_of_a_replica_is_a_clean_502_or_503(tmp_path: Path) -> None:
    service = Service(spec=Spec(name="s", variants=(Variant(model="m"),), timeout=10.0), dials=Dials(), revision=1)

    async def story(stage: Stage) -> None:
        bad = Garbage("bad", tmp_path)
        await bad.start()
        stage.replicas.append(bad)
        await stage.push([service], [bad.noun()])

        async def healthy() -> bool:
            return await stage.healthy() == 1

        await until(healthy, "it says that it is ready")
        for words in SPOKEN:
            bad.words = words
            answer = await stage.client.post("/services/s/predict", json=[1])
            assert answer.status_code in (502, 503), (words[:60], answer.status_code)
            assert answer.json()["code"] and answer.json()["hint"], words[:60]
        good = await stage.replica("good")
        await stage.push([service], [good.noun()])
        await until(healthy, "the good one is there")
        assert await stage.ask() == {"good": 1}

    async def run() -> None:
        async with stage(tmp_path, [service], ["a"]) as made:
            await story(made)

    asyncio.run(run())


SENT = [
    "Transfer-Encoding: chunked\r\nContent-Length: 4",
    "Content-Length: 4\r\nContent-Length: 5",
    "Content-Length: 4, 5",
    "Content-Length: -1",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding : chunked\r\nContent-Length: 4",
]


def test_smuggled_requests_reach_no_replica(tmp_path: Path) -> None:
    """What two servers could read differently is refused, and the request hidden in it is never asked."""
    service = Service(spec=Spec(name="s", variants=(Variant(model="m"),)), dials=Dials(), revision=1)
    hidden = b"0\r\n\r\nPOST /services/s/hidden HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\n\r\n"

    async def run() -> None:
        async with stage(tmp_path, [service], ["a"]) as made:
            at = urlsplit(str(made.client.base_url))
            for lines in SENT:
                reader, writer = await asyncio.open_connection(at.hostname, at.port)
                writer.write(f"POST /services/s/predict HTTP/1.1\r\nHost: g\r\n{lines}\r\n\r\n".encode() + hidden)
                async with asyncio.timeout(20):
                    got = await reader.read()
                writer.close()
                await writer.wait_closed()
                assert got.startswith((b"HTTP/1.1 400", b"HTTP/1.1 501")), (lines, got[:100])
                assert got.count(b"HTTP/1.1 ") == 1, lines
            assert await made.ask() == {"a": 1}
            assert [asked["path"] for asked in made.replicas[0].asked] == ["/predict"]

    asyncio.run(run())
