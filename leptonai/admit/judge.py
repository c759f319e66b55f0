"""The judge, a pure function of (proposal, actor, world).

It asks, in this order: may this token, is it still in time, is it well-formed and made from the head, is it too much
automation, does a person have to approve. The kill switch, the pace and the cool-down bind automatic proposals only,
those whose ``by`` is not ``human:...``. The scaler has a pace of its own: its changes delay no runbook's, and no
runbook's delays one of its; it sets ``replicas`` (and names replicas to let go) of services that ask for it, and never
what a person has set. A rollout keeps the pace of its own spec. A custom resource of a cluster is what people wrote and
machines apply: the kill switch binds it, the pace does not, nor does it count against anybody's.
"""

from __future__ import annotations

import math
from typing import Literal

from leptonai.admit.limits import check
from leptonai.admit.world import World
from leptonai.types import (
    HUMAN,
    PEOPLE,
    SCALER,
    Change,
    DeleteChange,
    DialChange,
    JobChange,
    Key,
    Proposal,
    Revision,
    Role,
    SpecChange,
    Token,
    effective_dials,
    parse_key,
)

Status = Literal["pending", "admitted", "denied", "expired"]
INCIDENT = "incident:"  # begins the name of a runbook at work, which owns its proposals
ROLLOUT = "rollout"  # moves a revision along the steps its spec names, or takes it back: bound by the kill switch only
_RANK: dict[Role, int] = {"viewer": 0, "operator": 1, "admin": 2}


def automatic(by: str) -> bool:
    """Whether a proposal of ``by`` (``human:ana``, ``incident:42``, ``scaler``) is bound by the kill switch."""
    return not by.startswith(HUMAN)


def paced(by: str) -> bool:
    """Whether it is bound by pace and cool-down too, and counts against them."""
    return by != ROLLOUT and not by.startswith(PEOPLE)


def judge(proposal: Proposal, actor: Token, world: World) -> tuple[Status, tuple[str, ...]]:
    """The status that ``proposal`` deserves, and why. Pure.

    "denied" and "expired" come with one reason; "pending" with what approval is asked for. Raises what a better
    proposal would avoid: SpecError naming field, value and limit, NotFound, or Conflict with the head it should be
    made from. A proposal with ``approved_by`` is not asked for approval, nor for pace, but ``actor`` must be an admin.
    """
    refusal = refused(actor, "admin" if proposal.approved_by else "operator", proposal.service, world.now)
    if refusal:
        return "denied", (refusal,)
    if proposal.expires <= world.now:
        return "expired", (f"it expired {world.now - proposal.expires:.0f} s ago: propose it again",)
    check(proposal.change, world)
    if isinstance(proposal.change, JobChange) and not proposal.by.startswith(INCIDENT):
        return "denied", ("a job is run by a runbook of ops, for an incident, and for nobody else",)
    if automatic(proposal.by):
        refusal = _scaling(proposal, world) if proposal.by == SCALER else _too_much(proposal, world)
        if refusal:
            return "denied", (refusal,)
    if proposal.approved_by is None:
        asked = sorted(kinds(proposal.change, world.history) & set(world.admit.approval))
        why = [f"{', '.join(asked)} is listed in settings admit.approval"] if asked else []
        if why := [*why, *([proposal.ask] if proposal.ask else [])]:
            return "pending", (f"waits for an admin's approval: {'; '.join(why)}",)
    return "admitted", ()


def kinds(change: Change, history: tuple[Revision, ...] = ()) -> frozenset[str]:
    """What a change is called in ``settings.admit.approval``.

    ``spec`` (and ``rollback`` when the spec was had before), ``delete``, ``job`` with ``command`` or ``webhook``, or
    ``dial`` with ``scale``, ``restart``, ``evict``, ``weight``, ``mirror``, ``shed``, ``quarantine`` by the dials it
    sets.
    """
    if isinstance(change, DeleteChange):
        return frozenset({"delete"})
    if isinstance(change, JobChange):
        return frozenset({"job", "webhook" if change.job.url else "command"})
    if isinstance(change, SpecChange):
        back = any(r.spec == change.spec for r in history[:-1]) and history[-1].spec != change.spec
        return frozenset({"spec", "rollback"} if back else {"spec"})
    names = {"replicas": "scale", "epoch": "restart"}
    heads = {p: p.partition(".")[0] for p in change.set}
    found = {heads[p] if heads[p] in ("evict", "quarantine") else p.rpartition(".")[2] for p in change.set}
    return frozenset({"dial"} | {names.get(f, f) for f in found})


def refused(actor: Token, role: Role, key: Key, now: float) -> str:
    workspace, _ = parse_key(key)
    if actor.revoked or (actor.expires is not None and actor.expires <= now):
        return f"token {actor.name!r} is revoked or has expired"
    if _RANK[actor.role] < _RANK[role]:
        return f"token {actor.name!r} is a {actor.role}; this needs {role}"
    if not {"*", workspace} & set(actor.workspaces):
        return f"token {actor.name!r} may not change workspace {workspace!r}; it has {', '.join(actor.workspaces)}"
    return ""


def killed(world: World) -> str:
    """Why no automatic proposal is admitted; "" while the kill switch is off."""
    said = world.frozen or ("settings admit.frozen" if world.admit.frozen else "")
    return f"the kill switch is on ({said}): no automatic proposal is admitted" if said else ""


def _too_much(proposal: Proposal, world: World) -> str:
    rules = world.admit
    if stopped := killed(world):
        return stopped
    if proposal.approved_by or not paced(proposal.by):
        return ""
    recent = [p for p in world.recent if p.by != SCALER]
    within = [p for p in recent if world.now - p.at < rules.pace_seconds]
    if len(within) >= rules.pace_count:
        left = rules.pace_seconds - (world.now - sorted(p.at for p in within)[-rules.pace_count])
        return (
            f"pace: {len(within)} automatic proposals in the last {rules.pace_seconds:g} s, the limit is "
            f"{rules.pace_count} (settings admit.pace_count); again in {left:.1f} s"
        )
    since = min((world.now - p.at for p in recent if p.service == proposal.service), default=math.inf)
    if since < rules.cooldown:
        return (
            f"cool-down: {proposal.service} was changed automatically {since:.1f} s ago, the limit is "
            f"{rules.cooldown:g} s (settings admit.cooldown); again in {rules.cooldown - since:.1f} s"
        )
    return ""


def _scaling(proposal: Proposal, world: World) -> str:
    rules, head, change = world.admit, world.head, proposal.change
    if stopped := killed(world):
        return stopped
    if not isinstance(change, DialChange) or head is None or head.spec is None:
        return f"the {SCALER} sets dials only"
    if head.spec.scale.auto is None and head.spec.scale.idle is None:
        return f"{change.service} has no scale.auto and no scale.idle: its replicas are set by people"
    dials = effective_dials(head.spec, list(world.dials), world.now)
    for path in change.set:
        variant, _, dial = path.rpartition(".")
        if not path.startswith("evict.") and dial != "replicas":
            return f"the {SCALER} sets replicas and lets replicas go, not {path}"
        pinned = head.spec.scale.auto is not None and variant in dials.variants and not dials.variants[variant].auto
        if dial == "replicas" and pinned:
            last = next((d for d in reversed(world.dials) if d.path == path and d.owner.startswith(HUMAN)), None)
            whose = f"{path} was set by {last.owner}" if last else f"{variant}.auto is 0"
            return f"{whose}: a person's word stands until `leptonai scale {change.service} auto`"
    scaled = [p for p in world.recent if p.by == SCALER and p.service == proposal.service]
    if sum(world.now - p.at < rules.pace_seconds for p in scaled) >= rules.scale_count:
        return (
            f"pace: {change.service} was scaled {len(scaled)} times in {rules.pace_seconds:g} s, the limit is "
            f"{rules.scale_count} (settings admit.scale_count)"
        )
    return ""
