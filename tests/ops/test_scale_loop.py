"""The scaler in the loop of ops: the real door, store, reconcile loop and planner, on a simulated clock."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
from ops_stage import ANA, Model, Stage

from leptonai.types import Auto, Proposal, Scale, SpecChange

AUTO = Auto(window=4.0, hold=4.0)


def scaled(stage: Stage) -> list[Proposal]:
    return sorted((p for p in stage.store.proposals(limit=1000) if p.by == "scaler"), key=lambda p: p.at)


def wanted(stage: Stage) -> int:
    (service,) = stage.store.services(stage.now)
    return service.dials.variants["main"].replicas


def deploy(stage: Stage, auto: Auto = AUTO, **scale: Any) -> None:
    spec = stage.deploy(Model(compute=0.05), replicas=1)
    spec = msgspec.structs.replace(spec, scale=Scale(**{"min": 1, "max": 5, "auto": auto} | scale))
    assert stage.door.propose(SpecChange(spec=spec, base=1), ANA, "scale by load").status == "admitted"


def test_up_with_the_load_and_down_with_it(short: Path) -> None:
    async def story() -> None:
        stage = Stage(short)
        deploy(stage)
        stage.rate = 40.0  # x 0.0525 s = 2.1 requests at once: 3 replicas at 0.7
        await stage.until(lambda: len(stage.ready()) >= 3, 60)
        up = scaled(stage)[0]
        assert up.status == "admitted" and "replicas; the policy wants" in up.why
        stage.rate = 2.0
        await stage.until(lambda: wanted(stage) == 1, 120)
        await stage.until(lambda: len(stage.replicas()) == 1, 60)
        down = scaled(stage)[-1]
        assert any(path.startswith("evict.") for path in down.change.set)  # type: ignore[union-attr]
        told = [e.detail for e in stage.store.events(kind="scale.decided", limit=1000)]
        assert all(
            {"desired", "target", "wished", "reason", "bound", "terms", "reading", "age"} <= d.keys() for d in told
        )
        await stage.close()

    asyncio.run(story())


def test_replicas_that_somebody_else_sets_are_left_alone(short: Path) -> None:
    async def story() -> None:
        stage = Stage(short)
        deploy(stage)
        stage.theirs.add("digits")
        stage.rate = 40.0
        for _ in range(30):
            await stage.step()
        assert scaled(stage) == [] and wanted(stage) == 1
        assert stage.watch.casebook.theirs == {"digits"}, "incidents are told too"
        stage.theirs.clear()
        await stage.until(lambda: wanted(stage) >= 3, 60)
        await stage.close()

    asyncio.run(story())


def test_dead_telemetry_takes_nothing_away(short: Path) -> None:
    async def story() -> None:
        stage = Stage(short)
        deploy(stage)
        await stage.until(lambda: wanted(stage) >= 3 and len(stage.ready()) >= 3, 60)
        before, count = wanted(stage), len(scaled(stage))
        for page in stage.pages.values():
            page.silent = True  # every replica and the gateway; the load is gone as well
        stage.rate = 0.0
        for _ in range(30):
            await stage.step()
        assert wanted(stage) == before and len(scaled(stage)) == count
        told = [e.detail for e in stage.store.events(kind="scale.decided", limit=1000)]
        assert any(d["bound"] == "stale telemetry" for d in told)
        await stage.close()

    asyncio.run(story())


def test_never_past_the_bounds_of_the_spec_and_a_person_comes_first(short: Path) -> None:
    async def story() -> None:
        stage = Stage(short)
        deploy(stage, max=2)
        stage.rate = 80.0
        await stage.until(lambda: wanted(stage) == 2, 60)
        for _ in range(10):
            await stage.step()
        assert wanted(stage) == 2
        told = [e.detail for e in stage.store.events(kind="scale.decided", limit=1000)]
        assert any(d["reason"] == "bounds" for d in told)
        await stage.close()

    asyncio.run(story())
