"""The simulator is seeded and honest, and the ranking finds most of what it hides."""

from __future__ import annotations

import numpy as np
from rank_systems import KINDS, PAIRS, case, system

from leptonai.ops.rank import rank


def test_the_same_seed_makes_the_same_case() -> None:
    a, b = (case(3, system(1, n=40), ["latency"]) for _ in range(2))
    assert (a.causes, a.target) == (b.causes, b.target)
    np.testing.assert_array_equal(a.window.values, b.window.values)


def test_most_single_faults_are_named_first() -> None:
    found = []
    for i, kind in enumerate(KINDS):
        made = case(50 + i, system(i % 2, n=80), [kind])
        suspects = rank(made.window, made.normal, made.graph, made.target)
        found.append(bool(suspects) and suspects[0].node == made.causes[0])
    assert sum(found) >= 4  # docs/benchmarks.md has the rates; this is to notice when it breaks


def test_a_double_fault_has_two_causes() -> None:
    made = case(7, system(0, n=80), PAIRS[-1])
    assert len(set(made.causes)) == 2
