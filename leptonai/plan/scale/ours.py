"""Our own policy: ``max(stable, panic, forecast)``. The forecast can only add to what the present asks for.

All three are in units of demand, arrivals a second x seconds of service (Little's law), because measured concurrency
also counts the queue that our own shortage made. docs/scaling.md has the formulas with their sources.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from leptonai.plan.scale.policy import Decision, Sight, bounded

# A target of 0.7 (Knative's default utilisation) asks for the 90th percentile of demand: z = 1.2816 at 1/0.7 - 1.
HEADROOM = 1.2816 / (1 / 0.7 - 1)


class Memory(NamedTuple):
    present: tuple[tuple[float, int], ...] = ()  # (time, replicas for the present) within the hold, descending
    ahead: tuple[tuple[float, int], ...] = ()  # the same for the forecast


@dataclass(frozen=True)
class Ours:
    target: float  # concurrency wanted per replica
    period: float = 2.0  # seconds; Knative's tick
    stable: float = 60.0  # seconds; Knative's stable window
    hold: float = 300.0  # seconds that what the present asked for is kept: the HPA's scale-down stabilisation
    name: str = "ours"

    def begin(self, ready: int, now: float) -> Memory:
        return Memory(present=((now, ready),))

    def decide(self, sight: Sight, memory: Memory) -> tuple[Decision, Memory]:
        now, capacity = sight.now, sight.capacity
        filled = self.target / capacity
        outlook = sight.outlook
        # With an outlook, headroom is the outlook's business and the present only has to be carried; without one,
        # the target is the headroom, as in Knative.
        share = max(filled, 1.0) if outlook else filled
        stable = sight.demand.mean(self.stable)
        # A surge shorter than a start-up is over before a new replica can help, so panic looks back that far; what is
        # left of the queue by then has to be worked off within another start-up.
        recent = max(sight.startup, 3 * self.period)
        surge = sight.demand.mean(recent)
        left = max(0.0, sight.waiting + (surge - sight.current * capacity) * recent) / recent
        panic = surge + left if surge + left >= 2 * sight.ready * capacity else 0.0
        ahead = 0.0
        z = HEADROOM * (1 / filled - 1)
        if outlook:
            ahead = outlook.mean + z * math.sqrt(outlook.variance) if z > 0 else outlook.mean / filled
        terms = {"stable": stable / share, "panic": panic / share, "forecast": ahead}
        reason = max(terms, key=lambda name: terms[name])
        now_wanted = math.ceil(max(terms["stable"], terms["panic"]) / capacity - 1e-9)
        then_wanted = math.ceil(terms["forecast"] / capacity - 1e-9)
        present = _hold(memory.present, now - self.hold, now, now_wanted)
        # An addition for the future is kept as long as starting it again would cost (ski rental).
        later = _hold(memory.ahead, now - max(self.stable, sight.startup), now, then_wanted)
        wanted = max(now_wanted, then_wanted)
        held = max(present[0][1], later[0][1])
        if held > wanted:
            reason = "held"
        final = bounded(held, sight)
        if final != held:
            reason = "bounds"
        terms.update(z=z, left=left, wanted=wanted, desired=final, target=self.target)
        if outlook:
            terms.update(mean=outlook.mean, deviation=math.sqrt(outlook.variance))
        return Decision(final, reason, terms), Memory(present, later)


def _hold(held: tuple[tuple[float, int], ...], since: float, now: float, wanted: int) -> tuple[tuple[float, int], ...]:
    """The pairs that may still be the most of a sliding window; the first one is it. Amortised O(1) a decision."""
    kept = list(held)
    while kept and kept[-1][1] <= wanted:
        kept.pop()
    kept.append((now, wanted))
    first = 0
    while kept[first][0] < since:
        first += 1
    return tuple(kept[first:])
