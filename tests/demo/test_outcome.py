"""Judging a drill: a right answer passes, and each single thing wrong with it is found."""

from typing import Any

import msgspec
import pytest

from leptonai.demo.outcome import DRILLS, Drill, Injection, Outcome, judge, newest, settled, since
from leptonai.demo.table import HEADS, cells, faults_found
from leptonai.demo.traffic import Answer
from leptonai.types import Action, Cause, Change, DialChange, Evidence, Incident, Proposal, Spec, SpecChange, Variant

AT = 1000.0
KINDS = {drill.kind: drill for drill in DRILLS}


def spec(model: str) -> Spec:
    return Spec(name="digits", variants=(Variant(model=model),))


GOOD, BAD = spec("good"), spec("bad")


def injection(drill: Drill) -> Injection:
    if drill.bad_revision:
        return Injection(kind=drill.kind, at=AT, revision=2)
    return Injection(kind=drill.kind, at=AT, replica="digits-main-1", pid=7)


def proposal(change: Change, **fields: Any) -> Proposal:
    given = {"id": "p", "by": "incident:1", "why": "because", "at": AT + 6, "expires": AT + 900, "status": "admitted"}
    return Proposal(change=change, **{**given, **fields})


def right_answer(drill: Drill) -> tuple[Incident, list[Proposal]]:
    subject = "revision:2" if drill.bad_revision else "digits-main-1"
    incident = Incident(
        id=1,
        subject="default/service/digits",
        severity="critical",
        title="digits is unwell",
        began=AT + 1,
        opened=AT + 4,
        diagnosed=AT + 5,
        mitigated=AT + 9,
        evidence=(Evidence(id="e1", kind="signal", at=AT + 3, text="it is so"),),
        causes=(Cause(name=drill.cause, subject=subject, confidence=0.9, evidence=("e1",)),),
        actions=(Action(remedy=drill.remedy, proposal="p", at=AT + 6, verdict="effective"),),
    )
    if drill.remedy == "none: reconciled":
        return incident, []
    if drill.remedy == "evict":
        return incident, [proposal(DialChange(service="digits", set={"evict.digits-main-1": 1.0}))]
    return incident, [proposal(SpecChange(spec=GOOD, base=2))]


def outcome(drill: Drill, incidents: list[Incident], proposals: list[Proposal], recovered: float | None) -> Outcome:
    answers = [
        Answer(id=str(n), due=AT + n, seconds=0.01, status=200, result=("right", "wrong", "failed")[n % 3])  # type: ignore[arg-type]
        for n in range(-5, 30)
    ]
    return judge(drill, injection(drill), incidents, proposals, answers, GOOD, recovered, AT + 20)


@pytest.mark.parametrize("drill", DRILLS, ids=lambda d: d.kind)
def test_a_right_answer_is_repaired_and_its_row_has_all_the_numbers(drill: Drill) -> None:
    incident, proposals = right_answer(drill)
    seen = outcome(drill, [incident], proposals, AT + 10)
    assert seen.repaired and faults_found([seen]) == []
    row = dict(zip(HEADS, cells(seen), strict=True))
    assert row == {
        "fault": drill.title,
        "detect": "4.0",
        "diagnose": "5.0",
        "recover": "10.0",
        "sent": "10",
        "failed": "3",
        "wrong": "3",
        "cause named": drill.cause,
        "remedy": drill.remedy,
        "harm": "none",
    }


def variations(drill: Drill) -> dict[str, tuple[list[Incident], list[Proposal], float | None]]:
    """A right answer with one thing made wrong, by the name of that thing."""
    incident, proposals = right_answer(drill)
    change = msgspec.structs.replace
    action, cause = incident.actions[0], incident.causes[0]
    evict_other = proposal(DialChange(service="digits", set={"evict.digits-main-9": 1.0}))
    wrong: dict[str, tuple[list[Incident], list[Proposal], float | None]] = {
        "no incident": ([], proposals, None),
        "another cause": ([change(incident, causes=(change(cause, name="unknown"),))], proposals, AT + 10),
        "right cause ranked second": (
            [change(incident, causes=(change(cause, name="unknown"), cause))],
            proposals,
            AT + 10,
        ),
        "no cause": ([change(incident, causes=())], proposals, AT + 10),
        "no evidence": ([change(incident, causes=(change(cause, evidence=()),))], proposals, AT + 10),
        "another remedy": ([change(incident, actions=(change(action, remedy="restart"),))], proposals, AT + 10),
        "no action": ([change(incident, actions=())], proposals, AT + 10),
        "not recovered": ([incident], proposals, None),
        "ineffective at first": (
            [change(incident, actions=(change(action, verdict="ineffective"), action))],
            proposals,
            AT + 10,
        ),
        "escalated": ([change(incident, escalated=AT + 8)], proposals, AT + 10),
        "a second incident": ([incident, change(incident, id=2, opened=AT + 7)], proposals, AT + 10),
        "another incident acts": (
            [incident],
            [*proposals, proposal(DialChange(service="digits", set={"main.epoch": 1.0}), by="incident:9")],
            AT + 10,
        ),
        "a healthy replica evicted": ([incident], [*proposals, evict_other], AT + 10),
        "scaled": (
            [incident],
            [*proposals, proposal(DialChange(service="digits", set={"main.replicas": 4.0}))],
            AT + 10,
        ),
        "rolled back to the bad spec": (
            [incident],
            [*proposals, proposal(SpecChange(spec=BAD, base=2))],
            AT + 10,
        ),
    }
    if not drill.bad_revision:
        wrong["another replica blamed"] = (
            [change(incident, causes=(change(cause, subject="digits-main-9"),))],
            proposals,
            AT + 10,
        )
        wrong["rolled back for nothing"] = (
            [incident],
            [*proposals, proposal(SpecChange(spec=GOOD, base=2))],
            AT + 10,
        )
    return wrong


@pytest.mark.parametrize(
    ("kind", "name"), [(drill.kind, name) for drill in DRILLS for name in variations(drill)], ids=lambda v: str(v)
)
def test_each_single_thing_wrong_is_found(kind: str, name: str) -> None:
    incidents, proposals, recovered = variations(KINDS[kind])[name]  # type: ignore[index]
    seen = outcome(KINDS[kind], incidents, proposals, recovered)  # type: ignore[index]
    assert not seen.repaired
    assert faults_found([seen])


def test_what_people_and_denied_or_rehearsed_proposals_do_is_no_harm() -> None:
    drill = KINDS["kill"]
    incident, _ = right_answer(drill)
    bad = DialChange(service="digits", set={"evict.digits-main-9": 1.0})
    harmless = [proposal(bad, by="human:ana"), proposal(bad, status="denied"), proposal(bad, dry_run=True)]
    assert outcome(drill, [incident], harmless, AT + 10).repaired


def test_an_incident_is_settled_once_its_last_action_was_found_effective() -> None:
    incident, _ = right_answer(KINDS["stop"])
    pending = msgspec.structs.replace(incident.actions[0], verdict=None)
    assert settled(None) is None
    assert settled(msgspec.structs.replace(incident, actions=())) is None
    assert settled(msgspec.structs.replace(incident, actions=(pending,))) is None
    assert settled(incident) == AT + 9


def test_incidents_are_told_apart_by_number_and_one_dated_just_before_the_injection_counts_as_at_once() -> None:
    drill = KINDS["kill"]
    incident, _ = right_answer(drill)
    early = msgspec.structs.replace(incident, id=4, opened=AT - 0.03)
    known = newest([incident])
    assert (known, newest([])) == (1, 0)
    assert since([early, incident], known) == [early]
    seen = outcome(drill, [early], [], AT + 10)
    assert seen.repaired and seen.detect == 0.0
