"""Every line of the guard-rail list is a test: a story in which the rail holds, and the same with it broken, which must
be seen. docs/runbooks.md has the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import pytest
from guard_stage import ANA, OPS, Broken, Guarded, settings_of
from ops_stage import Stage
from test_loop import healthy, play

from leptonai.errors import Denied
from leptonai.ops import casebook
from leptonai.ops.diagnosis.causes import CAUSES
from leptonai.ops.diagnosis.rules import SYMPTOMS
from leptonai.ops.remedies import OURS, Quarantine
from leptonai.ops.respond import Judge, Wait, next_action
from leptonai.ops.runbook import Runbook, bind
from leptonai.ops.runbook.form import Text
from leptonai.types import DeleteChange, DialChange, SpecChange

Changes = dict[str, Any]


class Break(NamedTuple):
    """What is withheld from the engine: parts of its sight, of the settings, of each row's limits, of the door."""

    sight: Changes = {}
    ops: Changes = {}
    limits: Changes = {}
    door: Changes = {}


class Rail(NamedTuple):
    rows: str
    story: Callable[[Guarded], None]
    broken: Break
    says: str
    settings: Changes = {}


def staged(rail: Rail) -> Guarded:
    known = {"attempts": 2, "concurrent": 3, "shadow": False, "pace": 10} | rail.settings
    return Guarded(settings_of(**known), bind(msgspec.yaml.decode(rail.rows, type=Text), "the story", OURS))


def withhold(monkeypatch: pytest.MonkeyPatch, stage: Guarded, broken: Break) -> None:
    def blind(incident: Any, seen: Any, now: float, ops: Any, runbook: Runbook, cooldown: float) -> Any:
        rows = {}
        for row in runbook.rows():
            limits = msgspec.structs.replace(row.limits, **broken.limits)
            steps = tuple(
                s._replace(limits=limits, approval="never" if broken.door.get("ask") == "" else s.approval,
                           autonomy="act" if broken.ops.get("autonomy") else s.autonomy)
                for s in row.steps
            )  # fmt: skip
            rows[row.cause] = (row._replace(limits=limits, steps=steps),)
        given = {k: v for k, v in broken.ops.items() if k != "autonomy"}
        sight = {k: (now if v == "now" else v) for k, v in broken.sight.items()}
        return next_action(
            incident, msgspec.structs.replace(seen, **sight), now, msgspec.structs.replace(ops, **given), Runbook(rows),
            cooldown,
        )  # fmt: skip

    monkeypatch.setattr(casebook, "next_action", blind)
    if broken.door:
        real = stage.door.world

        def lax(key: str) -> Any:
            world = real(key)
            admit = {k: v for k, v in broken.door.items() if k in ("cooldown", "pace_count")}
            changed = msgspec.structs.replace(world, admit=msgspec.structs.replace(world.admit, **admit))
            return msgspec.structs.replace(changed, frozen="") if "frozen" in broken.door else changed

        monkeypatch.setattr(stage.door, "world", lax)


def hang(stage: Guarded, key: str = "wide", confidence: float = 0.9) -> None:
    stage.step(1.0)
    stage.step(1.0)
    stage.open(key, "hung_replica", "replica", confidence)


def surge(stage: Guarded, key: str = "wide") -> None:
    stage.open(key, "traffic_surge", "service", 0.9)


def stale(stage: Guarded) -> None:
    hang(stage)
    stage.stale = True
    stage.step(1.0)


def frozen(stage: Guarded) -> None:
    hang(stage)
    stage.door.frozen = "human:ana: enough"
    stage.step(1.0)


def doubted(stage: Guarded) -> None:
    hang(stage)
    stage.doubt = "the classifier says otherwise"
    stage.step(1.0)


def uncertain(stage: Guarded) -> None:
    hang(stage, confidence=0.4)
    stage.step(1.0)


def acted(stage: Guarded) -> None:
    hang(stage)
    stage.step(1.0)


def gone(stage: Guarded) -> None:
    hang(stage)
    stage.firing.clear()
    stage.step(1.0)


def deploying(stage: Guarded) -> None:
    surge(stage)
    stage.stuck.add("wide")
    stage.deploy("wide")
    stage.step(1.0)


def crowd(stage: Guarded) -> None:
    for key in ("wide", "pair", "lone"):
        hang(stage, key)
    stage.step(1.0)
    assert sum(c.trying for c in stage.book.cases) == 1


def twice(stage: Guarded) -> None:
    hang(stage)
    stage.step(1.0)
    surge(stage)
    stage.step(15.0)


def useless(stage: Guarded) -> None:
    """It goes on for two incidents: the second knows what did not help in the first."""
    surge(stage)
    for _ in range(12):
        stage.step(10.0)
    surge(stage)
    for _ in range(4):
        stage.step(10.0)


def often(stage: Guarded) -> None:
    """What helps and comes back, and comes back."""
    for _ in range(4):
        hang(stage)
        stage.step(1.0)
        stage.firing.clear()
        for _ in range(6):
            stage.step(5.0)


def tried(stage: Guarded) -> None:
    hang(stage)
    stage.stuck.add("wide")
    for _ in range(16):
        stage.step(10.0)
    assert all(c.incident.escalated for c in stage.book.cases)


def few(stage: Guarded) -> None:
    stage.step(1.0)
    stage.open("pair", "hung_replica", "replica", 0.9)
    gone = stage.replicas["pair"].pop(0)
    stage.stuck.add("pair")
    assert gone.id != stage.book.cases[0].incident.causes[0].subject
    stage.step(1.0)


def unseen(stage: Guarded) -> None:
    hang(stage)
    stage.step(1.0)
    stage.silent.add("wide")
    stage.firing.clear()
    for _ in range(5):
        stage.step(2.0)


def burning(stage: Guarded) -> None:
    hang(stage)
    for _ in range(6):
        stage.step(2.0)


def far(stage: Guarded) -> None:
    stage.step(1.0)
    surge(stage)
    stage.step(1.0)


def close_by(stage: Guarded) -> None:
    """Two incidents of one service, the first repaired at once."""
    hang(stage)
    stage.step(1.0)
    stage.firing.clear()
    for _ in range(5):
        stage.step(1.0)
    assert stage.book.cases[0].incident.closed
    surge(stage)
    stage.step(1.0)


def fast(stage: Guarded) -> None:
    for key in ("wide", "pair", "lone"):
        hang(stage, key)
    stage.step(1.0)


EVICT, SCALE = "hung_replica: {steps: [evict]}", "traffic_surge: {steps: [scale]}"
RAILS = {
    "stale telemetry": Rail(EVICT, stale, Break(sight={"collected": "now"}), "stale telemetry"),
    "kill switch": Rail(EVICT, frozen, Break(sight={"frozen": ""}), "under the kill switch"),
    "disagreement": Rail(EVICT, doubted, Break(sight={"doubt": ""}), "a doubted diagnosis"),
    "confidence": Rail(EVICT, uncertain, Break(ops={"min_confidence": 0.1}), "an uncertain cause"),
    "shadow mode": Rail(EVICT, acted, Break(ops={"shadow": False}), "in shadow mode", {"shadow": True}),
    "autonomy": Rail(
        "hung_replica: {steps: [evict], autonomy: recommend}", acted, Break(ops={"autonomy": True}), "only recommended"
    ),
    "condition gone": Rail(EVICT, gone, Break(sight={"firing": True}), "a condition that is gone"),
    "lock: deploys": Rail(SCALE, deploying, Break(sight={"held": {}}), "in the middle of a deploy"),
    "lock: remedies": Rail(
        f"{EVICT}\n{SCALE}", twice, Break(sight={"held": {}, "acting": 0}), "two changes of wide at once"
    ),
    "concurrency": Rail(EVICT, crowd, Break(sight={"acting": 0}), "too many actions at once", {"concurrent": 1}),
    "counter": Rail(SCALE, useless, Break(sight={"past": ()}), "scale was tried again", {"attempts": 1}),
    "attempts": Rail(
        "hung_replica: {steps: [evict, restart, {do: command, with: {run: [/bin/true]}}]}",
        tried, Break(ops={"attempts": 9}), "attempts were used up",
    ),
    "window": Rail(
        "hung_replica: {steps: [evict], limits: {most: 2}}", often, Break(limits={"most": 99}), "than the window allows"
    ),
    "healthy replicas": Rail(EVICT, few, Break(limits={"ready": 0}), "had to stay ready"),
    "blast radius": Rail(
        "traffic_surge: {steps: [restart], limits: {share: 0.25}}", far, Break(limits={"share": 1.0}), "blast radius"
    ),
    "no samples": Rail(EVICT, unseen, Break(sight={"samples": 5.0}), "effective without samples"),
    "still firing": Rail(
        EVICT, burning, Break(sight={"firing": False, "quiet_since": 0.0, "converged_since": 0.0}), "while it fires"
    ),
    "cool-down": Rail(f"{EVICT}\n{SCALE}", close_by, Break(door={"cooldown": 0.0}), "within the cool-down"),
    "global pace": Rail(EVICT, fast, Break(door={"pace_count": 99}), "the global pace", {"pace": 1}),
    "kill switch at the door": Rail(EVICT, frozen, Break(sight={"frozen": ""}, door={"frozen": ""}), "kill switch"),
    "approval asked for": Rail(
        "traffic_surge: {steps: [scale], approval: always}", far, Break(door={"ask": ""}), "otherwise than the runbook"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RAILS)
def test_rail(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rail = RAILS[name]
    stage = staged(rail)
    try:
        rail.story(stage)  # nothing breaks it
    finally:
        stage.close()
    stage = staged(rail)
    withhold(monkeypatch, stage, rail.broken)
    try:
        with pytest.raises(Broken, match=rail.says):
            rail.story(stage)
    finally:
        stage.close()


@pytest.mark.parametrize(
    ("refused", "ttl", "says"), [(0.9, 600.0, "what many send"), (0.15, None, "without an end"), (0.15, 600.0, "")]
)
def test_a_quarantine_ends_and_is_of_few_requests(
    refused: float, ttl: float | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The remedy keeps to both; withheld from it, the stage sees it (the door's own look at dials is tested there)."""

    def story() -> tuple[str, ...]:
        stage = staged(Rail("traffic_surge: {steps: [quarantine]}", far, Break(), ""))
        stage.refused = refused
        try:
            far(stage)
            return stage.door.service("wide").dials.quarantine
        finally:
            stage.close()

    assert story() == (() if refused > 0.3 else ("image.high>508", "image.low<-3"))

    def lax(self: Quarantine, seen: Any) -> Any:
        return DialChange(service=seen.service.key, set={"quarantine.image.high>508": 1.0}, ttl=ttl), "anyway"

    monkeypatch.setattr(Quarantine, "wish", lax)
    if says:
        with pytest.raises(Broken, match=says):
            story()
    else:
        assert story() == ("image.high>508",)


def test_each_step_is_planned_previewed_and_told_before_it_is_taken() -> None:
    stage = staged(Rail(SCALE, far, Break(), ""))
    far(stage)
    (incident,) = (c.incident for c in stage.book.cases)
    kinds = [e.kind for e in incident.evidence]
    assert kinds.index("plan") < kinds.index("action")
    plan = next(e.data for e in incident.evidence if e.kind == "plan")
    assert plan["preview"] == ["main.replicas: 3 → 5 for 1800 s", "small.replicas: 3 → 5 for 1800 s"]
    assert (plan["risk"], plan["taken_back"], plan["replaces"], plan["share"]) == ("low", "automatic", 0, 0.0)
    assert plan["hash"] == stage.door.proposals[incident.actions[0].proposal or ""].hash
    assert [kind for kind, _, _ in stage.door.events] == ["remedy.planned"]
    stage.close()


def test_what_did_not_help_is_taken_back_once_and_a_person_is_called() -> None:
    stage = staged(Rail(SCALE, far, Break(), "", {"attempts": 1}))
    far(stage)
    assert stage.door.service("wide").dials.variants["main"].replicas == 5
    for _ in range(12):
        stage.step(5.0)
    (incident,) = (c.incident for c in stage.book.cases)
    (action,) = incident.actions
    assert (action.verdict, bool(action.undone)) == ("ineffective", True)
    assert stage.door.service("wide").dials.variants["main"].replicas == 3
    assert incident.escalated is not None and incident.severity == "critical"
    stage.close()


def test_nothing_is_done_to_a_service_in_the_look_in_which_something_else_was_taken_back_there() -> None:
    """What is known of it is the wish of before: two are wished again, one is ready. Found by a history."""
    rows = "noisy_neighbour: {steps: [preempt]}\nmemory_leak: {steps: [recycle]}"
    stage = Guarded(settings_of(2, 3, False, 10), bind(msgspec.yaml.decode(rows, type=Text), "the story", OURS))
    stage.open("wide", "noisy_neighbour", "service", 0.9)
    while not stage.book.cases[0].incident.actions:
        stage.step(1.0)
    stage.open("pair", "memory_leak", "replica", 0.9)
    while not stage.book.cases[1].incident.actions:  # a rail of the stage would be broken here
        stage.step(1.0)
    preempted, recycled = (c.incident.actions[0] for c in stage.book.cases)
    assert (preempted.remedy, preempted.service, recycled.remedy) == ("preempt", "pair", "recycle")
    assert preempted.undone is not None and recycled.at > stage.book.cases[0].undid
    stage.close()


def test_harm_is_taken_back_at_once_and_a_person_is_called() -> None:
    stage = staged(Rail("traffic_surge: {steps: [{do: degrade, with: {to: small}}]}", far, Break(), ""))
    far(stage)
    stage.broken.add("wide")
    for _ in range(20):
        stage.step(1.0)
    (incident,) = (c.incident for c in stage.book.cases)
    assert [a.verdict for a in incident.actions] == ["harmful"] and incident.actions[0].undone
    assert incident.escalated is not None
    stage.close()


def test_what_only_relieves_did_no_harm_to_what_waited_before_it() -> None:
    """More replicas make no request fail; those that wait when it is asked for go on failing until their time is up."""
    stage = staged(Rail(SCALE, far, Break(), ""))
    far(stage)
    stage.broken.add("wide")
    for _ in range(20):
        stage.step(1.0)
    (incident,) = (c.incident for c in stage.book.cases)
    assert [a.verdict for a in incident.actions] == [None] and incident.escalated is None
    stage.close()


def test_somebody_else_s_change_makes_a_verdict_inconclusive() -> None:
    stage = staged(Rail(EVICT, acted, Break(), ""))
    acted(stage)
    stage.deploy("wide")
    stage.firing.clear()
    stage.step(1.0)
    (incident,) = (c.incident for c in stage.book.cases)
    assert incident.actions[0].verdict == "inconclusive"
    assert "revision 2 of human:ana came meanwhile" in incident.actions[0].detail
    stage.close()


def test_an_approval_counts_once_for_one_plan_in_time_and_silence_is_no_consent() -> None:
    stage = staged(Rail("traffic_surge: {steps: [scale], approval: always}", far, Break(), "", {"attempts": 1}))
    far(stage)
    (incident,) = (c.incident for c in stage.book.cases)
    name = incident.actions[0].proposal or ""
    found = stage.door.proposals[name]
    assert found.status == "pending" and "asks for approval of every scale" in found.reasons[0]
    other = DialChange(service="wide", set={"main.replicas": 1.0})
    assert not stage.door.approve(name, msgspec.structs.replace(found, change=other).hash), "another plan's hash"
    assert stage.door.approve(name, found.hash)
    assert not stage.door.approve(name, found.hash), "a replay"
    surge(stage, "pair")
    stage.step(11.0)
    waiting = stage.book.cases[1].incident.actions[0].proposal or ""
    stage.step(301.0)
    assert not stage.door.approve(waiting, stage.door.proposals[waiting].hash), "too late"
    assert stage.book.cases[1].incident.actions[0].verdict == "inconclusive"
    assert stage.door.service("pair").dials.variants["main"].replicas == 2
    stage.close()


def test_a_verdict_waits_for_the_signals_that_the_runbook_wants() -> None:
    """Quiet is not enough: the share of errors must be in its range, and one that is not seen is not."""
    rows = "hung_replica: {steps: [{do: evict, verify: {signals: {error_ratio: {below: 0.1}}}}]}"
    for being, verdict in ((set[str](), "effective"), ({"wide"}, "ineffective")):
        stage = staged(Rail(rows, acted, Break(), ""))
        stage.broken = set(being)
        acted(stage)
        stage.firing.clear()
        for _ in range(14):
            stage.step(3.0)
        assert stage.book.cases[0].incident.actions[0].verdict == verdict, stage.book.cases[0].incident.actions
        stage.close()


def test_the_real_door_refuses_a_wrong_hash_a_replay_a_machine_and_a_late_yes(short: Any) -> None:
    async def story(stage: Stage) -> None:
        await healthy(stage)
        change = DialChange(service="digits", set={"main.replicas": 3.0})
        ask = stage.door.propose(change, OPS, "more", by="incident:1", ask="the runbook asks", expires_in=60.0)
        assert ask.status == "pending" and ask.reasons[0] == "waits for an admin's approval: the runbook asks"
        for hash, actor in (("0" * 64, ANA), (ask.hash, OPS)):
            with pytest.raises(Denied):
                stage.door.approve(ask.id, hash, actor)
        assert stage.door.approve(ask.id, ask.hash, ANA).status == "admitted"
        with pytest.raises(Denied, match="already admitted"):
            stage.door.approve(ask.id, ask.hash, ANA)
        late = stage.door.propose(
            DialChange(service="digits", set={"main.replicas": 2.0}), OPS, "", by="incident:1", ask="x", expires_in=60.0
        )
        stage.now += 61.0
        with pytest.raises(Denied, match="can no longer be approved"):
            stage.door.approve(late.id, late.hash, ANA)

    play(short, story)


def test_the_kill_switch_works_at_once_without_a_restart_and_binds_no_person(short: Any) -> None:
    async def story(stage: Stage) -> None:
        await healthy(stage)
        stage.switch.on("human:ana: by hand")
        await stage.stop(stage.ready()[0].id)
        await stage.step(40)
        (incident,) = stage.incidents()
        assert incident.causes[0].name == "hung_replica" and not incident.actions and not stage.proposals()
        change = DialChange(service="digits", set={"main.replicas": 3.0})
        refused = stage.door.propose(change, OPS, "", by="incident:1")
        assert refused.reasons == ("the kill switch is on (human:ana: by hand): no automatic proposal is admitted",)
        assert stage.door.propose(change, ANA, "by hand").status == "admitted"
        stage.switch.off()
        await stage.until(lambda: stage.incidents()[0].closed is not None, 60)
        assert [a.remedy for a in stage.incidents()[0].actions] == ["evict"]

    play(short, story)


def test_the_audit_log_is_a_chain_that_shows_what_was_touched(short: Any) -> None:
    """That nothing in it can be changed unseen is tested where it is kept, in tests/store."""

    async def story(stage: Stage) -> None:
        await healthy(stage)
        await stage.stop(stage.ready()[0].id)
        await stage.until(lambda: bool(stage.incidents() and stage.incidents()[0].closed), 60)
        kinds = {e.kind for e in stage.store.events(subject="digits", limit=1000)}
        assert {"remedy.planned", "remedy.judged", "proposal.admitted"} <= kinds
        assert stage.store.check_chain() is None

    play(short, story)


def test_a_symptom_is_no_cause_and_the_runbook_has_rows_for_changes_of_state_only() -> None:
    for cause in CAUSES:
        assert not set(cause.split("_")) <= SYMPTOMS
    with pytest.raises(Exception, match="no such cause 'high_latency'"):
        bind(msgspec.yaml.decode("high_latency: {steps: [evict]}", type=Text), "x", OURS)


def test_a_machine_may_not_delete_and_no_remedy_wishes_it() -> None:
    stage = staged(Rail(EVICT, acted, Break(), ""))
    acted(stage)
    assert not any(isinstance(p.change, DeleteChange | SpecChange) for p in stage.door.proposals.values())
    stage.close()


def test_the_same_incident_sight_and_time_give_the_same_act() -> None:
    """Pure: an act that was decided twice, because ops died in between, is the same act."""
    from test_respond import OPS as RULES
    from test_respond import incident, shipped, sight

    first, second = (next_action(incident(), sight(), 10_000.0, RULES, shipped(), 0.0) for _ in range(2))
    assert first == second and not isinstance(first, Wait | Judge)
