"""Spans of our own requests, what is kept of them, and who called whom."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from leptonai.ops.predictions import Line
from leptonai.ops.trace.assemble import HELD, SETTLE, Access, Assembler
from leptonai.ops.trace.graph import call_graph
from leptonai.ops.trace.ids import trace_of, traceparent
from leptonai.ops.trace.store import TraceStore
from leptonai.ops.trace.tail import Tail
from leptonai.settings import Traces
from leptonai.types import Replica, Span

NOW = 1_700_000_000.0
REQUEST = "0b7c9b6e-41d3-4b1e-9d4e-9a0c2f3e4d5a"
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
REPLICA = Replica(id="r1", service="team/digits", variant="main", digest="d1", state="ready", since=0.0)


def line(seconds: float = 0.02, code: int = 200, id: str = REQUEST, trace: str = "") -> Line:
    return Line(
        id=id, at=NOW, digest="d1", seconds=seconds, code=code, trace=trace, queue=0.004, wait=0.001, compute=0.012
    )


def access(code: int = 200, trace: str = "", **more: object) -> Access:
    return Access(
        id=REQUEST, at=NOW - 0.025, ms=25.0, code=code, cluster="team.digits@main", method="POST", trace=trace,
        path="/workspaces/team/services/digits/predict", **more,  # type: ignore[arg-type]
    )  # fmt: skip


def seen(*things: Access | Line) -> list[Span]:
    assembler = Assembler(lambda key: 0.25)
    for thing in things:
        if isinstance(thing, Access):
            assembler.passed(thing, NOW)
        else:
            assembler.answered(REPLICA, thing, NOW)
    assert assembler.finished(NOW + SETTLE / 2) == []
    found = assembler.finished(NOW + HELD + SETTLE)
    assert assembler.finished(NOW + 10 * HELD) == []
    return found


def test_gateway_replica_and_phases_are_one_tree() -> None:
    for order in ((access(), line()), (line(), access())):
        gateway, predict, queue, wait, compute = seen(*order)
        assert {s.trace for s in (gateway, predict, queue, wait, compute)} == {REQUEST.replace("-", "")}
        assert gateway.parent == "" and predict.parent == gateway.id
        assert [s.parent for s in (queue, wait, compute)] == [predict.id] * 3
        assert [s.name for s in (queue, wait, compute)] == ["queue", "batch wait", "compute"]
        assert predict.start <= queue.start <= wait.start <= compute.start
        assert compute.start + compute.seconds <= predict.start + predict.seconds + 1e-6
        assert gateway.attributes["leptonai.service"] == "team/digits" and gateway.workspace == "team"


def test_a_traceparent_is_continued() -> None:
    gateway, predict, *_ = seen(access(trace=PARENT), line(trace=PARENT))
    assert gateway.trace == predict.trace == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert gateway.parent == "00f067aa0ba902b7"


def test_what_failed_or_was_slow_is_kept_whoever_saw_it_and_nothing_else() -> None:
    assert seen(line()) == []
    assert {s.name for s in seen(line(seconds=0.3))} >= {"predict team/digits", "compute"}
    assert seen(line(code=500))[0].failed
    (alone,) = seen(access(code=503))  # no replica answered: the gateway's own word
    assert alone.failed and alone.service == "gateway"
    gone = Access(id="x", at="1700000000.5", us=1500.0, code=503, path="/v2/models/digits/infer")
    assert gone.seconds == 0.0015 and seen(gone)[0].attributes["leptonai.service"] == "digits"


@given(st.text(max_size=80))
def test_any_header_is_a_traceparent_or_none(text: str) -> None:
    found = traceparent(text)
    assert found is None or (len(found[0]) == 32 and len(found[1]) == 16)
    assert len(trace_of(text)) == 32 and trace_of(text) == trace_of(text)


def test_bad_traceparents_are_refused() -> None:
    for bad in (
        "",
        PARENT.upper(),
        PARENT.replace("00-4", "ff-4"),
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        PARENT + "-x",
    ):
        assert traceparent(bad) is None


def span(trace: int, id: int, parent: int = 0, service: str = "a", **more: object) -> Span:
    return Span(
        trace=f"{trace:032x}", id=f"{id:016x}", parent=f"{parent:016x}" if parent else "", name=f"{service}-work",
        service=service, start=NOW + trace, seconds=0.1, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def test_the_store_is_bounded_survives_and_finds(tmp_path: Path) -> None:
    store = TraceStore(Traces(spans=10), tmp_path)
    for t in range(1, 9):
        store.add([span(t, 1, request=f"req-{t}"), span(t, 2, 1, "b", failed=t % 2 == 0)])
    assert len(store) <= 10 and store.trace("req-1") == [] and len(store.trace("req-8")) == 2
    newest, *_ = store.search()
    assert newest.request == "req-8" and newest.services == ("a", "b") and newest.name == "a-work"
    assert all(t.failed for t in store.search(failed=True)) and len(store.search(failed=True)) == 3
    assert store.search(service="c") == [] and store.search(slower_than=9.0) == []
    assert store.search(covers=lambda workspace: False) == []
    store.close()
    with next(tmp_path.glob("*.jsonl")).open("ab") as file:
        file.write(b'{"trace": "torn')
    again = TraceStore(Traces(spans=10), tmp_path)
    assert len(again.trace("req-8")) == 2 and again.counts["unreadable"] == 1
    again.close()


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 5)), max_size=60))
def test_the_store_never_holds_more_than_its_bound_but_for_one_trace(drawn: list[tuple[int, int]]) -> None:
    store = TraceStore(Traces(spans=8))
    for trace, id in drawn:
        store.add([span(trace, id)])
        traces = store.search(limit=100)
        assert len(store) == sum(t.spans for t in traces) and (len(store) <= 8 or len(traces) == 1)


def test_the_graph_counts_calls_between_services_and_to_peers_that_are_silent() -> None:
    spans = [
        span(1, 1, service="shop"),
        span(1, 2, 1, "shop", kind="client"),
        span(1, 3, 2, "pay", failed=True),
        span(1, 4, 3, "pay", kind="client", attributes={"db.system": "postgresql"}),
        span(2, 1, service="shop"),
        span(2, 2, 1, "pay"),
    ]
    graph = call_graph(spans)
    assert [(e.caller, e.callee, e.calls, e.failed) for e in graph.edges] == [
        ("pay", "postgresql", 1, 0),
        ("shop", "pay", 2, 1),
    ]
    assert {n.service: n.spans for n in graph.nodes} == {"pay": 3, "postgresql": 0, "shop": 3}


def test_a_tail_gives_each_line_once_through_a_cut(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    tail = Tail(path)
    assert tail.lines() == []
    path.write_bytes(b"one\ntwo\nthr")
    assert tail.lines() == [b"one", b"two"]
    with path.open("ab") as file:
        file.write(b"ee\n")
    assert tail.lines() == [b"three"] and tail.lines() == []
    path.write_bytes(b"new\n")
    assert tail.lines() == [b"new"]
