"""The network of drills: what is sent arrives as it was, late if it is far or lossy; moods act on all connections."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptonai.drill.relay import MOST, RTO, Relay


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(1000):
        writer.write(piece)
    writer.close()


def test_what_is_sent_arrives_and_the_mood_acts_on_open_connections() -> None:
    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        relay = Relay(server.sockets[0].getsockname()[1])
        await relay.open()
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        loop = asyncio.get_running_loop()

        async def ask(text: bytes) -> float:
            began = loop.time()
            writer.write(text)
            assert await asyncio.wait_for(reader.readexactly(len(text)), 30) == text
            return loop.time() - began

        await ask(b"one")
        relay.turn("far 0.2")
        assert await ask(b"two") >= 0.4  # there and back
        relay.turn("ok")
        await ask(b"three")
        relay.turn("lossy 1")
        writer.write(b"four")
        with pytest.raises(asyncio.IncompleteReadError):  # nothing ever comes: the connection is broken
            await asyncio.wait_for(reader.readexactly(4), 30)
        writer.close()
        relay.close()
        server.close()

    asyncio.run(main())


def test_a_target_that_is_gone_breaks_the_connection() -> None:
    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        relay = Relay(server.sockets[0].getsockname()[1])
        server.close()
        await server.wait_closed()
        await relay.open()
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await asyncio.wait_for(reader.readexactly(1), 30)
        writer.close()
        relay.close()

    asyncio.run(main())


@given(share=st.floats(0, 1), seed=st.integers(0, 99))
def test_a_lost_piece_is_late_by_whole_repetitions(share: float, seed: int) -> None:
    """Either never, or RTO times 2^n - 1: each repetition waits twice as long as the one before."""
    relay = Relay(0, seed)
    relay.turn(f"lossy {share}")
    late = relay.late()
    assert late is None or any(late == pytest.approx(RTO * (2.0**n - 1.0)) for n in range(MOST + 1))
    assert share > 0 or late == 0.0
    assert share < 1 or late is None
