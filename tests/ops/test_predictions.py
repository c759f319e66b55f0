"""Prediction logs followed through rotation, and labels joined to what was predicted."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptonai.ops.outcomes import Outcomes, Prediction, matches
from leptonai.ops.predictions import Follower
from leptonai.runtime.predictions import PredictionLog
from leptonai.types import Feedback, Replica

R1 = Replica(id="r1", service="digits", variant="main", digest="d", state="ready", since=0.0)


def said(about: str, label: Any, at: float = 0.0) -> Feedback:
    return Feedback(about=about, by="ana", at=at, label=label)


def folder(home: Path) -> Path:
    made = home / "r1" / "predictions"
    made.mkdir(parents=True, exist_ok=True)
    return made


def line(id: str, output: Any = (1,), **more: Any) -> str:
    return json.dumps({"id": id, "at": 1.0, "digest": "d", "seconds": 0.1, "code": 200, "output": output} | more) + "\n"


def test_every_line_of_the_real_log_is_read_once_through_rotation(tmp_path: Path) -> None:
    """The runtime's own writer, rotating every few lines, against the follower looking at any moment."""
    log = PredictionLog(folder(tmp_path), limit=8192, digest="d")
    follower, outcomes = Follower(tmp_path), Outcomes()
    read = 0
    for part in range(40):
        for i in range(10):
            log.add(f"{part}-{i}".encode(), at=1.0, seconds=0.1, code=200, output=[i])
        log._flush()
        read += follower.read([R1], outcomes)
    assert log.dropped == 0 and len(list(folder(tmp_path).iterdir())) <= 2
    assert read == 400 and follower.unreadable == 0
    outcomes.labelled([said(f"{part}-{i}", i) for part in range(40) for i in range(10)], now=0.0)
    assert outcomes.tally("digits") == {"d": (400, 0)}


def test_half_a_line_waits_for_its_end(tmp_path: Path) -> None:
    path, whole = folder(tmp_path) / "1.jsonl", line("a")
    follower, outcomes = Follower(tmp_path), Outcomes()
    path.write_text(whole[:20])
    assert follower.read([R1], outcomes) == 0
    with path.open("a") as file:
        file.write(whole[20:])
    assert follower.read([R1], outcomes) == 1 and follower.unreadable == 0


def test_what_is_no_prediction_is_counted_and_passed_over(tmp_path: Path) -> None:
    text = "not json\n" + line("a") + '{"id": 3}\n' + line("failed", code=500) + line("b")
    (folder(tmp_path) / "1.jsonl").write_text(text)
    follower = Follower(tmp_path)
    assert follower.read([R1], Outcomes()) == 2 and follower.unreadable == 2


def test_links_and_pipes_of_a_replica_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_text(line("a"))
    (folder(tmp_path) / "1.jsonl").symlink_to(tmp_path / "secret.jsonl")
    os.mkfifo(folder(tmp_path) / "2.jsonl")
    follower = Follower(tmp_path)
    assert follower.read([R1], Outcomes()) == 0


def test_a_file_cut_short_is_read_anew(tmp_path: Path) -> None:
    path = folder(tmp_path) / "1.jsonl"
    path.write_text(line("a") + line("b"))
    follower, outcomes = Follower(tmp_path), Outcomes()
    assert follower.read([R1], outcomes) == 2
    path.write_text(line("c"))
    assert follower.read([R1], outcomes) == 1


@pytest.mark.parametrize(
    ("label", "output", "same"),
    [
        (3, [3], True),
        (3, [3.0, 0.1], True),
        (3, [4], False),
        (0.1 + 0.2, [0.3], True),
        (0.3, [0.31], False),
        ("cat", ["cat", "dog"], True),
        ("cat", ["dog"], False),
        ("3", [3], False),
        (3, ["3"], False),
        ([1, 2], [1, 2, 3], True),
        ([1, 2], [1, 3], False),
        ([1, 2, 3], [1, 2], False),
        ([[1, 2]], [1, 2], True),
        (True, [1], True),
        (1, [], False),
        ([], [1], False),
        (1, None, False),
        (float("nan"), [float("nan")], False),
        (7, 7, True),
    ],
)
def test_what_a_label_says(label: Any, output: Any, same: bool) -> None:
    assert matches(label, output) is same


def test_a_label_may_come_before_the_line() -> None:
    outcomes = Outcomes(patience=10.0)
    outcomes.labelled([said("a", 1), said("never", 1)], now=100.0)
    outcomes.predicted("a", Prediction("digits", "d", 100.0, 0.1, [2]))
    assert outcomes.tally("digits") == {"d": (1, 1)}
    outcomes.expire(109.0)
    assert outcomes.dropped == 0
    outcomes.expire(110.0)
    assert outcomes.dropped == 1


def test_one_prediction_is_judged_once() -> None:
    """Repeating a label cannot multiply the evidence against a revision."""
    outcomes = Outcomes()
    outcomes.predicted("a", Prediction("digits", "d", 1.0, 0.1, [2]))
    outcomes.labelled([said("a", 1)] * 5, now=1.0)
    assert outcomes.tally("digits") == {"d": (1, 1)}


def test_ratings_and_words_about_incidents_are_no_labels() -> None:
    outcomes = Outcomes()
    outcomes.labelled([Feedback(about="a", by="x", at=0.0, rating=5.0), said("incident:3", 1)], now=0.0)
    outcomes.expire(1e9)
    assert outcomes.dropped == 0


@given(st.lists(st.tuples(st.sampled_from("pl"), st.integers(0, 30), st.booleans()), max_size=200))
def test_memory_is_bounded_whatever_comes(steps: list[tuple[str, int, bool]]) -> None:
    """No flood of predictions or labels grows the index, and every join is of a prediction that was made."""
    outcomes = Outcomes(predictions=5, waiting=4, patience=3.0)
    made = 0
    for now, (kind, id, wrong) in enumerate(steps):
        if kind == "p":
            outcomes.predicted(str(id), Prediction("digits", "d", now, 0.1, [1 + wrong]))
            made += 1
        else:
            outcomes.labelled([said(str(id), 1)], now)
        outcomes.expire(now)
        assert len(outcomes._by_id) <= 5 and len(outcomes._waiting) <= 4
    assert outcomes.tally("digits").get("d", (0, 0))[0] <= made
