"""A replica that answers garbage, and clients that send it: Envoy gives a clean error, and the gateway goes on."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from urllib.parse import urlsplit

import httpx
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


def test_http_1_0_is_answered_and_a_refusal_says_what_was_wrong(tmp_path: Path) -> None:
    service = Service(spec=Spec(name="s", variants=(Variant(model="m"),)), dials=Dials(), revision=1)
    old = "POST /services/s/predict HTTP/1.0\r\nContent-Length: 2\r\n\r\n[]"
    refused = {
        "POST /services/s/predict HTTP/1.1\r\nContent-Length: 2\r\n\r\n[]": "missing_host",
        "GET /services/s/-%2fready HTTP/1.1\r\nHost: g\r\n\r\n": "path_normalization_failed",
        "POST /services/s/predict HTTP/1.1\r\nHost: g\r\nContent-Length: -7\r\n\r\n[]": "http1.codec_error",
    }

    async def run() -> None:
        async with stage(tmp_path, [service], ["a"]) as made:
            at = urlsplit(str(made.client.base_url))

            async def say(text: str) -> tuple[str, str]:
                reader, writer = await asyncio.open_connection(at.hostname, at.port)
                writer.write(text.encode())
                async with asyncio.timeout(20):
                    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
                writer.close()
                await writer.wait_closed()
                return head, body

            head, body = await say(old)
            assert " 200 OK" in head.splitlines()[0], head
            assert "transfer-encoding" not in head
            assert json.loads(body)
            for text, why in refused.items():
                head, body = await say(text)
                assert head.startswith("HTTP/1.1 400"), (text, head)
                error = json.loads(body)
                assert why in error["error"] and error["code"] == "gateway" and not error["retry"], error

    asyncio.run(run())


CUT = [
    b'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"a": 1',
    b'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\n{"a": 1,\r\n',
    b'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\n{"a": 1,\r\nzz\r\n',
]


def test_an_answer_that_breaks_off_is_never_taken_for_a_whole_one(tmp_path: Path) -> None:
    """Nothing can be taken back once it was sent: the connection breaks, before the end that was announced."""
    service = Service(spec=Spec(name="s", variants=(Variant(model="m"),), timeout=10.0), dials=Dials(), revision=1)

    async def run() -> None:
        async with stage(tmp_path, [service], ["a"]) as made:
            bad = Garbage("bad", tmp_path)
            await bad.start()
            made.replicas.append(bad)
            await made.push([service], [bad.noun()])

            async def healthy() -> bool:
                return await made.healthy() == 1

            await until(healthy, "it says that it is ready")
            for words in CUT:
                bad.words = words
                try:
                    answer = await made.client.post("/services/s/predict", json=[1])
                except httpx.RemoteProtocolError:
                    continue
                assert answer.status_code in (502, 503), (words, answer.status_code, answer.text)
            good = await made.replica("good")
            await made.push([service], [good.noun()])
            await until(healthy, "the good one is there")
            assert await made.ask() == {"good": 1}

    asyncio.run(run())


def test_half_open_clients_are_let_go_and_hurt_nobody(tmp_path: Path) -> None:
    """Half a head, half a body, an answer that nobody reads, an end without a request: others are answered all the
    while, half a head is 408 after 10 s, half a body after the service's time limit, and no connection is left."""
    service = Service(spec=Spec(name="s", variants=(Variant(model="m"),), timeout=1.0), dials=Dials(), revision=1)
    head = b"POST /services/s/predict HTTP/1.1\r\nHost: g\r\n"
    sent = [b"", b"POST /serv", head, head + b"Content-Length: 10\r\n\r\n12345"]

    async def run() -> None:
        async with stage(tmp_path, [service], ["a"]) as made:
            at = urlsplit(str(made.client.base_url))

            async def active() -> int:
                return (await made.stats()).get("http.gateway.downstream_cx_active", 0)

            assert await made.ask() == {"a": 1}
            before = await active()
            opened = [await asyncio.open_connection(at.hostname, at.port) for _ in range(20 * len(sent))]
            for n, (_, writer) in enumerate(opened):
                writer.write(sent[n % len(sent)])
            for _, writer in opened[:: len(sent)]:
                writer.write_eof()
            assert await made.ask(times=50) == {"a": 50}
            async with asyncio.timeout(30):
                ends = [await reader.read() for reader, _ in opened]
            for n, end in enumerate(ends):
                told = {0: (b"",), 1: (b"HTTP/1.1 408",), 2: (b"HTTP/1.1 408",), 3: (b"HTTP/1.1 408", b"HTTP/1.1 504")}
                assert end.startswith(told[n % len(sent)]), (sent[n % len(sent)], end[:80])
            for _, writer in opened:
                writer.close()
                await writer.wait_closed()
            assert await made.ask(times=10) == {"a": 10}

            async def gone() -> bool:
                return await active() <= before + 10

            await until(gone, "every connection is let go")

    asyncio.run(run())
