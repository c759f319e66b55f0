"""What a repaired trouble left in the windows of the burn rules is no second trouble; a second trouble is one."""

from __future__ import annotations

from pathlib import Path

import pytest
from ops_stage import Model, Stage
from test_loop import play

from leptonai.ops.judge import Trigger
from leptonai.ops.leftover import Paid, leftover
from leptonai.types import Incident, Slo

NOW = 10_000.0


def burn(long: float = 360.0, factor: float = 6.0, budget: float = 0.01, kind: str = "burn_errors") -> Trigger:
    terms = {"long": long, "factor": factor, "budget": budget}
    return Trigger(kind=kind, service="digits", severity="critical", began=NOW, terms=terms)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("trigger", "age", "requests", "bad", "wanted"),
    [
        (burn(), 60.0, 500, 0, True),  # nothing failed since
        (burn(), 60.0, 500, 1, True),  # a stray one
        (burn(), 60.0, 500, 30, True),  # 6 %: just as fast as is still fine
        (burn(), 60.0, 500, 60, False),  # 12 %: that is a trouble of its own
        (burn(), 60.0, 4, 4, False),  # everything fails again
        (burn(), 361.0, 500, 1, False),  # the window began after the closing: what is in it is new
        (burn(kind="burn_latency"), 60.0, 500, 0, True),
        (burn(kind="anomaly_rate"), 60.0, 500, 0, False),  # nothing that is counted
    ],
)
def test_only_what_came_since_the_closing_counts(
    trigger: Trigger, age: float, requests: int, bad: int, wanted: bool
) -> None:
    paid = Paid(NOW - age, 1000.0, {"errors": 100.0, "latency": 0.0})
    counts = {"errors": 100.0 + bad, "latency": float(bad)}
    assert leftover(trigger, paid, 1000.0 + requests, counts, NOW) is wanted


PROMISE = Slo(availability=0.99, latency=0.1, latency_objective=0.95, period=7200.0)


async def killed_and_repaired(stage: Stage) -> Incident:
    """Every replica is killed: for some seconds nobody answers; serve replaces them, the incident is closed."""
    for replica in stage.ready():
        await stage.kill(replica.id)
    await stage.until(lambda: stage.incidents(), 30)
    await stage.until(lambda: stage.incidents()[-1].closed is not None, 90)
    (first,) = stage.incidents()
    assert first.causes[0].name == "replica_killed"
    return first


def test_a_stray_error_after_a_repair_opens_no_second_incident(short: Path) -> None:
    async def story(stage: Stage) -> None:
        stage.start_delay = 6.0
        await deployed(stage)
        await killed_and_repaired(stage)
        for _ in range(8):  # single errors, long before the windows have let go
            stage._seen(stage.store.services(stage.now)[0], 5, 0.001)
            stage._seen(stage.store.services(stage.now)[0], 5, 0.001)
            await stage.step(5)
        (first,) = stage.incidents()
        assert first.closed is not None and [e.kind for e in first.evidence].count("leftover") == 1
        assert [a.verdict for a in first.actions] == ["effective"]

    play(short, story)


def test_a_trouble_that_begins_after_a_repair_is_one(short: Path) -> None:
    async def story(stage: Stage) -> None:
        stage.start_delay = 6.0
        await deployed(stage)
        await killed_and_repaired(stage)
        await stage.step(3)
        for model in stage.models.values():
            model.errors = 0.4
        await stage.until(lambda: any(i.closed is None for i in stage.incidents()), 30)

    play(short, story)


async def deployed(stage: Stage) -> None:
    stage.deploy(Model(), slo=PROMISE)
    await stage.step(45)
    assert stage.incidents() == []
