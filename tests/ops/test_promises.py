"""Burn windows over the death of ops: what was counted is counted on, what came since is taken from telemetry."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_stage import Direct, Model, Stage

from leptonai.ops.lookout import Lookout
from leptonai.ops.promises import FILE, Promises
from leptonai.ops.slo import Burn
from leptonai.ops.watch import Watch
from leptonai.platforms.telemetry import Memory
from leptonai.settings import Ops
from leptonai.types import Dials, Service, Signal, Slo, Spec, Variant

SLO = Slo(period=36_000.0)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=120), st.integers(0, 120))
@settings(max_examples=60, deadline=None)
def test_a_burn_that_is_resumed_says_what_one_says_that_never_stopped(events: list[tuple[int, int]], stop: int) -> None:
    whole, first = Burn(SLO, "errors"), Burn(SLO, "errors")
    for t, counts in enumerate(events[:stop]):
        whole.step(float(t), *counts)
        first.step(float(t), *counts)
    second = Burn(SLO, "errors")
    second.resume(first.spent)
    for t, counts in enumerate(events[stop:], len(events[:stop])):
        assert second.step(float(t), *counts) == whole.step(float(t), *counts)


def test_windows_of_another_promise_begin_anew() -> None:
    burn, other = Burn(SLO, "errors"), Burn(Slo(period=50_000.0), "errors")
    burn.step(1.0, 100.0, 50.0)
    other.resume(burn.spent)
    assert other.step(2.0, 20.0, 0.0).bad == 0


def lookout() -> Lookout:
    spec = Spec(name="digits", variants=(Variant(model=f"sha256:{0:064x}"),), slo=SLO)
    return Lookout(Service(spec=spec, dials=Dials(variants={}), revision=1), Ops())


def test_what_came_after_the_file_was_written_is_taken_from_telemetry(tmp_path: Path) -> None:
    store = Memory()
    before, after = lookout(), lookout()
    keeper = Promises(tmp_path / FILE, store, 1.0)
    for burn in before._burns:
        burn.step(100.0, 50.0, 5.0)
    keeper.write(keeper.snapshot({"digits": before}, 100.0))
    for at, rate, errors in ((99.0, 7.0, 1.0), (101.0, 40.0, 0.25), (102.0, 40.0, 0.0), (110.0, 10.0, 1.0)):
        for name, value in (("request_rate_per_second", rate), ("error_ratio", errors)):
            store.write([Signal(name=name, labels={"service": "digits"}, at=at, value=value)])
    Promises(tmp_path / FILE, store, 1.0).restore(after, 111.0)
    errors, latency = (burn.step(111.0, 0.0, 0.0) for burn in after._burns)
    # 50 known; 40, 40, and of ten seconds of silence what three collections can have missed
    assert (errors.total, errors.bad) == (50 + 40 + 40 + 30, 5 + 10 + 0 + 30)
    assert (latency.total, latency.bad) == (160, 5)


def test_a_damaged_file_and_an_unknown_service_begin_anew(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"\xff nonsense")
    fresh = lookout()
    Promises(tmp_path / FILE, Memory(), 1.0).restore(fresh, 5.0)
    assert fresh._burns[0].step(5.0, 1.0, 0.0).total == 1


@pytest.fixture
def short() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pr") as folder:
        yield Path(folder)


@pytest.mark.parametrize("killed", [False, True])
def test_a_restart_of_ops_forgets_no_burn(short: Path, killed: bool) -> None:
    async def scene() -> None:
        stage, store = Stage(short), Memory()

        def born() -> Watch:
            return Watch(stage.folder, stage.settings, Direct(stage), store, clock=lambda: stage.now, timeout=0.05)

        stage.watch = born()
        stage.deploy(Model(errors=0.3), replicas=2, slo=Slo(latency=0.1, period=30 * 86400.0))
        await stage.step(20)
        bad = {burn.rule: (burn.bad, burn.total) for burn in stage.watch.lookouts["digits"].last.burns}
        assert bad["errors"][0] > 50
        written = (short / FILE).read_bytes()  # within the first rounds: a kill leaves it as it is
        stage.watch.close()
        if killed:
            (short / FILE).write_bytes(written)
        stage.watch = born()
        await stage.step(2)
        now = {burn.rule: (burn.bad, burn.total) for burn in stage.watch.lookouts["digits"].last.burns}
        assert now["errors"][1] == pytest.approx(bad["errors"][1], abs=3 * 40 + 10)
        assert now["errors"][0] == pytest.approx(bad["errors"][0], abs=3 * 40)
        await stage.watch.pager.close()
        await stage.close()

    asyncio.run(scene())
