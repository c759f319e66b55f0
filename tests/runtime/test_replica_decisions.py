"""The pure parts by table and by random history: which jobs run together, and when a replica counts as able."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptonai.runtime.batching import Eager, Job
from leptonai.runtime.golden import close
from leptonai.runtime.health import STALE_GRACE, UNKNOWN, Cost, Running, readiness
from leptonai.runtime.predictions import summary
from leptonai.types import Batching


def job(key: object, samples: int = 1, arrived: float = 0.0) -> Job:
    return Job({}, samples, key, arrived=arrived)


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(1, 9)), min_size=1, max_size=30),
    st.integers(1, 8),
    st.floats(0, 2),
)
def test_every_job_leaves_once_in_order_and_no_batch_is_mixed_or_too_large(
    history: list[tuple[str | None, int]], size: int, patience: float
) -> None:
    jobs = [job(key, samples, float(n) / 100) for n, (key, samples) in enumerate(history)]
    queue, batcher, now = deque(jobs), Eager(Batching(max_size=size, max_wait=patience)), 0.3
    left: list[Job] = []
    while queue:
        head = queue[0]
        got = batcher.next_batch(queue, now)
        if isinstance(got, float):
            assert 0 < got <= patience and queue[0] is head  # waiting changes nothing but the time
            assert sorted(queue, key=lambda j: j.arrived) == list(queue)
            now += max(got, 1e-6)  # a clock moves on, however short the wait
            continue
        assert got[0] is head and len({j.key for j in got}) == 1
        assert len(got) == 1 or (sum(j.samples for j in got) <= size and head.key is not None)
        left += got
    assert sorted(left, key=lambda j: j.arrived) == jobs
    for key in ("a", "b"):  # an oversized job may be overtaken, others of one key keep their order
        small = [j for j in left if j.key == key and j.samples == 1]
        assert small == sorted(small, key=lambda j: j.arrived)


def test_a_full_batch_does_not_wait_and_an_old_one_no_longer() -> None:
    batcher = Eager(Batching(max_size=2, max_wait=1.0))
    assert batcher.next_batch(deque([job("a")]), 0.25) == pytest.approx(0.75)
    assert len(batcher.next_batch(deque([job("a"), job("a"), job("a")]), 0.0)) == 2  # type: ignore[arg-type]
    assert len(batcher.next_batch(deque([job("a")]), 1.0)) == 1  # type: ignore[arg-type]


def test_cost_follows_the_number_of_samples_and_remembers_the_slowest() -> None:
    cost = Cost()
    assert cost.expect(1, 0.0) == UNKNOWN
    for n in range(200):
        samples = 1 + n % 10
        cost.saw(samples, 0.01 * samples + 0.02, float(n))
    assert cost.expect(20, 200.0) == pytest.approx(0.22, rel=0.01)
    cost.saw(1, 3.0, 200.0)
    assert cost.expect(1, 201.0) == pytest.approx(3.0, rel=0.01)
    assert cost.expect(1, 201.0 + 3000.0) < 0.5


TABLE = [
    ("starting", None, True, "", (False, "starting", "starting")),
    ("failed", None, True, "", (False, "failed", "load_failed")),
    ("serving", None, True, "", (True, "ready", "")),
    ("serving", None, False, "", (False, "failed", "compute_dead")),
    ("serving", Running(0.0, 3.0, 1), True, "", (True, "ready", "")),  # 10 s < 3 x 3 + 1: still in time
    ("serving", Running(0.0, 2.9, 1), True, "", (False, "failed", "hung")),
    ("serving", None, True, "ValueError", (False, "failed", "canned_failed")),
    ("stopping", None, True, "", (False, "stopping", "stopping")),
    ("stopping", Running(0.0, 0.0, 1), True, "", (False, "failed", "hung")),
]


@pytest.mark.parametrize(("phase", "running", "alive", "canned", "want"), TABLE)
def test_readiness(phase: str, running: Running | None, alive: bool, canned: str, want: tuple[bool, str, str]) -> None:
    verdict = readiness(phase, running, alive, canned, 3 * 3.0 + STALE_GRACE)  # type: ignore[arg-type]
    assert verdict[:3] == want
    assert verdict.ready or verdict.detail or phase == "failed"


@pytest.mark.parametrize(
    ("want", "have", "same"),
    [
        ([1.0, 2.0], [1.00005, 2.0], True),
        ([1.0], [1.01], False),
        ([1.0], [1.0, 1.0], False),
        ("a", "a", True),
        ("1", 1, False),
        (True, 1, False),
        (None, None, True),
        (None, 0.0, False),
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({"a": 1}, {"b": 1}, False),
    ],
)
def test_golden_comparison(want: object, have: object, same: bool) -> None:
    assert close(want, have, 1e-4) is same


def test_a_summary_is_small_whatever_the_output_is() -> None:
    assert summary({"y": list(range(100)), "z": 1}) == list(range(8))
    assert summary("x" * 1000) == "x" * 64
    assert summary([{"k": "v" * 100}] * 9)[0].startswith("{'k'")
    assert summary({}) is None
