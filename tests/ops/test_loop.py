"""The whole loop against the real door, store, planner and memory platform: each fault is found, named and repaired."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from ops_stage import Model, Stage

from leptonai.types import Incident


def play(folder: Path, story: Callable[[Stage], Awaitable[None]]) -> None:
    async def run() -> None:
        stage = Stage(folder)
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
    return incident


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
