"""Whether a plan may be put to the door now. The door judges once more; what is asked here only ops can know."""

from __future__ import annotations

from collections.abc import Collection

from leptonai.ops.respond.plan import Plan
from leptonai.ops.respond.sight import Sight
from leptonai.ops.runbook.rows import Step
from leptonai.types import Action, DialChange, JobChange, Key, Service, SpecChange

# What may be done in the middle of somebody's deploy: it ends the deploy, or the deploy cannot end without it.
DURING_DEPLOY = frozenset({"rollback", "evict", "recycle"})


def unfit(plan: Plan, step: Step, service: Service, theirs: Collection[Key] = ()) -> str:
    """Why the plan is not to be made at all, now or later; "": it may be. ``service``: whose wish it changes.
    ``theirs``: services whose replicas somebody else sets."""
    limits = step.limits
    if plan.replaces > 1 and plan.share > limits.share:
        return f"it replaces {plan.share:.0%} of the replicas, the limit is {limits.share:.0%} (limits.share)"
    change = plan.proposal.change
    if isinstance(change, DialChange):
        bounds = service.spec.scale
        for path, value in change.set.items():
            name, _, dial = path.rpartition(".")
            was = service.dials.variants.get(name)
            if dial != "replicas" or was is None:
                continue
            if service.key in theirs:
                return f"the replicas of {service.key} are set by {bounds.owner}, not by us"
            if not bounds.min <= value <= bounds.max:
                return f"{path} = {value:g} is outside scale.min {bounds.min} to scale.max {bounds.max}"
            if value < 1 <= was.replicas:
                return f"{path} = {value:g} takes the last replica of {service.key}"
    if not plan.preview and not isinstance(change, JobChange):
        return "it changes nothing"
    return ""


def busy(plan: Plan, step: Step, sight: Sight, service: Service) -> str:
    """Why the plan has to wait; "": it need not."""
    held = sight.held.get(plan.service, "")
    if held and not (held.startswith("deploy:") and step.name in DURING_DEPLOY):
        return held.removeprefix("deploy:").strip()
    change = plan.proposal.change
    if isinstance(change, SpecChange) and service.canary is not None and step.name != "rollback":
        return f"revision {service.revision} is on probation"
    paths = change.set if isinstance(change, DialChange) else {}
    going = {p.removeprefix("evict.") for p in paths if p.startswith("evict.")}
    wished = sum(d.replicas for d in service.dials.variants.values())
    left = len(sight.serving - going)
    # A service that wishes for one only gets its successor first, so nothing is drained.
    if going & sight.serving and wished > 1 and left < min(step.limits.ready, wished - 1):
        return f"{left} other replica(s) ready, {min(step.limits.ready, wished - 1)} must be (limits.ready)"
    return ""


def fault_of(cause: str, subject: str) -> str:
    """What a fault is known by over incidents. A replica's name is not of it: its successor has another."""
    return f"{cause} of {subject}" if "#" in subject else cause


def failures(remedy: str, fault: str, actions: tuple[Action, ...], since: float) -> int:
    """How often ``remedy`` was tried against ``fault`` since then and did not help."""
    return sum(
        a.remedy == remedy and a.about in (fault, "") and a.at >= since and a.verdict not in (None, "effective")
        for a in actions
    )
