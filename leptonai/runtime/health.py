"""Is this replica able to answer? Heartbeat and expectation; deciding is pure, the clock is a parameter."""

from __future__ import annotations

from collections import deque
from math import exp
from typing import Any, Literal, NamedTuple

Phase = Literal["starting", "serving", "failed", "stopping"]

STALE_FACTOR = 3.0  # a run is stale after 3 x what was expected ...
STALE_GRACE = 1.0  # ... plus this many seconds
FORGET = 300.0  # seconds in which the slowest run seen loses 1 - 1/e of its weight
UNKNOWN = 10.0  # seconds expected of a run before any was seen
LONG = 0.02  # seconds of a run that nobody else should wait for: several time slices of a busy core
QUICK = 200e-6  # seconds of a mean run up to which a hop to another thread (10 to 20 us of CPU) is worth saving
PROVEN = 1000  # runs without a long one until a model counts as quick


class Cost:
    """How long a batch of n samples takes: the larger of a fitted line t(n) = a n + b and the slowest run of late.

    The line is least squares over all runs with exponential forgetting (factor 0.99 a run); the slowest run guards
    models whose time does not follow from the number of samples.
    """

    def __init__(self) -> None:
        self._w = self._n = self._t = self._nn = self._nt = 0.0
        self._slowest = 0.0
        self._at = 0.0
        self._seen: deque[tuple[int, float, float]] = deque(maxlen=1024)  # older ones weigh 0.99 ** 1024, nothing
        self._short = 0  # runs since the last long one

    def saw(self, samples: int, seconds: float, now: float) -> None:
        """A run took ``seconds``. Costs an append: what it means is worked out when somebody asks."""
        self._seen.append((samples, seconds, now))
        self._short = self._short + 1 if seconds < LONG else 0

    def _learn(self, samples: int, seconds: float, now: float) -> None:
        keep = 0.99
        self._w = self._w * keep + 1.0
        self._n = self._n * keep + samples
        self._t = self._t * keep + seconds
        self._nn = self._nn * keep + samples * samples
        self._nt = self._nt * keep + samples * seconds
        if seconds >= self._slowest * exp((self._at - now) / FORGET):
            self._slowest, self._at = seconds, now

    def _catch_up(self) -> None:
        while self._seen:
            self._learn(*self._seen.popleft())

    def quick(self) -> bool:
        """Runs are so short that the I/O loop can do them itself: QUICK on average, the last PROVEN all below LONG."""
        self._catch_up()
        return self._short >= PROVEN and self._t <= QUICK * self._w

    def expect(self, samples: int, now: float) -> float:
        """Seconds a batch of ``samples`` should take at most; UNKNOWN before any run."""
        self._catch_up()
        if self._w == 0.0:
            return UNKNOWN
        variance = self._w * self._nn - self._n * self._n
        slope = 0.0 if variance <= 1e-9 else max(0.0, (self._w * self._nt - self._n * self._t) / variance)
        line = slope * samples + (self._t - slope * self._n) / self._w
        return max(line, self._slowest * exp((self._at - now) / FORGET), 0.0)


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
    phase: Phase, running: Running | None, alive: bool, canned_error: str, now: float, failure: str = ""
) -> Readiness:
    """The verdict at ``now``. ``alive``: the compute thread exists. ``canned_error``: why the idle inference failed."""
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
    if canned_error:
        return Readiness(False, "failed", "canned_failed", f"the idle inference fails: {canned_error}")
    if phase == "stopping":
        return Readiness(False, "stopping", "stopping", "finishing the requests in flight")
    return Readiness(True, "ready", "", "")


def body(verdict: Readiness, since: float, in_flight: int, running_for: float) -> dict[str, Any]:
    """What ``/-/ready`` answers."""
    return {
        "state": verdict.state,
        "reason": verdict.reason,
        "detail": verdict.detail,
        "since": since,
        "in_flight": in_flight,
        "running_for": running_for,
    }
