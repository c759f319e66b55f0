"""The policies against each other on simulated models: adaptive gains where something is to be gained, else nothing."""

from __future__ import annotations

import pytest

from benchmarks.batching_shapes import POLICIES, SHAPES, simulate

GAIN = {("fixed: 20 ms", 16.0): 1.3, ("bends up: 2 ms n^1.3", 64.0): 1.5}
SEVERAL = ["small: 60 us + 25 us n", "line: 5 ms + 1 ms n", "fixed: 20 ms", "steps: 5 ms a power of two"]


@pytest.mark.parametrize("load", [1.0, 16.0, 64.0, 0.7])
@pytest.mark.parametrize("shape", [*SEVERAL, "no gain: 4 ms n", "bends up: 2 ms n^1.3", "slow: 50 ms + 8 ms n"])
def test_adaptive_is_never_much_worse_than_eager_and_better_where_it_can_be(shape: str, load: float) -> None:
    seconds = 0.5 if shape.startswith("small") else 20.0
    got = {name: simulate(make, SHAPES[shape], load, seconds, seed=3) for name, make in POLICIES.items()}
    ours, theirs = got["adaptive"], got["eager"]
    assert ours.rate >= GAIN.get((shape, load), 0.9) * theirs.rate
    assert ours.batch <= 32.0


def test_a_fixed_window_costs_what_it_waits() -> None:
    """The reason why nothing waits by default."""
    got = {name: simulate(make, SHAPES["line: 5 ms + 1 ms n"], 1.0, 5.0, seed=3) for name, make in POLICIES.items()}
    assert got["window 5 ms"].rate < 0.7 * got["adaptive"].rate
