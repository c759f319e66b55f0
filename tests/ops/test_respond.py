"""What is done about an incident: a table of situations, and random histories that must break no rule."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leptonai.ops import incidents as book
from leptonai.ops.diagnosis.causes import CAUSES
from leptonai.ops.respond import (
    RECONCILED,
    Act,
    Close,
    Escalate,
    Judge,
    Propose,
    Sight,
    Wait,
    next_action,
    plans,
    row_of,
)  # fmt: skip
from leptonai.ops.respond.decide import _pause
from leptonai.ops.runbook import shipped
from leptonai.settings import Ops
from leptonai.types import (
    Action,
    Anomaly,
    Cause,
    DialChange,
    Dials,
    Evidence,
    Incident,
    Revision,
    Scale,
    Service,
    Spec,
    Variant,
    VariantDials,
)

OPS = Ops()
NOW = 10_000.0


def spec(number: int) -> Spec:
    return Spec(name="digits", variants=(Variant(model=f"sha256:{number:064x}"),))


def revision(number: int, verified: bool, model: int | None = None) -> Revision:
    made = spec(number if model is None else model)
    return Revision(
        service="digits", number=number, by="human:ana", why="", at=NOW - 100, spec=made,
        verified=NOW - 50 if verified else None,
    )  # fmt: skip


REVISIONS = (revision(1, True), revision(2, False))
SERVICE = Service(spec=spec(2), dials=Dials(variants={"main": VariantDials(replicas=2)}), revision=2)


def incident(cause: str = "hung_replica", subject: str = "r1", confidence: float = 0.95, **more: Any) -> Incident:
    causes = (Cause(name=cause, subject=subject, confidence=confidence, evidence=("e1",)),)
    more.setdefault("opened", NOW)
    return Incident(
        id=7,
        subject="default/service/digits",
        severity="warning",
        title="t",
        began=more["opened"],
        causes=causes,
        **more,
    )


def sight(now: float = NOW, **more: Any) -> Sight:
    known: dict[str, Any] = {
        "service": SERVICE, "revisions": REVISIONS, "collected": now, "firing": True, "samples": 10.0,
        "serving": frozenset({"r2"}),
    }  # fmt: skip
    return Sight(**(known | more))


def act(found: Incident, seen: Sight, now: float = NOW, cooldown: float = 0.0) -> Act:
    return next_action(found, seen, now, OPS, shipped(), cooldown)


WELL: dict[str, Any] = {"firing": False, "quiet_since": NOW - 10, "converged_since": NOW - 10}
TRIED = Action(remedy="evict", proposal="p", at=NOW - 8)


def tried(verdict: Any, count: int = 1) -> tuple[Action, ...]:
    return tuple(
        Action(remedy="evict", proposal="p", at=NOW - 60, verdict=verdict, judged=NOW - 40) for _ in range(count)
    )


@pytest.mark.parametrize(
    ("found", "seen", "kind"),
    [
        (incident(), sight(), Propose),
        (incident(closed=NOW - 1), sight(), Wait),
        (incident(escalated=NOW - 1), sight(), Wait),
        (incident(escalated=NOW - 100), sight(**(WELL | {"quiet_since": NOW - 100})), Close),
        (incident(), sight(collected=NOW - 6), Wait),  # stale telemetry
        (incident(), sight(firing=False, quiet_since=NOW), Wait),  # just gone: nothing to repair
        (incident(), sight(**WELL), Close),
        (incident(confidence=0.6), sight(), Wait),  # recommended only ...
        (incident(confidence=0.6, opened=NOW - 60), sight(), Escalate),  # ... and then a person is called
        (incident("unknown", "digits", 0.9, opened=NOW - 60), sight(), Escalate),
        (incident("disk_full", "digits"), sight(), Escalate),  # the runbook has nothing for it
        (incident("replica_killed"), sight(), Wait),  # serve's business
        (incident("replica_killed", opened=NOW - 60), sight(), Escalate),  # serve did not do it
        (incident("replica_killed"), sight(**WELL), Close),
        (incident(), sight(serving=frozenset({"r1"})), Wait),  # the last ready one
        (incident(), sight(denied=(NOW - 3,)), Propose),
        (incident(), sight(denied=tuple(NOW - i for i in range(5))), Escalate),
        (incident(actions=(TRIED,)), sight(), Wait),  # one action at a time
        (incident(actions=(TRIED,)), sight(**WELL), Judge),
        (incident(actions=tried("ineffective")), sight(), Propose),
        (incident(actions=tried("inconclusive")), sight(), Propose),
        (incident(actions=tried("ineffective", 2)), sight(), Escalate),
        (incident(actions=tried("harmful")), sight(), Escalate),
        (incident(actions=tried("effective")), sight(**WELL), Close),
        (incident(), sight(service=None), Close),
    ],
)  # fmt: skip
def test_table(found: Incident, seen: Sight, kind: type) -> None:
    assert isinstance(act(found, seen), kind), act(found, seen)


@pytest.mark.parametrize(("refusals", "pause"), [(1, 1.25), (2, 2.5), (3, 5.0), (4, 10.0)])
def test_a_denied_proposal_is_tried_again_soon_and_then_ever_later(refusals: int, pause: float) -> None:
    def refused(ago: float) -> Act:
        denied = tuple(NOW - ago - 20 * n for n in range(refusals))
        return act(incident(), sight(denied=denied), cooldown=10.0)

    assert isinstance(refused(pause - 0.1), Wait)
    assert isinstance(refused(pause + 0.1), Propose)


@given(cooldown=st.floats(0.1, 3600.0), denials=st.integers(2, 10))
def test_a_cool_down_alone_never_uses_up_the_refusals(cooldown: float, denials: int) -> None:
    """Asked at once and after each pause, the door has cooled down before it could refuse the last time."""
    rules = msgspec.structs.replace(OPS, denials=denials)
    assert sum(_pause(n, cooldown, rules) for n in range(1, denials)) >= cooldown


@pytest.mark.parametrize(
    ("more", "verdict"),
    [
        (WELL, "effective"),
        (WELL | {"samples": 0.0}, None),  # nothing was seen: wait on
        (WELL | {"converged_since": NOW - 1}, None),
        (WELL | {"quiet_since": NOW - 1}, None),
        ({"worse": "half of the answers are errors"}, "harmful"),
    ],
)
def test_verdicts_in_time(more: dict[str, Any], verdict: str | None) -> None:
    found = act(incident(actions=(TRIED,)), sight(**more))
    assert (found.verdict if isinstance(found, Judge) else None) == verdict


@pytest.mark.parametrize(
    ("more", "verdict"),
    [({}, "ineffective"), ({"samples": 0.0}, "inconclusive"), (WELL | {"samples": 0.0}, "inconclusive")],
)
def test_verdicts_when_the_time_is_over(more: dict[str, Any], verdict: str) -> None:
    late = Action(remedy="evict", proposal="p", at=NOW - OPS.verify_timeout)
    found = act(incident(actions=(late,)), sight(**more))
    assert isinstance(found, Judge) and found.verdict == verdict


def test_what_serve_repairs_is_noted_as_reconciled() -> None:
    found = act(incident("replica_killed"), sight(**WELL))
    assert isinstance(found, Close) and found.remedy == RECONCILED


def test_the_second_try_is_the_next_remedy() -> None:
    found = act(incident(actions=tried("ineffective")), sight())
    assert isinstance(found, Propose) and found.remedy == "restart"


@pytest.mark.parametrize(
    ("cause", "subject", "opener", "led", "opened", "kind"),
    [
        # Of a whole service by elimination: twice ops.settle.
        ("traffic_surge", "digits", ("burn_latency", {}), 0.0, 0.0, Wait),
        ("traffic_surge", "digits", ("burn_latency", {}), 5.9, 5.9, Wait),
        ("traffic_surge", "digits", ("burn_latency", {}), 6.0, 6.0, Propose),
        # Of a revision or replica, by what it is compared with: ops.settle.
        ("bad_revision_errors", "digits#2", ("burn_errors", {}), 2.9, 2.9, Wait),
        ("bad_revision_errors", "digits#2", ("burn_errors", {}), 3.0, 3.0, Propose),
        # What opened the incident is about that very subject: at once.
        ("hung_replica", "r1", ("replica_hung", {"replica": "r1"}), 0.0, 0.0, Propose),
        ("bad_revision_wrong_answers", "digits#2", ("wrong_answers", {"digest": "d"}), 0.0, 0.0, Propose),
        # ... not when it is about another.
        ("slow_replica", "r1", ("replica_hung", {"replica": "r2"}), 0.0, 0.0, Wait),
        ("traffic_surge", "digits", ("wrong_answers", {"digest": "d"}), 0.0, 0.0, Wait),
        # Where causes only take turns, a person is called.
        ("traffic_surge", "digits", ("burn_latency", {}), 1.0, 31.0, Escalate),
    ],
)
def test_a_cause_is_acted_upon_once_it_has_led(
    cause: str, subject: str, opener: tuple[str, dict[str, str]], led: float, opened: float, kind: type
) -> None:
    signal, labels = opener
    why = Anomaly(signal=signal, labels=labels, began=NOW - opened, last=NOW, score=1.0)
    found = incident(cause, subject, opened=NOW - opened, anomalies=(why,))
    answer = act(found, sight(leads_since=NOW - led))
    assert isinstance(answer, kind), answer


def test_waiting_for_approval_is_no_failure() -> None:
    old = Action(remedy="evict", proposal="p", at=NOW - 600)
    assert isinstance(act(incident(actions=(old,)), sight(waiting=frozenset(("p",)))), Wait)


# --- random histories ----------------------------------------------------------------------------------------------

moment = st.fixed_dictionaries(
    {
        "pause": st.sampled_from([0.5, 1.0, 5.0, 40.0]),
        "firing": st.sampled_from([True, False, False]),
        "converged": st.sampled_from([True, True, False]),
        "samples": st.sampled_from([0.0, 0.0, 5.0]),
        "stale": st.booleans(),
        "denied": st.booleans(),
        "worse": st.sampled_from(["", "", "", "worse"]),
        "cause": st.sampled_from(sorted(CAUSES)),
        "confidence": st.sampled_from([0.3, 0.95]),
    }
)


@settings(max_examples=300, deadline=None)
@given(st.lists(moment, min_size=1, max_size=60))
def test_no_history_breaks_a_rule(moments: list[dict[str, Any]]) -> None:
    """Never an act on a closed or escalated incident or on stale telemetry, never two at once, at most two tries that
    did not help, nothing effective without samples or while it fires, no remedy below the least confidence."""
    now = NOW
    found = incident()
    quiet: float | None = None
    whole: float | None = None
    for it in moments:
        now += it["pause"]
        quiet = None if it["firing"] else (now if quiet is None else quiet)
        whole = None if not it["converged"] else (now if whole is None else whole)
        if not found.actions or found.actions[-1].verdict is not None:
            subject = "digits#2" if "revision" in it["cause"] else "r1"
            cause = Cause(name=it["cause"], subject=subject, confidence=it["confidence"])
            found = msgspec.structs.replace(found, causes=(cause,))
        seen = sight(
            now, collected=now - 60 if it["stale"] else now, firing=it["firing"], quiet_since=quiet,
            converged_since=whole, samples=it["samples"], worse=it["worse"], denied=book.refusals(found),
        )  # fmt: skip
        failed = [a for a in found.actions if a.verdict in ("ineffective", "inconclusive", "harmful")]
        answer = act(found, seen, now)
        if not isinstance(answer, Wait):
            assert found.closed is None
            assert not it["stale"]
        match answer:
            case Propose():
                assert found.escalated is None and it["firing"]
                assert not found.actions or found.actions[-1].verdict is not None
                assert len(failed) < OPS.attempts
                assert found.causes[0].confidence >= OPS.min_confidence and found.causes[0].name != "unknown"
                if it["denied"]:
                    found = book.note(found, "refused", "no", now)
                else:
                    found = book.act(found, Action(remedy=answer.remedy, proposal="p", at=now))
            case Judge(verdict=verdict):
                assert found.actions[-1].verdict is None
                if verdict == "effective":
                    assert it["samples"] > 0 and not it["firing"] and it["converged"]
                done = msgspec.structs.replace(found.actions[-1], verdict=verdict, judged=now)
                found = msgspec.structs.replace(found, actions=(*found.actions[:-1], done))
            case Escalate():
                found = msgspec.structs.replace(found, escalated=now, severity="critical")
            case Close(remedy=remedy, why=why):
                assert not it["firing"] and it["converged"]
                found = book.close(found, now, remedy, why, now)
    failed = [a for a in found.actions if a.verdict in ("ineffective", "inconclusive", "harmful")]
    assert len(failed) <= OPS.attempts


@pytest.mark.parametrize(
    ("waiting", "wanted"),
    [
        (80.0, {"shed": 0.7}),  # too much comes: it is refused until he has more there
        (None, {"main.weight": 0.0, "small.weight": 1.0}),  # nobody knows by how much: the next step
    ],
)
def test_a_surge_is_answered_where_somebody_else_sets_the_replicas(
    waiting: float | None, wanted: dict[str, float]
) -> None:
    """Each wish for replicas would be refused at the door, and with it what it asks for beside them."""
    load = {"arrivals_per_second": 100.0, "carried_per_second": 50.0, "waiting_count": waiting}
    told = {"traffic_ratio": 3.0} | (load if waiting is not None else {})
    evidence = (Evidence(id="e1", kind="load", at=NOW, text="", data=told),)
    small = Variant(name="small", model=f"sha256:{9:064x}")
    both = msgspec.structs.replace(spec(2), variants=(*spec(2).variants, small), scale=Scale(owner="keda"))
    dials = Dials(variants={"main": VariantDials(replicas=2), "small": VariantDials(replicas=1, weight=0.0)})
    seen = sight(service=Service(spec=both, dials=dials, revision=2), theirs=frozenset({"digits"}))
    done = act(incident("traffic_surge", "digits", evidence=evidence), seen)
    assert isinstance(done, Propose) and isinstance(done.plan.proposal.change, DialChange)
    assert done.plan.proposal.change.set == wanted


def test_no_neighbour_makes_room_whose_replicas_somebody_else_sets() -> None:
    crowded = (Evidence(id="e1", kind="signal", at=NOW, text="", data={"neighbour": "batch"}),)
    batch = Spec(name="batch", priority=-1, variants=spec(3).variants, scale=Scale(owner="keda"))
    other = Service(spec=batch, dials=Dials(variants={"main": VariantDials(replicas=4)}), revision=1)
    found = incident("noisy_neighbour", "digits", evidence=crowded)
    ours = act(found, sight(others=(other,)))
    assert isinstance(ours, Propose) and ours.plan.service == "batch"
    theirs = act(found, sight(others=(other,), theirs=frozenset({"batch"})))
    assert isinstance(theirs, Propose) and theirs.remedy == "scale" and theirs.plan.service == "digits"
    told = plans(found, sight(others=(other,), theirs=frozenset({"batch"})), NOW, row_of(found, shipped()))
    assert {step.name: plan for step, plan in told}["preempt"] == "the replicas of batch are set by keda, not by us"
