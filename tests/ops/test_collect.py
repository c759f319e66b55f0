"""Collecting from real Unix sockets: pages, silence, death, restarts; and the parts that turn text into numbers."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from leptonai.errors import TelemetryError
from leptonai.ops.collect import GATEWAY_PAGE, Collected, Collector
from leptonai.ops.counters import Counters
from leptonai.ops.exposition import parse
from leptonai.ops.http import Gone, Peer, Unanswered
from leptonai.types import Dials, Replica, Service, Slo, Spec, Variant, VariantDials

Answer = Callable[[bytes], Awaitable[bytes | None]]


@contextlib.asynccontextmanager
async def serving(path: Path, answer: Answer) -> AsyncIterator[list[int]]:
    """A server that answers each request with what ``answer`` makes of its path; None: silence. Counts connections."""
    connections: list[int] = []
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        connections.append(1)
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                body = await answer(head.split()[1])
                if body is None:
                    await asyncio.Event().wait()
                assert body is not None
                writer.write(body)
                if b"connection: close" in body:
                    break
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield connections
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0.01)


def ok(body: bytes, more: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), more, body)


def chunked(*parts: bytes) -> bytes:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts)
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


# --- one connection ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (ok(b"hello"), b"hello"),
        (ok(b""), b""),
        (chunked(b"hel", b"lo"), b"hello"),
        (ok(b"hello", b"connection: close\r\n"), b"hello"),
    ],
)
def test_pages_are_read_again_and_again(short: Path, answer: bytes, body: bytes) -> None:
    async def story() -> None:
        async def give(path: bytes) -> bytes:
            return answer

        async with serving(short / "s", give) as connections:
            peer = Peer(f"unix:{short / 's'}")
            for _ in range(3):
                assert await peer.get("/x", 5.0) == body
            assert len(connections) == (3 if b"close" in answer else 1)
            peer.close()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 503 Unavailable\r\ncontent-length: 2\r\n\r\nno", "503"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", "the limit is"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "not HTTP"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "not HTTP"),
    ],
)
def test_what_is_no_good_answer_is_an_error_of_telemetry(short: Path, answer: bytes, error: str) -> None:
    async def story() -> None:
        async def give(path: bytes) -> bytes:
            return answer

        async with serving(short / "s", give):
            peer = Peer(f"unix:{short / 's'}")
            with pytest.raises(TelemetryError, match=error) as e:
                await peer.get("/x", 5.0)
            assert not isinstance(e.value, Gone | Unanswered)
            peer.close()

    asyncio.run(story())


def test_silence_is_told_from_death(short: Path) -> None:
    async def story() -> None:
        async def silent(path: bytes) -> None:
            return None

        peer = Peer(f"unix:{short / 's'}")
        with pytest.raises(Gone):
            await peer.get("/x", 5.0)
        async with serving(short / "s", silent):
            with pytest.raises(Unanswered):
                await peer.get("/x", 0.05)
        with pytest.raises(Gone):
            await peer.get("/x", 5.0)

    asyncio.run(story())


# --- text to numbers -----------------------------------------------------------------------------------------------


def test_a_page_of_the_reference_implementation_is_read_as_it_is_meant() -> None:
    registry = CollectorRegistry()
    Counter("requests", "x", ["code"], registry=registry).labels(code='5"0\\0\n').inc(3)
    Gauge("in_flight", "x", registry=registry).set(float("inf"))
    times = Histogram("compute_seconds", "x", buckets=(0.1, 1.0), registry=registry)
    for value in (0.05, 0.5, 5.0):
        times.observe(value)
    found = {(n, tuple(labels.items())): v for n, labels, v in parse(generate_latest(registry).decode())}
    assert found["requests_total", (("code", '5"0\\0\n'),)] == 3
    assert found["in_flight", ()] == math.inf
    assert [found["compute_seconds_bucket", (("le", le),)] for le in ("0.1", "1.0", "+Inf")] == [1, 2, 3]
    assert found["compute_seconds_sum", ()] == 5.55


@given(st.text(max_size=300))
def test_no_text_breaks_the_parser(text: str) -> None:
    for name, _, value in parse(text):
        assert isinstance(name, str) and isinstance(value, float)


@given(st.lists(st.lists(st.integers(0, 100), max_size=10), max_size=5))
def test_counters_add_up_over_restarts(lives: list[list[int]]) -> None:
    """Whatever increments a process made before each restart, the rises add up to all that was seen to happen."""
    counters = Counters()
    counters.rise([("x", 0.0)])
    total = seen = 0.0
    for life in lives:
        value, last = 0.0, 0.0
        for step in life:
            value += step
            seen += counters.rise([("x", value)])["x"]
            last = value
        total += last
    # A restart that has already counted past the old value cannot be told from a rise: it is counted less, never more.
    assert seen <= total


def test_a_counter_that_fell_rose_by_what_it_shows() -> None:
    counters = Counters()
    assert counters.rise([("x", 7.0)]) == {}
    assert counters.rise([("x", 10.0), ("y", 2.0)]) == {"x": 3.0, "y": 2.0}
    assert counters.rise([("x", 4.0)]) == {"x": 4.0}


# --- the collector -------------------------------------------------------------------------------------------------

SERVICE = Service(
    spec=Spec(name="digits", variants=(Variant(model="sha256:" + "0" * 64),), slo=Slo(latency=0.1)),
    dials=Dials(variants={"main": VariantDials(replicas=1)}),
    revision=1,
)


def replica(path: Path, **more: Any) -> Replica:
    known = {"service": "digits", "variant": "main", "digest": "d", "state": "ready", "since": 0.0}
    return Replica(**({"id": path.name, "address": f"unix:{path}"} | known | more))


def values(found: Collected, **labels: str) -> dict[str, float]:
    return {s.name: s.value for s in found.signals if labels.items() <= s.labels.items()}


def page(requests: float, errors: float, compute: float, cpu: float) -> bytes:
    return (
        f'leptonai_requests_total{{code="200"}} {requests}\nleptonai_requests_total{{code="500"}} {errors}\n'
        f"leptonai_compute_seconds_sum {compute}\nleptonai_compute_seconds_count {requests + errors}\n"
        f"process_resident_memory_bytes 5e7\nprocess_cpu_seconds_total {cpu}\nleptonai_in_flight 2\n"
    ).encode()


@pytest.mark.parametrize(
    ("ran", "waited", "share"),
    [(0.5, 1.5, 0.75), (1.0, 0.0, 0.0), (0.01, 0.02, None)],  # an idle one says nothing
)
def test_the_share_of_the_time_in_which_a_replica_waits_for_a_processor(
    short: Path, ran: float, waited: float, share: float | None
) -> None:
    async def story() -> None:
        times = [(5.0, 3.0), (5.0 + ran, 3.0 + waited)]

        async def give(path: bytes) -> bytes:
            text = "process_cpu_seconds_total {}\nprocess_cpu_wait_seconds_total {}\n"
            return ok(text.format(*times[0]).encode())

        async with serving(short / "r1", give):
            collector, one = Collector(timeout=5.0), replica(short / "r1")
            await collector.collect([SERVICE], [one], (), 100.0)
            times.pop(0)
            found = values(await collector.collect([SERVICE], [one], (), 102.0), replica="r1")
            assert found.get("replica_cpu_wait_ratio") == share
            collector.close()

    asyncio.run(story())


def test_the_signals_of_a_replica(short: Path) -> None:
    async def story() -> None:
        shown = [page(10, 0, 1.0, 1.0), page(40, 10, 5.0, 1.5), page(5, 0, 0.5, 0.1)]

        async def give(path: bytes) -> bytes:
            assert path == b"/metrics"
            return ok(shown[0])

        async with serving(short / "r1", give):
            collector, one = Collector(timeout=5.0), replica(short / "r1")
            first = values(await collector.collect([SERVICE], [one], (), 100.0), replica="r1")
            assert first == {"replica_rss_bytes": 5e7, "replica_in_flight_count": 2.0}  # nothing to compare with yet
            shown.pop(0)
            found = await collector.collect([SERVICE], [one], (), 102.0)
            assert values(found, replica="r1", digest="d", service="digits") == {
                "replica_rss_bytes": 5e7,
                "replica_in_flight_count": 2.0,
                "replica_cpu_ratio": 0.25,
                "replica_request_rate_per_second": 20.0,
                "replica_error_ratio": 0.25,
                "replica_compute_seconds": 0.1,
                "replica_service_seconds": 0.1,
                "replica_concurrency_count": 0.0,
            }
            assert found.answered == {"r1": 40.0} and values(found, service="digits")["ready_count"] == 1.0
            shown.pop(0)  # the process was started anew
            again = values(await collector.collect([SERVICE], [one], (), 103.0), replica="r1")
            assert again["replica_request_rate_per_second"] == 5.0 and again["replica_compute_seconds"] == 0.1
            collector.close()

    asyncio.run(story())


def test_a_silent_replica_is_counted_and_a_dead_one_is_not(short: Path) -> None:
    async def story() -> None:
        quiet = False

        async def give(path: bytes) -> bytes | None:
            return None if quiet else ok(page(1, 0, 0, 0))

        collector = Collector(timeout=0.5)
        replicas = [replica(short / "r1"), replica(short / "dead")]
        async with serving(short / "r1", give):
            await collector.collect([SERVICE], replicas, (), 100.0)
            quiet = True
            assert (await collector.collect([SERVICE], replicas, (), 101.0)).unanswered == {}  # one late answer
            assert (await collector.collect([SERVICE], replicas, (), 102.0)).unanswered == {"r1": 2.0}
            quiet = False
            assert (await collector.collect([SERVICE], replicas, (), 103.0)).unanswered == {}
        for now in (104.0, 105.0, 106.0):
            assert (await collector.collect([SERVICE], replicas, (), now)).unanswered == {}
        collector.close()

    asyncio.run(story())


def gateway(ok_: int, failed: int, fast: int, slow: int) -> bytes:
    cluster = 'envoy_cluster_name="digits@main"'
    times = [("50", fast), ("100", fast), ("250", fast + slow), ("+Inf", fast + slow)]
    lines = [f'envoy_cluster_upstream_rq_time_bucket{{{cluster},le="{le}"}} {n}' for le, n in times]
    lines += [f'envoy_cluster_upstream_rq_xx{{envoy_response_code_class="2",{cluster}}} {ok_}']
    lines += [f'envoy_cluster_upstream_rq_xx{{envoy_response_code_class="5",{cluster}}} {failed}']
    return "\n".join(lines).encode()


def test_what_users_see_comes_from_the_gateway(short: Path) -> None:
    async def story() -> None:
        shown = [gateway(100, 0, 100, 0), gateway(175, 25, 150, 50), gateway(175, 25, 150, 50)]

        async def give(path: bytes) -> bytes:
            assert path == GATEWAY_PAGE.encode()
            return chunked(shown.pop(0))

        async with serving(short / "g", give):
            collector, admin = Collector(timeout=5.0), str(short / "g")  # a bare path, as the platform describes it
            await collector.collect([SERVICE], [], [admin], 100.0)
            found = await collector.collect([SERVICE], [], [admin], 102.0)
            seen = values(found, service="digits")
            assert found.gateway and seen["request_rate_per_second"] == 50.0 and seen["error_ratio"] == 0.25
            assert seen["slow_ratio"] == pytest.approx(0.5) and seen["latency_p50_seconds"] == pytest.approx(0.05)
            assert found.traffic["digits"].requests == 100 and found.traffic["digits"].errors == 25
            assert found.traffic["digits"].slow == pytest.approx(50)
            idle = values(await collector.collect([SERVICE], [], [admin], 103.0), service="digits")
            assert idle["request_rate_per_second"] == 0.0 and "error_ratio" not in idle  # nothing is not zero errors
            collector.close()
        gone = await collector.collect([SERVICE], [], [admin], 104.0)
        assert not gone.gateway and gone.traffic == {}

    asyncio.run(story())


def test_one_of_two_gateways_that_misses_a_look_invents_no_requests(short: Path) -> None:
    """Each carries 50 a second. What the silent one tells later is of two seconds, and counts as such."""

    async def story() -> None:
        totals = {"a": 0, "b": 0}
        silent = False

        def giving(name: str) -> Answer:
            async def give(path: bytes) -> bytes:
                if name == "a" and silent:
                    return b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"
                return ok(gateway(totals[name], 0, totals[name], 0))

            return give

        collector, rates, counts = Collector(timeout=5.0), [], []
        async with serving(short / "a", giving("a")), serving(short / "b", giving("b")):
            for look in range(5):
                silent = look == 2
                found = await collector.collect([SERVICE], [], [str(short / "a"), str(short / "b")], 100.0 + look)
                rates.append(values(found, service="digits").get("request_rate_per_second"))
                counts.append(found.traffic["digits"].requests if found.traffic else None)
                totals = {name: total + 50 for name, total in totals.items()}
            collector.close()
        assert counts == [None, 100, 50, 150, 100], "every answer counts once, when it is told"
        assert rates == [None, 100, 50, 100, 100]

    asyncio.run(story())


def test_a_service_at_zero_costs_nothing_until_somebody_asks(short: Path) -> None:
    """Its zeros are told once; then it has no signals, until the gateway has seen a request for it."""
    asleep = msgspec.structs.replace(SERVICE, dials=Dials(variants={"main": VariantDials(replicas=0)}))

    async def story() -> None:
        shown = [gateway(*row) for row in ((0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0), (0, 5, 5, 0), (0, 5, 5, 0))]

        async def give(path: bytes) -> bytes:
            return chunked(shown.pop(0))

        async with serving(short / "g", give):
            collector, admin = Collector(timeout=5.0), str(short / "g")

            async def look(service: Service, at: float) -> Collected:
                return await collector.collect([service], [], [admin], at)

            assert values(await look(SERVICE, 100.0), service="digits") == {"ready_count": 0.0, "starting_count": 0.0}
            told = await look(asleep, 101.0)
            assert told.resting == frozenset()
            assert values(told, service="digits") == {
                "ready_count": 0.0,
                "starting_count": 0.0,
                "request_rate_per_second": 0.0,
            }
            rests = await look(asleep, 102.0)
            assert rests.resting == {"digits"} and not values(rests, service="digits") and rests.traffic == {}
            asked = await look(asleep, 103.0)
            assert asked.resting == frozenset() and asked.traffic["digits"].errors == 5
            assert values(asked, service="digits")["error_ratio"] == 1.0
            assert (await look(asleep, 104.0)).resting == {"digits"}
            collector.close()

    asyncio.run(story())
