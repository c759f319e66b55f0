"""Judging a drill: a right answer passes, and each single thing wrong with it is found."""

from typing import Any

import msgspec
import pytest

from leptonai.drill.kinds import CONTROLS, FAULTS, KINDS, PERSON, Fault
from leptonai.drill.outcome import Injection, Outcome, judge, newest, settled, since, told
from leptonai.drill.table import HEADS, cells, faults_found
from leptonai.drill.traffic import Answer
from leptonai.types import Action, Cause, Change, DialChange, Evidence, Incident, Proposal, Spec, SpecChange, Variant

AT = 1000.0


def spec(model: str) -> Spec:
    return Spec(name="digits", variants=(Variant(model=model),))


GOOD, BAD = spec("good"), spec("bad")


def injection(drill: Fault) -> Injection:
    if drill.breaks == "revision":
        return Injection(kind=drill.kind, at=AT, revision=2)
    return Injection(kind=drill.kind, at=AT, replica="digits-main-1" if drill.breaks == "replica" else "", pid=7)


def proposal(change: Change, **fields: Any) -> Proposal:
    given = {"id": "p", "by": "incident:1", "why": "because", "at": AT + 6, "expires": AT + 900, "status": "admitted"}
    return Proposal(change=change, **{**given, **fields})


def right_answer(drill: Fault) -> tuple[Incident, list[Proposal]]:
    subject = "digits#2" if drill.breaks == "revision" else "digits-main-1"
    person = drill.remedies[0] == PERSON
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
        causes=(Cause(name=drill.causes[0], subject=subject, confidence=0.9, evidence=("e1",)),),
        escalated=AT + 10 if person else None,
        actions=() if person else (Action(remedy=drill.remedies[0], proposal="p", at=AT + 6, verdict="effective"),),
    )
    if person or drill.remedies[0] == "none: reconciled":
        return incident, []
    if drill.remedies[0] == "evict":
        return incident, [proposal(DialChange(service="digits", set={"evict.digits-main-1": 1.0}))]
    return incident, [proposal(SpecChange(spec=GOOD, base=2))]


def outcome(drill: Fault, incidents: list[Incident], proposals: list[Proposal], recovered: float | None) -> Outcome:
    answers = [
        Answer(id=str(n), due=AT + n, seconds=0.01, status=200, result=("right", "wrong", "failed")[n % 3])  # type: ignore[arg-type]
        for n in range(-5, 30)
    ]
    return judge(drill, injection(drill), incidents, proposals, answers, GOOD, recovered, AT + 20)


@pytest.mark.parametrize("drill", FAULTS, ids=lambda d: d.kind)
def test_a_right_answer_is_repaired_and_its_row_has_all_the_numbers(drill: Fault) -> None:
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
        "cause named": drill.causes[0],
        "remedy": drill.remedies[0],
        "harm": "none",
    }


def variations(drill: Fault) -> dict[str, tuple[list[Incident], list[Proposal], float | None]]:
    """A right answer with one thing made wrong, by the name of that thing."""
    incident, proposals = right_answer(drill)
    change = msgspec.structs.replace
    cause = incident.causes[0]
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
        "no action": ([change(incident, actions=(), escalated=None)], proposals, AT + 10),
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
    if incident.actions:
        action = incident.actions[0]
        wrong |= {
            "another remedy": ([change(incident, actions=(change(action, remedy="scale"),))], proposals, AT + 10),
            "not recovered": ([incident], proposals, None),
            "ineffective at first": (
                [change(incident, actions=(change(action, verdict="ineffective"), action))],
                proposals,
                AT + 10,
            ),
            "escalated": ([change(incident, escalated=AT + 8)], proposals, AT + 10),
        }
    else:
        wrong["evicted"] = ([incident], [evict_other], AT + 10)
    if drill.breaks == "replica":
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
    ("kind", "name"), [(drill.kind, name) for drill in FAULTS for name in variations(drill)], ids=lambda v: str(v)
)
def test_each_single_thing_wrong_is_found(kind: str, name: str) -> None:
    incidents, proposals, recovered = variations(KINDS[kind])[name]
    seen = outcome(KINDS[kind], incidents, proposals, recovered)
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


@pytest.mark.parametrize("control", CONTROLS, ids=lambda c: c.kind)
def test_a_control_is_good_when_nobody_said_or_did_anything(control: Fault) -> None:
    assert outcome(control, [], [], None).repaired
    incident, _ = right_answer(KINDS["stop"])
    alarmed = outcome(control, [incident], [], None)
    assert not alarmed.repaired and alarmed.noise and alarmed.acts == 0
    acted = outcome(control, [incident], [proposal(DialChange(service="digits", set={"evict.a": 1.0}))], None)
    assert acted.harm and acted.acts == 1


def test_a_person_knows_once_called_and_once_a_cause_is_named() -> None:
    fault = KINDS["drift"]
    incident, _ = right_answer(fault)
    assert told(fault, incident) == AT + 10
    assert told(fault, msgspec.structs.replace(incident, diagnosed=None)) is None
    assert told(fault, msgspec.structs.replace(incident, escalated=None)) is None  # still open: nobody has been called
    assert told(fault, msgspec.structs.replace(incident, escalated=None, closed=AT + 30)) == AT + 5
    assert told(KINDS["stop"], incident) is None  # where a remedy is due, a call is none
    tried = msgspec.structs.replace(incident, actions=(Action(remedy="shed", proposal="p", at=AT + 6),))
    assert told(fault, tried) == AT + 10  # called after something was tried
    assert told(fault, msgspec.structs.replace(tried, escalated=None, closed=AT + 30)) is None


def test_of_two_faults_at_once_what_is_right_for_one_is_no_harm_to_the_other() -> None:
    kill, leak = KINDS["kill"], KINDS["leak"]
    incident, proposals = right_answer(leak)
    alone = judge(kill, Injection(kind="kill", at=AT, replica="r9"), [incident], proposals, [], GOOD, AT + 10, AT + 20)
    assert alone.harm
    beside = ((leak, injection(leak)),)
    both = judge(
        kill, Injection(kind="kill", at=AT, replica="r9"), [incident], proposals, [], GOOD, AT + 10, AT + 20, 0, beside
    )
    assert not both.harm


def test_every_kind_has_a_bound_a_severity_and_causes_that_exist() -> None:
    from leptonai.ops.diagnosis.causes import CAUSES

    assert len(FAULTS) >= 20 and len({f.kind for f in (*FAULTS, *CONTROLS)}) == len((*FAULTS, *CONTROLS))
    for fault in FAULTS:
        assert fault.causes and set(fault.causes) <= CAUSES.keys()
        assert 0 < fault.detect <= fault.recover <= fault.lasts and fault.remedies


def test_what_takes_a_right_act_back_is_no_harm_in_whatever_order_proposals_are_listed() -> None:
    """The API lists the newest first."""
    drill = KINDS["retries"]
    incident, _ = right_answer(drill)
    shed = proposal(DialChange(service="digits", set={"shed": 0.5}), id="a")
    back = proposal(DialChange(service="digits", set={"shed": 0.0}), id="b", at=AT + 15)
    tried = Action(remedy="shed", proposal="a", at=AT + 6, verdict="ineffective")
    incident = msgspec.structs.replace(incident, actions=(tried,), escalated=None)
    for listed in ([shed, back], [back, shed]):
        assert outcome(drill, [incident], listed, None).harm == ()
    assert outcome(drill, [incident], [back], None).harm, "nothing was there to be taken back"


def test_refused_requests_are_counted_among_the_failed() -> None:
    drill = KINDS["poison"]
    incident, _ = right_answer(drill)
    told = enumerate((500, 422))
    answers = [Answer(id=str(n), due=AT + n, seconds=0.01, status=status, result="failed") for n, status in told]
    seen = judge(drill, injection(drill), [incident], [], answers, GOOD, None, AT + 20)
    assert (seen.failed, seen.refused, seen.truth) == (2, 1, ("poisoned_input",))
