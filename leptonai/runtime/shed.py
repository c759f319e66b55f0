"""Who may join the queue. What would not be answered in time is told so at once, before anything is computed for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from time import monotonic
from typing import NoReturn, Protocol

import msgspec

from leptonai.errors import CapacityError, SpecError
from leptonai.runtime.batching import LEVELS, USUAL, Job
from leptonai.runtime.cost import Cost
from leptonai.types import MOST_RULES, Batching, InputRule, Tuning

LEARNT = 5  # runs from which the cost is believed enough to refuse somebody
# Times what is learnt of the runs: there is work between them (4 % of calls of 40 ms), and the request was on its way
# before. A queue that stands exactly at the deadline computes every answer a moment too late, for nobody.
SPARE = 1.1


def schedule(job: Job, headers: Mapping[bytes, bytes]) -> None:
    """What the headers ``x-timeout-us`` and ``x-priority`` say, where the body says nothing. SpecError for nonsense."""
    for name, limit in ((b"x-timeout-us", 10**12), (b"x-priority", LEVELS)):
        text = headers.get(name, b"0")
        if not text.isdigit() or len(text) > 13 or int(text) > limit:
            raise SpecError(
                f"{name.decode()} is {text[:40].decode('latin-1')!r}",
                hint=f"a whole number from 0 (not given) to {limit}",
            )
    job.allowed = job.allowed or int(headers.get(b"x-timeout-us", b"0")) / 1e6
    if job.priority == USUAL:
        job.priority = int(headers.get(b"x-priority", b"0")) or USUAL


class Work(Protocol):
    """What is known of the compute thread."""

    cost: Cost
    running: tuple[float, int] | None
    taken: list[int]


def admit(
    job: Job, limits: Batching, submitted: Sequence[int], work: Work, alone: bool, now: float | None = None
) -> None:
    """Return when ``job`` may wait; CapacityError 429 with Retry-After otherwise.

    ``shed``: more than ``max_queue`` samples would wait. ``shed_deadline``: what is computed before it, by the learnt
    cost with SPARE, leaves no time until its deadline. A job that finds nobody before it is never shed: an idle model
    computes, so that a cost learnt wrong cannot keep everybody out. ``submitted`` and ``work.taken``: samples by
    priority.
    """
    waiting = sum(submitted) - sum(work.taken)
    running = work.running
    if waiting <= 0 and running is None:
        return
    cost, cap = work.cost, limits.max_size
    if waiting > 0 and waiting + job.samples > limits.max_queue:
        over = min(waiting, waiting + job.samples - limits.max_queue)
        _shed(
            f"{waiting} samples wait, the limit is {limits.max_queue}", "shed", answered_in(cost, cap, 0, over, alone)
        )
    if cost.runs < LEARNT:
        return
    allowed = job.deadline - (monotonic() if now is None else now)
    if SPARE * (answered_in(cost, cap, max(waiting, 0), job.samples, alone) + _left(cost, running, now)) <= allowed:
        return
    level = job.priority + 1
    before = max(0, sum(submitted[:level]) - sum(work.taken[:level]))
    needed = SPARE * (answered_in(cost, cap, before, job.samples, alone) + _left(cost, running, now))
    if needed > allowed:
        text = f"an answer would take {needed:.3f} s, {max(0.0, allowed):.3f} s are left"
        _shed(text, "shed_deadline", needed - allowed)


def answered_in(cost: Cost, cap: int, ahead: int, samples: int, alone: bool) -> float:
    """Seconds until ``samples`` are computed, behind ``ahead`` others, as learnt. ``alone``: none share a batch."""
    total = ahead + samples
    if alone:
        return total * cost.time(1)
    return cost.per_sample * total + cost.fixed * ceil(total / cap)


def _left(cost: Cost, running: tuple[float, int] | None, now: float | None) -> float:
    if running is None:
        return 0.0
    return max(0.0, running[0] + cost.time(running[1]) - (monotonic() if now is None else now))


def _shed(text: str, code: str, after: float) -> NoReturn:
    raise CapacityError(
        text, hint="send slower, allow more time, or add replicas", code=code, status=429, retry_after=round(after, 3)
    )


def decode_tuning(body: bytes) -> Tuning:
    """The Tuning in ``body``. SpecError when it is none, or one that no batch could be made by."""
    try:
        tuning = msgspec.json.decode(body, type=Tuning)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise SpecError(
            f"not a tuning: {e}", hint='send {"batching": {...}, "latency": seconds, "timeout": seconds}'
        ) from e
    limits = tuning.batching
    for name, value in (
        ("batching.max_size", limits.max_size),
        ("batching.max_bytes", limits.max_bytes),
        ("batching.max_queue", limits.max_queue),
        ("latency", tuning.latency),
        ("timeout", tuning.timeout),
    ):
        if not value > 0:
            raise SpecError(f"{name} is {value:g}", hint="it must be above 0")
    if len(tuning.refuse) > MOST_RULES:
        raise SpecError(f"refuse has {len(tuning.refuse)} rules", hint=f"{MOST_RULES} are the most")
    for text in tuning.refuse:
        if InputRule.parse(text) is None:
            raise SpecError(f"refuse has {text[:80]!r}", hint="a rule is like image.high>508")
    if not 0 <= limits.max_wait <= 60:
        raise SpecError(f"batching.max_wait is {limits.max_wait:g}", hint="it may be 0 to 60 seconds")
    return tuning
