"""The Knative Pod Autoscaler, clause by clause.

Source: knative/serving/pkg/autoscaler/scaling/autoscaler.go and the defaults of config-autoscaler.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from leptonai.plan.scale.policy import Decision, Sight, bounded


class Memory(NamedTuple):
    panic: float | None = None  # when the panic threshold was last exceeded; None: not panicking
    most: int = 0  # maxPanicPods: what is held while panicking
    held: tuple[tuple[float, int], ...] = ()  # desired counts within the scale-down delay
    busy: float = 0.0  # when concurrency was last above zero


@dataclass(frozen=True)
class Kpa:
    target: float  # concurrency wanted per replica: containerConcurrency x target utilisation (0.7)
    period: float = 2.0  # tick-interval
    stable: float = 60.0  # stable-window
    panic_share: float = 0.1  # panic-window-percentage: the panic window is 6 s
    panic_threshold: float = 2.0  # panic-threshold-percentage
    max_up: float = 1000.0  # max-scale-up-rate
    max_down: float = 2.0  # max-scale-down-rate
    reachable: bool = True  # a route points here; only then is the way down limited
    activation: int = 1  # activation-scale
    delay: float = 0.0  # scale-down-delay
    burst: float = 200.0  # target-burst-capacity
    capacity: float | None = None  # what one replica can hold at once (TotalValue); None: target / 0.7
    grace: float = 30.0  # scale-to-zero-grace-period: from idle to zero, after the stable window
    name: str = "kpa"

    def begin(self, ready: int, now: float) -> Memory:
        """A start with more than one replica begins in panic, so that the count is held until there is history."""
        return Memory(panic=now if ready > 1 else None, most=ready, busy=now)

    def decide(self, sight: Sight, memory: Memory) -> tuple[Decision, Memory]:
        now = sight.now
        stable, panic = sight.concurrency.mean(self.stable), sight.concurrency.mean(self.stable * self.panic_share)
        ready = max(1, sight.ready)
        ceiling = math.ceil(self.max_up * ready)
        floor = math.floor(ready / self.max_down) if self.reachable else 0
        raw_stable, raw_panic = math.ceil(stable / self.target), math.ceil(panic / self.target)
        want_stable = min(max(raw_stable, floor), ceiling)
        want_panic = min(max(raw_panic, floor), ceiling)
        if self.activation > 1:
            want_stable = max(want_stable, self.activation) if raw_stable > 0 else want_stable
            want_panic = max(want_panic, self.activation) if raw_panic > 0 else want_panic
        over = raw_panic / ready >= self.panic_threshold
        since, most = memory.panic, memory.most
        if over:
            since = now
        elif since is not None and since + self.stable < now:
            since, most = None, 0
        desired, reason = want_stable, "stable"
        if since is not None:
            if max(want_stable, want_panic) > most:
                most, reason = max(want_stable, want_panic), "panic"
            else:
                reason = "held in panic"
            desired = most
        held = memory.held
        if self.delay > 0:
            held = (*(h for h in held if h[0] > now - self.delay), (now, desired))
            delayed = max(n for _, n in held)
            if delayed != desired:
                desired, reason = delayed, "scale-down delay"
        if desired > 0:
            busy = now
        else:
            busy = memory.busy
            if sight.current and now - busy < self.grace:  # KPA's reconciler keeps the last replica for the grace
                desired, reason = 1, "grace before zero"
        capacity = self.target / 0.7 if self.capacity is None else self.capacity
        excess = -1.0
        if self.burst >= 0:
            excess = math.floor(sight.ready * capacity - self.burst - panic) if self.burst else 0.0
        terms = {
            "stable_concurrency": stable,
            "panic_concurrency": panic,
            "target": self.target,
            "stable": want_stable,
            "panic": want_panic,
            "panicking": float(since is not None),
            "excess_burst_capacity": excess,
        }
        final = bounded(desired, sight)
        if final != desired:
            reason = "bounds"
        terms["desired"] = final
        return Decision(final, reason, terms), Memory(since, most, held, busy)
