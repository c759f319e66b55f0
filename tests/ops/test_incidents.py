"""Which triggers are one incident, and what of its document may never change."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from leptonai.ops import incidents as book
from leptonai.ops.evidence import Facts
from leptonai.ops.judge import Trigger
from leptonai.types import Action, Cause, Evidence, Incident

NOW = 10_000.0


def trigger(kind: Any = "replica_hung", subject: str = "r1", service: str = "digits", **more: Any) -> Trigger:
    return Trigger(
        **({"kind": kind, "subject": subject, "service": service, "severity": "warning", "began": NOW} | more)
    )


def opened(*triggers: Trigger, **more: Any) -> Incident:
    found = book.open_incident(triggers or (trigger(),), NOW)
    return msgspec.structs.replace(found, **({"id": 1} | more))


BURN = trigger("burn_latency", "")


@pytest.mark.parametrize(
    ("new", "known", "joins"),
    [
        (trigger(), (), None),
        (trigger(), (opened(),), 1),
        (trigger(subject="r2"), (opened(),), 1),  # a broken service breaks in several places
        (trigger(service="team/digits"), (opened(),), None),
        (trigger(), (opened(closed=NOW - 10),), 1),  # the same trouble again
        (trigger(subject="r2"), (opened(closed=NOW - 10),), None),  # another replica is another trouble
        (trigger(), (opened(closed=NOW - 100),), None),
        (BURN, (opened(BURN, closed=NOW - 10),), 1),
        (BURN, (opened(trigger(), BURN, closed=NOW - 10),), None),  # a symptom does not reopen what had a cause
        (trigger(subject="r2"), (opened(escalated=NOW - 5),), None),  # we can repair this one
        (trigger(), (opened(escalated=NOW - 5),), 1),
        (BURN, (opened(escalated=NOW - 5),), 1),
        (trigger(subject="r2"), (opened(escalated=NOW - 5), opened(trigger(subject="r2"), id=2)), 2),
    ],
)
def test_where_a_trigger_belongs(new: Trigger, known: tuple[Incident, ...], joins: int | None) -> None:
    found = book.home_of(new, known, NOW, reopen=30.0)
    assert (found.id if found else None) == joins


@pytest.mark.parametrize(
    ("cause", "changed", "more", "joins"),
    [
        ("data_drift", NOW - 900, {"escalated": NOW - 5}, 1),
        ("data_drift", NOW - 900, {"closed": NOW - 5}, 1),
        ("data_drift", NOW - 900, {"closed": NOW - 100}, None),
        ("data_drift", NOW, {"escalated": NOW - 5}, None),  # what was deployed since may be wrong by itself
        ("disk_full", NOW - 900, {"escalated": NOW - 5}, None),
    ],
)
def test_labels_that_convict_while_data_drift_are_the_same_trouble(
    cause: str, changed: float, more: dict[str, Any], joins: int | None
) -> None:
    drift = opened(
        trigger("declared", terms={"text": "drift"}),
        causes=(Cause(name=cause, subject="digits", confidence=0.8),),
        **more,
    )
    found = book.home_of(trigger("wrong_answers", "sha256:1"), [drift], NOW, reopen=30.0, changed=changed)
    assert (found.id if found else None) == joins


@pytest.mark.parametrize("key", ["digits", "team/digits"])
def test_subjects_name_the_service(key: str) -> None:
    found = opened(trigger(service=key))
    assert book.service_of(found) == key and found.subject.endswith("/service/digits")


def test_joining_keeps_the_earliest_onset_and_the_gravest_severity() -> None:
    found = book.join(opened(), [trigger(severity="critical"), BURN], NOW + 5)
    assert found.severity == "critical" and len(found.anomalies) == 2
    again = book.join(found, [trigger()], NOW + 6)
    assert again.severity == "critical" and again.anomalies[0].last == NOW + 6 and again.anomalies[0].began == NOW


def test_an_onset_is_not_sought_for_ever() -> None:
    found = book.open_incident([trigger(began=0.0)], NOW)
    assert found.began == NOW - book.LOOK_BACK


def test_what_came_back_was_not_repaired() -> None:
    done = Action(remedy="evict", proposal="p", at=NOW - 20, verdict="effective")
    found = book.reopen(opened(closed=NOW - 5, actions=(done,)), NOW)
    assert found.closed is None and found.actions[0].verdict == "ineffective"
    assert "came back 5 s after" in found.actions[0].detail


def facts(*texts: str) -> Facts:
    return Facts(tuple(Evidence(id=f"e{n}", kind="x", at=NOW, text=t) for n, t in enumerate(texts, 1)), {})


def cause(*cited: str) -> tuple[Cause, ...]:
    return (Cause(name="hung_replica", subject="r1", confidence=0.9, evidence=cited),)


def test_evidence_is_renewed_until_it_is_acted_on_and_then_stays() -> None:
    found = book.explain(opened(), facts("a 1", "b 1"), cause("e2"), NOW)
    found = book.explain(found, facts("a 2", "b 2"), cause("e2"), NOW + 1)
    assert [e.text for e in found.evidence] == ["a 2", "b 2"] and found.diagnosed == NOW
    found = book.act(book.note(found, "action", "evicted", NOW + 2), Action(remedy="evict", proposal="p", at=NOW + 2))
    before = found.evidence
    for look in range(20):
        found = book.explain(found, facts("a 2", f"b {look}"), cause("e1", "e2"), NOW + 3)
    assert found.evidence[:3] == before
    assert [e.text for e in found.evidence] == ["a 2", "b 2", "evicted", "b 19"]
    assert found.causes[0].evidence == ("e1", "e4")
    assert [e.id for e in found.evidence] == ["e1", "e2", "e3", "e4"]


def test_refusals_are_kept_while_facts_are_renewed() -> None:
    found = book.explain(opened(), facts("a"), cause("e1"), NOW)
    for look in range(3):
        found = book.note(found, "refused", "the door refused", NOW + look)
        found = book.explain(found, facts(f"a {look}"), cause("e1"), NOW + look)
    assert len(book.refusals(found)) == 3 and found.evidence[0].text == "a 2"
    assert len({e.id for e in found.evidence}) == len(found.evidence) == 4


@pytest.mark.parametrize(
    ("escalated", "before", "now", "kept"),
    [
        (None, ("a", 0.9), ("unknown", 0.0), True),  # what fades refutes nothing
        (None, ("a", 0.9), ("b", 0.8), False),  # nobody was told yet
        (5.0, ("a", 0.9), ("b", 0.8), True),  # told, and no surer of the other
        (5.0, ("a", 0.7), ("b", 0.75), True),  # hardly
        (5.0, ("a", 0.7), ("b", 0.9), False),
        (5.0, ("a", 0.9), ("a", 0.8), False),  # the same, with newer numbers
        (5.0, ("unknown", 0.4), ("unknown", 0.3), False),
    ],
)
def test_what_was_known_is_not_forgotten_while_it_fades(
    escalated: float | None, before: tuple[str, float], now: tuple[str, float], kept: bool
) -> None:
    causes = (Cause(name=before[0], subject="digits", confidence=before[1]),)
    told = msgspec.structs.replace(book.open_incident([trigger()], 1.0), causes=causes, escalated=escalated)
    assert book.forgets(told, (Cause(name=now[0], subject="digits", confidence=now[1]),)) is kept
