"""The Horizontal Pod Autoscaler clause by clause, against cases worked out by hand from its source."""

from __future__ import annotations

import pytest
from scale_stage import sight

from leptonai.plan.scale.hpa import DOWN, UP, Hpa, Limit, Memory, Rules


@pytest.mark.parametrize(
    ("total", "ready", "unready", "missing", "advice", "clause"),
    [
        (10.0, 10, 0, 0, 10, "ratio 1: keep"),
        (10.9, 10, 0, 0, 10, "ratio 1.09, within the tolerance of 0.1: keep"),
        (11.0, 10, 0, 0, 10, "ratio exactly 1.1: still within"),
        (11.2, 10, 0, 0, 12, "ratio 1.12: ceil(11.2)"),
        (9.1, 10, 0, 0, 10, "ratio 0.91: keep"),
        (8.9, 10, 0, 0, 9, "ratio 0.89: ceil(8.9)"),
        (0.0, 10, 0, 0, 0, "no load at all: 0, the bounds come later"),
        (20.0, 10, 5, 0, 20, "up with unready: 20/15 = 1.33 of 15 counted, ceil(20)"),
        (15.5, 10, 5, 0, 15, "up with unready: 15.5/15 = 1.03 within tolerance: keep all 15"),
        (12.0, 10, 5, 0, 15, "up with unready: 12/15 = 0.8 turns the direction: keep"),
        (5.0, 10, 5, 0, 5, "down with unready: they are not counted, ceil(0.5 x 10)"),
        (20.0, 8, 0, 2, 20, "up with missing: they count 0, 20/10 = 2"),
        (4.0, 8, 0, 2, 6, "down with missing: they count as at target, (4 + 2)/10 = 0.6, ceil(6)"),
        (7.1, 8, 0, 2, 10, "down with missing: 9.1/10 lies within tolerance: keep"),
        (30.0, 8, 4, 2, 30, "up with both: 30/14 of 14 counted"),
        (0.0, 0, 3, 0, 3, "no metric from anybody: no advice"),
        (7.0, 0, 0, 0, 7, "nothing runs: the ratio itself"),
    ],
)
def test_advice(total: float, ready: int, unready: int, missing: int, advice: int, clause: str) -> None:
    assert Hpa(target=1.0).advise(total, ready, unready, missing)[1] == advice, clause


def test_tolerance_can_differ_by_direction() -> None:
    hpa = Hpa(1.0, up=Rules(0.0, UP.limits, tolerance=0.0), down=Rules(300.0, DOWN.limits, tolerance=0.5))
    assert hpa.advise(10.1, 10)[1] == 11
    assert hpa.advise(5.5, 10)[1] == 10


def decide(hpa: Hpa, memory: Memory, now: float, load: float, ready: int, most: int = 64) -> tuple[int, str, Memory]:
    decision, memory = hpa.decide(sight(now, load, ready=ready, most=most), memory)
    return decision.desired, decision.reason, memory


def test_down_waits_for_the_most_advice_of_five_minutes() -> None:
    hpa = Hpa(1.0)
    memory = hpa.begin(10, 0.0)
    for k in range(1, 20):
        desired, reason, memory = decide(hpa, memory, 15.0 * k, 2.0, 10)
        assert (desired, reason) == (10, "stabilisation")  # the ten it found are advice of time 0
    desired, _, memory = decide(hpa, memory, 300.0, 2.0, 10)
    assert desired == 2  # that advice is 300 s old now, and "after the cutoff" is strict


def test_up_stabilisation_takes_the_least_advice() -> None:
    hpa = Hpa(1.0, up=Rules(60.0, UP.limits))
    memory = hpa.begin(4, 0.0)
    desired, reason, memory = decide(hpa, memory, 15.0, 12.0, 4)
    assert (desired, reason) == (4, "stabilisation")
    _, _, memory = decide(hpa, memory, 30.0, 7.0, 4)
    _, _, memory = decide(hpa, memory, 45.0, 12.0, 4)
    desired, _, _ = decide(hpa, memory, 61.0, 12.0, 4)
    assert desired == 7


@pytest.mark.parametrize(
    ("current", "load", "memory", "limit"),
    [
        (2, 60.0, Memory(), 6),  # +4 pods beats +100 %
        (10, 60.0, Memory(), 20),  # +100 % beats +4 pods
        (6, 60.0, Memory(added=((10.0, 4),)), 6),  # 4 of these 6 came within the period: 2 + 4
        (6, 60.0, Memory(added=((0.0, 4),)), 12),  # they came before the period
        (6, 60.0, Memory(deleted=((10.0, 2),)), 16),  # the period began with 8
    ],
)
def test_up_rate_limits(current: int, load: float, memory: Memory, limit: int) -> None:
    desired, reason, _ = decide(Hpa(1.0), memory, 15.0, load, current)
    assert desired == limit
    assert reason == "rate limit"


@pytest.mark.parametrize(
    ("select", "limits", "expected"),
    [
        ("max", (Limit("percent", 10, 60.0), Limit("pods", 3, 60.0)), 17),
        ("min", (Limit("percent", 10, 60.0), Limit("pods", 3, 60.0)), 18),
        ("max", (Limit("percent", 33, 60.0),), 13),  # trunc(20 x 0.67)
        ("disabled", (Limit("percent", 100, 60.0),), 20),
    ],
)
def test_down_rate_limits(select: str, limits: tuple[Limit, ...], expected: int) -> None:
    hpa = Hpa(1.0, down=Rules(0.0, limits, select=select))  # type: ignore[arg-type]
    assert decide(hpa, Memory(), 15.0, 1.0, 20)[0] == expected


def test_a_deletion_counts_against_its_period() -> None:
    hpa = Hpa(1.0, down=Rules(0.0, (Limit("pods", 3, 60.0),)))
    desired, _, memory = decide(hpa, Memory(), 15.0, 1.0, 20)
    assert desired == 17
    assert decide(hpa, memory, 30.0, 1.0, 17)[0] == 17
    assert decide(hpa, memory, 76.0, 1.0, 17)[0] == 14


def test_bounds_come_last() -> None:
    assert decide(Hpa(1.0), Memory(), 15.0, 60.0, 10, most=12)[:2] == (12, "bounds")
    assert decide(Hpa(1.0), Memory(), 15.0, 0.0, 10)[:2] == (1, "bounds")
