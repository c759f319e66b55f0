"""What may be done with a decision. Pure: the same situation always gives the same verdict.

What holds for every situation (tested on random ones): nothing changes on stale telemetry, against a person's word or
while a remedy is being verified; nothing goes while an incident is open or a replica does not show its numbers.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from leptonai.plan.scale import Decision, Reading

Bound = Literal["", "a person set it", "stale telemetry", "remedy under way", "incident open", "silent replicas"]


class Situation(NamedTuple):
    """``age``: seconds since telemetry was last complete. ``incident``: of the service, and what is being done."""

    wished: int  # the replicas dial in force
    auto: bool  # nobody has taken it out of the scaler's hands
    age: float
    stale_after: float
    incident: Literal["none", "open", "remedy"]
    missing: int = 0


def allowed(desired: int, situation: Situation) -> tuple[int, Bound]:
    """The replicas to wish, and what kept them from being ``desired`` ("" when nothing did)."""
    wished = situation.wished
    if desired == wished:
        return wished, ""
    if not situation.auto:
        return wished, "a person set it"
    if situation.age > situation.stale_after:
        return wished, "stale telemetry"
    if situation.incident == "remedy":
        return wished, "remedy under way"
    if desired < wished:
        if situation.incident == "open":
            return wished, "incident open"
        if situation.missing:
            return wished, "silent replicas"
    return desired, ""


REASONS = {
    "stable": "the load of the window asks for it",
    "panic": "the load rose faster than a start takes, and its queue counts",
    "forecast": "that much is expected by the time a replica started now is ready",
    "held": "what was needed lately is kept for a while",
    "bounds": "scale.min, scale.max or the room of this machine",
    "metric": "the metric is off its target",
    "within tolerance": "the metric is within 10 % of its target",
    "stabilisation": "the highest advice of the stabilisation window",
    "held in panic": "panic holds the count",
    "scale-down delay": "the scale-down delay holds the count",
    "grace before zero": "the last replica is kept for the grace period",
    "wake": "requests are held until a replica is ready",
    "floor": "what this service has needed before is kept ready",
}
BOUNDS = {
    "a person set it": "a person set the replicas; `leptonai scale NAME auto` hands them back",
    "stale telemetry": "telemetry is too old to act upon",
    "remedy under way": "a remedy of an open incident is being verified",
    "incident open": "an incident is open, so nothing is taken away",
    "silent replicas": "a ready replica does not show its numbers, so nothing is taken away",
}


def said(wished: int, final: int, decision: Decision, reading: Reading, bound: Bound, rule: str, age: float) -> str:
    """The decision in plain words, with the numbers it rests on."""
    change = f"{wished} → {final} replicas" if final != wished else f"stays at {wished} replicas"
    wanted = f"the policy wants {decision.desired}: {REASONS.get(decision.reason, decision.reason)}"
    kept = f"; but {BOUNDS[bound]}" if bound else ""
    parts = [f"demand {reading.demand:.2f} at once", f"{reading.concurrency:.1f} in the system"]
    if reading.waiting > 0:
        parts.append(f"{reading.waiting:.1f} replica-seconds waiting")
    parts += [f"{reading.ready} ready", f"{reading.starting} starting", f"a start takes {reading.startup:.1f} s"]
    if rule:
        parts.append(f"forecast by {rule}")
    return f"{change}; {wanted}{kept} ({', '.join(parts)}; telemetry {age:.1f} s old)"
