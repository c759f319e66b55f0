"""The Knative Pod Autoscaler clause by clause, against cases worked out by hand from its source."""

from __future__ import annotations

import pytest
from scale_stage import sight

from leptonai.plan.scale.kpa import Kpa, Memory

CALM = Memory()


@pytest.mark.parametrize(
    ("kpa", "load", "ready", "desired", "clause"),
    [
        (Kpa(0.7), 7.0, 10, 10, "ceil(7 / 0.7)"),
        (Kpa(1.0), 7.2, 10, 8, "ceil(7.2)"),
        (Kpa(1.0), 2.0, 10, 5, "not below floor(10 / 2): max-scale-down-rate"),
        (Kpa(1.0), 2.0, 9, 4, "floor(9 / 2)"),
        (Kpa(1.0, reachable=False), 2.0, 10, 2, "what no route reaches may fall at once"),
        (Kpa(1.0, max_up=1.5), 9.0, 5, 8, "ceil(1.5 x 5): max-scale-up-rate"),
        (Kpa(1.0, max_up=1.1), 3.0, 2, 3, "ceil(2.2): at least one more"),
        (Kpa(1.0, activation=3), 0.5, 1, 3, "activation-scale, while there is load"),
        (Kpa(1.0, activation=3), 0.0, 0, 0, "activation-scale needs load"),
    ],
)
def test_stable_mode(kpa: Kpa, load: float, ready: int, desired: int, clause: str) -> None:
    seen = sight(1000.0, load, ready=ready, least=0)
    decision, memory = kpa.decide(seen, CALM)
    assert memory.panic is None
    assert decision.desired == desired, clause


def test_panic_begins_at_twice_the_capacity_and_never_scales_down() -> None:
    kpa = Kpa(1.0)
    # 4 before and 8 over the last 6 s: the panic window asks for 8, which is 200 % of 4
    decision, memory = kpa.decide(sight(1000.0, 4.0, ready=4, recent=(6.0, 8.0)), CALM)
    assert (decision.desired, decision.reason, memory.panic, memory.most) == (8, "panic", 1000.0, 8)
    # the surge is over: held, and the panic lasts until a stable window has gone by
    decision, memory = kpa.decide(sight(1002.0, 1.0, ready=8), memory)
    assert (decision.desired, decision.reason, memory.panic) == (8, "held in panic", 1000.0)
    decision, memory = kpa.decide(sight(1060.0, 1.0, ready=8), memory)
    assert decision.desired == 8  # 1000 + 60 is not before 1060
    decision, memory = kpa.decide(sight(1060.5, 1.0, ready=8), memory)
    assert (decision.desired, memory.panic, memory.most) == (4, None, 0)  # half of 8 at most


def test_below_the_threshold_there_is_no_panic() -> None:
    decision, memory = Kpa(1.0).decide(sight(1000.0, 4.0, ready=4, recent=(6.0, 7.0)), CALM)
    assert memory.panic is None
    assert decision.desired == 5  # (54 x 4 + 6 x 7) / 60 = 4.3


def test_panic_is_extended_while_over_the_threshold() -> None:
    kpa = Kpa(1.0)
    _, memory = kpa.decide(sight(1000.0, 20.0, ready=4), CALM)
    _, memory = kpa.decide(sight(1010.0, 20.0, ready=4), memory)
    assert memory.panic == 1010.0


def test_stable_may_ask_for_more_than_panic_in_panic() -> None:
    decision, _ = Kpa(1.0).decide(sight(1000.0, 20.0, ready=4, recent=(6.0, 9.0)), CALM)
    assert decision.desired == 19  # (54 x 20 + 6 x 9) / 60 = 18.9


def test_a_start_with_more_than_one_replica_begins_in_panic() -> None:
    kpa = Kpa(1.0)
    assert kpa.begin(1, 0.0).panic is None
    decision, _ = kpa.decide(sight(2.0, 1.0, ready=6), kpa.begin(6, 0.0))
    assert decision.desired == 6


def test_zero_ready_counts_as_one() -> None:
    decision, memory = Kpa(1.0).decide(sight(1000.0, 2.0, ready=0, least=0), CALM)
    assert decision.desired == 2
    assert memory.panic == 1000.0  # 2 / max(1, 0) is at the threshold


def test_scale_down_delay_takes_the_most_of_its_window() -> None:
    kpa = Kpa(1.0, delay=30.0)
    _, memory = kpa.decide(sight(1000.0, 8.0, ready=8), CALM)
    decision, memory = kpa.decide(sight(1010.0, 5.0, ready=8), memory)
    assert (decision.desired, decision.reason) == (8, "scale-down delay")
    decision, memory = kpa.decide(sight(1031.0, 5.0, ready=8), memory)
    assert decision.desired == 5


def test_zero_comes_after_the_grace() -> None:
    kpa = Kpa(1.0)
    memory = Memory(busy=1000.0)
    decision, memory = kpa.decide(sight(1029.0, 0.0, ready=1, least=0), memory)
    assert (decision.desired, decision.reason) == (1, "grace before zero")
    decision, _ = kpa.decide(sight(1030.0, 0.0, ready=1, least=0), memory)
    assert decision.desired == 0


@pytest.mark.parametrize(
    ("burst", "expected"),
    [(200.0, -197.0), (0.0, 0.0), (-1.0, -1.0), (2.0, 1.0)],  # floor(4 x 1 - burst - 0.5)
)
def test_excess_burst_capacity(burst: float, expected: float) -> None:
    decision, _ = Kpa(0.7, burst=burst, capacity=1.0).decide(sight(1000.0, 0.5, ready=4), CALM)
    assert decision.terms["excess_burst_capacity"] == expected
