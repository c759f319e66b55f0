"""What the edge shows becomes signals of its services; real sockets, pages as the edge writes them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

from test_collect import Answer, ok, serving

from leptonai.ops.edge import Edge

ZERO = 'leptonai_edge_held{service="s1",variant="main"} 0\n'


def page(held: int, **outcomes: int) -> str:
    lines = ["# TYPE leptonai_edge_held gauge", ZERO, f'leptonai_edge_held{{service="s0",variant="main"}} {held}']
    lines += [
        f'leptonai_edge_requests_total{{service="s0",variant="main",outcome="{outcome}"}} {count}'
        for outcome, count in outcomes.items()
    ]
    return "\n".join(lines) + "\n"


def test_what_the_edge_did_is_told_per_second_and_its_end_too(short: Path) -> None:
    shown = ""

    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(shown)}\r\n\r\n{shown}".encode())
        writer.close()
        await writer.wait_closed()
        ended.set()

    async def story() -> None:
        nonlocal shown
        edge = Edge(short, timeout=5.0)
        assert await edge.signals(99.0) == [], "there is no edge"
        (short / "edge.json").write_text(json.dumps({"socket": str(short / "e")}))
        assert await edge.signals(99.5) == [], "it does not answer"
        server = await asyncio.start_unix_server(serve, short / "e")

        async def look(at: float) -> dict[str, float]:
            found = await edge.signals(at)
            assert all(s.labels == {"service": "s0"} and s.at == at for s in found)
            return {s.name: s.value for s in found}

        shown = page(0, stale=100)
        assert await look(100.0) == {}, "what it did before is not news"
        shown = page(3, stale=120, full=4, timed_out=2, forwarded=9)
        assert await look(102.0) == {"held_count": 3, "stale_answers_per_second": 10, "held_refused_per_second": 3}
        shown = page(0, stale=120, full=4, timed_out=2, forwarded=9)
        assert await look(103.0) == {"held_count": 0, "stale_answers_per_second": 0, "held_refused_per_second": 0}
        assert await look(104.0) == {}
        shown = page(0, stale=5)  # another edge, which counts from zero
        assert await look(105.0) == {"stale_answers_per_second": 5}
        edge.close()
        await asyncio.wait_for(ended.wait(), 10)
        server.close()

    asyncio.run(story())


def test_one_of_two_edges_that_misses_a_look_invents_nothing(short: Path) -> None:
    """Each gives 10 stale answers a second. What the silent one tells later is of two seconds, and counts as such."""

    async def story() -> None:
        given, silent = 0, False

        def giving(name: str) -> Answer:
            async def give(path: bytes) -> bytes:
                if name == "a" and silent:
                    return b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"
                return ok(page(0, stale=given).encode())

            return give

        (short / "edge.json").write_text(json.dumps({"sockets": [str(short / "a"), str(short / "b")]}))
        edge, seen = Edge(short, timeout=5.0), []
        async with serving(short / "a", giving("a")), serving(short / "b", giving("b")):
            for look in range(5):
                silent = look == 2
                seen.append([s.value for s in await edge.signals(100.0 + look)])
                given += 10
            edge.close()
        assert seen == [[], [20], [10], [20], [20]]

    asyncio.run(story())
