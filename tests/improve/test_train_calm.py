"""Calm steps: what is not judged would have been found healthy, and what is remembered is the same."""

from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from leptonai.improve.train.calm import NEVER, Memory, calm, due, inspects, settled
from leptonai.improve.train.decide import decide, remember
from leptonai.improve.train.observed import Batch, Gradient, History, Rules

RULES = Rules()
Numbers = tuple[float, float, tuple[float, float] | None]
moments = st.tuples(st.floats(-2, 2), st.floats(0.1, 3))
numbers = st.tuples(st.floats(-3, 3), st.floats(0, 9), moments)


def fold(h: History, step: Numbers) -> History:
    loss, norm, looked = step
    seen = Gradient(step=h.seen, loss=loss, norm=norm, weight=1.0, rate=0.1)
    location, scale = looked or (0.0, 1.0)
    new = remember(h, seen, [], RULES, Batch(step=h.seen, loss=loss, location=location, scale=scale))
    return new if looked else replace(new, locations=h.locations, scales=h.scales)


@given(
    st.lists(numbers, min_size=8, max_size=90),
    st.lists(st.tuples(*[st.floats(0, 1)] * 4, st.booleans()), max_size=16),
    st.integers(1, 4),
)
def test_within_the_bounds_nothing_would_have_been_decided(
    past: list[Numbers], shares: list[tuple[float, float, float, float, bool]], apart: int
) -> None:
    """Whatever healthy steps came before and whatever calm ones follow, up to as many as the bounds are good for."""
    h = History()
    for i, step in enumerate(past):
        h = fold(h, step if i < RULES.enough or i % apart == 0 else (*step[:2], None))
    bounds = calm(h, 0.01, RULES)
    if bounds is NEVER:
        assert len(past) < RULES.enough
        return
    if bounds.low > bounds.high or bounds.narrow > bounds.wide:
        return
    memory, taken = Memory(RULES), []
    memory.set(h, 0.01)
    for a, b, c, d, looked in shares[: bounds.steps]:
        loss, norm = bounds.loss - 9 * (1 - a) ** 4, bounds.norm * b
        location = min(bounds.low + c * (bounds.high - bounds.low), bounds.high)
        scale = min(bounds.narrow + d * (bounds.wide - bounds.narrow), bounds.wide)
        now = settled(h, taken, RULES)
        batch = Batch(step=now.seen, loss=loss, location=location, scale=scale, update=0.01)
        seen = Gradient(step=now.seen, loss=loss, norm=norm, weight=1.0, rate=0.1, update=0.01)
        assert decide(now, batch, RULES) == [] == decide(now, seen, RULES)
        told = (location, scale) if looked else None
        assert len(taken) or memory.quiet(loss, told)
        memory.add(loss, norm, told)
        taken.append((loss, norm, told))
        assert memory.streak == now.streak + 1
    wanted = h
    for step in taken:
        wanted = fold(wanted, step)
    assert memory.history == settled(h, taken, RULES) == wanted


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e9])
def test_what_is_odd_is_never_calm(value: float) -> None:
    memory = Memory(RULES)
    for i in range(40):
        memory.set(fold(memory.history, (2.0 - 0.01 * i, 1.0, (0.0, 1.0))))
    assert memory.quiet(1.5, (0.0, 1.0)) and memory.quiet(1.5, None)
    assert not memory.quiet(value, (0.0, 1.0)) and not memory.quiet(value, None)
    assert not memory.quiet(1.5, (value, 1.0))
    assert not memory.quiet(1.5, (0.0, value))
    assert not value <= memory.calm.norm or value == float("-inf")  # a norm is never negative
    assert not memory.quiet(1.5, (0.0, 2 * exp(1))) and not memory.quiet(1.5, (1.5, 1.0))


def looks(h: History, until: int) -> list[int]:
    out = []
    while h.seen < until:
        if due(h, RULES) == h.seen:
            out.append(h.seen)
        h = fold(h, (1.0, 1.0, (0.0, 1.0)))
    return out


def test_close_looks_come_further_apart_and_after_trouble_at_each_step() -> None:
    healthy = looks(History(), 4000)
    assert healthy[:10] == [*range(8), 100, 200]
    assert healthy[-1] - healthy[-2] == 400, "at most an eighth of the healthy steps"
    assert len(healthy) < 35
    h = History(seen=1000, troubled=1000)
    after = looks(h, 1300)
    assert after == [*range(1000, 1011), *range(1020, 1101, 10), 1200]
    for seen in (0, 7, 8, 99, 1600, 1601, 50_000):
        at = History(seen=seen)
        assert due(at, RULES) >= seen and due(at, RULES) - seen <= max(RULES.look, seen // 8)
        assert due(at, RULES) == due(History(seen=due(at, RULES)), RULES), "the same steps wherever one begins"


def test_inputs_are_inspected_at_first_and_after_trouble_then_a_share_of_them() -> None:
    assert all(inspects(i, RULES) for i in range(100))
    for sources in (1, 2, 3, 4, 5, 8, 16, 64):  # a loader that takes them in turn has each of them seen
        for first in range(100, 100 + sources):
            share = sum(inspects(i, RULES) for i in range(first, first + 200 * sources, sources)) / 200
            assert 0.15 < share < 0.35, (sources, first)
    memory = Memory(RULES)
    assert memory.inspecting, "without a history each batch is looked at"
