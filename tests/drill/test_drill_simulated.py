"""Drills in the simulator: the real loop acts on simulated causes, only what cures one does; controls stay in peace."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from leptonai.cli.session import Session
from leptonai.drill.command import drill
from leptonai.drill.felt import felt
from leptonai.drill.kinds import KINDS
from leptonai.drill.ledger import Ledger
from leptonai.drill.outcome import Injection
from leptonai.drill.simulated import (
    acts_of,
    allowed,
    check,
    cured,
    drill_seed,
    of_revision,
    shows,
    simulated_kinds,
)
from leptonai.errors import SpecError
from leptonai.ops.simulate import Fault, Flow, cells
from leptonai.ops.simulate.faults import ACTS

DRILLS = ("stop", "slow", "slow-dependency", "calm", "restart", "scale")


@pytest.fixture(scope="module")
def outcomes() -> dict[str, object]:
    return {o.kind: o for o in drill_seed(3, DRILLS)}


def test_a_fault_is_named_answered_and_repaired_by_what_cures_it(outcomes: dict[str, object]) -> None:
    stop, slow, below = (outcomes[k] for k in ("stop", "slow", "slow-dependency"))
    assert (stop.cause, stop.remedy, stop.repaired) == ("hung_replica", "evict", True)  # type: ignore[attr-defined]
    assert stop.detect <= 3.0 and stop.subject == stop.target  # type: ignore[attr-defined]
    assert (slow.cause, slow.remedy, slow.repaired) == ("bad_revision_latency", "rollback", True)  # type: ignore[attr-defined]
    assert below.cause == "slow_dependency" and below.remedy == "person"  # type: ignore[attr-defined]


def test_controls_are_left_in_peace(outcomes: dict[str, object]) -> None:
    for kind in ("calm", "restart", "scale"):
        assert outcomes[kind].repaired and outcomes[kind].acts == 0  # type: ignore[attr-defined]


def flow(kind: str, at: float = 5.0, **more: object) -> Flow:
    world = cells(2, 1, ("steady",))
    return Flow(world, [Fault(kind, 0, at, 0.8, spin=0.5)], 60, 2, acts=acts_of(), most=6, **more)  # type: ignore[arg-type]


def test_a_fresh_process_is_free_of_a_fault_of_the_process_and_nothing_else_is() -> None:
    sick = flow("slow_replica")
    for _ in range(10):
        sick.step()
    (slot,) = np.flatnonzero(sick.forces.slow[0] > 1.0).tolist()
    sick.step()
    assert sick.forces.slow[0, slot] > 1.0
    sick.stop(0, slot, again=sick.at + 0.5)
    for _ in range(15):
        sick.step()
    assert sick.alive[0, slot] and (sick.forces.slow[0] == 1.0).all()


def test_a_fault_of_a_revision_is_only_on_the_replicas_that_run_it() -> None:
    bad = flow("nan_outputs")
    for _ in range(40):
        bad.step()
    assert bad.head[0] == 2 and (bad.forces.nan[0][bad.used[0]] > 0).all()
    bad.deploy(0, "back", model=1)
    for _ in range(40):
        bad.step()
    assert (bad.forces.nan[0] == 0).all()


def test_a_way_back_replaces_only_what_went() -> None:
    bad = flow("nan_outputs")
    while not (bad.runs[0] == 2).any():
        bad.step()
    old = [r for r in np.flatnonzero(bad.alive[0]).tolist() if bad.runs[0, r] == 1]
    born = bad.born[0].copy()
    bad.deploy(0, "back", model=1)
    for _ in range(40):
        bad.step()
    assert old and (bad.born[0][old] == born[old]).all() and (bad.runs[0][bad.used[0]] == 3).all()


def test_whether_somebody_could_notice_is_told_by_what_truly_was() -> None:
    """Broken promises, a wait that is material, a replica near its limit: each by itself, and nothing else."""
    calm = {"answered": 50.0, "errors": 0.0, "slow": 0.0, "latency": 0.1, "use": 0.5}
    change = {
        "nothing": {}, "a little slower": {"latency": 0.14}, "one error": {"errors": 0.2}, "slower": {"latency": 0.16},
        "late": {"slow": 2.0}, "errors": {"errors": 1.0}, "full": {"use": 0.95},
    }  # fmt: skip
    found = {}
    for name, more in change.items():
        course = {k: np.where(np.arange(200) < 130, v, {**calm, **more}[k]) for k, v in calm.items()}
        found[name] = felt(course, 130, 45)
    assert [name for name, yes in found.items() if yes] == ["slower", "late", "errors", "full"]


def test_bounds_move_only_by_what_no_test_could_have_known() -> None:
    """Labels, twice as many as Wald's bound, 200 answers of other data, replicas that were not up; all else stays."""
    at = Injection(kind="wrong", at=100.0)
    wrong, cold = KINDS["wrong"], KINDS["cold-start"]
    assert allowed(wrong, at, None, 900.0) == wrong and allowed(wrong, at, 104.0, 900.0) == wrong
    late = allowed(wrong, at, 130.0, 0.0)
    assert (late.detect, late.recover) == (35.0, wrong.recover + 20.0)
    assert allowed(cold, at, None, 0.0) == cold and allowed(cold, at, None, 150.0).recover == 60.0
    bad = flow("bad_revision_wrong_answers", at=5.0)
    needed, labels, before = 0.0, 0.0, 0.0
    while needed < 1.0:
        bad.step()
        needed += shows(bad, wrong, 0)
        before, labels = labels, labels + float(bad.labels[0][bad.forces.wrong[0] > 0].sum())
    share = 1.0 - (1.0 - float(bad.system.wrong[0])) * (1.0 - 0.2 * 4.5**0.8)
    entropy = share * np.log(share / 0.1) + (1 - share) * np.log((1 - share) / 0.9)
    assert before < 2 * np.log(10_000) / entropy <= labels
    assert shows(bad, KINDS["kill"], 0) == 0.0


def test_what_would_have_failed_anyway_is_not_charged_to_the_fault_and_a_hang_loses_nothing() -> None:
    """Idempotent requests that wait for a hung replica are answered by another one; errors of normal times are told."""
    hung = flow("hung_replica")
    hung.system.idempotent[:] = True
    hung.system.failing[:] = 0.02
    for _ in range(60):
        hung.step()
        assert (hung.anyway <= hung.errors).all()
        assert hung.errors[0] - hung.anyway[0] <= 0.1 * hung.answered[0] + 2
    lost, answered = 0.0, 0.0
    calm = flow("hung_replica")
    calm.system.idempotent[:] = True
    calm.system.failing[:] = 0.0
    for _ in range(60):
        calm.step()
        lost, answered = lost + float(calm.errors[0] + calm.too_much[0]), answered + float(calm.answered[0])
    assert lost == 0 and answered > 500


def test_scaling_restarting_and_shedding_do_what_they_say() -> None:
    one = flow("data_drift")
    before = int(one.wanted[0])
    one.scale(0, 6)
    for _ in range(20):
        one.step()
    assert one.ready[0].sum() == 6
    one.restart(0)
    for _ in range(55):
        one.step()
    assert (one.of_epoch[0][one.alive[0]] == 1).all()
    one.scale(0, before)
    one.step()
    assert one.ready[0].sum() == before
    arrived = one.arrived[0]
    one.shed[0] = 0.99
    one.step()
    assert one.arrived[0] < 0.3 * arrived


def test_every_kind_has_a_cause_there_or_is_refused() -> None:
    for kind in simulated_kinds():
        assert KINDS[kind].control or KINDS[kind].causes[0] in ACTS
    with pytest.raises(SpecError, match="no cause in the simulator"):
        check(["latency"])
    with pytest.raises(SpecError, match="one fault at a time"):
        check(["kill+leak"])
    assert cured(ACTS["slow_replica"]) is not ACTS["slow_replica"] and of_revision(ACTS["nan_outputs"])


def test_a_run_is_kept_resumed_and_the_same_again(tmp_path: Path) -> None:
    runner, session = CliRunner(), Session(str(tmp_path), None, None)
    asked = ["kill", "calm", "--simulated", "--json", "--out", str(tmp_path)]
    first = runner.invoke(drill, [*asked, "--seeds", "1"], obj=session)
    told = json.loads(first.stdout[first.stdout.index("{") :])
    assert [o["kind"] for o in told["outcomes"]] == ["kill", "calm"] and told["score"]["kinds"]["kill"]["remedy"] == 1
    again = runner.invoke(drill, [*asked, "--seeds", "1", "--resume"], obj=session)
    assert "so far" not in again.stderr
    same = list(drill_seed(0, ("kill", "calm")))
    assert Ledger(tmp_path, "simulated").read() == same, "the same seed, the same course"
    for wrong in (["--seeds", "2", "--seed", "1"], ["--live", "digits"]):
        refused = runner.invoke(drill, [*asked, *wrong], obj=session)
        assert isinstance(refused.exception, SpecError)
