"""Answers in pieces, sync and async, OpenAI's API and an ASGI app, on a real replica through its socket."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from leptonai.types import Batching
from tests.runtime.conftest import Running

WRITER = """
import pathlib, time
from leptonai.errors import SpecError

class Writer:
    def setup(self, options):
        self.notes = pathlib.Path(options["notes"])

    def predict(self, n: int, pause: float = 0.0, fail_at: int = -1):
        try:
            for i in range(n):
                if i == fail_at:
                    raise RuntimeError("no more")
                time.sleep(pause)
                yield {"i": i}
        finally:
            with self.notes.open("a") as f:
                f.write(f"{i}\\n")

    def embed(self, input: list[str], dimensions: int = 2):
        return [[float(len(t))] * dimensions for t in input]

    def complete(self, prompt, max_tokens: int = 3, fail: bool = False):
        if fail:
            raise SpecError("not today", hint="ask tomorrow")
        for i in range(max_tokens):
            yield f"{prompt}{i} "

    def chat(self, messages, temperature: float = 1.0):
        return {"content": messages[-1]["content"].upper(), "finish_reason": "length"}

    def count_tokens(self, text):
        return len(text.split())
"""

ASYNC = """
import asyncio, pathlib, time
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

class Slow:
    async def setup(self, options):
        self.lock = asyncio.Lock()
        self.notes = pathlib.Path(options["notes"])

    async def predict(self, n: int, pause: float = 0.0):
        try:
            for i in range(n):
                async with self.lock:
                    pass
                await asyncio.sleep(pause)
                yield i
        finally:
            with self.notes.open("a") as f:
                f.write(f"{i}\\n")

    async def chat(self, messages):
        if messages[0]["content"] == "block":
            time.sleep(60)
        await asyncio.sleep(0)
        return "yes"

async def hello(request):
    return JSONResponse({"who": request.query_params["who"], "started": request.state.started}, headers={"x-own": "1"})

async def echo(request):
    body = await request.body()
    async def pieces():
        for i in range(3):
            yield body
    return StreamingResponse(pieces(), media_type="text/plain")

async def broken(request):
    raise RuntimeError("app bug")

async def lifespan(app):
    yield {"started": True}

from contextlib import asynccontextmanager
app = Starlette(
    routes=[Route("/hello", hello), Route("/echo", echo, methods=["POST"]), Route("/broken", broken)],
    lifespan=asynccontextmanager(lifespan),
)
"""
EVENTS = {"accept": "text/event-stream"}


@pytest.fixture(scope="module")
def writer(start: Callable[..., Running], tmp_path_factory: pytest.TempPathFactory) -> Running:
    notes = tmp_path_factory.mktemp("notes") / "notes"
    running = start({"model.py": WRITER}, options={"notes": str(notes)}).wait_ready()
    running.notes = notes  # type: ignore[attr-defined]
    return running


@pytest.fixture(scope="module")
def slow(start: Callable[..., Running], tmp_path_factory: pytest.TempPathFactory) -> Running:
    notes = tmp_path_factory.mktemp("notes") / "notes"
    running = start({"model.py": ASYNC}, options={"notes": str(notes)}).wait_ready()
    running.notes = notes  # type: ignore[attr-defined]
    return running


def events(response: httpx.Response) -> Iterator[tuple[str, Any]]:
    """(kind, data) of each event, as the standard splits them."""
    kind = "message"
    for line in response.iter_lines():
        if line.startswith("event: "):
            kind = line[7:]
        elif line.startswith("data: "):
            text = line[6:]
            yield kind, json.loads(text) if text != "[DONE]" else text
            kind = "message"


@pytest.mark.parametrize("name", ["writer", "slow"])
def test_a_predict_that_yields_is_sent_as_events_or_gathered_into_a_list(
    name: str, request: pytest.FixtureRequest
) -> None:
    replica: Running = request.getfixturevalue(name)
    want = [{"i": i} for i in range(3)] if name == "writer" else [0, 1, 2]
    with replica.client.stream("POST", "/predict", json={"n": 3}, headers=EVENTS) as r:
        assert (r.status_code, r.headers["content-type"]) == (200, "text/event-stream")
        assert [data for _, data in events(r)] == want
    assert replica.predict({"n": 3}).json() == want
    inputs = {"name": "n", "shape": [1], "datatype": "INT64", "data": [3]}
    assert replica.infer(inputs).status_code == 200
    assert replica.predict({"n": "three"}).status_code == 400


@pytest.mark.parametrize("name", ["writer", "slow"])
def test_a_stream_whose_client_goes_is_ended_and_others_go_on(name: str, request: pytest.FixtureRequest) -> None:
    replica: Running = request.getfixturevalue(name)
    before = replica.notes.read_text() if replica.notes.exists() else ""  # type: ignore[attr-defined]
    with replica.client.stream("POST", "/predict", json={"n": 10_000, "pause": 0.01}, headers=EVENTS) as r:
        next(events(r))
        assert len(replica.predict({"n": 2}).json()) == 2  # a second stream is not behind the first
    replica.until(lambda: len(replica.notes.read_text()) > len(before) + 2)  # type: ignore[attr-defined]
    ended = int(replica.notes.read_text().split()[-1])  # type: ignore[attr-defined]
    assert ended < 9_000
    replica.until(lambda: replica.metrics()["leptonai_in_flight"] == 0)
    assert replica.metrics()["leptonai_errors_total{kind=client_gone}"] >= 1


def test_an_error_before_the_first_event_has_its_status_and_a_later_one_is_an_event(writer: Running) -> None:
    assert writer.client.post("/predict", json={"n": 3, "fail_at": 0}, headers=EVENTS).status_code == 500
    with writer.client.stream("POST", "/predict", json={"n": 3, "fail_at": 2}, headers=EVENTS) as r:
        got = list(events(r))
    assert [kind for kind, _ in got] == ["message", "message", "error"]
    assert got[-1][1]["code"] == "model_failed"


def test_a_client_that_does_not_read_holds_its_own_stream_only(writer: Running) -> None:
    body = json.dumps({"n": 100_000}).encode()
    head = b"POST /predict HTTP/1.1\r\nhost: r\r\naccept: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(body)
    with writer.raw() as s:
        s.sendall(head + body)
        assert s.recv(100).startswith(b"HTTP/1.1 200")
        assert len(writer.predict({"n": 2}).json()) == 2
        assert writer.metrics()["leptonai_in_flight"] == 1
        assert writer.metrics()["process_resident_memory_bytes"] < 400e6
    writer.until(lambda: writer.metrics()["leptonai_in_flight"] == 0)


def test_embeddings_as_numbers_and_as_base64(writer: Running) -> None:
    post = writer.client.post
    answer = post("/v1/embeddings", json={"model": "m", "input": ["a", "bb b"]}).json()
    assert [d["embedding"] for d in answer["data"]] == [[1.0, 1.0], [4.0, 4.0]]
    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    ask = {"model": "m", "input": "abc", "encoding_format": "base64", "dimensions": 3}
    packed = post("/v1/embeddings", json=ask).json()["data"][0]["embedding"]
    assert struct.unpack("<3f", base64.b64decode(packed)) == (3.0, 3.0, 3.0)


def test_completions_and_chat_whole_and_streamed(writer: Running) -> None:
    post = writer.client.post
    answer = post("/v1/completions", json={"model": "m", "prompt": "x", "max_tokens": 2}).json()
    assert answer["choices"][0]["text"] == "x0 x1 "
    assert answer["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    answer = post("/v1/chat/completions", json={"model": "m", "messages": [{"role": "user", "content": "hi"}]}).json()
    choice = answer["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("HI", "length")
    ask = {"model": "m", "prompt": "y", "stream": True, "stream_options": {"include_usage": True}}
    with writer.client.stream("POST", "/v1/completions", json=ask) as r:
        got = [data for _, data in events(r)]
    assert got[-1] == "[DONE]"
    assert "".join(c["choices"][0]["text"] for c in got[:-2]) == "y0 y1 y2 "
    assert got[-2]["usage"]["completion_tokens"] == 3
    assert writer.client.get("/v1/models").json()["data"][0]["id"] == "m"


def test_generate_and_generate_stream(writer: Running) -> None:
    ask = {"text_input": "t", "parameters": {"max_tokens": 2}}
    answer = writer.client.post("/v2/models/m/generate", json=ask).json()
    assert answer == {"model_name": "m", "model_version": "3", "text_output": "t0 t1 "}
    with writer.client.stream("POST", "/v2/models/m/versions/3/generate_stream", json=ask) as r:
        assert [data["text_output"] for _, data in events(r)] == ["t0 ", "t1 "]


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("embeddings", {"input": [1, 2]}, 400),
        ("embeddings", {"input": []}, 400),
        ("embeddings", {"input": "x", "encoding_format": "hex"}, 400),
        ("embeddings", {"input": "x", "model": "other"}, 404),
        ("completions", {"prompt": ["a", "b"]}, 400),
        ("completions", {"prompt": "a", "n": 2}, 400),
        ("completions", {"prompt": "a", "max_tokens": "many"}, 400),
        ("completions", {"prompt": "a", "stream": "yes"}, 400),
        ("completions", {"prompt": "a", "fail": True}, 400),
        ("completions", [], 400),
        ("chat/completions", {"messages": "hi"}, 400),
        ("chat/completions", {"messages": [{"content": "hi"}]}, 400),
    ],
)
def test_what_openai_requests_cannot_say(writer: Running, path: str, body: Any, code: int) -> None:
    r = writer.client.post(f"/v1/{path}", json=body)
    assert (r.status_code, set(r.json()["error"])) == (code, {"message", "type", "param", "code"})


def test_an_async_chat_and_a_door_that_is_not_declared(slow: Running) -> None:
    ask = {"messages": [{"role": "user", "content": "?"}]}
    assert slow.client.post("/v1/chat/completions", json=ask).json()["choices"][0]["message"]["content"] == "yes"
    assert slow.client.post("/v1/completions", json={"prompt": "a"}).status_code == 404


def test_an_app_beside_the_model(slow: Running) -> None:
    r = slow.client.get("/hello", params={"who": "you"})
    assert (r.status_code, r.json(), r.headers["x-own"]) == (200, {"who": "you", "started": True}, "1")
    assert slow.client.post("/echo", content=b"ab").text == "ababab"
    assert slow.client.get("/nowhere").status_code == 404
    assert slow.client.get("/-/nowhere").json()["code"] == "not_found"  # not the app's
    r = slow.client.get("/broken")
    assert r.status_code == 500
    assert slow.ready()["state"] == "ready"


def test_asynchronous_code_that_blocks_its_loop_makes_the_replica_hung(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    """The I/O loop and the compute thread are idle all the while: nothing else could tell."""
    running = start({"model.py": ASYNC}, options={"notes": str(tmp_path / "notes")}).wait_ready()
    body = {"messages": [{"role": "user", "content": "block"}]}
    with pytest.raises(httpx.ReadTimeout):
        running.client.post("/v1/chat/completions", json=body, timeout=0.5)
    seen = running.until(lambda: (r := running.ready())["reason"] == "hung" and r)
    assert seen["state"] == "failed" and "blocked its event loop" in seen["detail"]


MERGING = """
import time

class Merging:
    def embed(self, input: list[str], shift: float = 0.0):
        time.sleep(0.05)
        if "bad" in input:
            raise ValueError("a bad text")
        return [[float(len(text)) + shift, float(len(input))] for text in input]
"""


def test_embeddings_of_several_requests_are_one_call_and_long_lists_are_cut(start: Callable[..., Running]) -> None:
    """Second number of a vector: how many texts its call had. One bad text fails alone, other fields keep apart."""
    replica = start({"model.py": MERGING}, batching=Batching(max_size=8), idempotent=True).wait_ready()

    def ask(body: dict[str, Any]) -> tuple[int, list[list[float]]]:
        answer = replica.client.post("/v1/embeddings", json=body)
        return answer.status_code, [d["embedding"] for d in answer.json().get("data", ())]

    for _ in range(3):
        assert ask({"input": "ab"}) == (200, [[2.0, 1.0]])
    bodies: list[dict[str, Any]] = [{"input": ["x" * n]} for n in range(1, 13)]
    bodies += [{"input": ["bad"]}, {"input": ["s"], "shift": 100.0}, {"input": ["l"] * 20}]
    with ThreadPoolExecutor(len(bodies)) as pool:
        *short, bad, shifted, long = pool.map(ask, bodies)
    assert [vectors[0][0] for _, vectors in short] == [float(n) for n in range(1, 13)]
    assert max(vectors[0][1] for _, vectors in short) > 1, "some shared a call"
    assert bad[0] == 500 and shifted[1][0][0] == 101.0
    assert len(long[1]) == 20 and max(vector[1] for vector in long[1]) <= 8
    stats = replica.client.get("/v2/models/m/stats").json()["model_stats"][0]
    sizes = {batch["batch_size"]: batch["compute_infer"] for batch in stats["batch_stats"]}
    for side in ("compute_input", "compute_output"):
        assert stats["inference_stats"][side]["count"] >= 3 and stats["inference_stats"][side]["ns"] > 0
    assert max(sizes) > 1 and 3 < sum(infer["count"] for infer in sizes.values()) <= stats["execution_count"]
    assert all(infer["ns"] >= infer["count"] * 40e6 for infer in sizes.values()), sizes
