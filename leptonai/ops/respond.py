"""The next act of an open incident. Pure: the same incident, sight and time always give the same answer.

What holds for every sequence of acts (tested on random histories): nothing is proposed for an incident that is closed
or escalated, on stale telemetry, while another change of the service is being verified, or for a condition that no
longer holds; nothing counts as effective without samples; after ``ops.attempts`` tries that did not help a person is
called.
"""

from __future__ import annotations

from collections.abc import Mapping

from leptonai.ops.runbook import Row, Runbook
from leptonai.protocols import Remedy
from leptonai.settings import Ops
from leptonai.types import Action, Event, Incident, Noun, Proposal, Revision, Service, Verdict

RECONCILED = "none: reconciled"


class Sight(Noun, frozen=True, kw_only=True):
    """What is known of the incident's service at this moment.

    ``collected``: when telemetry was last complete. ``firing``: one of the incident's triggers holds. ``quiet_since``
    and ``converged_since``: since when none holds, and since when what runs is what is wished; None: not now.
    ``samples``: what was seen since the last action, or since the incident was opened, of the kind the triggers are
    made of. ``others_ready``: ready replicas beside the one that the first cause is about. ``waiting``: ids of
    proposals that wait for a person. ``denied``: times at which the door refused since the last action.
    ``worse``: says how the last action did harm.
    """

    service: Service | None
    revisions: tuple[Revision, ...] = ()
    history: tuple[Event, ...] = ()
    collected: float
    firing: bool
    quiet_since: float | None = None
    converged_since: float | None = None
    samples: float = 0.0
    others_ready: int = 0
    subject_ready: bool = False
    waiting: frozenset[str] = frozenset()
    denied: tuple[float, ...] = ()
    worse: str = ""


class Wait(Noun, frozen=True, kw_only=True):
    why: str


class Propose(Noun, frozen=True, kw_only=True):
    remedy: str
    proposal: Proposal


class Judge(Noun, frozen=True, kw_only=True):
    """The last action is judged."""

    verdict: Verdict
    detail: str


class Escalate(Noun, frozen=True, kw_only=True):
    """A person is needed; nothing more is proposed."""

    why: str


class Close(Noun, frozen=True, kw_only=True):
    """``remedy``: what to note as the action when none was taken; "" leaves the actions as they are."""

    why: str
    remedy: str = ""


Act = Wait | Propose | Judge | Escalate | Close


def next_action(
    incident: Incident,
    sight: Sight,
    now: float,
    settings: Ops,
    runbook: Runbook,
    remedies: Mapping[str, Remedy],
    cooldown: float = 0.0,
) -> Act:
    """What to do about ``incident`` at ``now``. ``cooldown``: seconds between two changes of a service (admit's)."""
    if incident.closed is not None:
        return Wait(why="closed")
    if now - sight.collected > settings.stale_periods * settings.period:
        return Wait(why=f"telemetry is {now - sight.collected:.0f} s old")
    well = _well(sight, now, settings)
    if incident.escalated is not None:
        if well and sight.quiet_since is not None and now - sight.quiet_since >= settings.reopen:
            return Close(why="well again after a person was called")
        return Wait(why="a person was called")
    if sight.service is None:
        return Close(why="the service was deleted")
    last = _last(incident)
    if last is not None and last.verdict is None:
        return _verify(last, sight, now, settings, well)
    tries = [a for a in incident.actions if a.verdict in ("ineffective", "inconclusive", "harmful")]
    if any(a.verdict == "harmful" for a in tries):
        return Escalate(why="the last action did harm")
    if len(tries) >= settings.attempts:
        return Escalate(why=f"{len(tries)} tries did not help")
    if not incident.causes:
        return Close(why="it passed before its cause was known") if well else Wait(why="not diagnosed yet")
    row = runbook.get(incident.causes[0].name, Row())  # a cause of an operator's own: a person is called
    if well:
        return _close(incident, row)
    if not sight.firing:
        return Wait(why="the condition is gone, the service has not settled")
    if row.reconcile:
        since = max([incident.opened, *(a.at for a in incident.actions)])
        if now - since > settings.verify_timeout:
            return Escalate(why=f"serve has not replaced it within {settings.verify_timeout:g} s")
        return Wait(why="serve replaces it")
    return _propose(incident, row, sight, now, settings, remedies, cooldown, len(tries))


def _last(incident: Incident) -> Action | None:
    return incident.actions[-1] if incident.actions else None


def _well(sight: Sight, now: float, settings: Ops) -> bool:
    """Quiet and converged for ``settle`` seconds each."""
    return (
        not sight.firing
        and sight.quiet_since is not None
        and sight.converged_since is not None
        and now - sight.quiet_since >= settings.settle
        and now - sight.converged_since >= settings.settle
    )


def _verify(last: Action, sight: Sight, now: float, settings: Ops, well: bool) -> Act:
    if last.proposal in sight.waiting:
        return Wait(why="waits for a person's approval")
    if sight.worse:
        return Judge(verdict="harmful", detail=sight.worse)
    age = now - last.at
    if well and sight.samples > 0 and age >= settings.settle:
        return Judge(verdict="effective", detail=f"healthy for {settings.settle:g} s, over {sight.samples:.0f} samples")
    if age < settings.verify_timeout:
        return Wait(why=f"{last.remedy} is being verified")
    if sight.samples <= 0:
        return Judge(verdict="inconclusive", detail=f"nothing was seen of the service within {age:.0f} s")
    state = "the trouble goes on" if sight.firing else "the replicas are not as wished"
    return Judge(verdict="ineffective", detail=f"{state} {age:.0f} s later")


def _close(incident: Incident, row: Row) -> Act:
    if incident.actions:
        return Close(why="repaired")
    if row.reconcile:
        return Close(why="serve replaced what was gone", remedy=RECONCILED)
    return Close(why="it passed by itself")


def _propose(
    incident: Incident,
    row: Row,
    sight: Sight,
    now: float,
    settings: Ops,
    remedies: Mapping[str, Remedy],
    cooldown: float,
    tries: int,
) -> Act:
    cause = incident.causes[0]
    old = now - incident.opened > settings.verify_timeout
    if cause.confidence < settings.min_confidence or cause.name == "unknown":
        if not old:
            return Wait(why=f"{cause.name} is not certain enough to act upon ({cause.confidence:.2f})")
        known = ", ".join(row.remedies) or "nothing"
        return Escalate(why=f"{cause.name} at {cause.confidence:.2f} is too uncertain to act upon; would try {known}")
    if not row.remedies:
        return Escalate(why=f"the runbook has no remedy for {cause.name}")
    if len(sight.denied) >= settings.denials:
        return Escalate(why=f"the door refused {len(sight.denied)} times")
    last = max((a.judged or a.at for a in incident.actions), default=None)
    if last is not None and now - last < cooldown:
        return Wait(why=f"cooling down for {cooldown - (now - last):.0f} s more")
    if sight.denied and now - max(sight.denied) < _pause(len(sight.denied), cooldown, settings):
        return Wait(why="the door refused a moment ago")
    assert sight.service is not None  # next_action closed it otherwise
    if sight.subject_ready and not sight.others_ready and _wished(sight.service) > 1:
        return Wait(why="no other replica is ready")
    for name in row.remedies[tries:]:
        proposal = remedies[name].propose(incident, sight.service, sight.revisions, sight.history, now)
        if proposal is not None:
            return Propose(remedy=name, proposal=proposal)
    if old:
        return Escalate(why=f"no remedy of {', '.join(row.remedies)} applies to {cause.subject}")
    return Wait(why=f"no remedy applies to {cause.subject} yet")


def _pause(refusals: int, cooldown: float, settings: Ops) -> float:
    """Seconds until the door is asked again. It may be about to open, because the cool-down runs since a change that
    was made for something else; so the first pause is short. Doubled each time up to ``cooldown``, all pauses together
    outlast it: a cool-down alone never makes ``denials`` refusals. 1/8, 1/4, 1/2 and 1 of it when they are 5."""
    return cooldown * min(1.0, 2.0 ** (refusals - settings.denials + 1))


def _wished(service: Service) -> int:
    return sum(dials.replicas for dials in service.dials.variants.values())
