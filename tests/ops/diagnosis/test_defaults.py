"""The shipped causes on whole histories: what users feel, signals that tell, the incident that names the cause."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from ops_stage import ANA, Model, Stage

from leptonai.ops.answers import FEWEST, FEWEST_ASKED, RECENT, Answers
from leptonai.ops.gpu import FakeGpus, Reading
from leptonai.ops.predictions import Line
from leptonai.ops.trace.calls import Calls
from leptonai.types import DialChange, Replica, Signal, Span

SLOW, FAILS, WRONG = Model(compute=0.15), Model(errors=0.3), Model(wrong=0.9)
OWN = {"service": "digits"}
ON = OWN | {"dependency": "features"}
GPU = Reading(number=0, name="fake", celsius=60.0, ecc_errors=0.0, xid_errors=0.0, hot=False, lost=False)

# cause -> what users feel, signals (name, labels) -> value before the onset and since, the GPU since
ERRORS, DENIED, SECONDS = (("dependency_" + what, "on") for what in ("error_ratio", "denied_ratio", "seconds"))
HISTORIES: dict[str, tuple[Model, dict[tuple[str, str], tuple[float, float]], Reading]] = {
    "disk_full": (FAILS, {("host_disk_used_ratio", "mount"): (0.9, 1.0)}, GPU),
    "retry_storm": (Model(errors=0.3, retries=1), {}, GPU),
    "slow_dependency": (SLOW, {SECONDS: (0.01, 0.2), ERRORS: (0.0, 0.0)}, GPU),
    "dead_dependency": (FAILS, {ERRORS: (0.0, 0.9), DENIED: (0.0, 0.0)}, GPU),
    "credential_expired": (FAILS, {ERRORS: (0.0, 0.9), DENIED: (0.0, 0.9)}, GPU),
    "poisoned_input": (FAILS, {("poisoned_ratio", ""): (0.0, 0.95)}, GPU),
    "data_drift": (Model(wrong=0.9, shift=20), {}, GPU),
    "nan_outputs": (WRONG, {("replica_nan_ratio", ""): (0.0, 0.5)}, GPU),
    "gpu_xid": (FAILS, {}, GPU._replace(xid_errors=1.0)),
    "gpu_ecc": (FAILS, {}, GPU._replace(xid_errors=1.0, ecc_errors=2.0)),
    "gpu_thermal": (SLOW, {}, GPU._replace(celsius=93.0, hot=True)),
    "gpu_lost": (FAILS, {}, Reading(number=0, name="fake", lost=True)),
}  # fmt: skip


def write(stage: Stage, signals: dict[tuple[str, str], tuple[float, float]], side: int) -> None:
    labels: dict[str, dict[str, str]] = {"": OWN, "on": ON, "mount": {"mount": "/full"}}
    stage.watch.store.write(
        [Signal(name=n, labels=labels[whose], at=stage.now + 1.0, value=v[side]) for (n, whose), v in signals.items()]
    )


@pytest.mark.parametrize("cause", HISTORIES)
def test_each_cause_is_named_from_its_signals(cause: str, short: Path) -> None:
    """Long after the last change, so that no revision is to blame; within half a minute, and first."""
    feels, signals, gpu = HISTORIES[cause]

    async def story() -> None:
        stage = Stage(short)
        try:
            stage.rate = 25.0
            stage.watch._collector._gpus = gpus = FakeGpus(GPU)
            stage.deploy(Model())
            await stage.step(12)
            stage.now += 700.0
            for _ in range(15):
                write(stage, signals, 0)
                await stage.step()
            told = len(stage.incidents())
            for digest in stage.models:
                stage.models[digest] = feels
            gpus.readings = [gpu]
            for _ in range(40):
                write(stage, signals, 1)
                await stage.step()
                fresh = stage.incidents()[told:]
                if fresh and fresh[-1].causes and fresh[-1].causes[0].name == cause:
                    break
            first = stage.incidents()[-1].causes[0]
            assert (first.name, first.subject) == (cause, "digits"), stage.incidents()[-1].causes
            assert first.confidence >= 0.7
            texts = {e.id: e.text for e in stage.incidents()[-1].evidence}
            assert first.evidence and all(texts[e] for e in first.evidence)
        finally:
            await stage.close()

    asyncio.run(story())


def test_a_cold_start_storm_and_a_broken_rule_file(short: Path) -> None:
    """Most replicas start at once and none had ended. Meanwhile an operator's file is broken: told, nothing stops."""

    async def story() -> None:
        stage = Stage(short)
        try:
            stage.deploy(Model())
            await stage.step(12)
            stage.now += 700.0
            await stage.step(30)
            stage.start_delay = 200.0
            change = DialChange(service="digits", set={"main.replicas": 8.0})
            assert stage.door.propose(change, ANA, "a person scales").status == "admitted"
            for digest in stage.models:
                stage.models[digest] = SLOW
            (short / "rules").mkdir()
            (short / "rules" / "mine.yaml").write_text("trees: {t: {top: g, gates: {g: {any: [g]}}, events: {}}}")
            stage.away = True  # the stage itself must not take the broken file for a fault of ops
            for _ in range(40):
                stage.away = False
                stage.watch.failures.clear()
                try:
                    await stage.step()
                except AssertionError:
                    assert [*stage.watch.failures] == ["rules"]
                found = [c.name for i in stage.incidents() for c in i.causes]
                if "cold_start_storm" in found:
                    break
            assert "cold_start_storm" in found, stage.incidents()
            failed = [e for e in stage.store.events(0) if e.kind == "ops.failed"]
            assert failed and "mine.yaml" in failed[-1].detail["error"] and "itself" in failed[-1].detail["error"]
        finally:
            await stage.close()

    asyncio.run(story())


def line(id: str, code: int = 200, output: Any = None, at: float = 1.0) -> Line:
    return Line(id=id, at=at, digest="d", code=code, output=output)


def replica(id: str) -> Replica:
    return Replica(id=id, service="digits", variant="main", digest="d", state="ready", since=0.0)


def test_requests_that_fail_wherever_they_go() -> None:
    answers = Answers()
    for id in ("a", "b", "c"):
        answers.saw(replica("r1"), line(id, 500))
    for id in ("a", "b"):
        answers.saw(replica("r2"), line(id, 500))
    answers.saw(replica("r1"), line("a", 500))
    answers.saw(replica("r2"), line("late", 504))  # no verdict on the request
    answers.saw(replica("r1"), line("good"))
    poisoned, share = answers.signals(2.0)
    assert (poisoned.name, poisoned.labels, poisoned.value) == ("poisoned_ratio", OWN, pytest.approx(2 / 3))
    assert (share.name, share.value) == ("poisoned_request_ratio", pytest.approx(2 / 4))
    assert answers.signals(100.0) == []  # forgotten


def test_answers_that_were_given_before() -> None:
    """A share of the good answers of a few seconds; a mirrored copy is another revision's, and no repetition."""
    answers = Answers()
    for i in range(FEWEST_ASKED // 2):
        answers.saw(replica("r1"), line(str(i)))
        answers.saw(replica("r2"), msgspec.structs.replace(line(str(i)), digest="e"))
    assert [(s.name, s.value) for s in answers.signals(2.0)] == [("repeated_ratio", 0.0)]
    for i in range(FEWEST_ASKED):
        answers.saw(replica("r2"), line(str(i % 10)))
    assert answers.signals(2.0)[0].value == pytest.approx(0.5 + 10 / 2 / FEWEST_ASKED, abs=0.2)
    assert answers.signals(60.0) == []


def test_answers_that_are_not_as_before() -> None:
    answers = Answers()

    def shift() -> float | None:
        return next((s.value for s in answers.signals(1.0) if s.name == "output_shift_ratio"), None)

    for i in range(FEWEST + RECENT - 1):
        answers.saw(replica("r1"), line(str(i), output=[i % 10, "x"]))
    assert shift() is None
    answers.saw(replica("r1"), line("z", output=[3]))
    assert 0.0 <= (shift() or 0.0) < 0.1
    for i in range(RECENT):
        answers.saw(replica("r1"), msgspec.structs.replace(line(str(i), output=[20 + i % 10]), digest="other"))
    assert shift() is None  # another revision answers otherwise, and may
    for i in range(RECENT):
        answers.saw(replica("r1"), line(str(i), output=[20 + i % 10]))
    assert shift() == 1.0


def test_calls_to_a_dependency_are_counted_by_what_became_of_them() -> None:
    calls = Calls()
    base = {"trace": "t" * 32, "id": "i" * 16, "name": "GET", "service": "digits", "kind": "client", "start": 1.0}
    for failed, more in (
        (False, {}),
        (True, {"http.response.status_code": "401"}),
        (True, {"exception.message": "x509: certificate has expired"}),
        (True, {"http.response.status_code": "503"}),
    ):
        attributes = {"peer.service": "features"} | more
        calls.saw([Span(**base, seconds=0.5, failed=failed, attributes=attributes)])  # type: ignore[arg-type]
    values = {s.name: s.value for s in calls.signals(2.0)}
    assert values == {"dependency_error_ratio": 0.75, "dependency_denied_ratio": 0.5, "dependency_seconds": 0.5}
    calls.saw([Span(**base, seconds=0.5, failed=False, attributes={"peer.service": "features"})])  # type: ignore[arg-type]
    values = {s.name: s.value for s in calls.signals(4.0)}
    assert values["dependency_rate_per_second"] == 0.5  # one call in two seconds
    assert calls.signals(5.0) == []


def test_a_neighbour_that_takes_the_processors(short: Path) -> None:
    """Only the processors of the machine are given: those of this test are busy with who knows what."""
    from leptonai.ops.scenery import _neighbour

    async def story() -> None:
        stage = Stage(short)
        try:
            cores = os.cpu_count() or 1
            for at, used in ((10.0, 0.1), (100.0, 0.7)):
                for name in ("other", "digits"):
                    labels = {"service": name, "replica": f"{name}-1"}
                    stage.watch.store.write(
                        [Signal(name="replica_cpu_ratio", labels=labels, at=at, value=used * cores)]
                    )
            found = _neighbour(stage.watch.store, "digits", (0.0, 50.0), (50.0, 200.0))
            assert found is not None and found[0] == "other" and found[1] == pytest.approx(0.6)
        finally:
            await stage.close()

    asyncio.run(story())
