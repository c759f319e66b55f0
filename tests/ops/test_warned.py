"""What a cluster warns of: kept while it may matter, told as evidence in both languages, used by rules."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from ops_stage import Model, Stage

from leptonai.ops.diagnose import diagnose
from leptonai.ops.diagnosis.files import shipped_book
from leptonai.ops.evidence import gather
from leptonai.ops.exits import Exit
from leptonai.ops.openers import Openers
from leptonai.ops.report import tell
from leptonai.ops.scene import Scene
from leptonai.ops.warned import CLEARED, WARNED, Warned, concerning, heard
from leptonai.ops.world import unscheduled
from leptonai.types import (
    Cause,
    Dials,
    Event,
    Incident,
    Replica,
    Revision,
    Service,
    Spec,
    Variant,
    VariantDials,
)

ONSET, NOW = 10_000.0, 10_005.0
SPEC = Spec(name="digits", variants=(Variant(model=f"sha256:{1:064x}"),))
SERVICE = Service(spec=SPEC, dials=Dials(variants={"main": VariantDials(replicas=2)}), revision=1)
DIGEST = SPEC.variants[0].digest


def event(kind: str, at: float = ONSET, **detail: Any) -> Event:
    return Event(
        seq=1, at=at, actor="control", kind=kind, subject="digits", detail={"service": "digits"} | detail, hash=""
    )


def replica(name: str, **more: Any) -> Replica:
    known: dict[str, Any] = {
        "service": "digits",
        "variant": "main",
        "digest": DIGEST,
        "state": "ready",
        "since": ONSET - 10,
    }
    return Replica(id=name, **(known | more))


def scene(*warned: Warned, **more: Any) -> Scene:
    made = Revision(service="digits", number=1, by="human:ana", why="first", at=ONSET - 5000, spec=SPEC)
    known: dict[str, Any] = {"revisions": (made,), "replicas": (replica("r1"), replica("r2"))}
    return Scene(service=SERVICE, onset=ONSET, now=NOW, warned=warned, **(known | more))


def first(found: Scene) -> Cause:
    return diagnose(gather(found), "digits", shipped_book())[0]


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_the_newest_of_the_same_stands_and_what_is_over_says_so() -> None:
    known = heard(event(WARNED, reason="node_not_ready", node="n1", replicas=["r1"], said="a"), [])
    assert known is not None
    known = heard(event(WARNED, ONSET + 1, reason="unhealthy", replica="r1", said="b"), known)
    assert known is not None
    known = heard(event(WARNED, ONSET + 2, reason="unhealthy", replica="r1", said="c", times=7), known)
    assert known is not None and [(w.reason, w.said, w.times) for w in known] == [
        ("node_not_ready", "a", 1),
        ("unhealthy", "c", 7),
    ]
    known = heard(event(CLEARED, ONSET + 3, reason="node_not_ready", node="n1"), known)
    assert known is not None and [w.over for w in known] == [ONSET + 3, None]
    assert heard(event("replica.failed", reason="oom"), known) is None


@pytest.mark.parametrize(
    ("warned", "counts"),
    [
        (Warned(at=ONSET - 60, reason="unschedulable", said="", replica="r1"), True),
        (Warned(at=ONSET + 3, reason="unschedulable", said="", replica="r1"), True),
        (Warned(at=ONSET - 500, reason="unschedulable", said="", replica="r1"), False),
        (Warned(at=ONSET - 5000, reason="memory_pressure", said="", node="n1"), True),
        (Warned(at=ONSET - 5000, reason="memory_pressure", said="", node="n1", over=ONSET - 4000), False),
        (Warned(at=ONSET - 500, reason="not_made", said=""), False),
    ],
)
def test_what_may_have_to_do_with_a_trouble(warned: Warned, counts: bool) -> None:
    """What a node suffers from counts for as long as it lasts, what was said of a replica for two minutes."""
    assert bool(concerning([warned], ONSET)) == counts


# --- what it says ----------------------------------------------------------------------------------------------------

NO_NODE = "FailedScheduling: 0/3 nodes are available"
SAID = [
    (
        Warned(at=ONSET, reason="unschedulable", said=NO_NODE, replica="r1", times=4),
        "cluster_replica",
        f"The cluster says of replica r1: {NO_NODE}. (4 times)",
        "没有节点能够容纳它",
    ),
    (
        Warned(at=ONSET, reason="oom", said="OOMKilled: its container was killed.", replica="r1", node="n1"),
        "cluster_replica",
        "The cluster says of replica r1 on node n1: OOMKilled: its container was killed.",
        "内存超过上限",
    ),
    (
        Warned(at=ONSET, reason="memory_pressure", said="MemoryPressure is True", node="n1", replicas=("r1", "gone")),
        "cluster_node",
        "The cluster says of node n1, which has r1: MemoryPressure is True.",
        "节点内存不足",
    ),
    (
        Warned(at=ONSET, reason="not_made", said="FailedCreate: exceeded quota: small"),
        "cluster_service",
        "The cluster says: FailedCreate: exceeded quota: small.",
        "无法创建副本",
    ),
]


@pytest.mark.parametrize(("warned", "kind", "english", "chinese"), SAID)
def test_each_is_evidence_in_both_languages(warned: Warned, kind: str, english: str, chinese: str) -> None:
    (fact,) = [e for e in gather(scene(warned)).evidence if e.kind == kind]
    assert fact.text == english and fact.at == ONSET and fact.id
    cause = Cause(name="unknown", subject="digits", confidence=1.0, evidence=(fact.id,))
    incident = Incident(
        id=1, subject="default/service/digits", severity="info", title="x", began=1.0, opened=2.0, diagnosed=2.0,
        evidence=(fact,), causes=(cause,),
    )  # fmt: skip
    for language, said in (("en", english), ("zh", chinese)):
        story = tell(incident, language)
        assert any(said in s.text and fact.id in s.evidence for part in story.sections for s in part.sentences)


# --- what it means ---------------------------------------------------------------------------------------------------


def test_who_is_put_out_by_a_node_did_not_crash() -> None:
    gone = Exit(replica="r1", digest=DIGEST, at=ONSET, reason="evicted", detail="The node was low on memory")
    cause = first(scene(exits=(gone,)))
    assert (cause.name, cause.subject) == ("replica_killed", "r1") and cause.confidence > 0.9


def test_all_that_was_on_a_lost_node_hangs_for_sure() -> None:
    """Without the node's word, silence of all siblings is the machine that watches or its clock."""
    hung = tuple(replica(name, state="failed", reason="hung") for name in ("r1", "r2"))
    silent = {"r1": 9.0, "r2": 9.0}
    lost = Warned(at=ONSET, reason="node_not_ready", said="Ready is Unknown", node="n1", replicas=("r1", "r2"))
    cause = first(scene(lost, replicas=hung, unanswered=silent))
    assert cause.name == "hung_replica" and cause.confidence >= 0.95
    evidence = {e.id: e.kind for e in gather(scene(lost, replicas=hung, unanswered=silent)).evidence}
    assert "cluster_node" in {evidence[id] for id in cause.evidence}


def test_an_image_that_cannot_be_had_is_a_revision_that_does_not_start() -> None:
    """No replica of it ran, so none has crashed: the revision is what cannot be loaded."""
    old = Spec(name="digits", variants=(Variant(model=f"sha256:{2:064x}"),))
    history = (
        Revision(service="digits", number=1, by="human:ana", why="first", at=ONSET - 5000, spec=old),
        Revision(service="digits", number=2, by="human:ana", why="new", at=ONSET - 5, spec=SPEC),
    )
    whole = ONSET - 5.9  # when the revision was made, as a cluster tells times
    gone = Exit(replica="r3", digest=DIGEST, at=whole, reason="image_missing", detail="ErrImageNeverPull")
    cause = first(scene(exits=(gone,), revisions=history))
    assert (cause.name, cause.subject) == ("bad_config", "digits#2")


def test_replicas_without_a_node_are_counted_where_a_cluster_places_them() -> None:
    waiting = replica("r3", state="starting", reason="unschedulable")
    placed = replica("r1", address="10.244.0.3:8080")
    assert [s.value for s in unscheduled([SERVICE], [waiting, placed], NOW)] == [1.0]
    assert [s.value for s in unscheduled([SERVICE], [placed], NOW)] == [0.0]
    assert unscheduled([SERVICE], [replica("r1", address="unix:/run/x")], NOW) == []


def test_no_room_for_half_a_minute_opens_an_incident_and_a_node_that_comes_ends_it() -> None:
    openers, book = Openers(), shipped_book()
    openers.use(book)
    waiting = replica("r3", state="starting", reason="unschedulable")

    def after(seconds: int, *here: Replica) -> list[str]:
        nonlocal now
        found: list[str] = []
        for _ in range(seconds):
            now += 1.0
            openers.saw(unscheduled([SERVICE], here, now))
            found = [t.name for t in openers.step(now, {"digits": list(here)}).get("digits", ())]
        return found

    now, placed = NOW, replica("r1", address="10.244.0.3:8080")
    assert after(20, placed) == []
    assert after(20, placed, waiting) == [], "a rolling update may wait for what ends"
    assert after(20, placed, waiting) == ["no_room"]
    assert after(10, placed) == []


def test_what_the_cluster_says_is_evidence_of_the_incident_it_explains(short: Path) -> None:
    """From the audit log to the incident: the whole loop of operations over a replica that is gone."""

    async def story() -> None:
        stage = Stage(short)
        try:
            stage.deploy(Model())
            await stage.step(30)
            victim = stage.ready()[0].id
            stage.note(
                WARNED,
                "digits",
                {"service": "digits", "reason": "evicted", "replica": victim, "said": "Evicted: low on memory"},
            )
            await stage.kill(victim)
            await stage.step(8)
            incident = stage.incidents()[-1]
            told = [e for e in incident.evidence if e.kind == "cluster_replica"]
            assert [e.text for e in told] == [f"The cluster says of replica {victim}: Evicted: low on memory."]
        finally:
            await stage.close()

    asyncio.run(story())
