"""The users are real: a separate process against a real HTTP server that answers as told."""

import asyncio
import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httptools
import msgspec
import numpy as np
import pytest
from waiting import until

from leptonai.drill.traffic import Answer, Counts, Plan, Tail, arrivals, count

Handler = Callable[[str, dict[str, str], bytes], Awaitable[tuple[int, object] | None]]


class Protocol(asyncio.Protocol):
    """A small HTTP server; a handler that returns None hangs up."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.path, self.headers, self.body = "", {}, b""

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.path, self.headers, self.body = url.decode(), {}, b""

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        task = asyncio.get_running_loop().create_task(self.answer())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def answer(self) -> None:
        reply = await self.handler(self.path, self.headers, self.body)
        if reply is None:
            self.transport.close()
            return
        body = msgspec.json.encode(reply[1])
        self.transport.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (reply[0], len(body), body))


@contextlib.asynccontextmanager
async def users(tmp_path: Path, handler: Handler, **plan: float) -> AsyncIterator[Tail]:
    """The traffic process against a server with ``handler``; images are all ones or all twos, and labelled so."""
    server = await asyncio.get_running_loop().create_server(lambda: Protocol(handler), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    images = tmp_path / "live.npz"
    np.savez(images, image=np.array([[1.0] * 64, [2.0] * 64], np.float32), label=np.array([1, 2]))
    log, config = tmp_path / "answers.jsonl", tmp_path / "plan.json"
    wanted = Plan(
        url=f"{url}/v2/models/digits/infer",
        feedback=f"{url}/feedback",
        images=str(images),
        log=str(log),
        service="digits",
        **plan,
    )
    config.write_bytes(msgspec.json.encode(wanted))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "leptonai.drill.traffic", str(config)),
        stdin=subprocess.PIPE,
        env={**os.environ, "LEPTONAI_TOKEN": "secret"},
    )
    try:
        yield Tail(log)
        assert process.stdin
        process.stdin.close()  # the only signal there is: whoever started them is gone
        assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        server.close()


def right(body: bytes) -> dict[str, object]:
    """The answer of a perfect model: these images show the digit that each of their pixels holds."""
    return {"outputs": [{"name": "label", "data": [int(msgspec.json.decode(body)["inputs"][0]["data"][0])]}]}


def test_each_answer_is_checked_against_the_true_label_and_labels_arrive_later(tmp_path: Path) -> None:
    told: list[tuple[str, dict[str, object]]] = []
    seen: list[str] = []

    async def handler(path: str, headers: dict[str, str], body: bytes) -> tuple[int, object] | None:
        if path == "/feedback":
            told.extend((headers["authorization"], item) for item in msgspec.json.decode(body))
            return 200, {}
        seen.append(headers["x-request-id"])
        kind = len(seen) % 4
        if kind == 0:
            return None
        if kind == 1:
            return 503, {"error": "busy"}
        return 200, right(body) if kind == 2 else {"outputs": [{"name": "label", "data": [7]}]}

    async def scenario() -> list[Answer]:
        async with users(tmp_path, handler, rate=100.0, label_share=0.5, label_delay=0.05) as tail:
            await until(lambda: len(tail.read()) >= 80 and len(told) >= 10)
        return tail.read()

    answers = asyncio.run(scenario())
    by_id = {a.id: a for a in answers}
    assert len(by_id) == len(answers) == len(seen)
    # Each request is judged by what the server did to it: hang up, 503, right, wrong.
    wanted = {0: ("failed", 0), 1: ("failed", 503), 2: ("right", 200), 3: ("wrong", 200)}
    assert {i: (by_id[i].result, by_id[i].status) for i in seen} == {
        i: wanted[n % 4] for n, i in enumerate(seen, start=1)
    }
    for token, body in told:
        assert token == "Bearer secret"
        assert body["service"] == "digits" and body["label"] in (1, 2)
        assert by_id[str(body["about"])].status == 200  # a request that got no answer has no label
    share = len(told) / sum(a.status == 200 for a in answers)
    assert 0.2 < share < 0.8


def test_the_loop_is_open_a_stalled_server_meets_as_many_requests_and_shows_its_delay(tmp_path: Path) -> None:
    arrived: list[float] = []
    gate = asyncio.Event()

    async def handler(path: str, headers: dict[str, str], body: bytes) -> tuple[int, object]:
        arrived.append(time.time())
        await gate.wait()
        return 200, right(body)

    async def scenario() -> list[Answer]:
        async with users(tmp_path, handler, rate=50.0, timeout=60.0, label_share=0.0) as tail:
            await until(lambda: len(arrived) >= 60)  # a closed loop of any fixed width would stop before
            assert tail.read() == []
            gate.set()
        return tail.read()

    answers = asyncio.run(scenario())
    assert all(a.result == "right" for a in answers)
    opened = max(a.due + a.seconds for a in answers)
    # The first one waited longest, and its latency counts from when it was due.
    assert answers[0].seconds == pytest.approx(opened - answers[0].due, abs=2.0)
    dues = sorted(a.due for a in answers)
    assert all(abs(b - a) < 10 for a, b in itertools.pairwise(dues))


def test_arrivals_are_poisson_their_gaps_have_mean_and_deviation_of_one_over_the_rate() -> None:
    due = list(itertools.islice(arrivals(lambda: 40.0, np.random.default_rng(0)), 20_000))
    gaps = np.diff(due)
    assert gaps.min() > 0
    assert gaps.mean() == pytest.approx(1 / 40, rel=0.05)
    assert gaps.std() == pytest.approx(1 / 40, rel=0.05)


def test_counts_cover_requests_due_in_the_half_open_window() -> None:
    def at(due: float, result: str) -> Answer:
        return Answer(id=str(due), due=due, seconds=9.0, status=200, result=result)  # type: ignore[arg-type]

    answers = [at(0.9, "failed"), at(1.0, "right"), at(1.5, "wrong"), at(1.6, "failed"), at(2.0, "wrong")]
    assert count(answers, 1.0, 2.0) == Counts(sent=3, failed=1, wrong=1)


def test_a_tail_takes_whole_lines_only(tmp_path: Path) -> None:
    log = tmp_path / "answers.jsonl"
    tail = Tail(log)
    assert tail.read() == []
    line = msgspec.json.encode(Answer(id="a", due=1.0, seconds=0.1, status=200, result="right")) + b"\n"
    log.write_bytes(line + line[:10])
    assert len(tail.read()) == 1
    log.write_bytes(line + line)
    assert len(tail.read()) == 2
