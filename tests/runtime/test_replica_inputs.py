"""What the prediction log tells of inputs: enough to see drift and to know a poisoned one again, and never a value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptonai.ops.answers import FEWEST, RECENT, Answers
from leptonai.ops.predictions import Line
from leptonai.runtime.inputs import MOST_INPUTS, inputs_seen
from leptonai.runtime.predictions import PredictionLog
from leptonai.types import Replica

KEY = b"sha256:ab"


def told(value: Any) -> Any:
    return (inputs_seen({"x": value}, KEY) or {}).get("x")


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (np.array([[1.0, 2.0], [3.0, np.nan]]), {"shape": [2, 2], "low": 1.0, "high": 3.0, "mean": 2.0, "odd": 1}),
        (np.arange(10_000), {"shape": [10_000], "low": 0.0, "high": 10_000.0, "mean": 5000.0}),
        ([[1, 2], [3, 4]], {"shape": [2, 2], "low": 1.0, "high": 4.0, "mean": 2.5}),
        (4111111111111111, {"shape": [], "low": 4.11e15, "high": 4.11e15, "mean": 4.11e15}),
        (True, {"shape": [], "low": 1.0, "high": 1.0, "mean": 1.0}),
        (np.array(["a", "b"], dtype=object), {"shape": [2]}),
        (["ana@example.com"], {"shape": [1]}),
        ("ana@example.com", {"length": 15}),
        (b"1234", {"length": 4}),
        (np.zeros((0, 3)), {"shape": [0, 3]}),
        ([], {"shape": [0]}),
        ({"name": "ana"}, None),
        (object(), None),
        (None, None),
        (10**400, None),
    ],
)
def test_an_input_is_told_by_its_shape_and_range(value: Any, wanted: Any) -> None:
    found = told(value)
    if found is not None:
        found.pop("hash", None)
    assert found == wanted


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=20))
def test_whatever_an_input_is_what_is_told_of_it_is_small_and_holds_no_text(value: Any) -> None:
    said = json.dumps(inputs_seen({f"name{n}": value for n in range(9)}, KEY) or {})
    assert len(said) < MOST_INPUTS * 300
    names = {"low", "high", "mean", "odd", "hash", "shape", "length"}
    for one in json.loads(said).values():
        assert set(one) <= names


def test_the_same_input_is_known_again_and_another_variant_cannot_tell() -> None:
    assert told(np.arange(5.0)) == told(np.arange(5.0))
    assert told(np.arange(5.0))["hash"] != told(np.arange(5.0) + 1e-9)["hash"]
    other = inputs_seen({"x": np.arange(5.0)}, b"another")
    assert other is not None
    assert told(np.arange(5.0))["hash"] != other["x"]["hash"]


def test_a_share_of_the_requests_is_looked_at_and_those_that_fail_beside_them(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, 1_000_000, "sha256:ab")
    for n in range(1000):
        log.add(b"id%d" % n, 100.0 + n / 1000, 0.01, 500 if n % 10 == 0 else 200, [1], inputs={"x": np.array([n])})
    log._flush()
    lines = [json.loads(line) for path in tmp_path.glob("*.jsonl") for line in path.read_text().splitlines()]
    assert len(lines) == 1000
    seen = [line for line in lines if "input" in line]
    assert 45 <= len([s for s in seen if s["code"] == 200]) <= 51
    assert 45 <= len([s for s in seen if s["code"] == 500]) <= 51
    assert seen[0]["input"]["x"]["shape"] == [1]


def test_inputs_that_are_not_as_before_are_a_signal_and_rubbish_is_passed_over() -> None:
    answers, dice = Answers(), np.random.default_rng(3)
    replica = Replica(id="r1", service="digits", variant="main", digest="d", state="ready", since=0.0, started=0.0)

    def ask(many: int, centre: float) -> None:
        for _ in range(many):
            row = dice.normal(centre, 1.0, 16)
            line = Line(id="a", at=1.0, digest="d", input=inputs_seen({"text": "x", "x": row}, KEY))
            answers.saw(replica, line)

    def shift() -> float:
        return {s.name: s.value for s in answers.signals(1.0)}["input_shift_ratio"]

    for rubbish in (None, 3, {"x": 3}, {"x": {"mean": "1", "low": 0, "high": 1}}, {"x": {"mean": float("nan")}}):
        answers.saw(replica, Line(id="a", at=1.0, digest="d", input=rubbish))
    assert answers.signals(1.0) == []
    ask(RECENT + FEWEST + 200, 0.0)
    assert shift() < 0.3
    ask(RECENT, 1.5)
    assert shift() > 0.9
