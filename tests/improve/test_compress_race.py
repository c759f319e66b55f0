"""Who gets more lessons, a file, a replica: pure. Nobody who could be chosen is left."""

from __future__ import annotations

import time
import weakref
from functools import partial
from math import sqrt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptonai.improve.compress.front import Budget, Candidate
from leptonai.improve.compress.race import (
    MEASURED,
    REPAIRS,
    TOGETHER,
    Standing,
    due,
    measured,
    paced,
    unbeaten,
    verdict,
)
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
    budget = Budget(loss=0.02)
    got = measured([*single, *pairs, beaten], seconds, "size", budget)
    assert got == {c.steps for c in single} | {c.steps for c in pairs[:MEASURED]}, "the smallest of those on the front"
    fast = {**seconds, pairs[-1].steps: 0.1}
    assert pairs[-1].steps in measured([*single, *pairs, beaten], fast, "latency", budget)
    assert sqrt(pairs[-1].size * 0.1) < sqrt(pairs[0].size * 1.0)
    assert pairs[-1].steps in measured([*single, *pairs, beaten], fast, "both", budget)
    assert measured([], {}, "both", budget) == {("onnx",)}


def test_no_replica_goes_to_whom_the_budget_of_size_or_latency_excludes() -> None:
    """Of ten on the front the five that are small enough are the slowest: they alone are measured."""
    ten = [made(f"p{i}+int8", 0.001 * (10 - i), 500 + 25 * i) for i in range(10)]
    seconds = {c.steps: 0.5 / (1 + i) ** 2 for i, c in enumerate(ten)}
    small = {c.steps for c in ten if c.size <= 600}
    assert len(small) == 5
    got = measured([made("onnx", 0.0, 1000), *ten], seconds, "latency", Budget(loss=0.02, size=600))
    assert got == {("onnx",), *small}
    single = made("fp16", 0.0, 400)
    got = measured([single, *ten], {**seconds, ("fp16",): 0.2}, "size", Budget(loss=0.02, latency=0.1))
    assert ("fp16",) not in got and all(seconds[s] <= 0.1 for s in got - {("onnx",)})
    got = measured(ten, seconds, "size", Budget(loss=0.02, latency=1.0))
    assert ten[-1].steps in got and len(got) == MEASURED + 1, "the fastest, though it is the largest"


def test_the_faster_is_not_beaten_by_a_smaller_one_that_is_slower() -> None:
    found = {"fast": Standing(0.10, 20, seconds=1.0), "small": Standing(0.05, 10, seconds=2.0)}
    assert verdict("fast", found, Budget(loss=0.01)) == "on"
    slow = {**found, "fast": Standing(0.10, 20, seconds=2.5)}
    assert verdict("fast", slow, Budget(loss=0.01)) == "beaten"


class Sleeper:
    """A model that takes its time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def predict(self, row: Any) -> dict[str, Any]:
        time.sleep(self.seconds)
        return {}


def test_few_models_are_open_at_once_to_be_timed() -> None:
    alive: weakref.WeakSet[Sleeper] = weakref.WeakSet()
    most = 0

    def opens(seconds: float) -> Any:
        nonlocal most
        one = Sleeper(seconds)
        alive.add(one)
        most = max(most, len(alive))
        return one

    models = {n: partial(opens, 0.004 if n % 3 == 0 else 0.0005) for n in range(3 * TOGETHER)}
    found = paced(models, Sleeper(0.001), {})  # type: ignore[arg-type] # of a Predictor it needs predict alone
    assert most <= 2 * TOGETHER, "those of the group before may go while the next are opened"
    assert min(found[n] for n in found if n % 3 == 0) > max(found[n] for n in found if n % 3)
