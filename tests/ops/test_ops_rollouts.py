"""Rollouts in the loop of ops: the real door, store, reconcile loop and planner, on a simulated clock."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
from ops_stage import Model, Stage

from leptonai.types import Canary, Event, Rollout

CANARY = Rollout(
    strategy="canary", steps=(0.05, 0.5, 1.0), step_seconds=4.0, min_samples=60, effect=0.3, step_timeout=60.0
)


def on_probation(stage: Stage) -> Canary | None:
    (service,) = stage.store.services(stage.now)
    return service.canary


def begin(stage: Stage, **rollout: Any) -> None:
    stage.rate, stage.labelled = 4.0, 0.0
    stage.deploy(Model(), replicas=2)
    spec = stage.deploy(Model(), replicas=2, rollout=msgspec.structs.replace(CANARY, **rollout))
    assert spec.variants[0].model


async def live(stage: Stage, errors: float = 0.0, seconds: int = 1) -> None:
    """Seconds in which both versions answer 20 requests each, ``errors`` of the new one's badly."""
    for _ in range(seconds):
        canary = on_probation(stage)
        old = {v.digest for v in canary.stable} if canary else set()
        for one in [r for r in stage.ready() if canary is not None]:
            folder = stage.folder / "run" / one.id / "predictions"
            folder.mkdir(parents=True, exist_ok=True)
            bad = 0 if one.digest in old else round(20 * errors)
            with (folder / "00000002.jsonl").open("a") as file:
                for n in range(20):
                    line = {"id": f"{stage.now}-{n}", "at": stage.now + n / 20, "digest": one.digest}
                    line |= {"seconds": 0.01, "code": 500 if n < bad else 200, "output": [1]}
                    file.write(json.dumps(line) + "\n")
        await stage.step()


def told(stage: Stage, kind: str) -> list[Event]:
    return stage.store.events(kind=kind, limit=1000)


def test_a_good_version_is_promoted_step_by_step_and_a_restart_of_ops_in_the_middle_keeps_what_was_counted(
    short: Path,
) -> None:
    async def story() -> None:
        stage = Stage(short)
        begin(stage)
        while (canary := on_probation(stage)) is None or canary.weight == 0:
            await live(stage)
        await live(stage, seconds=4)  # a second's lines are judged once all of them are surely there
        counted = stage.watch.rollouts.probation("digits").tests["errors"].total
        assert counted > 0 and [p.name for p in (short / "rollouts").iterdir()] == ["digits.msgpack"]
        stage.watch.close()
        stage.watch = stage.new_watch()
        await live(stage)
        after = stage.watch.rollouts.probation("digits").tests["errors"].total
        assert counted <= after <= counted + 80, "the log is read again from its beginning, and counts once"
        for _ in range(60):
            await live(stage)
            if on_probation(stage) is None:
                break
        await stage.step(2)
        assert on_probation(stage) is None and stage.store.head("digits").number == 2  # type: ignore[union-attr]
        assert list((short / "rollouts").iterdir()) == []
        steps = [e.detail["text"] for e in told(stage, "rollout.judged")]
        assert "5% of the requests" in steps[0] and steps[-1].endswith("promoted")
        await stage.close()

    asyncio.run(story())


def test_a_bad_version_is_taken_back_with_its_numbers_and_the_old_replicas_stay(short: Path) -> None:
    async def story() -> None:
        stage = Stage(short)
        begin(stage)
        await stage.until(lambda: len(stage.ready()) >= 2)
        stable = {r.id for r in stage.ready() if r.digest in {v.digest for v in on_probation(stage).stable}}  # type: ignore[union-attr]
        for _ in range(40):
            await live(stage, errors=0.4)
            if on_probation(stage) is None:
                break
        (convicted,) = told(stage, "rollout.convicted")
        measures = {f["measure"]: f["verdict"] for f in convicted.detail["findings"]}
        assert measures["errors"] == "convicted" and "errors: " in convicted.detail["text"]
        await stage.step(10)
        assert {r.id for r in stage.ready()} == stable
        await stage.close()

    asyncio.run(story())


def test_without_traffic_it_waits_and_says_so_once(short: Path) -> None:
    async def story() -> None:
        stage = Stage(short)
        begin(stage)
        stage.rate = 0.0
        await stage.step(30)
        assert on_probation(stage) is not None
        waits = told(stage, "rollout.waits")
        assert len(waits) == 1 and "not enough evidence" in waits[0].detail["text"]
        await stage.close()

    asyncio.run(story())
