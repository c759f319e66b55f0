"""Who gets more lessons, a file, a replica: pure. Nobody who could be chosen is left."""

from __future__ import annotations

from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptonai.improve.compress.front import Budget, Candidate
from leptonai.improve.compress.race import MEASURED, REPAIRS, Standing, due, measured, unbeaten, verdict
from leptonai.improve.compress.steps import PRECISIONS

numbers = st.sampled_from([0.0, 1.0, 2.0, 3.0])
standings = st.dictionaries(st.integers(0, 9), st.builds(Standing, numbers, numbers, numbers), min_size=1)


@given(standings)
def test_whoever_is_left_is_beaten_by_somebody_who_stays(found: dict[int, Standing]) -> None:
    """So the smallest, the fastest and the least lossy are always followed."""
    stay = unbeaten(found)
    assert stay
    for k, s in found.items():
        mine, others = s.costs, [found[o].costs for o in stay]
        better = [o for o in others if o != mine and all(a <= b for a, b in zip(o, mine, strict=True))]
        assert (k in stay) != bool(better)


def test_lessons_go_to_those_whom_they_may_help() -> None:
    budget = Budget(loss=0.01)
    found = {"small": Standing(0.10, 10), "good": Standing(0.02, 20), "worse": Standing(0.05, 30)}
    assert [verdict(k, found, budget) for k in found] == ["on", "on", "beaten"]
    unsure = {"good": Standing(0.02, 20), "worse": Standing(0.05, 30, error=0.04)}
    assert verdict("worse", unsure, budget) == "on", "it may be the better one yet"
    assert verdict("same", {"same": Standing(0.0, 9)}, budget) == "enough", "it answers as the original does"
    assert verdict("lucky", {"lucky": Standing(-0.02, 9, error=0.01)}, budget) == "on", "within the budget, by luck"
    twins = {"a": Standing(0.1, 10), "b": Standing(0.1, 10)}
    assert [verdict(k, twins, budget) for k in twins] == ["on", "on"]


def made(name: str, loss: float, size: int = 100) -> Candidate:
    return Candidate(steps=tuple(name.split("+")), file=f"{name}.onnx", size=size, quality=1 - loss, loss=loss)


@pytest.mark.parametrize("name", sorted(REPAIRS))
def test_a_repair_is_tried_where_what_it_repairs_is_broken(name: str) -> None:
    budget, first = Budget(loss=0.01), REPAIRS[name]
    assert PRECISIONS.index(first) < PRECISIONS.index(name), "what is repaired comes first"
    assert not due(name, {first: made(first, 0.0)}, budget, None)
    assert due(name, {first: made(first, 0.02)}, budget, None), "it loses too much"
    assert due(name, {first: Candidate(steps=(first,), error="no such operator")}, budget, None)
    assert due(name, {first: made(first, 0.0)}, budget, [first, name]), "it is asked for by name"
    assert due(first, {}, budget, None)


def test_replicas_are_for_single_steps_and_the_most_promising() -> None:
    single = [made("onnx", 0.0, 1000), made("int8", 0.0, 300)]
    pairs = [made(f"p{i}+int8", 0.001 * (12 - i), 100 + 10 * i) for i in range(12)]
    beaten = made("bad+int8", 0.013, 500)
    seconds = {c.steps: 1.0 for c in (*single, *pairs, beaten)}
    got = measured([*single, *pairs, beaten], seconds, "size")
    assert got == {c.steps for c in single} | {c.steps for c in pairs[:MEASURED]}, "the smallest of those on the front"
    fast = {**seconds, pairs[-1].steps: 0.1}
    assert pairs[-1].steps in measured([*single, *pairs, beaten], fast, "latency")
    assert sqrt(pairs[-1].size * 0.1) < sqrt(pairs[0].size * 1.0)
    assert pairs[-1].steps in measured([*single, *pairs, beaten], fast, "both")
    assert measured([], {}, "both") == {("onnx",)}
