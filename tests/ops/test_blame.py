"""Whose trouble it is: the call graph names who explains it, one trouble is one incident, and its like is found."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from ops_stage import Model, Stage

from leptonai.ops.blame import MOST, around, frame_of, suspects
from leptonai.ops.casebook import Casebook
from leptonai.ops.similar import likeness, similar
from leptonai.platforms.telemetry import Memory
from leptonai.types import Action, Cause, Incident, Signal

START, ONSET, NOW = 1_000.0, 1_400.0, 1_460.0
CALLS = [("front", "back"), ("front", "side"), ("other", "side")]


def told(slow: str, errors: str = "") -> Memory:
    """Seven minutes of four services and a database that ``back`` calls; since ONSET one is slow or fails, and with it
    whoever calls it."""
    dice, store = random.Random(3), Memory()
    hurt = {"db": ("db", "back", "front"), "back": ("back", "front"), "front": ("front",), "": ()}
    for second in range(int(NOW - START)):
        at = START + second
        late = at >= ONSET
        for name, usual in (("front", 0.08), ("back", 0.03), ("side", 0.02), ("other", 0.05)):
            added = 0.2 if late and name in hurt[slow] else 0.0
            failing = 0.3 if late and name in hurt[errors] else 0.0
            values = {
                "latency_p50_seconds": (usual + added) * dice.uniform(0.9, 1.1),
                "error_ratio": failing * dice.uniform(0.8, 1.2),
                "request_rate_per_second": 50.0 * dice.uniform(0.9, 1.1),
            }
            store.write([Signal(name=n, labels={"service": name}, at=at, value=v) for n, v in values.items()])
        spans = {
            "dependency_seconds": (0.01 + (0.2 if late and slow == "db" else 0.0)) * dice.uniform(0.9, 1.1),
            "dependency_error_ratio": 0.3 if late and errors == "db" else 0.0,
        }
        labels = {"service": "back", "dependency": "db"}
        store.write([Signal(name=n, labels=labels, at=at, value=v) for n, v in spans.items()])
    return store


def test_who_is_called_and_slow_is_blamed_and_who_only_waits_is_not() -> None:
    found = suspects(told("back"), [*CALLS, ("back", "db")], "front", ONSET, NOW, errors=False)
    assert found[0].node == "back" and found[0].score > 0.5
    assert any("latency" in sentence for sentence in found[0].evidence)


def test_a_dependency_that_is_not_served_here_is_known_by_the_spans_of_its_callers() -> None:
    found = suspects(told("db"), [*CALLS, ("back", "db")], "front", ONSET, NOW, errors=False)
    assert found[0].node == "db"
    found = suspects(told("", "db"), [*CALLS, ("back", "db")], "front", ONSET, NOW, errors=True)
    assert found[0].node == "db"


def test_a_service_keeps_the_blame_for_what_nobody_below_explains() -> None:
    assert suspects(told("front"), CALLS, "front", ONSET, NOW, errors=False)[0].node == "front"


def test_nothing_is_said_where_nothing_happened_nobody_is_called_or_the_past_is_not_known() -> None:
    store = told("")
    assert suspects(store, CALLS, "front", ONSET, NOW, errors=False) == []
    assert suspects(told("back"), [], "front", ONSET, NOW, errors=False) == []
    assert suspects(told("back"), CALLS, "front", START + 90.0, NOW, errors=False) == []


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), max_size=900))
def test_what_is_around_has_the_target_and_everything_it_calls_until_there_is_no_room(
    pairs: list[tuple[int, int]],
) -> None:
    calls = [(str(a), str(b)) for a, b in pairs]
    near = around(calls, "0")
    assert "0" in near and len(near) <= MOST
    assert all(callee in near for callees in near.values() for callee in callees)
    called = {"0"}
    while fresh := {b for a, b in calls if a in called} - called:
        called |= fresh
    if len(near) < MOST:
        assert called <= near.keys(), "those who call the same are there too, but not all that they call"


def test_a_frame_has_one_column_for_each_node_and_metric() -> None:
    frame = frame_of(told("db"), ("front", "db"), START, NOW)
    assert {(k.service, k.metric) for k in frame.keys} == {
        ("front", "latency"), ("front", "availability"), ("front", "requests"), ("db", "latency"),
        ("db", "availability"),
    }  # fmt: skip


def test_the_trouble_of_a_caller_is_part_of_the_incident_of_what_it_calls(short: Path) -> None:
    async def story() -> None:
        stage = Stage(short)
        try:
            store, dice = stage.watch.store, random.Random(5)
            stage.watch.casebook = Casebook(
                stage.settings, stage.watch.control, store, calls=lambda now: [("front", "back")]
            )
            stage.watch.casebook.doubt = lambda incident: "it is only looked at here"
            for name in ("front", "back"):
                stage.deploy(Model(), name)
                for second in range(400, 0, -1):
                    at = stage.now - second
                    seen = {"latency_p50_seconds": 0.005, "error_ratio": 0.0, "request_rate_per_second": 40.0}
                    store.write(
                        [
                            Signal(name=n, labels={"service": name}, at=at, value=v * dice.uniform(0.9, 1.1))
                            for n, v in seen.items()
                        ]
                    )
            await stage.step(30)
            for model in stage.models.values():
                model.compute = 0.3
            await stage.until(
                lambda: any("part of" in i.evidence[-1].text for i in stage.incidents() if i.evidence), 90
            )
            await stage.step(2)  # the other document follows in its own turn
            by_name = {i.subject.rpartition("/")[2]: i for i in stage.incidents()}
            front, back = by_name["front"], by_name["back"]
            assert front.closed is not None and back.closed is None
            assert any(a.labels.get("service") == "front" for a in back.anomalies)
            assert any(e.kind == "joined" and f"Incident {front.id}" in e.text for e in back.evidence)
            assert any(e.kind == "ranking" and "back" in e.text for e in front.evidence)
            await stage.step(5)
            assert [i.id for i in stage.incidents() if i.closed is None] == [back.id]  # it still feels it there
        finally:
            await stage.close()

    asyncio.run(story())


def past(number: int, features: dict[str, float], verdict: str = "effective") -> Incident:
    return Incident(
        id=number, subject="default/service/a", severity="critical", title="t", began=1.0, opened=1.0, closed=2.0,
        causes=(Cause(name="hung_replica", subject="r", confidence=0.9),), features=features,
        actions=(Action(remedy="evict", proposal="p", at=1.0, verdict=verdict),),
    )  # type: ignore[arg-type]  # fmt: skip


def test_the_most_alike_of_the_past_is_told_with_what_helped() -> None:
    now = {"p50_shift": 3.0, "silent_share": 0.5}
    found = similar(now, [past(1, {"rate_shift": 4.0}), past(2, {"p50_shift": 2.8, "silent_share": 0.5})], 9.0)
    assert [f.data["incident"] for f in found] == [2]
    assert "hung replica" in found[0].text and "evict was effective" in found[0].text
    assert "evict was harmful" in similar(now, [past(3, now, "harmful")], 9.0)[0].text
    assert similar(now, [], 9.0) == []


@given(*[st.dictionaries(st.sampled_from("abcd"), st.integers(-60, 60).map(lambda n: n / 10)) for _ in range(2)])
def test_likeness_is_symmetric_and_whole_only_for_the_same(a: dict[str, float], b: dict[str, float]) -> None:
    assert abs(likeness(a, b) - likeness(b, a)) < 1e-12
    assert -1e-9 <= likeness(a, b) <= 1.0
    if any(a.values()):
        assert likeness(a, a) == 1.0
