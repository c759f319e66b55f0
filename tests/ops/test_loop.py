"""The whole loop against the real door, store, planner and memory platform: each fault is found, named and repaired."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from ops_stage import ANA, Model, Stage

from leptonai.client.learnt import Learnt, Reset
from leptonai.ops.report import report
from leptonai.settings import Admit, Settings
from leptonai.types import DialChange, Incident, Review, Revision, SpecChange


def play(folder: Path, story: Callable[[Stage], Awaitable[None]], settings: Settings | None = None) -> None:
    async def run() -> None:
        stage = Stage(folder, settings)
        try:
            await story(stage)
        finally:
            await stage.close()

    asyncio.run(run())


async def healthy(stage: Stage) -> None:
    """A verified service with a history, and no incident while nothing is wrong."""
    stage.deploy(Model())
    await stage.step(45)
    assert stage.incidents() == []
    head = stage.store.head("digits")
    assert head is not None and head.verified is not None


async def repaired(stage: Stage, cause: str, remedy: str, limit: int = 60) -> Incident:
    """One incident is opened, with this cause, repaired by this remedy, and closed; nothing else is done."""
    since = len(stage.proposals())
    began = stage.now
    await stage.until(lambda: stage.incidents() and stage.incidents()[-1].opened > began, limit)
    await stage.until(lambda: stage.incidents()[-1].closed is not None, limit)
    incident = stage.incidents()[-1]
    assert incident.causes[0].name == cause, incident
    assert [a.remedy for a in incident.actions] == [remedy], incident.actions
    assert incident.actions[-1].verdict == "effective"
    cited = {e.id for e in incident.evidence}
    assert incident.causes[0].evidence and set(incident.causes[0].evidence) <= cited
    assert len(stage.proposals()) - since == (0 if remedy.startswith("none") else 1)
    assert incident.diagnosed is not None and incident.opened <= incident.diagnosed
    for format in ("text", "markdown", "json"):
        assert incident.causes[0].subject in report(incident, format).replace("\\", "")
    return incident


def test_a_service_that_wakes_or_sleeps_breaks_no_promise_and_one_that_fails_does(short: Path) -> None:
    """Users who ask before the first replica is ready, or while none is wished, are refused: no incident."""

    async def story(stage: Stage) -> None:
        def wish(replicas: int) -> None:
            change = DialChange(service="digits", set={"main.replicas": float(replicas)})
            assert stage.door.propose(change, ANA, "a person scales").status == "admitted"

        stage.start_delay = 20.0
        stage.deploy(Model())
        await stage.step(60)
        wish(0)
        await stage.step(40)
        wish(2)
        await stage.step(60)
        assert len(stage.ready()) == 2
        assert stage.incidents() == []
        for replica in stage.ready():
            await stage.stop(replica.id)
        await stage.until(lambda: any(i.closed is None for i in stage.incidents()), 30)

    play(short, story)


def test_a_killed_replica_is_explained_and_left_to_serve(short: Path) -> None:
    async def story(stage: Stage) -> None:
        await healthy(stage)
        victim = stage.ready()[0].id
        await stage.kill(victim)
        incident = await repaired(stage, "replica_killed", "none: reconciled")
        assert incident.causes[0].subject == victim

    play(short, story)


def test_a_hung_replica_is_evicted(short: Path) -> None:
    async def story(stage: Stage) -> None:
        await healthy(stage)
        victim = stage.ready()[0].id
        await stage.stop(victim)
        incident = await repaired(stage, "hung_replica", "evict")
        assert incident.causes[0].subject == victim
        assert victim not in {r.id for r in stage.replicas()}

    play(short, story)


def test_wrong_answers_are_rolled_back(short: Path) -> None:
    async def story(stage: Stage) -> None:
        await healthy(stage)
        good = stage.store.head("digits")
        stage.deploy(Model(wrong=0.6))
        await repaired(stage, "bad_revision_wrong_answers", "rollback")
        head = stage.store.head("digits")
        assert good is not None and head is not None and head.spec == good.spec

    play(short, story)


def test_a_leaking_replica_is_evicted(short: Path) -> None:
    async def story(stage: Stage) -> None:
        await healthy(stage)
        victim = stage.ready()[0].id
        stage.leak(victim)
        incident = await repaired(stage, "memory_leak", "evict")
        assert incident.causes[0].subject == victim

    play(short, story)


def test_a_slow_revision_is_rolled_back(short: Path) -> None:
    async def story(stage: Stage) -> None:
        await healthy(stage)
        good = stage.store.head("digits")
        stage.deploy(Model(compute=0.15))
        await repaired(stage, "bad_revision_latency", "rollback")
        head = stage.store.head("digits")
        assert good is not None and head is not None and head.spec == good.spec

    play(short, story)


def test_faults_one_after_another_are_incidents_of_their_own(short: Path) -> None:
    async def story(stage: Stage) -> None:
        await healthy(stage)
        await stage.kill(stage.ready()[0].id)
        await repaired(stage, "replica_killed", "none: reconciled")
        await stage.step(12)  # past the cool-down of the door
        await stage.stop(stage.ready()[0].id)
        await repaired(stage, "hung_replica", "evict")
        await stage.step(12)
        stage.deploy(Model(wrong=0.6))
        await repaired(stage, "bad_revision_wrong_answers", "rollback")
        named = [i.causes[0].name for i in stage.incidents()]
        assert named == ["replica_killed", "hung_replica", "bad_revision_wrong_answers"]
        await stage.step(30)
        assert len(stage.incidents()) == 3, "nothing is wrong any more"

    play(short, story)


def test_a_surge_is_told_to_a_person_and_not_repaired_by_a_rollback(short: Path) -> None:
    async def story(stage: Stage) -> None:
        await healthy(stage)
        stage.rate = 160.0
        for model in stage.models.values():
            model.compute = 0.15
        await stage.until(lambda: stage.incidents() and stage.incidents()[0].escalated is not None, 90)
        assert stage.incidents()[0].causes[0].name in ("traffic_surge", "unknown")
        assert not any(isinstance(p.change, SpecChange) for p in stage.proposals())
        incident = stage.incidents()[0]
        assert [(a.remedy, a.verdict) for a in incident.actions] in (
            [("scale", "ineffective"), ("shed", "ineffective")],
            [],  # too uncertain to act upon
        )
        assert all(a.undone for a in incident.actions), "what did not help is taken back"
        wish = stage.store.service("digits", stage.now)
        assert wish is not None and wish.dials.shed == 0 and wish.dials.variants["main"].replicas == 2

    play(short, story)


def test_reviews_change_what_the_loop_concludes_and_can_be_taken_back(short: Path) -> None:
    """A person says that killed replicas were none: the rule loses its place, until the reviews are taken back."""

    async def story(stage: Stage) -> None:
        await healthy(stage)
        await stage.kill(stage.ready()[0].id)
        await stage.until(lambda: stage.incidents() and stage.incidents()[-1].closed is not None)
        incident = stage.incidents()[-1]
        assert incident.causes[0].name == "replica_killed"
        learner, declared = stage.watch.learner, stage.watch.rules.book

        def confidence() -> float:
            return max(r.confidence for r in learner.book(declared).rules if r.cause == "replica_killed")

        before = confidence()
        for reviewer in range(3):
            stage.store.append_review(
                Review(
                    incident=incident.id, by=f"human:{reviewer}", at=stage.now, analysis=incident.analysis,
                    hypotheses={"replica_killed": reviewer == 0},
                )
            )  # fmt: skip
        stage.store.record("incident.reviewed", "digits", {}, actor="human:ana", at=stage.now)
        await stage.until(lambda: confidence() < before)
        shown = msgspec.json.decode((stage.folder / "learnt/learnt.json").read_bytes(), type=Learnt)
        assert (shown.reviews, shown.incidents, shown.in_force) == (3, 1, True)
        assert [round(r.wrong + r.wrong_beside, 6) for r in shown.rules if r.cause == "replica_killed"] == [0.666667]
        assert stage.store.events(kind="learnt.changed")
        taken_back = Reset(after=stage.store.last_review(), by="human:ana", at=stage.now, why="a test")
        (stage.folder / "learnt/reset.json").write_bytes(msgspec.json.encode(taken_back))
        stage.store.record("learnt.reset", "ops", {}, actor="human:ana", at=stage.now)
        await stage.until(lambda: confidence() == before)

    play(short, story)


def test_control_may_be_away(short: Path) -> None:
    """Telemetry is collected on; nothing is done on an old view of the world; afterwards the repair goes on."""

    async def story(stage: Stage) -> None:
        await healthy(stage)
        stage.away = True
        await stage.step(2)
        await stage.stop(stage.ready()[0].id)
        await stage.step(15)
        assert stage.watch.failures
        seen = stage.watch.store.read("replica_rss_bytes", stage.now - 5, stage.now + 1)
        assert seen and max(s.at[-1] for s in seen) == stage.now
        assert stage.proposals() == []
        stage.away = False
        await stage.until(lambda: bool(stage.incidents()) and stage.incidents()[0].closed is not None)
        assert [a.remedy for a in stage.incidents()[0].actions] == ["evict"]

    play(short, story)


def test_ops_may_be_killed_in_the_middle_of_a_repair(short: Path) -> None:
    """A fresh ops takes up the open incident: nothing is proposed twice, and the repair is verified and closed."""

    async def story(stage: Stage) -> None:
        await healthy(stage)
        await stage.stop(stage.ready()[0].id)
        await stage.until(lambda: bool(stage.proposals()))
        stage.watch.close()
        stage.watch = stage.new_watch()
        await stage.until(lambda: stage.incidents()[0].closed is not None)
        assert len(stage.incidents()) == len(stage.proposals()) == 1
        assert stage.incidents()[0].actions[-1].verdict == "effective"

    play(short, story)


def test_the_kill_switch_holds_and_a_person_is_called(short: Path) -> None:
    async def story(stage: Stage) -> None:
        await healthy(stage)
        await stage.stop(stage.ready()[0].id)
        await stage.until(lambda: bool(stage.incidents()) and stage.incidents()[0].escalated is not None, 90)
        incident = stage.incidents()[0]
        assert incident.closed is None and incident.severity == "critical" and not incident.actions
        assert [e for e in incident.evidence if e.kind == "refused"]
        assert not [p for p in stage.proposals() if p.status == "admitted"]
        assert "person is needed" in report(incident)

    play(short, story, Settings(admit=Admit(frozen=True)))


def test_two_tries_that_do_not_help_call_a_person(short: Path) -> None:
    """Whatever replaces the hung replica hangs too: two tries, then no more acts."""

    async def story(stage: Stage) -> None:
        await healthy(stage)

        async def hang() -> bool:
            for replica in sorted(stage.ready(), key=lambda r: (r.started, r.id))[1:]:
                await stage.stop(replica.id)
            return bool(stage.incidents()) and stage.incidents()[0].escalated is not None

        for _ in range(120):
            if await hang():
                break
            await stage.step()
        incident = stage.incidents()[0]
        assert incident.escalated is not None and incident.closed is None
        assert [a.verdict for a in incident.actions] == ["ineffective", "ineffective"]
        acts = len(stage.proposals())
        for _ in range(20):
            await hang()
            await stage.step()
        assert len([p for p in stage.proposals() if p.by == f"incident:{incident.id}"]) == acts == 2

    play(short, story)


def test_a_change_that_needs_approval_waits_for_it(short: Path) -> None:
    async def story(stage: Stage) -> None:
        await healthy(stage)
        stage.deploy(Model(wrong=0.6))
        await stage.until(lambda: bool(stage.proposals()))
        await stage.step(40)
        incident = stage.incidents()[0]
        assert incident.actions[0].verdict is None and incident.escalated is None
        told = report(incident)
        assert "approval asked for: roll back" in told and "was not done yet" in told
        assert "being verified" not in told and "请求批准处置：回滚版本" in report(incident, language="zh")
        (proposal,) = stage.proposals()
        assert proposal.status == "pending" and f"leptonai approve {proposal.id}" in told
        stage.door.approve(proposal.id, proposal.hash, ANA)
        await stage.until(lambda: stage.incidents()[0].closed is not None)
        incident = stage.incidents()[0]
        assert (incident.actions[0].verdict, incident.actions[0].approved) == ("effective", True)
        told = " ".join(report(incident).split())
        assert "The rollback was approved by human:ana." in told and "It was effective" in told
        assert "处置“回滚版本”已由 human:ana 批准" in report(incident, language="zh")

    play(short, story, Settings(admit=Admit(approval=("rollback",))))


def test_a_revision_is_verified_after_its_time_and_its_requests(short: Path) -> None:
    async def story(stage: Stage) -> None:
        def head() -> Revision:
            found = stage.store.head("digits")
            assert found is not None
            return found

        stage.rate = 0.0
        stage.deploy(Model())
        await stage.step(30)
        assert head().verified is None, "no request was answered"
        stage.rate = 4.0
        await stage.step(8)
        assert head().verified is None, "too few were"
        await stage.step(10)
        assert head().verified is not None

    play(short, story)
