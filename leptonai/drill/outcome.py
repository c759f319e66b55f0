"""What a drill led to. Pure: judged from documents that any client can read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from leptonai.drill.kinds import KINDS, PERSON, RECONCILED, Fault
from leptonai.drill.traffic import Answer, Counts, count
from leptonai.types import Action, DialChange, Incident, Noun, Proposal, Spec, SpecChange


class Injection(Noun, frozen=True, kw_only=True):
    """What was done. ``replica`` and ``revision``: what was broken, where it was one of these."""

    kind: str
    at: float
    replica: str = ""
    revision: int = 0
    pid: int | None = None
    text: str = ""

    @property
    def target(self) -> str:
        return self.replica or (f"revision {self.revision}" if self.revision else self.text)


class Outcome(Noun, frozen=True, kw_only=True):
    """One row of the table. Times are seconds since the injection; None: it did not happen within the limit.

    Ops dates what it finds to the start of the round in which it looked, which may be just before the injection: 0.
    ``recover``: whole again, or, where a person is the right answer, called with a cause named.
    """

    kind: str
    fault: str
    injected: float
    target: str
    truth: tuple[str, ...] = ()  # the causes that are right; of a control none
    seed: int = 0
    until: float = 0.0  # end of what the drill answers for
    felt: bool = True  # somebody could have noticed it (``Fault.only_late``)
    incident: int | None = None
    detect: float | None = None
    diagnose: float | None = None
    recover: float | None = None
    sent: int = 0
    failed: int = 0
    refused: int = 0  # of the failed: because a quarantine is in force
    wrong: int = 0
    cause: str = ""
    second: str = ""
    subject: str = ""
    confidence: float = 0.0
    remedy: str = ""
    first: bool = False  # the right cause leads
    first_two: bool = False
    right_remedy: bool = False
    in_time: bool = False  # detected and recovered within the kind's own bounds
    acts: int = 0  # admitted automatic changes
    harm: tuple[str, ...] = ()  # what was done that should not have been
    noise: tuple[str, ...] = ()  # incidents too many, actions that did not help
    missing: tuple[str, ...] = ()  # what should have been done and was not
    incidents: tuple[Incident, ...] = ()  # as they stood at the end, so that others can judge anew

    @property
    def control(self) -> bool:
        return KINDS[self.kind].control

    @property
    def repaired(self) -> bool:
        """Found, named rightly, answered rightly, and nothing healthy was touched; of a control: left in peace."""
        return not self.harm and not self.missing and not self.noise


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
    if last.remedy != RECONCILED and last.verdict != "effective":
        return None
    return incident.mitigated or incident.closed


def told(fault: Fault, incident: Incident | None) -> float | None:
    """When a person knew what it is; None while nobody was called, or where that is no right answer.

    An incident whose trouble passed while nothing was done has told its owner when it was diagnosed.
    """
    if incident is None or not fault.called or incident.diagnosed is None:
        return None
    if incident.escalated is not None:
        return max(incident.escalated, incident.diagnosed)
    return incident.diagnosed if incident.closed is not None and not incident.actions else None


def judge(
    fault: Fault,
    injection: Injection,
    incidents: Sequence[Incident],
    proposals: Sequence[Proposal],
    answers: Sequence[Answer] | Counts,
    good: Spec,
    recovered: float | None,
    until: float,
    seed: int = 0,
    beside: Sequence[tuple[Fault, Injection]] = (),
) -> Outcome:
    """The outcome of one drill. ``incidents``: those opened since its injection, before the next one, in order;
    the first is taken to be about it. Everything else is looked at over ``[injection.at, until)``.

    ``recovered``: when the service was seen whole again after ops called the incident repaired. ``good``: the spec
    to which a rollback must lead. ``answers``: what users saw, or its counts where that is all that is known.
    ``beside``: what else was broken; an act that is right for that is no harm, its incidents are none too many.
    """
    mine = incidents[0] if incidents else None
    names = {f"incident:{i.id}" for i in incidents}
    automatic = [p for p in proposals if p.by.startswith("incident:") and not p.dry_run and p.service == good.key]
    automatic = sorted(automatic, key=lambda p: p.at)  # a compensation comes after what it takes back
    acts = [p for p in automatic if p.status == "admitted" and (p.by in names or injection.at <= p.at < until)]
    done = recovered if recovered is not None else told(fault, mine)
    end = done if done is not None else until
    counts = answers if isinstance(answers, Counts) else count(answers, injection.at, until if fault.control else end)
    causes = mine.causes if mine else ()
    remedies = {a.proposal: a.remedy for i in incidents for a in i.actions if a.proposal is not None}
    detect, recover = _since(injection, mine.opened if mine else None), _since(injection, done)
    remedy = _remedy(mine)
    everything = ((fault, injection), *beside)
    expected = sum(not f.control for f, _ in everything)
    outcome = Outcome(
        kind=fault.kind,
        fault=fault.title,
        injected=injection.at,
        target=injection.target,
        truth=fault.causes,
        seed=seed,
        until=until,
        incident=mine.id if mine else None,
        detect=detect,
        diagnose=_since(injection, mine.diagnosed if mine else None),
        recover=recover,
        sent=counts.sent,
        failed=counts.failed,
        refused=counts.refused,
        wrong=counts.wrong,
        cause=causes[0].name if causes else "",
        second=causes[1].name if len(causes) > 1 else "",
        subject=causes[0].subject if causes else "",
        confidence=causes[0].confidence if causes else 0.0,
        remedy=remedy,
        first=any(_right(fault, injection, c.name, c.subject) for c in causes[:1]),
        first_two=any(_right(fault, injection, c.name, c.subject) for c in causes[:2]),
        right_remedy=remedy in fault.remedies,
        in_time=detect is not None and recover is not None and detect <= fault.detect and recover <= fault.recover,
        acts=len(acts),
        harm=(*_harm_by_acts(everything, acts, remedies, good), *_judged(incidents, "harmful")),
        noise=(
            *(f"incident {i.id} too many: {i.title}" for i in incidents[expected:]),
            *_judged(incidents, "ineffective"),
        ),
        incidents=tuple(incidents),
    )
    return outcome if fault.control else _with_missing(outcome, fault, injection, mine)


def _since(injection: Injection, moment: float | None) -> float | None:
    return None if moment is None else max(0.0, moment - injection.at)


def _remedy(incident: Incident | None) -> str:
    if incident is None:
        return ""
    if incident.actions:
        return incident.actions[-1].remedy
    return PERSON if incident.escalated is not None or incident.closed is not None else ""


def _right(fault: Fault, injection: Injection, cause: str, subject: str) -> bool:
    """A right name of somebody else is wrong: an eviction would hit the healthy."""
    return cause in fault.causes and (fault.breaks != "replica" or injection.replica in ("", subject))


def _harm_by_acts(
    broken: Sequence[tuple[Fault, Injection]], acts: Sequence[Proposal], remedies: Mapping[str, str], good: Spec
) -> list[str]:
    """Every admitted change that is not a right one for what was broken."""
    harm = []
    allowed = {remedy for fault, _ in broken for remedy in fault.remedies} - {RECONCILED, PERSON}
    sick = {f"evict.{injection.replica}" for _, injection in broken if injection.replica}
    turned: set[str] = set()  # dials of right acts: turning them back is a compensation
    for act in acts:
        remedy = remedies.get(act.id, "")
        match act.change:
            case DialChange() as change:
                evicted = {path for path in change.set if path.startswith("evict.")}
                right = remedy in allowed - {"rollback"} and evicted <= sick
                right = right and (remedy != "evict" or evicted == change.set.keys())
                right = right or (bool(change.set) and change.set.keys() <= turned)
                turned |= change.set.keys() if right else set()
                what = "set " + ", ".join(f"{path} = {value:g}" for path, value in change.set.items())
            case SpecChange() as change:
                right = remedy in allowed - {"evict"} and (remedy != "rollback" or change.spec == good)
                what = "changed the spec" if change.spec != good else "rolled back"
            case _:
                right, what = False, "deleted the service"
        if not right:
            harm.append(f"{act.by} {what} ({act.why})")
    return harm


def _judged(incidents: Sequence[Incident], verdict: str) -> list[str]:
    def line(incident: Incident, action: Action) -> str:
        return f"{action.remedy} of incident {incident.id} was {action.verdict}: {action.detail}"

    return [line(i, a) for i in incidents for a in i.actions if a.verdict == verdict]


def _with_missing(outcome: Outcome, fault: Fault, injection: Injection, mine: Incident | None) -> Outcome:
    """The outcome with what a right answer has and this one lacks."""
    return msgspec.structs.replace(outcome, missing=tuple(_missing(outcome, fault, injection, mine)))


def _missing(outcome: Outcome, fault: Fault, injection: Injection, mine: Incident | None) -> list[str]:
    if mine is None:
        return ["no incident was opened"]
    missing = []
    top = mine.causes[0] if mine.causes else None
    wanted = " or ".join(fault.causes)
    if top is None or top.name not in fault.causes:
        missing.append(f"the cause is {wanted}, incident {mine.id} says {top.name if top else 'nothing'}")
    elif not outcome.first:
        missing.append(f"{injection.replica} is the culprit, incident {mine.id} says {top.subject}")
    elif not top.evidence:
        missing.append(f"incident {mine.id} cites no evidence for {top.name}")
    if not outcome.right_remedy:
        right = " or ".join(fault.remedies)
        missing.append(f"the remedy is {right}, incident {mine.id} took {outcome.remedy or 'none'}")
    if not fault.called and mine.escalated is not None:
        missing.append(f"incident {mine.id} was escalated to a person")
    if outcome.recover is None:
        missing.append(f"not recovered within {fault.lasts:.0f} s")
    return missing
