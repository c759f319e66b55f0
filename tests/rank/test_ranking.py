"""Small graphs, one table: who must come first, and who never."""

from __future__ import annotations

import numpy as np
import pytest
from stage import World

from leptonai.ops.rank import Key, rank

CHAIN = {"a": ["b"], "b": ["c"], "c": ["d"]}
FAN = {"a": ["b", "c", "d"]}
CASES = {
    "the end of a chain": (World(CHAIN, {"a": 20, "b": 20, "c": 20, "d": 20}), ["d"]),
    "the middle of a chain": (World(CHAIN, {"a": 20, "b": 20}), ["b"]),
    "the target itself": (World(CHAIN, {"a": 20}), ["a"]),
    "one of many callees": (World(FAN, {"a": 20, "c": 20}), ["c"]),
    "a proxy gives way to what it fronts": (
        World({"a": ["p"], "p": ["s"], "s": ["t"]}, {"a": 9, "p": 9, "s": 9}),
        ["s"],
    ),
    "two faults, both first": (World(FAN, {"a": 40, "b": 20, "d": 20}), ["b", "d"]),
    "a cycle": (World({"a": ["b"], "b": ["c"], "c": ["b", "d"]}, {"a": 20, "b": 20, "c": 20, "d": 20}), ["d"]),
    "a cycle of equals": (World({"a": ["b"], "b": ["c"], "c": ["b"]}, {"a": 20, "b": 20, "c": 20}), ["b", "c"]),
    "a callee slower than its caller shows": (World(FAN, {"a": 5, "b": 30}), ["b"]),
    "trouble that nobody calls": (World(CHAIN | {"x": ["y"]}, {"a": 20, "b": 20, "x": 90, "y": 90}), ["b"]),
    "the better explained share": (World(FAN, {"a": 30, "b": 4, "c": 26}), ["c", "b"]),
    "few calls, much latency: not the cause": (
        World(FAN, {"a": 20, "b": 60, "c": 20}, requests={"b": 5.0}),
        ["c"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_cause_comes_first(name: str) -> None:
    world, first = CASES[name]
    found = [s.node for s in world.suspects("a")]
    assert set(found[: len(first)]) == set(first)


@pytest.mark.parametrize("name", CASES)
def test_scores_fall_and_sum_to_one_at_most(name: str) -> None:
    scores = [s.score for s in CASES[name][0].suspects("a")]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) <= 1 + 1e-9


def test_failures_are_followed_like_seconds() -> None:
    assert World(CHAIN, failing={"a": 5, "b": 5, "c": 5}).suspects("a", "availability")[0].node == "c"


def test_a_callee_that_is_slow_explains_failures_its_caller_alone_has() -> None:
    world = World(FAN, added={"a": 20, "c": 500}, failing={"a": 30})
    first = world.suspects("a", "availability")[0]
    assert (first.node, first.metric) == ("c", "latency")


def test_a_dependency_that_is_gone_is_blamed_for_what_nothing_else_explains() -> None:
    first = World(FAN, failing={"a": 30}, missing=("b",)).suspects("a", "availability")[0]
    assert (first.node, first.metric) == ("b", "requests")


def test_a_dependency_that_is_gone_is_not_blamed_for_what_something_else_explains() -> None:
    world = World(FAN, failing={"a": 30, "c": 30}, missing=("b",))
    assert world.suspects("a", "availability")[0].node == "c"


def test_a_surge_is_followed_to_where_it_comes_in() -> None:
    world = World({"a": ["s"], "x": ["s"]}, {"a": 20, "s": 20}, asked={"x": 300, "s": 300}, requests={"s": 200})
    first = world.suspects("a")[0]
    assert (first.node, first.metric) == ("x", "requests")


def test_normal_data_have_no_suspects() -> None:
    assert sum(bool(World(CHAIN, seed=seed).suspects("a")) for seed in range(40)) <= 2


def test_evidence_says_what_changed_when_and_how_it_gets_to_the_target() -> None:
    first = World(CHAIN, {"a": 20, "b": 20, "c": 20}).suspects("a")[0]
    assert "latency Average went from 10" in first.evidence[0]
    assert "at 1970-01-01 00:15:00 UTC" in first.evidence[0]
    assert first.evidence[-1] == "reached by a -> b -> c"


def test_a_window_that_begins_in_the_trouble_is_told_against_normal_times() -> None:
    """All rows are in trouble and it grows a little: what grows is no measure of whose the trouble is."""
    window, normal, graph = World(CHAIN, {"a": 20, "b": 20, "c": 20}, onset=0).frames()
    normal.values[50, normal.column[Key("a", "latency", "Average")]] += 100.0  # more than the trouble, for one row
    for node in "abc":
        at = window.column[Key(node, "latency", "Average")]
        window.values[3:, at] += 4.0 if node == "a" else 0.0
    assert rank(window, normal, graph, Key("a", "latency", "Average"))[0].node == "c"


def test_levels_that_drifted_since_the_normal_data_are_no_trouble() -> None:
    world = World(FAN, {"a": 10, "c": 10})
    window, normal, graph = world.frames()
    for node in "ab":  # slower all along
        window.values[:, window.column[Key(node, "latency", "Average")]] += 8.0
    assert rank(window, normal, graph, Key("a", "latency", "Average"))[0].node == "c"


def test_who_fails_before_it_calls_anybody_is_blamed_and_not_those_it_does_not_call() -> None:
    calls = {"x": ["a"], "a": ["b", "c", "d"]}
    world = World(calls, failing={"x": 80, "a": 80}, missing=("b", "c", "d"))
    assert world.suspects("x", "availability")[0].node == "a"


def test_a_count_that_is_missing_is_not_a_row_without_calls() -> None:
    world = World(FAN, {"a": 20, "b": 3, "c": 17})
    window, normal, graph = world.frames()
    whole = rank(window, normal, graph, Key("a", "latency", "Average"))
    window.values[4:, window.column[Key("c", "requests", "Sum")]] = np.nan
    found = rank(window, normal, graph, Key("a", "latency", "Average"))
    assert [s.node for s in found[:2]] == [s.node for s in whole[:2]] == ["c", "b"]
    assert found[0].score == pytest.approx(whole[0].score, abs=0.03)
