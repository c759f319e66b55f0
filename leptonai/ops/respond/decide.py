"""The next act of an open incident. Pure: the same incident, sight and time always give the same answer.

What holds for every sequence of acts (tested on random histories, and listed in docs/runbooks.md): nothing is proposed
for an incident that is closed or escalated, on stale telemetry, under the kill switch or in shadow mode, while another
change of the target is under way, or for a condition that no longer holds; nothing counts as effective without
samples; after ``ops.attempts`` tries that did not help, or one that did harm, a person is called; a remedy that did
not help against a fault is not tried against it again within the row's window.
"""

from __future__ import annotations

from functools import partial

from leptonai.ops.incidents import service_of
from leptonai.ops.remedies import Wishing, shown
from leptonai.ops.respond.acts import Act, Close, Escalate, Propose, Recommend, Wait
from leptonai.ops.respond.plan import Plan, plan_of, reverse
from leptonai.ops.respond.policy import busy, failures, fault_of, unfit
from leptonai.ops.respond.sight import Sight
from leptonai.ops.respond.verdict import FAILED, taking_back, verify
from leptonai.ops.runbook.form import Verify
from leptonai.ops.runbook.rows import Row, Runbook, Step
from leptonai.settings import Ops
from leptonai.types import Incident, Proposal, Service

RECONCILED = "none: reconciled"


def next_action(
    incident: Incident, sight: Sight, now: float, settings: Ops, runbook: Runbook, cooldown: float = 0.0
) -> Act:
    """What to do about ``incident`` at ``now``. ``cooldown``: seconds between two changes of a service (admit's)."""
    if incident.closed is not None:
        return Wait(why="closed")
    if now - sight.collected > settings.stale_periods * settings.period:
        return Wait(why=f"telemetry is {now - sight.collected:.0f} s old")
    last = incident.actions[-1] if incident.actions else None
    given_up = len(sight.denied) >= settings.denials  # the door will not have it: a person is called below
    if last is not None and not given_up and (back := taking_back(last, sight)) is not None:
        paused = pausing(sight, now, cooldown, settings)
        return Wait(why=paused) if paused else back
    well = _well(sight, now, settings.settle)
    if incident.escalated is not None:
        if well and sight.quiet_since is not None and now - sight.quiet_since >= settings.reopen:
            return Close(why="well again after a person was called")
        return Wait(why="a person was called")
    if sight.service is None:
        return Close(why="the service was deleted")
    row = row_of(incident, runbook)
    if last is not None and last.verdict is None:
        step = row.step(last.remedy)
        wanted = step.verify if step else Verify()
        settled = _well(sight, now, settings.settle if wanted.settle is None else wanted.settle)
        return verify(last, sight, now, settings, wanted, settled)
    tries = [a for a in incident.actions if a.verdict in FAILED]
    if any(a.verdict == "harmful" for a in tries):
        return Escalate(why=called("the last action did harm", row))
    attempts = settings.attempts if row.limits.attempts is None else row.limits.attempts
    if len(tries) >= attempts:
        return Escalate(why=called(f"{len(tries)} tries did not help", row))
    if not incident.causes:
        return Close(why="it passed before its cause was known") if well else Wait(why="not diagnosed yet")
    if well:
        return _close(incident, row)
    if not sight.firing:
        return Wait(why="the condition is gone, the service has not settled")
    since = max([incident.opened, *(a.at for a in incident.actions)])
    if row.reconcile and (not row.steps or now - since <= settings.settle):
        if now - since > settings.verify_timeout:
            return Escalate(why=called(f"serve has not replaced it within {settings.verify_timeout:g} s", row))
        return Wait(why="serve replaces it")
    return _respond(incident, row, sight, now, settings, cooldown)


def row_of(incident: Incident, runbook: Runbook) -> Row:
    """The row for the first cause; an incident without one has none."""
    return runbook.row(incident.causes[0].name, incident.severity) if incident.causes else Row("")


def called(why: str, row: Row) -> str:
    """Why a person is called, who, and what for."""
    owner = f"; it is for {row.owner}" if row.owner else ""
    return f"{why}{owner}{': ' + row.responsibilities if row.responsibilities else ''}"


def plans(incident: Incident, sight: Sight, now: float, row: Row) -> list[tuple[Step, Plan | str]]:
    """Every step of the row with its plan, or with why there is none; in the order in which they are tried."""
    out: list[tuple[Step, Plan | str]] = []
    for step in row.steps:
        proposal, service = _proposed(step, incident, sight, now)
        if proposal is None or service is None:
            out.append((step, "it does not apply"))
            continue
        plan = plan_of(step, proposal, service)
        out.append((step, unfit(plan, step, service, sight.theirs) or plan))
    return out


def _proposed(step: Step, incident: Incident, sight: Sight, now: float) -> tuple[Proposal | None, Service | None]:
    assert sight.service is not None  # next_action closed it otherwise
    remedy = shown(step.remedy, sight.others)
    ask = partial(remedy.propose, theirs=sight.theirs) if isinstance(remedy, Wishing) else remedy.propose
    proposal = ask(incident, sight.service, sight.revisions, sight.history, now)
    if proposal is None:
        return None, None
    return proposal, next((s for s in (sight.service, *sight.others) if s.key == proposal.service), None)


def _well(sight: Sight, now: float, settle: float) -> bool:
    """Quiet and converged for ``settle`` seconds each."""
    return (
        not sight.firing
        and sight.quiet_since is not None
        and sight.converged_since is not None
        and now - sight.quiet_since >= settle
        and now - sight.converged_since >= settle
    )


def _close(incident: Incident, row: Row) -> Act:
    if incident.actions:
        return Close(why="repaired")
    if row.reconcile:
        return Close(why="serve replaced what was gone", remedy=RECONCILED)
    return Close(why="it passed by itself")


def _respond(incident: Incident, row: Row, sight: Sight, now: float, settings: Ops, cooldown: float) -> Act:
    cause = incident.causes[0]
    old = now - incident.opened > settings.verify_timeout
    unsure = ""
    if cause.confidence < settings.min_confidence or cause.name == "unknown":
        unsure = f"{cause.name} at {cause.confidence:.2f} is too uncertain to act upon"
    elif sight.doubt:
        unsure = f"{cause.name} is doubted: {sight.doubt}"
    if unsure:
        known = ", ".join(s.name for s in row.steps) or "nothing"
        return Escalate(why=called(f"{unsure}; would try {known}", row)) if old else Wait(why=unsure)
    if not row.steps:
        return Escalate(why=called(f"the runbook has no remedy for {cause.name}", row))
    if now - sight.leads_since < (wanted := unsettled(incident, settings)):
        since = max([incident.opened, *(a.judged or a.at for a in incident.actions)])
        if now - since > settings.verify_timeout:
            return Escalate(why=called(f"no cause has led for {wanted:g} s", row))
        return Wait(why=f"{cause.name} has to lead for {wanted:g} s")
    if len(sight.denied) >= settings.denials:
        return Escalate(why=called(f"the door refused {len(sight.denied)} times", row))
    fault = fault_of(cause.name, cause.subject)
    earlier = tuple(a for a in (*sight.past, *incident.actions) if a.proposal is not None)
    mine = [a for a in earlier if a.about == fault and now - a.at < row.limits.window]
    if len(mine) >= row.limits.most:
        often = f"{len(mine)} actions in {row.limits.window:g} s against {fault}: what comes back is not repaired"
        return Escalate(why=called(often, row))
    spent = ""
    for number, (step, plan) in enumerate(plans(incident, sight, now, row)):
        allowed = sum(s.tries for s in row.steps[: number + 1] if s.name == step.name)
        if failures(step.name, fault, earlier, now - row.limits.window) >= allowed:
            spent = f"{step.name} did not help against {fault}"
            continue
        if isinstance(plan, str):
            spent = spent or f"{step.name}: {plan}"
            continue
        return _take(step, plan, incident, row, sight, now, settings, cooldown, old)
    if row.reconcile and not old:
        return Wait(why="serve replaces it")
    if now - incident.opened > settings.verify_timeout / 2:  # nothing is being tried: the rest would be waiting in vain
        names = ", ".join(s.name for s in row.steps)
        return Escalate(why=called(f"no remedy of {names} applies to {cause.subject} ({spent})", row))
    return Wait(why=f"no remedy applies to {cause.subject} yet")


def unsettled(incident: Incident, settings: Ops) -> float:
    """Seconds for which the first cause must have led before it is acted upon.

    0 where what opened the incident is about the very subject, a replica or a revision by its labels: that had to
    hold already, or was decided by statistics of its own. What else is told of a replica or revision, by its siblings
    or by the version before, needs ``settle``; what is told of a whole service, by elimination, twice that: as long as
    a replica needs to stand out.
    """
    subject = incident.causes[0].subject
    named = {a.labels.get("replica") for a in incident.anomalies}
    labelled = "#" in subject and any(a.signal == "wrong_answers" for a in incident.anomalies)
    if subject in named or labelled:
        return 0.0
    return settings.settle * (2.0 if subject == service_of(incident) else 1.0)


def _take(
    step: Step, plan: Plan, incident: Incident, row: Row, sight: Sight, now: float, settings: Ops, cooldown: float,
    old: bool,
) -> Act:  # fmt: skip
    """The plan, or why it has to wait, or that it is only told."""
    if settings.shadow or step.autonomy == "recommend":
        why = "shadow mode: nothing is done" if settings.shadow else "the runbook only recommends it"
        if plan.hash not in sight.told:
            return Recommend(plan=plan, why=why)
        return Escalate(why=called(f"{why}; would {plan.text}", row)) if old else Wait(why=why)
    if sight.frozen:
        return Wait(why=sight.frozen)
    last = max((a.judged or a.at for a in incident.actions), default=None)
    rest = max(cooldown, step.limits.cooldown or 0.0)
    if last is not None and now - last < rest:
        return Wait(why=f"cooling down for {rest - (now - last):.0f} s more")
    if paused := pausing(sight, now, cooldown, settings):
        return Wait(why=paused)
    if sight.acting >= settings.concurrent:
        return Wait(why=f"{sight.acting} remedies are on their way, the limit is {settings.concurrent}")
    service = next(s for s in (sight.service, *sight.others) if s is not None and s.key == plan.service)
    if wait := busy(plan, step, sight, service):
        return Wait(why=wait)
    return Propose(plan=plan, ask=step.asks, undo=reverse(plan.proposal.change, service) if step.compensate else None)


def pausing(sight: Sight, now: float, cooldown: float, settings: Ops) -> str:
    """Why the door is not asked again yet; "": it may be."""
    if sight.denied and now - max(sight.denied) < _pause(len(sight.denied), cooldown, settings):
        return "the door refused a moment ago"
    return ""


def _pause(refusals: int, cooldown: float, settings: Ops) -> float:
    """Seconds until the door is asked again. It may be about to open, because the cool-down runs since a change that
    was made for something else; so the first pause is short. Doubled each time up to ``cooldown``, all pauses together
    outlast it: a cool-down alone never makes ``denials`` refusals. 1/8, 1/4, 1/2 and 1 of it when they are 5."""
    return cooldown * min(1.0, 2.0 ** (refusals - settings.denials + 1))
