"""Signals of one step of a log."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from leptonai.ops.logs import Rates, log_signals
from leptonai.ops.logs import series as room

LABELS = {"service": "digits"}


def run(steps: list[list[int]]) -> list[dict[str, float]]:
    """What each step said, without the counts per template."""
    past, said = Rates(), []
    for now, ids in enumerate(steps):
        signals, past = log_signals(past, ids, LABELS, float(now))
        assert {s.at for s in signals} == {float(now)}
        said.append({s.name: s.value for s in signals if "template" not in s.labels})
    return said


def test_a_new_template_is_said_once_and_not_while_the_log_is_new() -> None:
    said = run([[1, 2]] * 60 + [[1, 2, 3]] + [[1, 2, 3]])
    assert [s["log_new_template_count"] for s in said] == [0.0] * 60 + [1.0, 0.0]


def test_a_rate_that_changes_is_said_up_and_down() -> None:
    quiet = [[1] * 10 + [2]] * 120
    assert all(s["log_rate_change_count"] == 0 for s in run(quiet))
    assert run([*quiet, [1] * 60 + [2]])[-1]["log_rate_change_count"] == 1
    assert run([*quiet, [2]])[-1]["log_rate_change_count"] == 0  # ten missing lines happen by chance: p is about 1e-4
    assert run([[1] * 40] * 120 + [[]])[-1]["log_rate_change_count"] == 1


@given(st.lists(st.lists(st.integers(1, 200), max_size=20), max_size=20))
def test_counts_per_template_add_up_to_the_lines(steps: list[list[int]]) -> None:
    past = Rates()
    for now, ids in enumerate(steps):
        signals, past = log_signals(past, ids, LABELS, float(now))
        counts = [s for s in signals if s.name == "log_template_count"]
        assert sum(s.value for s in counts) == len(ids)
        assert len(counts) <= room.SHOWN + 1
        assert len({s.labels["template"] for s in counts}) == len(counts)
