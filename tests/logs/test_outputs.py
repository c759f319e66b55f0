"""Elasticsearch and Loki as they answer: a local server that refuses what they refuse, is busy, and goes away."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from leptonai.errors import SpecError
from leptonai.ops.logs import Masker
from leptonai.ops.logs.outputs import Bulk, Push, Sender
from leptonai.settings import Logs
from leptonai.types import LogEntry

NOW = 1_700_000_000.0


def entry(seq: int, body: str = "", at: float | None = None, **more: Any) -> LogEntry:
    when = NOW + seq if at is None else at
    return LogEntry(seq=seq, at=when, service="digits", body=body or f"line {seq}", **more)


class Elastic:
    """Keeps documents by id as a data stream does: only ``create``, one line of action, one of source, each ended."""

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        self.busy = 0  # items refused with 429 before they are taken
        self.requests = 0

    async def bulk(self, request: Request) -> Response:
        self.requests += 1
        body = gzip.decompress(await request.body())
        if request.headers["content-type"] not in ("application/x-ndjson", "application/json"):
            return JSONResponse({"error": "Content-Type header is not supported"}, 406)
        if not body.endswith(b"\n"):
            return JSONResponse({"error": "The bulk request must be terminated by a newline [\\n]"}, 400)
        lines = body.split(b"\n")[:-1]
        items = []
        for action, source in zip(lines[::2], lines[1::2], strict=True):
            (kind, about) = next(iter(json.loads(action).items()))
            assert kind == "create" and set(about) == {"_index", "_id"}
            items.append({"create": {"_id": about["_id"], **self.take(about["_id"], json.loads(source))}})
        return JSONResponse({"took": 1, "errors": any(i["create"]["status"] >= 300 for i in items), "items": items})

    def take(self, id: str, document: dict[str, Any]) -> dict[str, Any]:
        if self.busy:
            self.busy -= 1
            return {"status": 429, "error": {"type": "es_rejected_execution_exception", "reason": "queue is full"}}
        if id in self.documents:
            return {"status": 409, "error": {"type": "version_conflict_engine_exception", "reason": "already exists"}}
        if "poison" in document["message"]:
            return {"status": 400, "error": {"type": "document_parsing_exception", "reason": "failed to parse"}}
        datetime.fromisoformat(document["@timestamp"])
        assert document["ecs"]["version"] and document["service"]["name"] == "digits"
        self.documents[id] = document
        return {"status": 201, "result": "created"}


class Loki:
    """Takes entries of a stream within an hour of its newest, refuses a request with an older one as a whole answer
    although it keeps the others; the same line of the same moment is one."""

    def __init__(self) -> None:
        self.streams: dict[tuple[tuple[str, str], ...], set[tuple[int, str]]] = {}
        self.busy = 0
        self.requests = 0

    async def push(self, request: Request) -> Response:
        self.requests += 1
        if self.busy:
            self.busy -= 1
            return PlainTextResponse("Ingestion rate limit exceeded", 429, {"retry-after": "1"})
        body = json.loads(gzip.decompress(await request.body()))
        assert set(body) == {"streams"}
        late = ""
        for stream in body["streams"]:
            labels = stream["stream"]
            assert 1 <= len(labels) <= 15 and all(re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", k) for k in labels)
            assert all(isinstance(v, str) for v in labels.values())
            assert len({json.dumps(s["stream"], sort_keys=True) for s in body["streams"]}) == len(body["streams"])
            kept = self.streams.setdefault(tuple(sorted(labels.items())), set())
            times = [int(at) for at, _ in stream["values"]]
            assert times == sorted(times) and all(isinstance(at, str) for at, _ in stream["values"])
            for at, line in ((int(at), line) for at, line in stream["values"]):
                assert len(line) <= 256 * 1024
                if kept and at < max(k[0] for k in kept) - 3600 * 10**9:
                    late = "entry too far behind, oldest acceptable timestamp is ..."
                else:
                    kept.add((at, line))
        return PlainTextResponse(late, 400) if late else Response(status_code=204)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for kept in self.streams.values() for _, line in kept]


@contextlib.asynccontextmanager
async def serving(path: str, answer: Callable[[Request], Awaitable[Response]]) -> AsyncIterator[str]:
    app = Starlette(routes=[Route(path, answer, methods=["POST"])])
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", ws="none"))
    task = asyncio.create_task(server.serve([listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


def dead(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def test_elasticsearch_gets_every_line_once_masked_and_the_refused_become_dead_letters(tmp_path: Path) -> None:
    async def story() -> None:
        elastic, masker = Elastic(), Masker()
        async with serving("/_bulk", elastic.bulk) as url, httpx.AsyncClient() as http:
            sender = Sender(Bulk("logs-leptonai-default"), url, {}, Logs(), tmp_path, masker.entry)
            lines = [entry(n) for n in range(1, 1200)]
            lines[7] = entry(8, "poison from ana@example.org", severity=17, trace="a" * 32)
            lines[9] = entry(10, "token=hunter22 was used", source={"replica": "r1", "host": "h", "file": "/x"})
            sender.put(lines)
            elastic.busy = 3
            assert await sender.flush(http) > 1.0  # three items are to come again, after a pause
            assert sender.counts["again"] == 3
            await sender.flush(http)
            await sender.flush(http)
            assert len(elastic.documents) == 1198 and sender.counts["sent"] == 1198
            (letter,) = dead(tmp_path, "elasticsearch")
            assert "document_parsing_exception" in letter["why"] and "ana@" not in letter["entry"]["body"]
            (one,) = [d for d in elastic.documents.values() if "was used" in d["message"]]
            assert "hunter22" not in one["message"] and masker.unmask(one["message"]) == "token=hunter22 was used"
            assert one["service"]["node"] == {"name": "r1"} and one["host"] == {"name": "h"}
            assert one["log"] == {"file": {"path": "/x"}} and one["@timestamp"] == "2023-11-14T22:13:30.000000Z"

    asyncio.run(story())


def test_a_lost_answer_makes_no_second_document(tmp_path: Path) -> None:
    async def story() -> None:
        elastic = Elastic()
        async with serving("/_bulk", elastic.bulk) as url, httpx.AsyncClient() as http:
            sender = Sender(Bulk("logs"), url, {}, Logs(), tmp_path, lambda e: e)
            for _ in range(2):
                sender.put([entry(n) for n in range(10)])
                await sender.flush(http)
            assert len(elastic.documents) == 10 and sender.counts["dead"] == 0 and sender.counts["sent"] == 20

    asyncio.run(story())


def test_loki_gets_streams_in_order_and_what_is_too_late_is_told_from_the_rest(tmp_path: Path) -> None:
    async def story() -> None:
        loki = Loki()
        async with serving("/loki/api/v1/push", loki.push) as url, httpx.AsyncClient() as http:
            sender = Sender(Push({"site": "hall-1"}), url, {}, Logs(), tmp_path, lambda e: e)
            sender.put([entry(n, at=NOW - n % 7, severity=9 + n % 2 * 8) for n in range(100)])
            sender.put([entry(100, "too late", at=NOW - 8000, severity=9)])
            loki.busy = 1
            assert await sender.flush(http) >= 1.0 and not loki.streams
            await sender.flush(http)
            sender.put([entry(101, "late alone", at=NOW - 9000, severity=9)])
            await sender.flush(http)
            assert {dict(s)["level"] for s in loki.streams} == {"info", "error"}
            assert all(dict(s)["site"] == "hall-1" and dict(s)["job"] == "leptonai" for s in loki.streams)
            assert len({line["message"] for line in loki.lines} - {"too late"}) == 100
            letters = [letter["entry"]["body"] for letter in dead(tmp_path, "loki")]
            assert "late alone" in letters and set(letters) <= {"late alone", "too late"}

    asyncio.run(story())


def test_a_server_that_is_away_costs_the_oldest_and_nobody_waits(tmp_path: Path) -> None:
    async def story() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # bound, not listening: refused at once
            url = f"http://127.0.0.1:{taken.getsockname()[1]}"
            sender = Sender(Bulk("logs"), url, {}, Logs(pending=50), tmp_path, lambda e: e)
            sender.put([entry(n) for n in range(80)])
            assert sender.counts["dropped"] == 30 and len(sender) == 50
            async with httpx.AsyncClient() as http:
                pause = 1.0
                for _ in range(8):
                    pause = await sender.flush(http, pause)
            assert pause == 60.0 and sender.counts["failed"] == 8 and len(sender) == 50

    asyncio.run(story())


def test_a_wrong_token_is_tried_again_and_buries_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async def refuse(request: Request) -> Response:
            return JSONResponse({"error": "unauthorized"}, 401)

        async with serving("/_bulk", refuse) as url, httpx.AsyncClient() as http:
            sender = Sender(Bulk("logs"), url, {}, Logs(), tmp_path, lambda e: e)
            sender.put([entry(1)])
            assert await sender.flush(http) > 1.0
            assert len(sender) == 1 and not list(tmp_path.iterdir())

    asyncio.run(story())


@pytest.mark.parametrize("labels", [{"a-b": "x"}, {"service": "x"}, {"__x": "y"}, {f"l{n}": "x" for n in range(13)}])
def test_labels_that_loki_refuses_are_refused_before(labels: dict[str, str]) -> None:
    with pytest.raises(SpecError, match=r"logs\.loki\.labels"):
        Push(labels)


@given(st.lists(st.builds(entry, st.integers(1, 99), st.text(), at=st.floats(0, 4e9)), min_size=1, max_size=20))
@examples(max_examples=50)
def test_any_line_is_two_lines_of_ndjson(entries: list[LogEntry]) -> None:
    body = Bulk("logs").encode(entries)
    lines = body.split(b"\n")
    assert lines.pop() == b"" and len(lines) == 2 * len(entries)
    assert [json.loads(line)["message"] for line in lines[1::2]] == [e.body for e in entries]
