"""The simulated world: the same seed gives the same course, and a fault does to causes what its name says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leptonai.errors import SpecError
from leptonai.ops.answers import SPAN, Course
from leptonai.ops.diagnosis.causes import CAUSES
from leptonai.ops.features import FEATURES
from leptonai.ops.simulate import KINDS, Fault, Flow, cells, mesh
from leptonai.ops.simulate.cases import LEVELS, NONE, draw, table
from leptonai.ops.simulate.flow import Oddness
from leptonai.ops.simulate.shapes import traffic
from leptonai.ops.simulate.system import SHAPES
from leptonai.ops.simulate.told import Told

BEFORE, AFTER = 60, 25


def course(kind: str, severity: float = 0.8, spin: float = 0.5) -> tuple[Flow, Flow]:
    """Twelve worlds, each with the fault at BEFORE; and the same without."""
    world = cells(5, 12, ("steady",))
    faults = [Fault(kind, 3 * i, BEFORE, severity, spin=spin) for i in range(12)]
    flows = Flow(world, faults, BEFORE + AFTER, 5), Flow(world, (), BEFORE + AFTER, 5)
    for flow in flows:
        for _ in range(BEFORE + AFTER):
            flow.step()
    return flows


def test_there_is_a_fault_for_every_cause() -> None:
    assert set(KINDS) == CAUSES.keys() - {NONE}


def test_the_same_seed_gives_the_same_course() -> None:
    one, two = (course("replica_killed")[0] for _ in range(2))
    for name in ("answered", "errors", "rss", "latency", "queue"):
        assert np.array_equal(getattr(one, name), getattr(two, name))


@pytest.mark.parametrize(
    "kind, what, more",
    [
        ("memory_leak", lambda f: f.rss[0::3].max(axis=1).sum(), True),
        ("traffic_surge", lambda f: f.arrived[0::3].sum(), True),
        ("bad_revision_latency", lambda f: np.nansum(f.compute[0::3]), True),
        ("cpu_starvation", lambda f: f.busy.mean(), True),
        ("noisy_neighbour", lambda f: f.busy.mean(), True),
        ("poisoned_input", lambda f: f.errors[0::3].sum(), True),
        ("dead_dependency", lambda f: f.errors[0::3].sum(), True),
        ("credential_expired", lambda f: f.forces.denied.sum(), True),
        ("slow_dependency", lambda f: f.call_seconds.sum(), True),
        ("retry_storm", lambda f: f.repeats[0::3].sum(), True),
        ("nan_outputs", lambda f: f.nans.sum(), True),
        ("disk_full", lambda f: f.disk.sum(), True),
        ("data_drift", lambda f: np.nansum(f.shifted[0::3]), True),
        ("bad_revision_wrong_answers", lambda f: f.wrong[0::3].sum(), True),
        ("bad_revision_errors", lambda f: f.done_errors[0::3].sum(), True),
        ("gpu_thermal", lambda f: f.forces.heat.sum(), True),
        ("gpu_ecc", lambda f: f.ecc.sum(), True),
        ("crash_loop", lambda f: f.attempt[0::3].sum(), True),
        ("replica_crashed", lambda f: f.born[0::3].sum(), True),
        ("out_of_memory", lambda f: f.born[0::3].sum(), True),
        ("failing_replica", lambda f: f.done_errors[0::3].sum(), True),
        ("slow_replica", lambda f: np.nanmax(f.compute[0::3]), True),
        ("runaway_replica", lambda f: f.processor[0::3].sum(), True),
        ("cold_start_storm", lambda f: f.ready[0::3].sum(), False),
        ("hung_replica", lambda f: f.ready[0::3].sum(), False),
    ],
)
def test_a_fault_does_what_its_name_says(kind: str, what: object, more: bool) -> None:
    struck, quiet = (what(f) for f in course(kind))  # type: ignore[operator]
    assert struck > quiet if more else struck < quiet


def test_a_revision_that_cannot_be_loaded_leaves_the_one_before_at_work() -> None:
    flow, _ = course("bad_config")
    assert (flow.head[0::3] == 2).all() and (flow.runs[0::3] == 1).all() and (flow.ready.sum(axis=1) > 0).all()


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(KINDS), severity=st.floats(0, 1), spin=st.floats(0, 0.99))
def test_whatever_happens_counts_and_chances_stay_counts_and_chances(
    seed: int, kind: str, severity: float, spin: float
) -> None:
    world = cells(seed, 4)
    flow = Flow(world, [Fault(kind, 3 * i, 10.0, severity, spin=spin) for i in range(4)], 40, seed)
    for _ in range(40):
        flow.step()
        assert (flow.errors <= flow.answered + 1e-9).all() and (flow.errors >= 0).all()
        assert (flow.queue >= 0).all() and np.isfinite(flow.latency).all() and np.isfinite(flow.queue).all()
        assert ((flow.busy >= 0) & (flow.busy <= 1)).all() and ((flow.failed >= 0) & (flow.failed <= 1)).all()
        assert (flow.wrong <= flow.labels).all() and (flow.nans <= flow.done).all()


def test_traffic_of_every_shape_is_around_its_mean() -> None:
    world = cells(1, 40)
    found = traffic(world, np.random.default_rng(1), np.arange(600.0))
    assert found.shape == (600, 120) and (found > 0).all()
    assert {s for s in world.shape} == set(SHAPES)
    assert 0.7 < float(np.median(found)) < 1.4


def test_a_mesh_calls_downwards_and_is_not_overloaded() -> None:
    world = mesh(3, 60)
    assert (world.caller < world.callee).all() and (world.busy < 0.95).all()
    with pytest.raises(SpecError, match="4 entries"):
        mesh(0, 6, entries=4)


def test_drawn_incidents_are_labelled_and_carry_features_only() -> None:
    found = draw(3, 12, ("replica_killed", "bad_revision_latency", "dead_dependency"), controls=0.0)
    assert len(found.cases) >= 8 and sum(found.faults.values()) == 12
    assert sum(found.missed.values()) + len(found.cases) == 12
    for case in found.cases:
        assert case.cause in CAUSES and case.level in LEVELS and case.looks
        assert all(look.features.keys() <= FEATURES.keys() for look in case.looks)
    rows, whose = table(found.cases, tuple(FEATURES))
    assert rows.shape == (len(found.cases), len(FEATURES)) and whose == list(range(len(found.cases)))
    right = sum(c.last.causes[0].name == c.cause for c in found.cases)
    assert right >= len(found.cases) / 2  # the shipped rules see what they were written for


def test_drawn_incidents_are_opened_and_told_as_live_ones_are() -> None:
    """By the conditions of rule files too, with what counters and prediction logs tell; and what ran well for long
    before the trouble counts as verified."""
    found = draw(4, 4, ("disk_full",), controls=0.0)
    full = [c.last.features for c in found.cases if c.last.features.get("unwritten", 0.0) > 0]
    assert full and all(f["by_condition"] == 1.0 for f in full) and any(f["change_verified"] == 1.0 for f in full)


@pytest.mark.parametrize("rate", [25, 200])
@pytest.mark.parametrize("ramp", [1, 16, 40])
def test_how_far_newest_answers_are_from_those_before_is_as_ops_measures_it(rate: int, ramp: int) -> None:
    """A share of the answers becomes another, at once and by and by: the formula against the samples themselves."""
    rng = np.random.default_rng(4)
    lived = 400
    odd, course = Oddness(float(rate * lived)), Course()
    for second in range(lived + 60):
        share = 0.8 * min(1.0, max(second + 1 - lived, 0) / ramp)
        strange = rng.random(rate) < share
        for i, value in enumerate(np.where(strange, 20.0, rng.normal(0, 1, rate)).tolist()):
            course.add(second + i / rate, value)
        if second >= lived:
            odd.add(float(rate), share)
            assert odd.apart(float(second)) == pytest.approx(course.apart, abs=0.12), (ramp, second)
    assert course.apart is not None and course.apart > 0.5, "what changed slowly is still another"


def test_a_busy_service_remembers_minutes() -> None:
    """However many answers come in a second, those that the newest are compared with reach back at least SPAN."""
    for rate in (1, 20, 300):
        course = Course()
        for n in range(int(rate * 2.5 * SPAN)):
            course.add(n / rate, 0.0)
        kept = [at for at, _ in course._former]
        assert kept[-1] - kept[0] >= SPAN and len(kept) >= 400, rate


def test_what_logs_and_counters_tell_follows_from_the_course() -> None:
    """Of each fault the signal that is about it, and of none another's."""
    about = {
        "poisoned_input": "replica_model_failed_ratio", "disk_full": "replica_unwritten_per_second",
        "retry_storm": "repeated_ratio", "data_drift": "input_shift_ratio",
    }  # fmt: skip
    told: dict[str, dict[str, float]] = {}
    for kind in about:
        world = cells(3, 1, ("steady",))
        world = replace(world, idempotent=np.ones(3, dtype=np.bool_))
        flow, tell = Flow(world, [Fault(kind, 0, 20.0, 0.9)], 60, 3), Told(0)
        tell._numbers = True
        most: dict[str, float] = {}
        for _ in range(55):
            flow.step()
            for signal in tell.step(flow):
                most[signal.name] = max(most.get(signal.name, 0.0), signal.value)
        told[kind] = most
    for kind, signal in about.items():
        assert told[kind][signal] > 0.1, (kind, told[kind])
    assert told["disk_full"].get("repeated_ratio", 0.0) < 0.1 and told["retry_storm"]["input_shift_ratio"] < 0.2
    assert told["data_drift"]["replica_unwritten_per_second"] == 0.0
