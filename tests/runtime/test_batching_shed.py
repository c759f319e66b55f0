"""Who may join the queue: shedding says when to come back, and an idle model refuses nobody."""

from __future__ import annotations

import pytest

from leptonai.errors import CapacityError, SpecError
from leptonai.runtime.batching import LEVELS, USUAL
from leptonai.runtime.cost import Cost
from leptonai.runtime.shed import admit, decode_tuning
from leptonai.types import Batching
from tests.runtime.test_batching_order import exact, job


class Now:
    """A compute thread at one moment."""

    def __init__(self, waiting: dict[int, int], running: tuple[float, int] | None, cost: Cost) -> None:
        self.cost, self.running, self.taken = cost, running, [0] * (LEVELS + 1)
        self.submitted = [waiting.get(level, 0) for level in range(LEVELS + 1)]


SLOW = exact(0.010, 0.040)  # a full batch of 16 takes 0.2 s
TABLE = {  # waiting, running, samples, priority, seconds allowed, refused with, to come back after
    "nobody waits": ({}, None, 1, USUAL, 0.0001, "", 0.0),
    "in time": ({USUAL: 32}, None, 1, USUAL, 0.5, "", 0.0),
    "hardly in time": ({USUAL: 32}, None, 1, USUAL, 0.46, "shed_deadline", 0.035),
    "not in time": ({USUAL: 32}, None, 1, USUAL, 0.25, "shed_deadline", 0.245),
    "what runs counts": ({}, (0.9, 16), 1, USUAL, 0.1, "shed_deadline", 0.05),
    "what is before it counts": ({1: 63}, None, 1, USUAL, 0.1, "shed_deadline", 0.78),
    "what is behind it does not": ({LEVELS: 63}, None, 1, USUAL, 0.1, "", 0.0),
    "a full queue": ({USUAL: 64}, None, 16, USUAL, 30.0, "shed", 0.2),
    "a full queue has no levels": ({LEVELS: 64}, None, 1, 1, 30.0, "shed", 0.05),
    "larger than the queue": ({}, None, 100, USUAL, 30.0, "", 0.0),
}


@pytest.mark.parametrize("name", list(TABLE))
def test_admission(name: str) -> None:
    waiting, running, samples, priority, allowed, code, after = TABLE[name]
    now = Now(waiting, running, SLOW)
    one = job(samples, arrived=1.0, deadline=1.0 + allowed, priority=priority)
    limits = Batching(max_size=16, max_queue=64)
    if not code:
        admit(one, limits, now.submitted, now, False, 1.0)
        return
    with pytest.raises(CapacityError) as e:
        admit(one, limits, now.submitted, now, False, 1.0)
    assert (e.value.code, e.value.status, e.value.retry) == (code, 429, True)
    assert e.value.retry_after == pytest.approx(after, abs=0.02)


def test_a_cost_that_nobody_has_learnt_refuses_nobody_for_its_deadline() -> None:
    now = Now({USUAL: 32}, None, Cost())
    admit(job(1, deadline=0.001), Batching(), now.submitted, now, False, 0.0)


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"[]", "not a tuning"),
        (b'{"batching": {"size": 1}}', "size"),
        (b'{"batching": {"max_size": 0}}', "batching.max_size is 0"),
        (b'{"latency": -1}', "latency is -1"),
        (b'{"batching": {"max_wait": 61}}', "max_wait is 61"),
    ],
)
def test_a_tuning_that_no_batch_could_be_made_by_is_refused(body: bytes, part: str) -> None:
    with pytest.raises(SpecError, match=part.replace("[", r"\[")):
        decode_tuning(body)
