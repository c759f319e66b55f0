"""Reviews of incidents: what is kept of them, what is refused, and what is held to be true of all that was said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptonai.client.wire import ReviewRequest
from leptonai.errors import Conflict, LeptonError, NotFound, SpecError
from leptonai.ops.learn.reviews import in_force, truths
from leptonai.types import Action, Cause, Incident, Review

if TYPE_CHECKING:
    from api_stage import Stage

INCIDENT = Incident(
    id=0, subject="default/service/digits", severity="critical", title="ill", began=1.0, opened=2.0,
    causes=(
        Cause(name="memory_leak", subject="r1", confidence=0.9),
        Cause(name="traffic_surge", subject="digits", confidence=0.4),
    ),
    actions=(Action(remedy="evict", proposal="p", at=3.0, verdict="ineffective"),),
)  # fmt: skip


def test_a_review_is_kept_told_in_the_audit_log_and_replaced_by_the_next_of_the_same_reviewer(stage: Stage) -> None:
    made = stage.store.put_incident(INCIDENT)
    with stage.client("operator") as ana, stage.client("admin") as ben:
        ana.review(made.id, ReviewRequest(hypotheses={"memory_leak": True}))
        ben.review(made.id, ReviewRequest(cause="retry_storm", source="drill"))
        last = ana.review(
            made.id, ReviewRequest(hypotheses={"memory_leak": False}, remedies={"evict": "harmful"}, note="no")
        )
        assert [r.by for r in ana.reviews(made.id)] == ["human:admin", "human:operator"]
        assert ana.reviews(made.id)[1] == last
        assert last.analysis == made.analysis
        page = ana.all_reviews()
        assert [r for _, r in page.items] == ana.reviews(made.id)
        assert ana.all_reviews(after=page.next).items == []
        told = [e.detail for e in ana.why("digits") if e.kind == "incident.reviewed"]
    assert [t["hypotheses"] for t in told] == [{"memory_leak": True}, {}, {"memory_leak": False}]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "says nothing"),
        ({"note": "  "}, "says nothing"),
        ({"cause": "the weather"}, "no such cause 'the weather'"),
        ({"hypotheses": {"disk_full": True}}, "'disk_full' was not named"),
        ({"remedies": {"rollback": "effective"}}, "'rollback' was not tried"),
        ({"cause": "memory_leak", "hypotheses": {"memory_leak": False}}, "told to be the cause and to be wrong"),
        ({"note": "x" * 10_001}, "10001 characters"),
        ({"remedies": {"evict": "nice"}}, "Invalid enum value"),
        ({"source": "oracle", "cause": "memory_leak"}, "Invalid enum value"),
    ],
)
def test_a_review_that_cannot_be_meant_is_refused(stage: Stage, wrong: dict[str, Any], said: str) -> None:
    stage.store.put_incident(INCIDENT)
    with stage.http("operator") as http:
        answer = http.post("/incidents/1/review", json=wrong)
    assert answer.status_code == 400
    assert said in answer.json()["error"]
    assert stage.store.reviews(1) == []


def test_an_unknown_incident_another_workspace_and_a_flood_are_refused(stage: Stage) -> None:
    stage.store.put_incident(INCIDENT)
    stage.token("plant", "operator", ("plant",))
    wish = ReviewRequest(cause="memory_leak")
    with stage.client("operator") as ana, stage.client("plant") as plant:  # type: ignore[arg-type]
        with pytest.raises(NotFound, match="no incident 7"):
            ana.review(7, wish)
        with pytest.raises(NotFound, match="no incident 1"):
            plant.review(1, wish)
        assert plant.all_reviews().items == []
        for _ in range(5):
            ana.review(1, wish)
        with pytest.raises(LeptonError, match="above 1 a second") as refused:
            for _ in range(5):
                ana.review(1, wish)
        assert refused.value.retry_after
        assert len(ana.reviews(1)) == 1


def test_what_was_read_must_still_be_the_analysis(stage: Stage) -> None:
    """The hash is of causes and subjects in their order: a moved confidence changes nothing."""
    read = stage.store.put_incident(INCIDENT)
    surer = tuple(msgspec.structs.replace(c, confidence=0.3) for c in read.causes)
    now = stage.store.put_incident(msgspec.structs.replace(read, causes=surer))
    assert now.analysis == read.analysis
    with stage.client("operator") as ana:
        ana.review(1, ReviewRequest(cause="disk_full", analysis=read.analysis))
        stage.store.put_incident(msgspec.structs.replace(read, causes=surer[::-1]))
        with pytest.raises(Conflict, match="explained anew"):
            ana.review(1, ReviewRequest(cause="disk_full", analysis=read.analysis))


def test_a_cause_of_an_operators_own_rules_may_be_told(stage: Stage) -> None:
    stage.store.put_incident(INCIDENT)
    folder = stage.home / "rules"
    folder.mkdir()
    (folder / "ours.yaml").write_text("causes: {stale_store: the feature store serves values of yesterday}\n")
    with stage.client("operator") as ana:
        assert ana.review(1, ReviewRequest(cause="stale_store")).cause == "stale_store"
        with pytest.raises(SpecError, match="no such cause"):
            ana.review(1, ReviewRequest(cause="stale"))
    with stage.http("viewer") as http:
        assert http.get("/causes").json()["stale_store"] == "the feature store serves values of yesterday"


CAUSES = ("memory_leak", "traffic_surge", "unknown")
REVIEWS = st.lists(
    st.builds(
        Review,
        incident=st.integers(1, 3), by=st.sampled_from("abc"), at=st.floats(0, 3).map(round).map(float),
        analysis=st.just(""), cause=st.sampled_from(("", *CAUSES)),
        hypotheses=st.dictionaries(st.sampled_from(CAUSES), st.booleans(), max_size=2),
        source=st.sampled_from(("operator", "drill")),
    ), max_size=8,
)  # fmt: skip


@given(REVIEWS, st.randoms(use_true_random=False))
def test_what_is_held_to_be_true_does_not_depend_on_the_order_of_reviews(reviews: list[Review], dice: Any) -> None:
    """One voice for each reviewer, however often they speak; where a drill spoke, one of the drills is believed."""
    shuffled = [*reviews, *reviews]
    dice.shuffle(shuffled)
    assert truths(shuffled) == truths(reviews)
    heard = in_force(reviews)
    assert len({(r.incident, r.by) for r in heard}) == len(heard)
    for incident, cause in truths(reviews).items():
        mine = [r for r in heard if r.incident == incident]
        said = {r.source for r in mine if cause in (r.cause, *(c for c, right in r.hypotheses.items() if right))}
        drilled = any(r.source == "drill" and (r.cause or list(r.hypotheses.values()).count(True) == 1) for r in mine)
        assert ("drill" in said) if drilled else said


def test_the_majority_is_believed_and_of_a_tie_the_newest() -> None:
    def said(by: str, at: float, cause: str, source: str = "operator") -> Review:
        return Review(incident=1, by=by, at=at, analysis="", cause=cause, source=source)  # type: ignore[arg-type]

    two = [said("a", 1.0, "memory_leak"), said("b", 2.0, "traffic_surge")]
    assert truths(two) == {1: "traffic_surge"}
    assert truths([*two, said("c", 0.0, "memory_leak")]) == {1: "memory_leak"}
    assert truths([*two, said("d", 0.0, "disk_full", "drill")]) == {1: "disk_full"}
