"""Model tests: what is asked, what an answer says, and real replicas that are asked beside their users."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_ops_recorded import client, running

from leptonai.ops.diagnose import diagnose
from leptonai.ops.diagnosis.files import shipped_book
from leptonai.ops.evidence import gather
from leptonai.ops.judge import Seen, judge
from leptonai.ops.modeltests import (
    Answer,
    Result,
    Round,
    Rounds,
    finding,
    judged,
    questions,
    same_decision,
    varied,
)
from leptonai.ops.scene import Scene
from leptonai.types import (
    TEST_HEADER,
    Dials,
    Golden,
    ModelTests,
    Replica,
    Revision,
    Scale,
    Service,
    Spec,
    Variant,
    VariantDials,
)

Json = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text("ab ", max_size=4),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.sampled_from(["x", "y"]), part, max_size=2),
    max_leaves=8,
)


@given(Json)
def test_an_answer_is_the_same_decision_as_itself_and_a_test_asks_in_the_same_form(value: Any) -> None:
    """What is varied has the shape it had; whoever is asked in it decides alike."""
    assert same_decision(value, value)
    for kind in ("repeat", "noise", "case", "spaces"):
        assert _shape(varied(value, kind, 0.01, random.Random(0))) == _shape(value)  # type: ignore[arg-type]
    assert varied(value, "repeat", 0.01, random.Random(0)) == value


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _shape(v) for k, v in value.items()}
    return [_shape(v) for v in value] if isinstance(value, list) else type(value)


@pytest.mark.parametrize(
    ("a", "b", "alike"),
    [
        ({"label": [3], "scores": [[0.1, 0.9]]}, {"label": [3], "scores": [[0.4, 0.6]]}, True),
        ({"label": [3]}, {"label": [4]}, False),
        ({"scores": [[0.1, 0.9]]}, {"scores": [[0.9, 0.1]]}, False),
        (1.0, 1.04, True),
        (1.0, 1.2, False),
        ("cat", "dog", False),
        (True, 1, False),
        ([1.0], [1.0, 2.0], False),
    ],
)
def test_decisions(a: Any, b: Any, alike: bool) -> None:
    assert same_decision(a, b) is alike and same_decision(b, a) is alike


TESTS = ModelTests(
    golden=(Golden(inputs={"x": 1.5}, outputs=3.0), Golden(inputs={"x": 2}, outputs=4), Golden(inputs={"t": "a b"})),
    invariances=("repeat", "noise", "spaces"),
    latency=0.05,
)


def test_what_cannot_be_varied_is_not_asked() -> None:
    asked = [(test, number) for test, number, _ in questions(TESTS)]
    assert [n for t, n in asked if t == "golden"] == [0, 1, 2] == [n for t, n in asked if t == "repeat"]
    assert [n for t, n in asked if t == "noise"] == [0], "only numbers with a point move"
    assert [n for t, n in asked if t == "spaces"] == [2]
    assert asked == [(test, number) for test, number, _ in questions(TESTS)], "a round is the same every time"


def test_an_answer_that_never_came_says_nothing_and_a_refusal_of_the_model_does() -> None:
    said = {("golden", 0): Answer(value=3.0, seconds=0.01), ("golden", 2): Answer(error="it answers 500 oh")}
    found = {t.test: t for t in judged(TESTS, said)}
    assert (found["golden"].asked, found["golden"].failed, found["golden"].fails) == (2, 1, True)
    assert found["golden"].text == "example 2: it answers 500 oh" and not found["latency"].fails
    tolerant = msgspec.structs.replace(TESTS, failing=0.5)
    assert not judged(tolerant, said)[0].fails, "half of the examples may fail"
    assert judged(TESTS, {}) == ()


def test_the_median_answer_is_held_against_the_limit() -> None:
    slow = {("golden", n): Answer(value=None, seconds=s) for n, s in ((0, 0.2), (1, 0.07), (2, 0.001))}
    late = judged(TESTS, slow)[-1]
    assert late.test == "latency" and late.fails and not late.wrong
    assert late.text == "the median answer took 70 ms, 50 ms are allowed"


# --- what is made of it ----------------------------------------------------------------------------------------------

OLD, NEW = Variant(model="old"), Variant(model="new")
BAD = (Result(test="golden", asked=9, failed=2, fails=True, text="example 4: output 'label' is [1], should be [2]"),)
GOOD = (Result(test="golden", asked=9, failed=0, fails=False),)


def seen(name: str, variant: Variant, tests: tuple[Result, ...], passed: bool = False) -> Round:
    return Round(replica=name, digest=variant.digest, at=100.0, seconds=0.01, tests=tests, passed=passed)


def scene(rounds: list[Round], age: float = 5.0) -> Scene:
    specs = [Spec(name="s", variants=(v,), scale=Scale(replicas=2)) for v in (OLD, NEW)]
    history = tuple(
        Revision(service="s", number=n, by="human:ana", why="", at=at, spec=spec)
        for n, at, spec in ((1, 0.0, specs[0]), (2, 100.0 - age, specs[1]))
    )
    wish = Service(spec=specs[1], dials=Dials(variants={"main": VariantDials(replicas=2)}), revision=2)
    here = tuple(
        Replica(id=r.replica, service="s", variant="main", digest=r.digest, state="ready", since=90.0) for r in rounds
    )
    return Scene(service=wish, revisions=history, replicas=here, onset=100.0, now=107.0, tested=tuple(rounds))


@pytest.mark.parametrize(
    ("rounds", "age", "cause", "subject"),
    [
        ([seen("a", NEW, BAD), seen("b", NEW, BAD)], 5.0, "bad_revision_wrong_answers", "s#2"),
        ([seen("a", NEW, BAD), seen("b", NEW, GOOD, True)], 5.0, "failing_replica", "a"),
        ([seen("a", NEW, BAD, True)], 3000.0, "failing_replica", "a"),
        ([seen("a", NEW, BAD, True), seen("b", NEW, BAD, True)], 3000.0, "unknown", "s"),
        ([seen("a", NEW, BAD), seen("b", NEW, BAD)], 3000.0, "unknown", "s"),
    ],
)
def test_who_fails_says_what_it_is(rounds: list[Round], age: float, cause: str, subject: str) -> None:
    """All of a fresh revision: it is the revision. One of several: the replica. All, after they had passed: neither."""
    facts = gather(scene(rounds, age))
    first = diagnose(facts, "s", shipped_book())[0]
    assert (first.name, first.subject) == (cause, subject)
    told = [e.text for e in facts.evidence if e.kind == "model_test"]
    assert told and "Model test golden fails on 2 of 9 examples" in told[0] and "should be [2]" in told[0]


def test_a_failing_replica_opens_an_incident_and_one_that_is_gone_does_not() -> None:
    bad, good = seen("a", NEW, BAD), seen("b", NEW, GOOD)
    here = scene([bad, good]).replicas
    triggers, _ = judge(101.0, Seen(service="s", wanted=2, replicas=here, tested=(bad, good)), {})
    assert [(t.kind, t.subject, t.severity) for t in triggers] == [("replica_test", "a", "critical")]
    assert "should be [2]" in triggers[0].terms["golden"]
    gone, _ = judge(101.0, Seen(service="s", wanted=1, replicas=here[1:], tested=(bad, good)), {})
    assert gone == []


def test_a_new_version_is_convicted_by_what_the_old_one_passes() -> None:
    new, old = seen("n", NEW, BAD), seen("o", OLD, GOOD)
    assert finding([old], {"n"}).verdict == "not enough evidence"
    assert finding([new, old], {"n"}).verdict == "convicted"
    assert finding([new, seen("o", OLD, BAD)], {"n"}).verdict == "clear", "no worse than what it replaces"
    assert finding([new, seen("m", NEW, GOOD), old], {"n", "m"}).verdict == "clear", "one of two is no revision"


# --- real replicas ---------------------------------------------------------------------------------------------------


def wish(variant: Variant, tests: ModelTests) -> Service:
    spec = Spec(name="s", variants=(variant,), tests=tests)
    return Service(spec=spec, dials=Dials(variants={"main": VariantDials(replicas=1)}), revision=1)


async def until(tester: Rounds, service: Service, replicas: list[Replica], true: Callable[[], Any]) -> Any:
    end = monotonic() + 60
    while not (found := true()):
        assert monotonic() < end, tester.of("s")
        tester.step([service], replicas, monotonic())
        await asyncio.sleep(0.02)
    return found


def test_replicas_are_asked_beside_their_users_and_nothing_of_it_counts(short: Path) -> None:
    """Golden sets that hold and that do not; and neither metrics nor the prediction log know of any question."""
    golden = tuple(Golden(inputs={"x": x}, outputs={"sum": x + 1}) for x in (1, 2, 3))
    tests = ModelTests(every=1.0, golden=golden, invariances=("repeat",), latency=30.0)
    good, bad = Variant(model="good"), Variant(model="bad")
    with ExitStack() as stack:
        a = stack.enter_context(running(short, good))
        b = stack.enter_context(running(short, bad, add=2))
        sleeping = msgspec.structs.replace(a, id="z", state="starting")

        async def look() -> tuple[Rounds, dict[str, Round]]:
            tester = Rounds(monotonic)
            found = await until(tester, wish(good, tests), [a, b, sleeping], lambda: len(tester.of("s")) == 2)
            assert found
            return tester, {r.replica: r for r in tester.of("s")}

        tester, rounds = asyncio.run(look())
        assert rounds["good"].passed and not rounds["good"].fails
        assert {t.test for t in rounds["good"].tests} == {"golden", "repeat", "latency"}
        (fails,) = rounds["bad"].fails
        assert (fails.test, fails.failed) == ("golden", 3) and "output 'sum' is 3, should be 2" in fails.text
        said = {(s.labels["replica"], s.labels.get("test", "")): s.value for s in tester.signals(5.0)}
        assert said["bad", "golden"] == 1.0 and said["good", "golden"] == 0.0 and said["good", ""] > 0.0
        ((_, kind, detail),) = tester.news()
        assert kind == "model_tests.failed" and "golden at bad" in detail["text"] and not list(tester.news())
        for replica in (a, b):
            with client(replica.address[5:]) as http:
                assert _counted(http) == 0.0
                assert http.post("/predict", json={"x": 1}, headers={TEST_HEADER: "1"}).status_code == 200
                assert http.post("/predict", json={"y": 1}, headers={TEST_HEADER: "1"}).status_code == 400
                assert _counted(http) == 0.0
                assert http.post("/predict", json={"x": 1}).status_code == 200
                assert _counted(http) == 1.0, "a user's request counts"


def _counted(http: httpx.Client) -> float:
    page = http.get("/metrics").text.splitlines()
    names = ("leptonai_requests_total", "leptonai_errors_total", "leptonai_request_seconds_count")
    counts = {n: sum(float(line.rpartition(" ")[2]) for line in page if line.startswith(n)) for n in names}
    assert counts["leptonai_errors_total"] == 0.0
    assert counts["leptonai_request_seconds_count"] == counts["leptonai_requests_total"]
    return counts["leptonai_requests_total"]
