"""Budgets, the front, the choice, the costs: pure."""

from math import nan

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptonai.errors import SpecError
from leptonai.improve.compress.front import Budget, Candidate, budget, front, gain, outcome, pick, within
from leptonai.improve.compress.replica import cost
from leptonai.improve.compress.search import parts
from leptonai.improve.evaluate.rows import Rows

ORIGINAL = Candidate(size=1000, quality=0.9, loss=0.0, median=1.0, p99=2.0, speedup=1, speedup_low=1, speedup_high=1)


def made(name: str, size: int, loss: float, speed: float, low: float = 0.0, error: float = 0.0) -> Candidate:
    return Candidate(
        steps=(name,), size=size, quality=0.9 - loss, loss=loss, error_of_loss=error, median=1 / speed, p99=2 / speed,
        speedup=speed, speedup_low=low or speed * 0.9, speedup_high=speed * 1.1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("accuracy=0.5%", Budget(loss=0.005)),
        ("accuracy=0.005", Budget(loss=0.005)),
        ("agreement=1%,size=100KB", Budget(quality="agreement", loss=0.01, size=100_000)),
        ("latency=2ms", Budget(latency=0.002)),
        ("rmse=2%, latency=1.5s, size=1MiB", Budget(quality="rmse", loss=0.02, latency=1.5, size=1 << 20)),
    ],
)
def test_a_budget_is_read(text: str, wanted: Budget) -> None:
    assert budget(text) == wanted


@pytest.mark.parametrize(
    "text",
    ["", "accuracy", "accuracy=-1%", "accuracy=100%", "accuracy=1%,rmse=1%", "speed=2", "latency=2", "size=1GHz"],
)
def test_a_budget_that_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(SpecError):
        budget(text)


def test_the_choice_gains_most_within_the_budget() -> None:
    b = Budget(loss=0.005)
    small, fast, lossy = made("small", 250, 0.004, 1.0, low=0.9), made("fast", 900, 0.0, 3.0), made("x", 50, 0.006, 9.0)
    assert pick([ORIGINAL, small, fast, lossy], b, "size") == small
    assert pick([ORIGINAL, small, fast, lossy], b, "latency") == fast
    assert pick([ORIGINAL, lossy], b) == ORIGINAL  # nothing fits: the original stays
    assert pick([ORIGINAL, made("bigger", 2000, 0.0, 0.5)], b) == ORIGINAL
    lucky = made("lucky", 50, 0.0, 9.0, error=0.006)  # as good on these rows, but on few of them
    assert pick([ORIGINAL, lucky], b) == ORIGINAL
    better = made("better", 50, -0.004, 9.0, error=0.006)  # looks better than the original, on few rows: no credit
    assert pick([ORIGINAL, better], b) == ORIGINAL


def test_who_was_late_may_be_chosen_by_size_and_never_by_speed() -> None:
    """Invariant: where the clock has no say, the choice is the same whichever replicas were in time."""
    small, big = made("small", 250, 0.001, 1.0), made("big", 500, 0.0, 3.0)
    unknown = {"median": nan, "p99": nan, "speedup": nan, "speedup_low": nan, "speedup_high": nan, "late": "30 s"}
    late = {c.steps: msgspec.structs.replace(c, **unknown) for c in (small, big)}
    for some in ((small, big), (late["small",], big), (small, late["big",]), (late["small",], late["big",])):
        assert pick([ORIGINAL, *some], Budget(), "size").steps == small.steps
    assert pick([ORIGINAL, late["small",], big], Budget(), "both") == big
    assert pick([ORIGINAL, late["small",]], Budget(latency=2.0), "size") == ORIGINAL, "the budget has a clock"
    assert "not measured" in outcome(late["small",], ORIGINAL, Budget(), 0.0, 0.0)
    assert late["small",] not in front([ORIGINAL, *late.values()])


def test_speed_is_claimed_only_when_the_whole_interval_says_so() -> None:
    noisy = made("noisy", 1000, 0.0, 1.3, low=0.8)
    assert noisy.faster == 1.0 and gain(noisy, ORIGINAL, "latency") == 1.0
    assert pick([ORIGINAL, noisy], Budget(), "latency") == ORIGINAL
    assert "no measurable change of speed" in outcome(made("s", 500, 0.0, 1.3, low=0.8), ORIGINAL, Budget(), 0.0, 0.0)


def test_a_budget_that_cannot_be_met_is_told() -> None:
    assert "cannot be met; the least loss, with its standard error, was 3.00 %" in outcome(
        ORIGINAL, ORIGINAL, Budget(), float("nan"), 0.03
    )
    assert "nothing within the budget (accuracy 0.5 %, size 1 KB)" in outcome(
        ORIGINAL, ORIGINAL, Budget(size=1000), float("nan"), 0.0
    )


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 4), st.integers(1, 5)), min_size=1, max_size=12))
def test_nobody_beats_who_is_on_the_front_and_the_choice_is_within(rows: list[tuple[int, int, int]]) -> None:
    others = [made(str(i), s * 300, q / 1000, v / 2) for i, (s, q, v) in enumerate(rows)]
    best = front([ORIGINAL, *others])
    assert best
    for c in best:
        for o in [ORIGINAL, *others]:
            assert not (o.quality > c.quality and o.size < c.size and o.median < c.median)
    chosen = pick([ORIGINAL, *others], Budget(loss=0.002))
    assert chosen is ORIGINAL or (within(chosen, Budget(loss=0.002)) and gain(chosen, ORIGINAL, "both") > 1)


def test_costs_are_compared_pair_by_pair_whatever_the_machine_does() -> None:
    rng = np.random.default_rng(0)
    mood = np.repeat(rng.uniform(1, 5, 20), 16).reshape(20, 16)  # the machine's, the same for both
    stall = rng.choice([0.0, 50.0], (20, 16, 2), p=[0.9, 0.1])  # hits whom it will
    pairs = np.stack([2 * mood, mood], 2) * rng.uniform(0.9, 1.1, (20, 16, 2)) + stall
    c = cost(pairs.tolist())
    assert 1.3 < c.speedup_low < 2 < c.speedup_high and c.p99 > 10 * c.median
    same = cost((np.stack([mood, mood], 2) * rng.uniform(0.9, 1.1, (20, 16, 2)) + stall).tolist())
    assert same.speedup_low < 1 < same.speedup_high


def test_every_row_has_one_part_and_what_is_given_leaves_its_share_to_the_others() -> None:
    rows, other = (Rows({"x": np.arange(n, n + 200)}, np.arange(200) % 2) for n in (0, 1000))
    for teach, test, counts in (
        (None, None, (80, 60, 60)), (other, None, (200, 100, 100)), (None, other, (140, 60, 200)),
        (other, other, (200, 200, 200)),
    ):  # fmt: skip
        found = parts(rows, test, 3, teach)
        assert tuple(len(p) for p in found) == counts
        mine = np.concatenate([p.inputs["x"] for p in found if p is not other])
        assert sorted(mine.tolist()) == list(range(200))
    with pytest.raises(SpecError, match="at least 30"):
        parts(rows.take(np.arange(20)))
