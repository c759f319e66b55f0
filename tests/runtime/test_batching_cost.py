"""The learnt cost of a batch: right on lines, steady on streams of one size, deaf to outliers, not for ever."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from leptonai.runtime.cost import PROVEN, UNKNOWN, Cost
from leptonai.runtime.loaders.onnx import threads_of
from leptonai.types import Resources, Variant

SIZES: dict[str, Callable[[random.Random, int], int]] = {
    "any": lambda r, i: r.randint(1, 32),
    "two": lambda r, i: 63 if i % 2 else 1,
    "rarely another": lambda r, i: 8 if i % 20 == 0 else 32,
}


def line(n: int) -> float:
    return 0.001 * n + 0.005


def taught(
    cost: Cost,
    runs: int,
    sizes: Callable[[random.Random, int], int] = SIZES["any"],
    time: Callable[[int], float] = line,
    outliers: float = 0.0,
    seed: int = 0,
) -> Cost:
    r = random.Random(seed)
    for i in range(runs):
        n = sizes(r, i)
        cost.saw(n, time(n) * (1 + r.gauss(0, 0.05)) * (50 if r.random() < outliers else 1), float(i))
        cost.learn()
    return cost


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("outliers", [0.0, 0.05])
@pytest.mark.parametrize("sizes", list(SIZES))
def test_a_line_is_found_though_some_runs_take_fifty_times_as_long(sizes: str, outliers: float, seed: int) -> None:
    cost = taught(Cost(), 400, SIZES[sizes], outliers=outliers, seed=seed)
    assert cost.per_sample == pytest.approx(0.001, rel=0.25)
    for n in (8, 32, 64):
        assert cost.time(n) == pytest.approx(line(n), rel=0.2)


def test_batches_of_one_size_move_the_level_and_leave_the_slope() -> None:
    cost = taught(Cost(), 300)
    taught(cost, 1000, lambda r, i: 20, lambda n: line(n) + 0.02)
    assert cost.per_sample == pytest.approx(0.001, rel=0.15)
    assert cost.time(20) == pytest.approx(line(20) + 0.02, rel=0.05)


def test_until_sizes_differ_half_the_time_counts_as_fixed() -> None:
    cost = taught(Cost(), 50, lambda r, i: 16)
    assert cost.time(16) == pytest.approx(line(16), rel=0.05)
    assert cost.fixed == pytest.approx(line(16) / 2, rel=0.1)


@pytest.mark.parametrize("factor", [3.0, 1 / 3])
def test_a_model_that_changes_its_pace_is_learnt_anew(factor: float) -> None:
    cost = taught(taught(Cost(), 300), 300, time=lambda n: factor * line(n))
    assert cost.time(16) == pytest.approx(factor * line(16), rel=0.15)


def test_runs_that_warm_up_are_forgotten() -> None:
    cost = Cost()
    for n, seconds in [(1, 2.0), (4, 0.9), (4, 0.009), (8, 0.013)]:
        cost.saw(n, seconds, 0.0)
    assert cost.learn().time(8) < 0.03


def test_expectation_remembers_the_slowest_run_for_a_while() -> None:
    cost = Cost()
    assert cost.expect(1, 0.0) == UNKNOWN
    taught(cost, 200, SIZES["any"])
    assert cost.expect(32, 200.0) == pytest.approx(line(32), rel=0.2)
    cost.saw(1, 3.0, 200.0)
    assert cost.expect(1, 201.0) == pytest.approx(3.0, rel=0.01)
    assert cost.expect(1, 201.0 + 3000.0) < 0.5


def test_quick_is_proven_and_one_long_run_ends_it() -> None:
    cost = taught(Cost(), PROVEN - 1, time=lambda n: 50e-6)
    assert not cost.quick()
    assert taught(cost, 1, time=lambda n: 50e-6).quick()
    assert not taught(cost, 1, time=lambda n: 1.0).quick()
    assert not taught(Cost(), PROVEN, time=lambda n: 1e-3).quick()


def test_negative_slopes_and_intercepts_are_refused() -> None:
    falling = taught(Cost(), 300, time=lambda n: 0.1 - 0.002 * n)
    assert falling.per_sample == 0.0 and falling.fixed > 0.0
    steep = taught(Cost(), 300, time=lambda n: 0.0001 * n**2)
    assert steep.fixed == 0.0 and steep.per_sample > 0.0


@pytest.mark.parametrize(
    ("options", "cpu", "threads"), [({}, None, 1), ({}, 0.5, 1), ({}, 3.5, 3), ({"threads": 2}, 8.0, 2)]
)
def test_a_replica_computes_with_the_cores_it_was_given(
    options: dict[str, int], cpu: float | None, threads: int
) -> None:
    assert threads_of(Variant(model="m", options=options, resources=Resources(cpu=cpu))) == threads
