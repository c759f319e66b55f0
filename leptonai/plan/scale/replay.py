"""A service replayed against a policy: discrete events, exact to the float, much faster than real time.

The model: requests arrive at given times and wait in one first-come-first-served queue (the gateway's); a ready
replica serves ``concurrency`` of them at once, each for its service time; a replica is ready ``startup`` seconds after
it was wished; one that is taken away finishes what it serves. Starting replicas are taken away first, then the idlest.
A replica is paid for from its start until it is gone. No request is ever given up, however long it waits.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from heapq import heapify, heappop, heappush, heapreplace
from math import inf

import numpy as np

from leptonai.errors import SpecError
from leptonai.plan.scale.learn import Learner
from leptonai.plan.scale.pilot import Pilot, Reading
from leptonai.plan.scale.policy import Decision, Policy, Sight
from leptonai.protocols import Floats
from leptonai.types import Noun

SETTLED = 600.0  # seconds without a request after which no policy here changes its mind: twice the longest window
Watch = Callable[[Sight, Decision], None]


class Setup(Noun, frozen=True, kw_only=True):
    """The service that is replayed. Times in seconds."""

    service_time: float = 1.0
    concurrency: int = 1  # requests a replica serves at once
    startup: float = 30.0
    slo_wait: float = 1.0  # a request that waits longer before it is served violates the objective
    least: int = 1
    most: int = 64
    initial: int | None = None  # replicas ready at the first arrival; None: what the policy begins with
    spread: float = 0.0  # of service times: 0 constant; else gamma distributed with this coefficient of variation
    seed: int = 0
    counted_from: float = 0.0  # share of the trace's time that only teaches: outcomes are of what arrives after it

    def check(self) -> None:
        """SpecError unless every number makes sense."""
        for name in ("service_time", "startup", "slo_wait", "spread"):
            value, floor = getattr(self, name), 0.0
            if not (floor <= value < inf) or (name == "service_time" and value == 0):
                raise SpecError(f"{name} is {value}, wanted a number of seconds above 0")
        for name, value, low, high in (
            ("concurrency", self.concurrency, 1, 10_000),
            ("the most replicas", self.most, 1, 10_000),
            ("the least replicas", self.least, 0, self.most),
            ("the replicas to begin with", self.initial or 0, 0, self.most),
        ):
            if not low <= value <= high:
                raise SpecError(f"{name}: {value}, wanted {low} to {high}")
        if not 0 <= self.counted_from < 1:
            raise SpecError(f"counted_from is {self.counted_from}, wanted a share from 0 up to, not including, 1")


class Outcome(Noun, frozen=True, kw_only=True):
    """What a replay came to. Waits are until service begins, in seconds."""

    policy: str
    target: float | None  # the policy's knob: concurrency wanted per replica
    requests: int
    slo_violations: int
    violation_share: float
    replica_seconds: float
    peak_replicas: int
    mean_replicas: float
    utilization: float  # share of the paid slots that served a request
    wait_p50: float
    wait_p99: float
    wait_max: float
    starts: int  # replicas started, those of the beginning not counted
    duration: float  # from the first arrival to the last answer
    decisions: int


def replay(
    arrivals: Floats, policy: Policy, setup: Setup, learner: Learner | None = None, watch: Watch | None = None
) -> Outcome:
    """Run ``arrivals`` (ascending seconds) to the last answer. ``watch`` is shown every decision with its sight."""
    setup.check()
    if len(arrivals) == 0:
        raise SpecError("no arrivals to replay", hint="the trace holds no time stamp")
    return _Run(np.asarray(arrivals, dtype=np.float64) - float(arrivals[0]), policy, setup, learner, watch).run()


class _Run:
    def __init__(
        self, arrivals: Floats, policy: Policy, setup: Setup, learner: Learner | None, watch: Watch | None
    ) -> None:
        self.policy, self.setup, self.learner, self.watch = policy, setup, learner, watch
        self.arrivals: list[float] = arrivals.tolist()
        self.sums: list[float] = np.concatenate(([0.0], np.cumsum(arrivals))).tolist()
        self.times: list[float] = service_times(setup, len(arrivals)).tolist()
        self.starts: list[float] = []  # when each request was begun, in order of arrival
        self.slots: list[tuple[float, int]] = []  # heap of (free from, replica): one entry per request it can hold
        self.ends: list[float] = []  # heap: when the requests in service are done
        self.live: dict[int, tuple[float, float]] = {}  # replica -> (paid from, ready at), oldest first
        self.since: float = setup.counted_from * self.arrivals[-1]
        self.born = self.left = self.peak = 0
        self.left_sum = self.paid = 0.0

    def run(self) -> Outcome:
        policy, setup, arrivals = self.policy, self.setup, self.arrivals
        initial = max(1, setup.least) if setup.initial is None else setup.initial
        self._start(initial, 0.0, 0.0)
        self.peak = initial if self.since == 0 else 0
        pilot = Pilot(policy, setup.concurrency, initial, 0.0, self.learner)
        before, done, seen, quiet, decisions = 0.0, 0.0, 0, 0.0, 0
        while len(self.starts) < len(arrivals):
            now = before + policy.period
            following = arrivals[len(self.starts)]
            if quiet >= SETTLED and following > now:  # nothing can change before it but a forecast: skip
                gap = (following - before) // policy.period
                stride = gap if self.learner is None else min(gap, self.learner.sample // policy.period)
                now = before + max(1.0, stride) * policy.period
            self._serve(now)
            arrived = bisect_left(arrivals, now, lo=seen)
            integral = self._integral(now, arrived)
            ready = sum(at <= now for _, at in self.live.values())
            seconds = now - before
            reading = Reading(
                at=now,
                seconds=seconds,
                demand=(arrived - seen) * setup.service_time / seconds,
                concurrency=(integral - done) / seconds,
                waiting=(arrived - len(self.starts)) * setup.service_time,
                ready=ready,
                starting=len(self.live) - ready,
                least=setup.least,
                most=setup.most,
                startup=setup.startup,
            )
            decision = pilot.step(reading)
            assert decision is not None and pilot.sight is not None  # a replay reads once a period
            decisions += 1
            if self.watch:
                self.watch(pilot.sight, decision)
            change = decision.desired - len(self.live)
            if change > 0:
                self._start(change, now, now + setup.startup)
            elif change < 0:
                self._stop(-change, now)
            if now >= self.since:
                self.peak = max(self.peak, len(self.live))
            idle = not self.ends and arrived == seen == len(self.starts) and change == 0 and ready == len(self.live)
            quiet = quiet + now - before if idle else 0.0
            before, done, seen = now, integral, arrived
        return self._outcome(initial, decisions)

    def _serve(self, until: float) -> None:
        """Begin every request that can begin before ``until``."""
        arrivals, times, slots, ends, starts = self.arrivals, self.times, self.slots, self.ends, self.starts
        i, n = len(starts), len(arrivals)
        while i < n and slots:
            free, replica = slots[0]
            at = arrivals[i]
            if free > at:
                at = free
            if at >= until:
                return
            end = at + times[i]
            heapreplace(slots, (end, replica))
            heappush(ends, end)
            starts.append(at)
            i += 1

    def _integral(self, now: float, arrived: int) -> float:
        """Requests in the system, waiting or served, integrated over time from the beginning until ``now``."""
        ends = self.ends
        while ends and ends[0] <= now:
            self.left += 1
            self.left_sum += heappop(ends)
        return (arrived - self.left) * now - self.sums[arrived] + self.left_sum

    def _start(self, count: int, now: float, ready: float) -> None:
        for _ in range(count):
            self.live[self.born] = (now, ready)
            for _ in range(self.setup.concurrency):
                heappush(self.slots, (ready, self.born))
            self.born += 1

    def _stop(self, count: int, now: float) -> None:
        busy = dict.fromkeys(self.live, 0)
        last = dict.fromkeys(self.live, now)
        for free, replica in self.slots:
            if free > now:
                busy[replica] += 1
                last[replica] = max(last[replica], free)
        starting = [r for r, (_, ready) in self.live.items() if ready > now]
        idlest = sorted((r for r in self.live if r not in starting), key=lambda r: (busy[r], last[r]))
        gone = set([*reversed(starting), *idlest][:count])
        for replica in gone:
            began, ready = self.live.pop(replica)
            self.paid += self._bill(began, now if ready > now else last[replica])
        self.slots = [s for s in self.slots if s[1] not in gone]
        heapify(self.slots)

    def _bill(self, began: float, end: float) -> float:
        return max(0.0, end - max(began, float(self.since)))

    def _outcome(self, initial: int, decisions: int) -> Outcome:
        starts, times, arrivals = np.array(self.starts), np.array(self.times), np.array(self.arrivals)
        end = float((starts + times).max())
        paid = self.paid + sum(self._bill(began, end) for began, _ in self.live.values())
        counted = arrivals >= self.since
        waits = (starts - arrivals)[counted]
        late = int((waits > self.setup.slo_wait + 1e-9).sum())  # rounding is no violation
        return Outcome(
            policy=self.policy.name,
            target=getattr(self.policy, "target", None),
            requests=len(waits),
            slo_violations=late,
            violation_share=late / len(waits),
            replica_seconds=paid,
            peak_replicas=self.peak,
            mean_replicas=paid / (end - self.since),
            utilization=float(times[counted].sum()) / (paid * self.setup.concurrency),
            wait_p50=float(np.quantile(waits, 0.5)),
            wait_p99=float(np.quantile(waits, 0.99)),
            wait_max=float(waits.max()),
            starts=self.born - initial,
            duration=end - self.since,
            decisions=decisions,
        )


def service_times(setup: Setup, count: int) -> Floats:
    if setup.spread == 0:
        return np.full(count, setup.service_time)
    shape = setup.spread**-2.0
    return np.random.default_rng(setup.seed).gamma(shape, setup.service_time / shape, count)
