"""An incident in numbers: what they are, that they are the same whatever things are called, and that they are kept."""

from __future__ import annotations

import asyncio
import re
from math import isfinite
from pathlib import Path

from ops_stage import Model, Stage

from leptonai.ops.evidence import gather
from leptonai.ops.exits import Exit
from leptonai.ops.features import FEATURES, features
from leptonai.ops.levels import read_levels
from leptonai.ops.scene import Scene, Users
from leptonai.platforms.telemetry import Memory
from leptonai.types import Dials, Replica, Revision, Service, Signal, Spec, Variant, VariantDials

ONSET = 10_000.0


def scene(name: str, replica: str) -> Scene:
    variant = Variant(model=f"sha256:{1:064x}")
    spec = Spec(name=name, variants=(variant,))
    store = Memory()
    for second in range(70):
        at = ONSET - 60 + second
        for i, load in enumerate((0.2, 0.2, 0.2 if at < ONSET else 0.8)):
            labels = {"service": name, "replica": f"{replica}{i}", "digest": variant.digest}
            store.write([Signal(name="replica_cpu_ratio", labels=labels, at=at, value=load)])
        store.write([Signal(name="host_cpu_ratio", labels={}, at=at, value=0.3 if at < ONSET else 0.9)])
    return Scene(
        service=Service(spec=spec, dials=Dials(variants={"main": VariantDials(replicas=3)}), revision=1),
        revisions=(Revision(service=name, number=1, by="human:ana", why="first", at=1.0, spec=spec),),
        replicas=tuple(
            Replica(id=f"{replica}{i}", service=name, variant="main", digest=variant.digest, state="ready", since=1.0)
            for i in range(3)
        ),
        exits=(Exit(replica=f"{replica}9", digest=variant.digest, at=ONSET, signal=9),),
        onset=ONSET,
        now=ONSET + 9,
        before=Users(rate=40.0, error=0.0, slow=0.0, p50=0.005, p99=0.02),
        after=Users(rate=80.0, error=0.1, slow=0.2, p50=0.020, p99=0.2),
        levels=read_levels(store, name, (ONSET - 60, ONSET - 1), (ONSET, ONSET + 9)),
    )


def numbers(found: Scene) -> dict[str, float]:
    return features(found, gather(found))


def test_shifts_are_against_the_past_the_siblings_and_the_version_before() -> None:
    found = numbers(scene("digits", "r"))
    assert found["rate_shift"] == 1.0
    assert found["p50_shift"] == 2.0
    assert (found["error_rise"], found["slow_rise"]) == (0.1, 0.2)
    assert (found["lost_share"], found["killed_share"]) == (round(1 / 3, 6), 1.0)
    assert round(found["cpu_apart"], 6) == 0.6  # one replica works, its siblings do not
    assert round(found["host_cpu_rise"], 6) == 0.6
    assert found["change_recent"] == 0.0  # what runs was never changed
    assert "gpu_hot" not in found  # what was not seen is left out


def test_names_of_services_and_replicas_change_nothing() -> None:
    assert numbers(scene("digits", "r")) == numbers(scene("till-7", "zz"))


def test_a_feature_names_no_fault_that_is_injected_and_every_one_is_explained() -> None:
    assert len(FEATURES) <= 90
    for name, meaning in FEATURES.items():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name) and meaning
        assert not set(name.split("_")) & {"inject", "injected", "fault", "drill"}


def test_the_loop_keeps_the_numbers_with_the_incident(short: Path) -> None:
    async def story() -> None:
        stage = Stage(short)
        stage.deploy(Model())
        await stage.step(20)
        await stage.kill(stage.ready()[0].id)
        await stage.until(lambda: stage.incidents() and stage.incidents()[0].closed)
        kept = stage.incidents()[0].features
        assert kept["lost_share"] > 0 and kept["killed_share"] == 1.0
        assert kept.keys() <= FEATURES.keys() and all(map(isfinite, kept.values()))
        await stage.close()

    asyncio.run(story())
