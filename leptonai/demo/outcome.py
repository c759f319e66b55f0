"""What each fault should lead to, and what it did lead to. Pure: judged from documents that any client can read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from leptonai.demo.traffic import Answer, count
from leptonai.types import DialChange, Incident, Noun, Proposal, Spec, SpecChange

Kind = Literal["kill", "stop", "wrong", "leak", "slow"]


class Drill(Noun, frozen=True, kw_only=True):
    """One fault and the only right answer to it. ``limit``: seconds after which waiting for a repair ends."""

    kind: Kind
    title: str
    cause: str
    remedy: str
    limit: float = 60.0

    @property
    def bad_revision(self) -> bool:
        return self.remedy == "rollback"


DRILLS: tuple[Drill, ...] = (
    Drill(kind="kill", title="kill -9", cause="replica_killed", remedy="none: reconciled"),
    Drill(kind="stop", title="SIGSTOP", cause="hung_replica", remedy="evict"),
    Drill(kind="wrong", title="wrong answers", cause="bad_revision_wrong_answers", remedy="rollback"),
    Drill(kind="leak", title="memory leak", cause="memory_leak", remedy="evict"),
    Drill(kind="slow", title="slow revision", cause="bad_revision_latency", remedy="rollback"),
)


class Injection(Noun, frozen=True, kw_only=True):
    """What the process that breaks things did. One of ``replica`` and ``revision`` is what was broken."""

    kind: Kind
    at: float
    replica: str = ""
    revision: int = 0
    pid: int | None = None

    @property
    def target(self) -> str:
        return self.replica or f"revision {self.revision}"


class Outcome(Noun, frozen=True, kw_only=True):
    """One row of the table. Times are seconds since the injection; None: it did not happen within the limit.

    Ops dates what it finds to the start of the round in which it looked, which may be just before the injection: 0.
    """

    kind: Kind
    fault: str
    injected: float
    target: str
    incident: int | None = None
    detect: float | None = None
    diagnose: float | None = None
    recover: float | None = None
    sent: int = 0
    failed: int = 0
    wrong: int = 0
    cause: str = ""
    subject: str = ""
    remedy: str = ""
    harm: tuple[str, ...] = ()  # what was done that should not have been
    missing: tuple[str, ...] = ()  # what should have been done and was not

    @property
    def repaired(self) -> bool:
        """Found, named rightly, repaired by the right remedy, and nothing healthy was touched."""
        return not self.harm and not self.missing


def newest(incidents: Sequence[Incident]) -> int:
    """The highest number given to an incident so far; numbers rise."""
    return max((i.id for i in incidents), default=0)


def since(incidents: Sequence[Incident], number: int) -> list[Incident]:
    """The incidents opened after the one of this number, in order."""
    return sorted((i for i in incidents if i.id > number), key=lambda i: i.id)


def settled(incident: Incident | None) -> float | None:
    """When ops found the incident repaired; None while it has not."""
    if incident is None or not incident.actions:
        return None
    last = incident.actions[-1]
    if last.remedy != "none: reconciled" and last.verdict != "effective":
        return None
    return incident.mitigated or incident.closed


def judge(
    drill: Drill,
    injection: Injection,
    incidents: Sequence[Incident],
    proposals: Sequence[Proposal],
    answers: Sequence[Answer],
    good: Spec,
    recovered: float | None,
    until: float,
) -> Outcome:
    """The outcome of one drill. ``incidents``: those opened since its injection, before the next one, in order;
    the first is taken to be about it. Everything else is looked at over ``[injection.at, until)``.

    ``recovered``: when the service was seen whole again after ops called the incident repaired. ``good``: the spec
    to which a rollback must lead.
    """
    mine = incidents[0] if incidents else None
    names = {f"incident:{i.id}" for i in incidents}
    automatic = [p for p in proposals if p.by.startswith("incident:") and not p.dry_run]
    acts = [p for p in automatic if p.by in names or injection.at <= p.at < until]
    end = recovered if recovered is not None else until
    counts = count(answers, injection.at, end)
    top = mine.causes[0] if mine and mine.causes else None
    return Outcome(
        kind=drill.kind,
        fault=drill.title,
        injected=injection.at,
        target=injection.target,
        incident=mine.id if mine else None,
        detect=_since(injection, mine.opened if mine else None),
        diagnose=_since(injection, mine.diagnosed if mine else None),
        recover=_since(injection, recovered),
        sent=counts.sent,
        failed=counts.failed,
        wrong=counts.wrong,
        cause=top.name if top else "",
        subject=top.subject if top else "",
        remedy=mine.actions[-1].remedy if mine and mine.actions else "",
        harm=(*_harm_by_acts(drill, injection, acts, good), *_harm_by_incidents(incidents)),
        missing=_missing(drill, injection, mine, recovered),
    )


def _since(injection: Injection, moment: float | None) -> float | None:
    return None if moment is None else max(0.0, moment - injection.at)


def _harm_by_acts(drill: Drill, injection: Injection, acts: Sequence[Proposal], good: Spec) -> list[str]:
    """Every admitted change that is not the one right change for this fault."""
    harm = []
    for act in acts:
        if act.status != "admitted":
            continue
        match act.change:
            case DialChange() as change:
                right = drill.remedy == "evict" and set(change.set) == {f"evict.{injection.replica}"}
                what = "set " + ", ".join(f"{path} = {value:g}" for path, value in change.set.items())
            case SpecChange() as change:
                right = drill.remedy == "rollback" and change.spec == good
                what = "changed the spec" if change.spec != good else "rolled back"
            case _:
                right, what = False, "deleted the service"
        if not right:
            harm.append(f"{act.by} {what} ({act.why})")
    return harm


def _harm_by_incidents(incidents: Sequence[Incident]) -> list[str]:
    harm = [f"incident {i.id} too many: {i.title}" for i in incidents[1:]]
    for incident in incidents:
        harm += [
            f"{action.remedy} of incident {incident.id} was {action.verdict}: {action.detail}"
            for action in incident.actions
            if action.verdict in ("ineffective", "harmful")
        ]
        if incident.escalated is not None:
            harm.append(f"incident {incident.id} was escalated to a person")
    return harm


def _missing(drill: Drill, injection: Injection, mine: Incident | None, recovered: float | None) -> tuple[str, ...]:
    """What a right answer has and this one lacks."""
    if mine is None:
        return ("no incident was opened",)
    missing = []
    top = mine.causes[0] if mine.causes else None
    if top is None or top.name != drill.cause:
        missing.append(f"the cause is {drill.cause}, incident {mine.id} says {top.name if top else 'nothing'}")
    elif injection.replica and injection.replica not in top.subject:
        missing.append(f"{injection.replica} is the culprit, incident {mine.id} says {top.subject}")
    elif not top.evidence:
        missing.append(f"incident {mine.id} cites no evidence for {top.name}")
    remedy = mine.actions[-1].remedy if mine.actions else ""
    if remedy != drill.remedy:
        missing.append(f"the remedy is {drill.remedy}, incident {mine.id} took {remedy or 'none'}")
    if recovered is None:
        missing.append(f"not recovered within {drill.limit:.0f} s")
    return tuple(missing)
