"""The Kubernetes Horizontal Pod Autoscaler, clause by clause, over one per-pod metric: concurrency.

Source: kubernetes/pkg/controller/podautoscaler (replica_calculator.go, horizontal.go) and the API defaults of
autoscaling/v2. Pods that are starting are the "not yet ready" ones of the source and have no metric of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from leptonai.plan.scale.policy import Decision, Sight


@dataclass(frozen=True)
class Limit:
    """At most this much change in ``period`` seconds; ``percent`` of, or ``pods`` beside, the replicas at its start."""

    kind: Literal["pods", "percent"]
    value: float
    period: float


@dataclass(frozen=True)
class Rules:
    """``spec.behavior.scaleUp`` or ``scaleDown``."""

    stabilization: float
    limits: tuple[Limit, ...]
    select: Literal["max", "min", "disabled"] = "max"
    tolerance: float = 0.1  # --horizontal-pod-autoscaler-tolerance


UP = Rules(0.0, (Limit("percent", 100, 15.0), Limit("pods", 4, 15.0)))
DOWN = Rules(300.0, (Limit("percent", 100, 15.0),))


class Memory(NamedTuple):
    """(time, count) pairs, oldest first: recommendations before stabilisation, replicas added, replicas deleted."""

    advice: tuple[tuple[float, int], ...] = ()
    added: tuple[tuple[float, int], ...] = ()
    deleted: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True)
class Hpa:
    target: float  # concurrency wanted per replica, on average
    up: Rules = field(default=UP)
    down: Rules = field(default=DOWN)
    period: float = 15.0  # --horizontal-pod-autoscaler-sync-period; the metric is the mean over it
    name: str = "hpa"

    def begin(self, ready: int, now: float) -> Memory:
        return Memory(advice=((now, ready),))  # horizontal.go records the replicas it finds as its first advice

    def decide(self, sight: Sight, memory: Memory) -> tuple[Decision, Memory]:
        now, current = sight.now, sight.current
        metric = sight.concurrency.mean(self.period)
        ratio, advice = self.advise(metric, sight.ready - sight.missing, sight.starting, sight.missing)
        terms = {"concurrency": metric, "target": self.target, "ratio": ratio, "advice": advice}
        reason = "metric" if advice != current else "within tolerance"
        # stabilizeRecommendationWithBehaviors
        stable = self.stabilise(advice, current, memory.advice, now)
        if stable != advice:
            reason = "stabilisation"
        # convertDesiredReplicasWithBehaviorRate
        desired, least, most = stable, sight.least, sight.most
        if desired > current:
            most = min(most, max(self.up_limit(current, memory, now), current))
            desired = min(desired, most)
        elif desired < current:
            least = max(least, min(self.down_limit(current, memory, now), current))
            desired = max(desired, least)
        desired = min(max(desired, sight.least), sight.most)
        if desired != stable:
            reason = "bounds" if desired in (sight.least, sight.most) else "rate limit"
        terms.update(stable=stable, desired=desired)
        keep = max(self.up.stabilization, self.down.stabilization)
        span = max((rule.period for rule in (*self.up.limits, *self.down.limits)), default=0.0)
        change = desired - current
        return Decision(desired, reason, terms), Memory(
            advice=(*(a for a in memory.advice if a[0] > now - keep), (now, advice)),
            added=_recent(memory.added, now, span) + (((now, change),) if change > 0 else ()),
            deleted=_recent(memory.deleted, now, span) + (((now, -change),) if change < 0 else ()),
        )

    def advise(self, total: float, measured: int, unready: int = 0, missing: int = 0) -> tuple[float, int]:
        """``(usage ratio, replicas)`` before stabilisation, as calcPlainMetricReplicas.

        ``total`` concurrency of the ``measured`` ready replicas; ``unready`` ones are starting, ``missing`` ones are
        ready without a metric. On the way up both count as idle, on the way down missing ones as exactly at target.
        """
        current = measured + unready + missing
        if current == 0:  # nothing to divide by: the ratio itself is the count
            return total / self.target, math.ceil(total / self.target)
        if measured == 0:  # no metric from any pod: no recommendation
            return 1.0, current
        ratio = total / measured / self.target
        if not missing and not (unready and ratio > 1):
            return ratio, current if self.tolerated(ratio) else math.ceil(ratio * measured)
        counted = measured
        if missing:
            counted += missing
            total += missing * self.target if ratio < 1 else 0.0
        if unready and ratio > 1:
            counted += unready
        again = total / counted / self.target
        if self.tolerated(again) or (ratio < 1 < again) or (again < 1 < ratio):
            return again, current
        wanted = math.ceil(again * counted)
        if (again < 1 and wanted > current) or (again > 1 and wanted < current):
            return again, current
        return again, wanted

    def tolerated(self, ratio: float) -> bool:
        return 1 - self.down.tolerance <= ratio <= 1 + self.up.tolerance

    def stabilise(self, advice: int, current: int, past: Sequence[tuple[float, int]], now: float) -> int:
        """``clamp(current, least advice of the up window, most advice of the down window)``."""
        floor = min([advice, *(n for at, n in past if at > now - self.up.stabilization)])
        ceiling = max([advice, *(n for at, n in past if at > now - self.down.stabilization)])
        return min(max(current, floor), ceiling)

    def up_limit(self, current: int, memory: Memory, now: float) -> int:
        if self.up.select == "disabled":
            return current
        proposed = []
        for limit in self.up.limits:
            start = _at_start(current, memory, now, limit.period)
            grown = start + limit.value if limit.kind == "pods" else math.ceil(start * (1 + limit.value / 100))
            proposed.append(int(grown))
        return min(proposed) if self.up.select == "min" else max(proposed)

    def down_limit(self, current: int, memory: Memory, now: float) -> int:
        if self.down.select == "disabled":
            return current
        proposed = []
        for limit in self.down.limits:
            start = _at_start(current, memory, now, limit.period)
            left = start - limit.value if limit.kind == "pods" else math.trunc(start * (1 - limit.value / 100))
            proposed.append(int(left))
        return max(proposed) if self.down.select == "min" else min(proposed)


def _recent(events: Sequence[tuple[float, int]], now: float, span: float) -> tuple[tuple[float, int], ...]:
    return tuple(e for e in events if e[0] > now - span)


def _at_start(current: int, memory: Memory, now: float, period: float) -> int:
    """Replicas when the period began."""
    added = sum(n for at, n in memory.added if at > now - period)
    deleted = sum(n for at, n in memory.deleted if at > now - period)
    return current - added + deleted
