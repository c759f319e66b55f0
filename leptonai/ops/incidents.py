"""Which triggers are one incident, and how its document changes. Pure.

One trouble of a service at a time is one incident: while one is open, every further trigger of that service joins it,
because a broken service breaks in several places at once. Two exceptions: what an escalated incident does not know of
yet is an incident of its own, so that a trouble we can repair is not left alone beside one we cannot; and what comes
back within ``ops.reopen`` seconds of closing opens the old incident again, its last remedy having been ineffective.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from leptonai.ops.evidence import Facts
from leptonai.ops.judge import Trigger
from leptonai.types import Action, Anomaly, Cause, Evidence, Incident, Key, Severity, make_key, parse_key

# Declared conditions count as such: however many of them hold, a person who has been called knows of the trouble.
SYMPTOMS = frozenset({"burn_errors", "burn_latency", "anomaly_rate", "service_absent", "silent", "declared"})
MOST_ANOMALIES = 40  # of one incident; a person reads no more
# Evidence that tells of our own acts.
NOTES = frozenset(
    {
        "plan",
        "recommended",
        "action",
        "approval",
        "verdict",
        "taken_back",
        "job",
        "refused",
        "escalated",
        "closed",
        "joined",
        "leftover",
        "eased",
    }
)
# What a cause brings about by itself, so that it is the same trouble: a model answers wrongly what it never learnt.
BROUGHT = {"data_drift": frozenset({"wrong_answers"})}
SURER = 0.1  # of another cause than the one that a person was told, before that is taken back
LOOK_BACK = 120.0  # seconds before opening in which an onset may lie

_RANK: dict[Severity, int] = {"info": 0, "warning": 1, "critical": 2}


def subject_of(service: Key) -> str:
    """``default/service/digits`` for ``digits``."""
    workspace, name = parse_key(service)
    return f"{workspace}/service/{name}"


def service_of(incident: Incident) -> Key:
    """The inverse; "" for an incident about something else than a service."""
    match incident.subject.split("/", 2):
        case [workspace, "service", name]:
            return make_key(name, workspace)
    return ""


def subject_for(trigger: Trigger) -> str:
    return trigger.about or subject_of(trigger.service)


def outside(incident: Incident) -> bool:
    """Whether it is about something that is not ours to change."""
    return incident.subject.split("/", 2)[1] == "external"


def as_anomaly(trigger: Trigger, now: float) -> Anomaly:
    """How a trigger is kept in the document: its kind as the signal, what it is about as labels."""
    labels = {"service": trigger.service} if trigger.service else {}
    if trigger.about and trigger.subject:
        labels["signal"] = trigger.subject
    elif trigger.name:
        labels["condition"] = trigger.name
        if trigger.subject:
            labels["replica"] = trigger.subject
    elif trigger.subject:
        labels["digest" if trigger.kind == "wrong_answers" else "replica"] = trigger.subject
    score = trigger.terms.get("score", trigger.terms.get("odds", 0.0))
    return Anomaly(
        signal=trigger.kind, labels=labels, began=trigger.began, last=now, score=float(score), detail=_detail(trigger)
    )


def _detail(trigger: Trigger) -> str:
    terms = trigger.terms
    return str(terms.get("detail") or terms.get("reason") or "")


def knows(incident: Incident, trigger: Trigger) -> bool:
    """Whether the incident has had this trigger before."""
    wanted = as_anomaly(trigger, 0.0)
    return any(a.signal == wanted.signal and a.labels == wanted.labels for a in incident.anomalies)


def brings(incident: Incident, trigger: Trigger, changed: float) -> bool:
    """Whether the first cause of the incident brings the trigger about. Not what was deployed since: ``changed`` is
    when what runs was last changed."""
    first = incident.causes[0].name if incident.causes else ""
    return trigger.kind in BROUGHT.get(first, ()) and changed < incident.began


def ended(incident: Incident) -> set[str]:
    """The replicas whose end the incident tells of."""
    return {a.labels["replica"] for a in incident.anomalies if a.signal == "replica_gone"}


def home_of(
    trigger: Trigger, incidents: Iterable[Incident], now: float, reopen: float, changed: float = 0.0
) -> Incident | None:
    """The incident a trigger belongs to: an open one, one to be opened again, or None for a new one. ``changed``: when
    what runs was last changed."""
    mine = [i for i in incidents if i.subject == subject_for(trigger)]
    opened = [i for i in mine if i.closed is None]
    for incident in sorted(opened, key=lambda i: (i.escalated is not None, not knows(i, trigger), -i.id)):
        if incident.escalated is None or trigger.kind in SYMPTOMS or knows(incident, trigger):
            return incident
        if brings(incident, trigger, changed):
            return incident
    for incident in sorted(mine, key=lambda i: -i.id):
        known = knows(incident, trigger) or brings(incident, trigger, changed)
        if incident.closed is None or now - incident.closed > reopen or not known:
            continue
        # A symptom has no subject: it is the same trouble only where the incident was made of nothing else.
        if trigger.kind not in SYMPTOMS or not _specific(incident):
            return incident
    return None


def _specific(incident: Incident) -> bool:
    return any(a.signal.startswith("replica_") and "replica" in a.labels for a in incident.anomalies) or any(
        a.signal == "wrong_answers" for a in incident.anomalies
    )


def open_incident(triggers: Sequence[Trigger], now: float) -> Incident:
    """A new incident (id 0) of triggers of one service. Its onset is the earliest of theirs."""
    began = max(min(t.began for t in triggers), now - LOOK_BACK)
    fresh = Incident(
        id=0,
        subject=subject_for(triggers[0]),
        severity="info",
        title=_title(triggers[0]),
        began=min(began, now),
        opened=now,
    )
    return join(fresh, triggers, now)


def join(incident: Incident, triggers: Sequence[Trigger], now: float) -> Incident:
    """The incident with what holds now: known triggers are seen once more, new ones added, the severity never falls."""
    kept = {(a.signal, tuple(sorted(a.labels.items()))): a for a in incident.anomalies}
    for trigger in triggers:
        for found in (as_anomaly(trigger, now), *trigger.anomalies):
            name = (found.signal, tuple(sorted(found.labels.items())))
            before = kept.get(name)
            if before is not None:
                found = msgspec.structs.replace(
                    found, began=min(before.began, found.began), score=max(before.score, found.score)
                )
            elif len(kept) >= MOST_ANOMALIES:
                continue
            kept[name] = found
    severity = max([incident.severity, *(t.severity for t in triggers)], key=_RANK.__getitem__)
    return msgspec.structs.replace(incident, anomalies=tuple(kept.values()), severity=severity)


def reopen(incident: Incident, now: float) -> Incident:
    """Open again: the remedy that was thought effective was not, and that counts as a try that did not help; unless it
    had been ended because what it was for was over, which has begun anew then."""
    actions = list(incident.actions)
    if actions and actions[-1].verdict == "effective" and actions[-1].undone is None and incident.closed is not None:
        detail = f"it came back {now - incident.closed:.0f} s after it was closed"
        actions[-1] = msgspec.structs.replace(actions[-1], verdict="ineffective", judged=now, detail=detail)
    return msgspec.structs.replace(incident, closed=None, mitigated=None, actions=tuple(actions))


def explain(incident: Incident, facts: Facts, causes: Sequence[Cause], now: float) -> Incident:
    """The incident with its causes and the evidence they cite.

    What an action was taken on is never rewritten: facts told after the last action or verdict are renewed, those
    before it stay, and numbers go on. ``diagnosed`` is when a cause other than "unknown" was first known.
    """
    acts = [i for i, e in enumerate(incident.evidence) if e.kind in ("action", "verdict")]
    cut = acts[-1] + 1 if acts else 0
    kept = list(incident.evidence[:cut])
    by_text = {e.text: e.id for e in kept}
    ids: dict[str, str] = {}
    notes = [e for e in incident.evidence[cut:] if e.kind in NOTES]
    for fact in (*facts.evidence, *notes):
        if fact.text in by_text and fact.kind not in NOTES:
            ids[fact.id] = by_text[fact.text]
            continue
        id = f"e{len(kept) + 1}"
        if fact.kind not in NOTES:
            ids[fact.id] = id
        kept.append(msgspec.structs.replace(fact, id=id))
    causes = tuple(msgspec.structs.replace(c, evidence=tuple(ids[e] for e in c.evidence)) for c in causes)
    known = bool(causes) and causes[0].name != "unknown"
    return msgspec.structs.replace(
        incident,
        evidence=tuple(kept),
        causes=causes,
        title=_named(causes[0]) if known else incident.title,
        diagnosed=now if known and incident.diagnosed is None else incident.diagnosed,
    )


def forgets(incident: Incident, causes: Sequence[Cause]) -> bool:
    """Whether the causes found now know less than those on record: what fades is harder to tell than what was at its
    height. "unknown" refutes nothing; and a person who was told one cause is not told another that is hardly surer."""
    if not causes or not incident.causes or causes[0].name == incident.causes[0].name:
        return False
    surer = causes[0].confidence >= incident.causes[0].confidence + SURER
    return causes[0].name == "unknown" or (incident.escalated is not None and not surer)


def note(incident: Incident, kind: str, text: str, now: float, **data: Any) -> Incident:
    """One more fact, such as a proposal that the door refused."""
    fact = Evidence(id=f"e{len(incident.evidence) + 1}", kind=kind, at=now, text=text, data=data)
    return msgspec.structs.replace(incident, evidence=(*incident.evidence, fact))


def act(incident: Incident, action: Action) -> Incident:
    return msgspec.structs.replace(incident, actions=(*incident.actions, action))


def close(incident: Incident, now: float, remedy: str, why: str, mitigated: float) -> Incident:
    """Closed at ``now``, the trouble gone since ``mitigated``. ``remedy``: an action to note, "" for none."""
    if remedy:
        done = Action(remedy=remedy, proposal=None, at=mitigated, verdict="effective", detail=why, judged=now)
        incident = act(incident, done)
    incident = note(incident, "closed", f"{why[0].upper()}{why[1:]}; closed.", now, why=why)
    return msgspec.structs.replace(incident, closed=now, mitigated=incident.mitigated or mitigated)


def said_of(action: Action) -> str:
    """How an action stands, in words."""
    if action.approved is False:
        return "not approved" if action.verdict else "waits for approval"
    return action.verdict or "being verified"


def refusals(incident: Incident) -> tuple[float, ...]:
    """When the door refused since the last action."""
    last = incident.actions[-1].at if incident.actions else float("-inf")
    return tuple(e.at for e in incident.evidence if e.kind == "refused" and e.at > last)


_TITLES = {
    "burn_errors": "{service} answers too many requests with errors",
    "burn_latency": "{service} answers too slowly",
    "anomaly_rate": "{service} behaves unlike itself",
    "service_absent": "Nothing is heard of {service}",
    "limit": "{signal} of {service} is beyond its limit",
    "exhaustion": "{signal} of {service} will reach its limit",
    "silent": "Nothing is heard of {service}",
    "replica_gone": "A replica of {service} ended",
    "replica_hung": "A replica of {service} does not answer",
    "replica_leak": "A replica of {service} uses more and more memory",
    "replica_test": "A replica of {service} fails its model tests",
    "wrong_answers": "{service} gives wrong answers",
}
_NAMES = {
    "replica_killed": "Replica {subject} was killed",
    "replica_crashed": "Replica {subject} crashed",
    "crash_loop": "{subject} crashes again and again",
    "out_of_memory": "Replica {subject} ran out of memory",
    "hung_replica": "Replica {subject} hangs",
    "failing_replica": "Replica {subject} fails where its siblings do not",
    "slow_replica": "Replica {subject} is slower than its siblings",
    "runaway_replica": "Replica {subject} burns processors for nothing",
    "memory_leak": "{subject} leaks memory",
    "bad_revision_wrong_answers": "Revision {subject} answers wrongly",
    "bad_revision_latency": "Revision {subject} is slow",
    "bad_revision_errors": "Revision {subject} fails",
    "traffic_surge": "More traffic than {subject} carries",
    "cpu_starvation": "{subject} lacks processor time",
    "noisy_neighbour": "A neighbour takes the processors from {subject}",
    "bad_config": "{subject} cannot be loaded",
    "nan_outputs": "{subject} answers with NaN (not a number)",
    "poisoned_input": "Certain requests break {subject}",
    "data_drift": "The data that {subject} gets have changed",
    "retry_storm": "Repeated requests overload {subject}",
    "cold_start_storm": "Most replicas of {subject} start at the same time",
    "disk_full": "A disk is full under {subject}",
    "slow_dependency": "What {subject} calls is slow",
    "dead_dependency": "What {subject} calls fails",
    "credential_expired": "A certificate or token of {subject} is not valid any more",
    "gpu_xid": "The driver reports a fault of a GPU under {subject}",
    "gpu_ecc": "A GPU under {subject} has memory errors",
    "gpu_thermal": "A GPU under {subject} is too hot",
    "gpu_lost": "A GPU under {subject} has fallen off the bus",
}


def _title(trigger: Trigger) -> str:
    name = trigger.service or trigger.about.split("/", 2)[2]
    if trigger.kind == "declared":
        return str(trigger.terms["text"]).format(subject=trigger.subject or name)
    return _TITLES[trigger.kind].format(service=name, signal=trigger.subject)


def _named(cause: Cause) -> str:
    return _NAMES.get(cause.name, f"{{subject}}: {cause.name.replace('_', ' ')}").format(subject=cause.subject)
