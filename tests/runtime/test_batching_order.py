"""Which jobs run together, by random histories: nothing is lost, order, caps, and nobody starves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptonai.runtime.batching import (
    ENOUGH,
    HOP,
    LEVELS,
    PASSES,
    USUAL,
    WAITS,
    Adaptive,
    Batcher,
    Eager,
    Hindsight,
    Job,
    Queue,
    batcher,
    enqueue,
    sweep,
    worthwhile,
)
from leptonai.runtime.cost import Cost
from leptonai.types import Batching, Tuning


class Client:
    """What a job knows of its request."""

    def __init__(self) -> None:
        self.gone = False


def job(samples: int = 1, key: Any = "a", arrived: float = 0.0, **more: Any) -> Job:
    return Job({"x": np.arange(samples)}, samples, key, arrived=arrived, request=Client(), **more)


def learnt(per_sample: float = 0.001, fixed: float = 0.005) -> Cost:
    cost = Cost()
    for i in range(400):
        n = 1 + i * 7 % 64
        cost.saw(n, per_sample * n + fixed, 0.0)
    return cost.learn()


def exact(per_sample: float, fixed: float) -> Cost:
    cost = Cost()
    cost.per_sample, cost.fixed, cost.runs = per_sample, fixed, 100
    return cost


def policies(limits: Batching) -> dict[str, Callable[[], Batcher]]:
    return {
        "eager": lambda: Eager(limits),
        "adaptive, unlearnt": lambda: Adaptive(Tuning(batching=limits), Cost()),
        "adaptive": lambda: Adaptive(Tuning(batching=limits), learnt()),
    }


ARRIVALS = st.lists(
    st.tuples(
        st.floats(0, 0.05),  # seconds since the one before
        st.sampled_from([1, 1, 1, 2, 5, 9, 40]),  # samples
        st.sampled_from(["a", "a", "a", "b", None]),  # key
        st.sampled_from([USUAL, USUAL, USUAL, 1, LEVELS]),  # priority
        st.sampled_from([30.0, 30.0, 0.02]),  # seconds allowed
        st.booleans(),  # the client leaves after 10 ms
    ),
    min_size=1,
    max_size=40,
)


class Ran:
    """A batch, when it began, and what waited when it did."""

    def __init__(self, batch: list[Job], at: float, left: Queue) -> None:
        self.batch, self.at, self.left = batch, at, left
        self.jobs = [part.whole or part for part in batch]
        self.vain = any(part.request.gone or at > part.deadline for part in batch)


def replay(
    jobs: list[Job], leaving: set[int], policy: Batcher, real: Callable[[int], float]
) -> tuple[list[Ran], Queue]:
    """What ran, in order, and what was swept out, with one server whose runs take ``real(samples)``."""
    queue: Queue = []
    coming, now, ran, dead = list(jobs), 0.0, list[Ran](), list[Job]()
    for _ in range(10_000):
        while coming and coming[0].arrived <= now:
            enqueue(queue, [coming.pop(0)])
        for one in jobs:
            one.request.gone = id(one) in leaving and now > one.arrived + 0.01
        dead += sweep(queue, now)
        if not queue:
            if not coming:
                return ran, dead
            now = coming[0].arrived
            continue
        got = policy.next_batch(queue, now)
        if isinstance(got, float):
            assert got > 0.0
            now = min(now + max(got, 1e-6), *(c.arrived for c in coming[:1]), now + max(got, 1e-6))
            continue
        ran.append(Ran(got, now, list(queue)))
        now += real(sum(part.samples for part in got))
    raise AssertionError("it never ends")


@given(ARRIVALS, st.integers(1, 8), st.sampled_from(["eager", "adaptive, unlearnt", "adaptive"]))
def test_whatever_comes_nothing_is_lost_mixed_overtaken_or_starved(history: list[Any], cap: int, name: str) -> None:
    limits = Batching(max_size=cap)
    now, jobs, leaving = 0.0, list[Job](), set[int]()
    for gap, samples, key, priority, allowed, leaves in history:
        now += gap
        samples = 1 if key is None else samples
        jobs.append(job(samples, key, now, priority=priority, deadline=now + allowed))
        if leaves:
            leaving.add(id(jobs[-1]))
    ran, dead = replay(jobs, leaving, policies(limits)[name](), lambda n: 0.001 * n + 0.005)

    for one in jobs:  # every sample of every job is computed once and in order, or the job was swept out
        parts = [p for r in ran for p in r.batch if (p.whole or p) is one]
        rows = np.concatenate([p.inputs["x"] for p in parts]).tolist() if parts else []
        assert rows == list(range(len(rows)))
        assert len(rows) == one.samples or any(one is d for d in dead)
        assert sum(one is d for d in dead) + (len(rows) == one.samples) == 1

    for r in ran:
        assert len({p.key for p in r.batch}) == 1
        assert sum(p.samples for p in r.batch) <= cap or (len(r.batch) == 1 and r.jobs[0].samples <= cap)
        if r.batch[0].key is None:
            assert len(r.batch) == 1
        assert not r.vain  # what nobody waits for is not computed
        # first in, first out among whole jobs of one level and key
        for mine in r.jobs:
            for other in r.left:
                if (mine.priority, mine.key) == (other.priority, other.key) and mine.samples <= cap >= other.samples:
                    assert mine.arrived <= other.arrived

    slices = 0  # a whole job never waits for two slices in a row
    for r in ran:
        only = len(r.batch) == 1 and r.batch[0].whole is not None
        level = r.jobs[0].priority
        waited = any(o.priority == level and o.samples <= cap and o.arrived < r.at for o in r.left)
        slices = slices + 1 if only and waited else 0
        assert slices <= 1 or any(o.priority != level for o in r.left)

    passed: dict[int, int] = {}  # the oldest job leads or joins after at most PASSES batches without it
    for r in ran:
        if r.left:
            oldest = min([*r.left, *r.jobs], key=lambda o: o.arrived)
            passed[id(oldest)] = 0 if any(oldest is j for j in r.jobs) else passed.get(id(oldest), 0) + 1
            assert passed[id(oldest)] <= PASSES + 1


def test_a_thousand_samples_do_not_starve_single_ones_nor_they_it() -> None:
    """The rule: a large request gets every second batch; a small one waits for one slice more than those before it."""
    cap = 32
    queue, policy = list[Job](), Eager(Batching(max_size=cap))
    large = job(1000, arrived=0.0)
    enqueue(queue, [large])
    batches, waits, now = 0, list[int](), 0.0
    while queue:
        now += 1.0
        fresh = [job(arrived=now) for _ in range(cap)]  # as many small ones as there is room for, for ever
        if large.sliced < 1000:
            enqueue(queue, fresh)
            batches += 1
        got = policy.next_batch(queue, now)
        assert isinstance(got, list) and sum(p.samples for p in got) <= cap
        waits += [int(now - p.arrived) for p in got if p.whole is None]
    assert batches <= 2 * -(-1000 // cap)
    first = waits[:cap]
    assert max(first) <= 2  # the running slice, and the one after it

    enqueue(queue, [job(1000, arrived=0.0), job(arrived=0.0)])
    assert policy.next_batch(queue, 0.0)[0].whole is not None  # type: ignore[index]
    assert [p.samples for p in policy.next_batch(queue, 0.0)] == [1, cap - 1]  # type: ignore[union-attr]


def test_large_requests_of_another_shape_take_turns_as_well() -> None:
    queue, policy = list[Job](), Eager(Batching(max_size=4))
    enqueue(queue, [job(16, "big"), *[job(1, "small") for _ in range(8)]])
    keys = []
    while queue:
        keys.append(policy.next_batch(queue, 0.0)[0].key)  # type: ignore[index]
    assert keys == ["big", "small", "big", "small", "big", "big"]


def test_bytes_are_capped_as_samples_are() -> None:
    queue, policy = list[Job](), Eager(Batching(max_size=100, max_bytes=1000))
    enqueue(queue, [job(1, bytes=400) for _ in range(5)])
    assert [len(policy.next_batch(queue, 0.0)) for _ in range(3)] == [2, 2, 1]  # type: ignore[arg-type]
    enqueue(queue, [job(10, bytes=5000), job(1, bytes=5000)])  # ten of 500 each; one that cannot be cut
    assert policy.next_batch(queue, 0.0)[0].samples == 2  # type: ignore[index]
    assert [p.bytes for p in policy.next_batch(queue, 0.0)] == [5000]  # type: ignore[union-attr]


def test_size_and_wait_can_be_forced() -> None:
    policy = batcher(Tuning(batching=Batching(policy="eager", max_size=2, max_wait=1.0)), Cost())
    assert policy.next_batch([job()], 0.25) == pytest.approx(0.75)
    assert len(policy.next_batch([job(), job(), job()], 0.0)) == 2  # type: ignore[arg-type]
    assert len(policy.next_batch([job()], 1.0)) == 1  # type: ignore[arg-type]


def test_higher_priority_goes_first_and_the_usual_is_in_the_middle() -> None:
    queue = list[Job]()
    enqueue(queue, [job(key=None, priority=p, arrived=float(n)) for n, p in enumerate([USUAL, 9, 1, USUAL, 2])])
    assert [(j.priority, j.arrived) for j in queue] == [(1, 2.0), (2, 4.0), (5, 0.0), (5, 3.0), (9, 1.0)]


SIZES: dict[str, tuple[Cost, float, float, float, int, int]] = {
    # cost, latency, waited, deadline, single jobs that wait, size of a batch of them under a cap of 64
    "time for a full one": (exact(0.001, 0.010), 10.0, 0.0, 30.0, 100, 64),
    "all pays where the fixed cost is all": (exact(0.0, 0.010), 10.0, 0.0, 30.0, 100, 64),
    "two do where little is fixed": (exact(0.010, 0.0001), 10.0, 0.0, 30.0, 100, 2),
    "the SLO holds it small": (exact(0.001, 0.010), 0.065, 0.0, 30.0, 44, 44),
    "what was waited counts": (exact(0.001, 0.010), 0.065, 0.011, 30.0, 64, 44),
    "not where more would be late then": (exact(0.001, 0.010), 0.030, 0.0, 30.0, 0, 64),
    "late for the SLO: throughput brings the queue back": (exact(0.001, 0.010), 0.030, 0.5, 30.0, 100, 64),
    "its own deadline holds it small": (exact(0.001, 0.010), 10.0, 0.0, 0.030, 100, 20),
    "unlearnt: all that is queued": (Cost(), 0.001, 0.0, 30.0, 100, 64),
}


@pytest.mark.parametrize("name", list(SIZES))
def test_the_size_keeps_the_promises_and_is_no_larger_than_pays(name: str) -> None:
    cost, latency, waited, deadline, waiting, want = SIZES[name]
    now = 1.0
    queue = [job(arrived=now - waited, deadline=now - waited + deadline) for _ in range(waiting)]
    if not queue:  # the leader is in a hurry; the others have come just now, and would all be late behind it
        queue = [job(arrived=now - 0.010)] + [job(arrived=now + 0.045) for _ in range(63)]
    policy = Adaptive(Tuning(batching=Batching(max_size=64), latency=latency), cost)
    got = policy.next_batch(queue, now)
    assert isinstance(got, list) and abs(len(got) - want) <= 1


def test_a_size_that_does_not_keep_up_is_not_taken() -> None:
    def size(pace: float) -> int:
        policy = Adaptive(Tuning(batching=Batching(max_size=64), latency=0.065), exact(0.001, 0.010))
        now = 0.0
        for _ in range(30):
            now += 8 / pace
            policy.next_batch([job(arrived=now, deadline=now + 30.0) for _ in range(8)], now)
        queue = [job(arrived=now - 0.040, deadline=now + 30.0) for _ in range(5)]
        queue += [job(arrived=now, deadline=now + 30.0) for _ in range(40)]
        return len(policy.next_batch(queue, now))  # type: ignore[arg-type]

    assert size(100.0) < 20
    assert size(900.0) == 45


def test_no_job_joins_a_batch_that_would_end_after_its_deadline() -> None:
    policy = Adaptive(Tuning(batching=Batching(max_size=64), latency=10.0), exact(0.001, 0.010))
    queue = [*[job(arrived=0.0, deadline=30.0) for _ in range(8)], job(deadline=0.0205), *[job() for _ in range(40)]]
    assert len(policy.next_batch(list(queue), 0.0)) == 10  # type: ignore[arg-type]  # held small for its sake
    queue[8].deadline = 0.015  # too soon even for nine
    assert len(policy.next_batch(queue, 0.0)) == 8  # type: ignore[arg-type]


def test_hindsight_waits_for_bursts_and_not_for_steady_arrivals() -> None:
    cost = learnt(0.0001, 0.020)

    def gains(came: list[float]) -> float:
        seen = Hindsight(cost)
        for n in range(30):
            at = float(n)
            assert seen.patience(1, at) == 0.0 or max(seen.gains) > 0.0
            seen.took([job(arrived=at)], at, True)
            seen.look([job(arrived=at + after) for after in came])
        return max(seen.gains)

    assert gains([0.001 + 0.00001 * n for n in range(63)]) > 0.2  # sixty-three right behind the first
    assert gains([0.0205 * (n + 0.5) / 4 for n in range(4)]) < 0.05  # steadily, while it runs
    assert gains([]) < 0.0
    assert max(WAITS) < 1.0


@given(st.floats(1e-6, 0.1), st.floats(0, 0.1), st.integers(1, 512))
def test_worthwhile_is_the_least_size_of_nearly_the_best_throughput(a: float, b: float, cap: int) -> None:
    n = worthwhile(exact(a, b), cap)
    assert n == cap or 1 <= n <= cap / 2

    def throughput(size: int) -> float:
        return size / (a * size + b + HOP)

    assert throughput(n) >= ENOUGH * throughput(cap) * (1 - 1e-6)
    assert n in (1, cap) or throughput(n - 1) < ENOUGH * throughput(cap) * (1 + 1e-6)
