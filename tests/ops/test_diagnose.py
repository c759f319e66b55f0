"""What is concluded from a scene: one row per cause, and the look-alikes that must not be taken for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptonai.errors import PluginError
from leptonai.ops.convict import Leak, Wrong
from leptonai.ops.diagnose import diagnose
from leptonai.ops.diagnosis.causes import CAUSES
from leptonai.ops.diagnosis.conditions import holds
from leptonai.ops.diagnosis.files import BASE, shipped_book
from leptonai.ops.diagnosis.rules import bind, read
from leptonai.ops.evidence import gather
from leptonai.ops.exits import Exit
from leptonai.ops.scene import Former, Scene, Users
from leptonai.settings import Ops
from leptonai.types import Cause, Dials, Replica, Revision, Service, Spec, Variant, VariantDials

ONSET, NOW = 10_000.0, 10_005.0


def spec(model: int) -> Spec:
    return Spec(name="digits", variants=(Variant(model=f"sha256:{model:064x}"),))


OLD, NEW = spec(1).variants[0].digest, spec(2).variants[0].digest


def history(age: float = 20.0) -> tuple[Revision, ...]:
    """Revision 2 replaced revision 1 ``age`` seconds before the onset."""
    return (
        Revision(service="digits", number=1, by="human:ana", why="first", at=ONSET - 5000, spec=spec(1)),
        Revision(service="digits", number=2, by="human:ana", why="new", at=ONSET - age, spec=spec(2)),
    )


def replica(name: str, **more: Any) -> Replica:
    known = {"service": "digits", "variant": "main", "digest": NEW, "state": "ready", "since": ONSET - 10}
    return Replica(id=name, **(known | more))


def leak(name: str) -> Leak:
    return Leak(replica=name, slope=5e6, siblings=0.0, score=12.0, seconds=8.0, began=ONSET, rss=2e8)


def wrong(digest: str, verdict: Any = "convicted") -> Wrong:
    return Wrong(
        digest=digest, verdict=verdict, wrong=8, total=10, ratio=0.8, lower=0.4, upper=0.9, tolerable=0.1, odds=5.0
    )


def killed(name: str, **more: Any) -> Exit:
    return Exit(**({"replica": name, "digest": NEW, "at": ONSET, "signal": 9, "reason": "killed"} | more))


def scene(**more: Any) -> Scene:
    """A service on which nothing was changed for long and of which nothing is wrong."""
    known: dict[str, Any] = {
        "service": Service(spec=spec(2), dials=Dials(variants={"main": VariantDials(replicas=2)}), revision=2),
        "revisions": history(5000.0),
        "replicas": (replica("r1"), replica("r2")),
        "onset": ONSET,
        "now": NOW,
        "before": Users(rate=40.0, error=0.0, slow=0.0, p50=0.005, p99=0.02),
        "after": Users(rate=40.0, error=0.0, slow=0.0, p50=0.005, p99=0.02),
        "host_cpu": 0.4,
    }
    return Scene(**(known | more))


def causes(found: Scene) -> tuple[Cause, ...]:
    facts = gather(found)
    out = diagnose(facts, "digits", shipped_book())
    ids = {e.id for e in facts.evidence}
    for cause in out:
        assert cause.name in CAUSES and 0 <= cause.confidence <= 1
        assert set(cause.evidence) <= ids
        assert cause.name == "unknown" or cause.evidence
    return out


SLOW = Users(rate=40.0, error=0.0, slow=0.4, p50=0.2, p99=0.4)
RECENT = {"revisions": history(20.0)}
SLOW_REVISION = {"after": SLOW, "compute": {OLD: 0.004, NEW: 0.15}}


@pytest.mark.parametrize(
    ("more", "cause", "subject"),
    [
        ({"exits": (killed("r1"),)}, "replica_killed", "r1"),
        ({"exits": (killed("r1", signal=None, code=1, reason="exited"),)}, "replica_crashed", "r1"),
        ({"exits": (killed("r1", signal=11, reason="killed"),)}, "replica_crashed", "r1"),
        ({"exits": (killed("r1", reason="oom"),)}, "out_of_memory", "r1"),
        ({"exits": (killed("r1", signal=None, code=1, attempt=3),)}, "crash_loop", "r1"),
        (
            RECENT | {"exits": (killed("r1", signal=None, code=8), killed("r3", signal=None, code=8, attempt=1))},
            "crash_loop",
            "digits#2",
        ),
        ({"replicas": (replica("r1", state="failed", reason="hung"), replica("r2"))}, "hung_replica", "r1"),
        ({"unanswered": {"r1": 3.0}}, "hung_replica", "r1"),
        ({"leaks": (leak("r1"),)}, "memory_leak", "r1"),
        ({"leaks": (leak("r1"), leak("r2"))}, "memory_leak", "digits#2"),
        ({"leaks": (leak("r1"),), "replicas": (replica("r1"),)}, "memory_leak", "r1"),
        (RECENT | {"wrong": (wrong(NEW),)}, "bad_revision_wrong_answers", "digits#2"),
        ({"wrong": (wrong(NEW),)}, "bad_revision_wrong_answers", "digits#2"),  # labels convict at any age
        (RECENT | SLOW_REVISION, "bad_revision_latency", "digits#2"),
        (RECENT | {"errors": {OLD: 0.0, NEW: 0.3}}, "bad_revision_errors", "digits#2"),
        ({"after": Users(rate=120.0, error=0.0, slow=0.4, p50=0.2)}, "traffic_surge", "digits"),
        ({"after": SLOW, "host_cpu": 0.99, "own_compute": (0.004, 0.02)}, "cpu_starvation", "digits"),
    ],
)
def test_each_cause_is_named(more: dict[str, Any], cause: str, subject: str) -> None:
    top = causes(scene(**more))[0]
    assert (top.name, top.subject) == (cause, subject)
    assert top.confidence >= 0.7


@pytest.mark.parametrize(
    ("more", "never"),
    [
        # More traffic explains slowness; nothing was changed.
        ({"after": Users(rate=120.0, slow=0.4, p50=0.2)}, "bad_revision_latency"),
        # The new revision is slower, but it was deployed long ago.
        ({"revisions": history(4000.0)} | SLOW_REVISION, "bad_revision_latency"),
        # It was deployed just now, and computes as before.
        (RECENT | {"after": SLOW, "compute": {OLD: 0.004, NEW: 0.004}}, "bad_revision_latency"),
        # Three times nothing is nothing.
        (RECENT | {"compute": {OLD: 0.0001, NEW: 0.0004}}, "bad_revision_latency"),
        # It was deployed just now and fails, but so did the one before.
        (RECENT | {"errors": {OLD: 0.3, NEW: 0.32}}, "bad_revision_errors"),
        # Everybody is silent: the machine, or our own clock.
        ({"unanswered": {"r1": 3.0, "r2": 3.0}}, "hung_replica"),
        # A replica that is gone does not hang.
        ({"unanswered": {"r1": 3.0}, "exits": (killed("r1"),), "replicas": (replica("r2"),)}, "hung_replica"),
        # A digest that was convicted and no longer runs.
        ({"wrong": (wrong(OLD),)}, "bad_revision_wrong_answers"),
        ({"wrong": (wrong(NEW, "not enough evidence"),)}, "bad_revision_wrong_answers"),
        # Memory killed it, nobody did.
        ({"exits": (killed("r1", reason="oom"),)}, "replica_killed"),
        # The machine is idle.
        ({"after": SLOW, "host_cpu": 0.3, "own_compute": (0.004, 0.02)}, "cpu_starvation"),
        # A change only of numbers around the model is no new revision of what runs.
        (
            {
                "revisions": (
                    *history(5000.0),
                    Revision(service="digits", number=3, by="human:ana", why="slo", at=ONSET - 5, spec=spec(2)),
                )
            }
            | SLOW_REVISION,
            "bad_revision_latency",
        ),
    ],
)
def test_look_alikes_are_told_apart(more: dict[str, Any], never: str) -> None:
    assert never not in {c.name for c in causes(scene(**more))}


@pytest.mark.parametrize(
    ("served", "compute", "acted"),
    [
        (5.0, 0.005, True),  # seconds after its deployment: nothing speaks for it
        (88.0, 0.06, True),  # it was slow before the onset, which only was noticed late
        (88.0, 0.005, False),  # as fast as the one before for a minute and a half: something else began
    ],
)
def test_a_revision_is_not_blamed_for_what_began_while_it_served_well(
    served: float, compute: float, acted: bool
) -> None:
    """It may still be named, where nothing else is known; it is not rolled back for that."""
    found = scene(
        revisions=history(served + 2.0),
        after=Users(rate=40.0, error=0.0, slow=0.5, p50=0.05, p99=0.2),
        compute={OLD: 0.005, NEW: 0.05},
        former={NEW: Former(seconds=served, compute=compute, error=0.0)},
    )
    assert (causes(found)[0].confidence >= Ops().min_confidence) is acted, causes(found)


def test_symptoms_alone_are_unknown() -> None:
    top = causes(scene(after=Users(rate=40.0, error=0.2, slow=0.4, p50=0.2)))[0]
    assert (top.name, top.subject) == ("unknown", "digits")


def test_no_symptom_is_in_the_taxonomy() -> None:
    assert not [c for c in CAUSES if "latency" in c.removeprefix("bad_revision_") and not c.startswith("bad_")]
    assert not {"latency", "errors", "slow", "saturation"} & set(CAUSES)


numbers = st.floats(0, 1e3, allow_nan=False)


@given(
    st.builds(Users, rate=numbers, error=st.floats(0, 1), slow=st.floats(0, 1), p50=st.floats(0, 10)),
    st.builds(Users, rate=numbers, error=st.floats(0, 1), slow=st.floats(0, 1), p50=st.floats(0, 10)),
    st.floats(-50, 5000),
    st.fixed_dictionaries({OLD: st.floats(0, 10), NEW: st.floats(0, 10)}),
    st.sampled_from([(), ("r1",), ("r1", "r2")]),
    st.floats(0, 1),
)
def test_any_scene_is_answered(
    before: Users, after: Users, age: float, compute: dict[str, float], leaking: tuple[str, ...], cpu: float
) -> None:
    """Whatever was seen: causes are ranked by confidence, of the taxonomy, and cite only what is recorded."""
    leaks = tuple(map(leak, leaking))
    seen = scene(before=before, after=after, revisions=history(age), compute=compute, leaks=leaks, host_cpu=cpu)
    found = causes(seen)
    assert found
    assert [c.confidence for c in found] == sorted((c.confidence for c in found), reverse=True)
    if age > 610:
        assert not {c.name for c in found} & {"bad_revision_latency", "bad_revision_errors"}


# --- the rules themselves ------------------------------------------------------------------------------------------


def test_every_cause_but_unknown_has_a_rule() -> None:
    assert {r.cause for r in shipped_book().rules} == set(CAUSES) - {"unknown"}


RULE = "rules:\n  - {{cause: replica_killed, about: replica, confidence: 0.9, when: {}}}\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (RULE.format("sunspots"), "unknown feature 'sunspots'"),
        (RULE.format("{all: [crashes > 3, crashes < 2]}"), "never be true"),
        (RULE.format("{all: [killed, {not: killed}]}"), "never be true"),
        (RULE.format("leaking_share > 1"), "never be true"),
        (RULE.format("{at_least: 3, of: [gone, killed]}"), "never be true"),
        (RULE.format("crashes"), "needs a comparison"),
        (RULE.format("{some: [gone]}"), "is no condition"),
        (RULE.format("{all: []}"), "is no condition"),
        ("define: {a: b, b: {all: [a]}}\n" + RULE.format("a"), "leads to itself: a -> b -> a"),
        ("define: {gone: killed}\n" + RULE.format("gone"), "in the features of ours"),
        (RULE.format("gone").replace("replica_killed", "high_latency"), "no such cause"),
        (RULE.format("gone").replace("0.9", "1.5"), "confidence 1.5"),
        (RULE.format("gone").replace("about: replica", "about: host"), "about"),
        (RULE.format("gone").replace("when", "if"), "if"),
        ("rules: [", "rules.yaml"),
    ],
)
def test_a_bad_rule_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(PluginError, match=says) as e:
        bind([(str(path), read(path))], BASE)
    assert "rules.yaml" in e.value.message and e.value.hint


DEFINE = {"both": {"all": ["gone", "killed"]}}


@pytest.mark.parametrize(
    ("condition", "features", "value"),
    [
        ("gone", {"gone": True}, True),
        ("gone", {}, None),
        ({"not": "gone"}, {}, None),  # what was not seen proves nothing, not even its absence
        ({"not": "gone"}, {"gone": False}, True),
        ("both", {"gone": True, "killed": True}, True),
        ("both", {"gone": True}, None),
        ("both", {"gone": False}, False),
        ({"any": ["gone", "killed"]}, {"killed": True}, True),
        ({"at_least": 2, "of": ["gone", "killed", "hung"]}, {"gone": True, "hung": True}, True),
        ({"at_least": 2, "of": ["gone", "killed", "hung"]}, {"gone": False, "hung": False}, False),
        ("crashes >= 2", {"crashes": 2}, True),
        ("crashes < 2", {"crashes": 2}, False),
    ],
)
def test_conditions(condition: Any, features: dict[str, Any], value: bool | None) -> None:
    assert holds(DEFINE, condition, features).value is value


def test_an_incident_tells_what_the_edge_did_and_that_the_gateway_is_stuck() -> None:
    def texts(found: Scene) -> list[str]:
        return [e.text for e in gather(found).evidence if e.kind in ("edge", "gateway")]

    assert texts(scene()) == []
    told = texts(scene(edge={"held_count": 12.0, "stale_answers_per_second": 3.5}, gateway="Envoy refused cds.json"))
    assert told[0].startswith("The edge held up to 12 requests") and "3.5 old answers a second" in told[0]
    assert told[1].endswith("not in force: Envoy refused cds.json.")
