"""Is this replica able to answer? Heartbeat and expectation; deciding is pure, the clock is a parameter."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from msgspec import to_builtins

from leptonai.runtime.cost import Cost
from leptonai.types import Tuning

Phase = Literal["starting", "serving", "failed", "stopping"]

STALE_FACTOR = 3.0  # a run is stale after 3 x what was expected ...
STALE_GRACE = 1.0  # ... plus this many seconds


class Running(NamedTuple):
    """The heartbeat: a batch of ``samples`` runs since ``since`` and is expected to take ``expected`` seconds."""

    since: float
    expected: float
    samples: int


class Readiness(NamedTuple):
    ready: bool
    state: Literal["starting", "ready", "failed", "stopping"]
    reason: str
    detail: str


def readiness(
    phase: Phase,
    running: Running | None,
    alive: bool,
    canned_error: str,
    now: float,
    failure: str = "",
    blocked: float = 0.0,
) -> Readiness:
    """The verdict at ``now``. ``alive``: the compute thread exists. ``canned_error``: why the idle inference failed.
    ``blocked``: seconds for which asynchronous code has not given its loop back; 0: it does.
    """
    if phase == "starting":
        return Readiness(False, "starting", "starting", "the model is being loaded")
    if phase == "failed":
        return Readiness(False, "failed", "load_failed", failure)
    if not alive:
        return Readiness(False, "failed", "compute_dead", "the compute thread has ended")
    if running is not None:
        age = now - running.since
        limit = STALE_FACTOR * running.expected + STALE_GRACE
        if age > limit:
            text = f"one batch of {running.samples} has been running for {age:.1f} s, over the limit of {limit:.1f} s"
            return Readiness(False, "failed", "hung", text)
    if blocked:
        text = f"asynchronous code has blocked its event loop for {blocked:.1f} s: it must await, or run in a thread"
        return Readiness(False, "failed", "hung", text)
    if canned_error:
        return Readiness(False, "failed", "canned_failed", f"the idle inference fails: {canned_error}")
    if phase == "stopping":
        return Readiness(False, "stopping", "stopping", "finishing the requests in flight")
    return Readiness(True, "ready", "", "")


def body(
    verdict: Readiness, since: float, in_flight: int, running_for: float, tuning: Tuning, cost: Cost
) -> dict[str, Any]:
    """What ``/-/ready`` answers. ``cost``: seconds a sample and seconds a batch, as learnt; null before any run."""
    return {
        "state": verdict.state,
        "reason": verdict.reason,
        "detail": verdict.detail,
        "since": since,
        "in_flight": in_flight,
        "running_for": running_for,
        "tuning": to_builtins(tuning),
        "cost": [cost.per_sample, cost.fixed] if cost.learn().runs else None,
    }
