"""The ops process as a whole: its socket, its note in the home, and a control that is not there."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from ops_stage import Direct, Model, Stage
from waiting import until

from leptonai.errors import PlatformError
from leptonai.ops.detect.watcher import rehearsed
from leptonai.ops.run import run
from leptonai.platforms.telemetry import Memory
from leptonai.settings import Detecting, Ops, Settings
from leptonai.settings import Watch as Watched
from leptonai.types import Signal


def test_signals_are_served_while_it_watches(short: Path) -> None:
    async def story() -> None:
        stage = Stage(short)
        stage.deploy(Model())
        store = Memory()
        at = time.time()
        store.write(
            [Signal(name="ready_count", labels={"service": "x"}, at=at + i, value=float("nan")) for i in (0, 1)]
        )
        settings = Settings(ops=Ops(period=0.05))
        watching = asyncio.create_task(run(short, settings, Direct(stage), time.time, short / "ops.sock", store))
        note = short / "ops.json"
        await until(note.exists)
        known = json.loads(note.read_text())
        transport = httpx.AsyncHTTPTransport(uds=known["socket"])
        async with httpx.AsyncClient(transport=transport, base_url="http://ops") as client:
            assert (await client.get("/healthz")).json() == {"status": "ok"}

            await until(lambda: "host_cpu_ratio" in store.names())
            assert (await client.get("/signals/names")).json() == store.names()
            params = {"name": "ready_count", "start": at - 1, "end": at + 3, "step": 1.0, "service": "x"}
            (series,) = (await client.get("/signals", params=params)).json()
            assert series["labels"] == {"service": "x"} and series["value"] == [None] * 4
            for bad, says in (({}, "name"), ({"name": "x", "start": "noon"}, "noon"), ({"name": "x"}, "before end")):
                answer = await client.get("/signals", params=bad)
                assert answer.status_code == 400 and says in answer.json()["error"]
        assert Path(known["socket"]).stat().st_mode & 0o077 == 0
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
        assert not note.exists() and not (short / "ops.sock").exists()
        await asyncio.sleep(0.05)
        await stage.close()

    asyncio.run(story())


def test_a_socket_that_cannot_be_made_is_said_so(short: Path) -> None:
    async def story() -> None:
        stage = Stage(short)
        with pytest.raises(PlatformError, match="cannot listen") as e:
            await run(short, Settings(), Direct(stage), time.time, short / ("x" * 200))
        assert "107 bytes" in e.value.hint
        await stage.close()

    asyncio.run(story())


def test_the_watch_detects_with_the_parameters_of_the_settings(short: Path) -> None:
    """They reach both tiers, and whatever is learnt anew while it runs."""

    async def story() -> None:
        of = Detecting(alpha=0.02, order=5, patience=30, every=6, day=3600.0, weekly=False)
        stage = Stage(short, Settings(watch=Watched(detector=of)))
        tiers = stage.new_watch().watcher.tiers
        assert tiers is not None
        for one in (tiers, tiers.anew(), rehearsed(1, [0.0], np.zeros((1, 1)), tiers)):
            voters: dict[str, Any] = {**one.full.voters, "base": one.base.voters[1]}
            assert [(voters[n].order, voters[n].alpha) for n in ("ar", "base")] == [(5, 0.02)] * 2
            assert voters["novelty"].every == 6
            assert (voters["seasonal"].day, voters["seasonal"].weekly) == (3600.0, False)
            assert voters["cusum"]._level.patience == voters["ar"]._level.patience == 30
        await stage.close()

    asyncio.run(story())
