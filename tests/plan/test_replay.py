"""The replay: exact on cases done by hand, and true to its own bookkeeping on any trace and policy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leptonai.errors import SpecError
from leptonai.plan.scale import Decision, Setup, Sight, Window, parse, replay, simulate
from leptonai.plan.scale.policy import Fixed


def test_one_server_by_hand() -> None:
    # served at 0-1, 1-2, 2-3 and 10-11; waits 0, 0.5, 1.2, 0
    outcome = simulate(np.array([0.0, 0.5, 0.8, 10.0]), "fixed:1", Setup())
    assert (outcome.requests, outcome.slo_violations, outcome.peak_replicas) == (4, 1, 1)
    assert outcome.wait_max == pytest.approx(1.2)
    assert outcome.replica_seconds == pytest.approx(11.0)
    assert outcome.duration == pytest.approx(11.0)
    assert outcome.utilization == pytest.approx(4 / 11)


def test_a_wait_of_exactly_the_objective_is_no_violation() -> None:
    assert simulate(np.array([0.0, 0.0]), "fixed:1", Setup()).slo_violations == 0
    assert simulate(np.array([0.0, 0.0]), "fixed:1", Setup(slo_wait=0.99)).slo_violations == 1


def test_a_replica_serves_as_many_as_its_concurrency() -> None:
    assert simulate(np.zeros(4), "fixed:1", Setup(concurrency=4, slo_wait=0.0)).slo_violations == 0
    assert simulate(np.zeros(5), "fixed:1", Setup(concurrency=4, slo_wait=0.0)).slo_violations == 1


class Script:
    """Replicas by a table of (from, count)."""

    name, period = "script", 1.0

    def __init__(self, *table: tuple[float, int]) -> None:
        self.table = table

    def begin(self, ready: int, now: float) -> None:
        return None

    def decide(self, sight: Sight, memory: None) -> tuple[Decision, None]:
        return Decision(max((at, n) for at, n in self.table if at <= sight.now)[1], "script", {}), None


def test_a_started_replica_helps_after_its_startup_and_is_paid_from_the_start() -> None:
    # two at once each 10 s; the second replica is wished at 1 and ready at 11
    outcome = replay(np.repeat(np.arange(0.0, 41.0, 10.0), 2), Script((0, 1), (1, 2)), Setup(startup=10, slo_wait=0.5))
    assert outcome.slo_violations == 2  # at 0 and at 10
    assert outcome.replica_seconds == pytest.approx(41 + 40)


def test_a_busy_replica_that_is_taken_away_finishes_its_request() -> None:
    # both serve 3 s from 0; one is taken at 1 and paid until 3; a last request at 10
    outcome = replay(
        np.array([0.0, 0.0, 10.0]), Script((0, 2), (1, 1)), Setup(service_time=3.0, initial=2, slo_wait=0.0)
    )
    assert outcome.slo_violations == 0
    assert outcome.replica_seconds == pytest.approx(13 + 3)


def test_what_is_starting_goes_first_and_then_the_idlest() -> None:
    # 1 replica busy for 100 s, 2 more wished at 1, all but one taken at 5: the busy one stays
    outcome = replay(
        np.array([0.0, 90.0]), Script((0, 1), (1, 3), (5, 1)), Setup(service_time=100.0, initial=1, startup=30)
    )
    assert outcome.replica_seconds == pytest.approx(200 + 4 + 4)
    assert outcome.peak_replicas == 3


def test_from_zero_the_first_request_waits_for_the_startup() -> None:
    outcome = replay(np.array([0.0, 100.0]), Script((0, 0), (100, 1)), Setup(least=0, initial=0, startup=30.0))
    assert outcome.wait_max == pytest.approx(130.0)  # wished at the decision of 100, ready at 130
    assert outcome.slo_violations == 2


@pytest.mark.parametrize(("name", "idle"), [("hpa", 1), ("kpa", 1), ("oracle", 1), ("fixed:3", 3)])
def test_a_long_silence_changes_nothing_but_the_bill(name: str, idle: int) -> None:
    """Skipping idle time is exact: the same arrivals after a longer pause meet the same replicas."""
    first = np.arange(0.0, 60.0, 0.4)
    short = simulate(np.concatenate((first, [12_000.0, 12_000.1])), name, Setup())
    long = simulate(np.concatenate((first, [1_200_000.0, 1_200_000.1])), name, Setup())
    assert long.slo_violations == short.slo_violations
    assert long.starts == short.starts
    assert long.replica_seconds - short.replica_seconds == pytest.approx(idle * 1_188_000.0)
    assert long.decisions < short.decisions + 10 * 30  # and costs nothing


POLICIES = st.sampled_from(["ours", "hpa", "kpa", "oracle", "fixed:2"])
GAPS = st.lists(st.floats(0.0, 40.0), min_size=1, max_size=80)


@given(gaps=GAPS, name=POLICIES, least=st.integers(0, 2), concurrency=st.integers(1, 3), startup=st.floats(0, 40))
@settings(max_examples=60, deadline=None)
def test_the_books_balance(gaps: list[float], name: str, least: int, concurrency: int, startup: float) -> None:
    """Everybody is served; what is paid covers what is used; bounds hold; the same run gives the same outcome."""
    least = max(least, 1) if name == "hpa" else least
    setup = Setup(least=least, most=5, concurrency=concurrency, startup=startup)
    arrivals = np.cumsum(gaps)
    seen: list[int] = []
    outcome = simulate(arrivals, name, setup, watch=lambda sight, decision: seen.append(decision.desired))
    assert outcome.requests == len(gaps)
    assert outcome.peak_replicas <= 5
    assert all(least <= n <= 5 for n in seen)
    assert outcome.replica_seconds * concurrency >= len(gaps) * setup.service_time - 1e-6
    assert 0 <= outcome.slo_violations <= outcome.requests
    assert outcome == simulate(arrivals, name, setup)


def test_every_decision_carries_its_terms() -> None:
    for name in ("ours", "hpa", "kpa", "fixed:2"):
        terms: list[Decision] = []
        simulate(np.arange(0.0, 300.0, 0.5), name, Setup(), watch=lambda s, d, into=terms: into.append(d))
        assert all(d.reason and d.terms for d in terms), name


def test_the_oracle_is_never_late_with_a_full_target() -> None:
    rng = np.random.default_rng(1)
    arrivals = np.sort(rng.uniform(0, 2000, 4000))
    outcome = simulate(arrivals, "oracle", Setup(slo_wait=0.0))
    assert outcome.wait_max < 1e-6
    assert outcome.replica_seconds < simulate(arrivals, f"fixed:{outcome.peak_replicas}", Setup()).replica_seconds


def test_random_service_times_come_from_the_seed() -> None:
    arrivals = np.arange(0.0, 500.0, 1.25)
    one, two = (simulate(arrivals, "fixed:1", Setup(spread=1.0, seed=s)) for s in (1, 2))
    assert one != two
    assert one == simulate(arrivals, "fixed:1", Setup(spread=1.0, seed=1))
    assert one.slo_violations > simulate(arrivals, "fixed:1", Setup()).slo_violations == 0


@pytest.mark.parametrize(
    ("name", "setup", "target", "says"),
    [
        ("best", Setup(), None, "'best'"),
        ("fixed:0", Setup(), None, "1 to 64"),
        ("fixed:65", Setup(), None, "1 to 64"),
        ("fixed:two", Setup(), None, "'two'"),
        ("fixed", Setup(), None, "'fixed'"),
        ("ours", Setup(), 0.0, "target is 0"),
        ("ours", Setup(), float("nan"), "target is nan"),
        ("ours", Setup(service_time=0), None, "service_time is 0"),
        ("ours", Setup(startup=-1), None, "startup is -1"),
        ("ours", Setup(startup=float("inf")), None, "startup is inf"),
        ("ours", Setup(concurrency=0), None, "concurrency: 0"),
        ("ours", Setup(least=3, most=2), None, "least replicas: 3"),
        ("hpa", Setup(least=0), None, "cannot scale to zero"),
    ],
)
def test_nonsense_is_named(name: str, setup: Setup, target: float | None, says: str) -> None:
    with pytest.raises(SpecError) as e:
        simulate(np.array([0.0, 1.0]), name, setup, target)
    assert says in e.value.message


def test_no_arrivals() -> None:
    with pytest.raises(SpecError, match="no arrivals"):
        replay(np.array([]), Fixed(1), Setup())


@pytest.mark.parametrize(
    ("rows", "arrivals", "unsorted"),
    [
        (["0", "1.5", "4"], [0, 1.5, 4], 0),
        (["t,x", "5,1", "", "7,2"], [0, 2], 0),
        (["3", "1", "2"], [0, 1, 2], 1),
        (["1e3", "1001"], [0, 1], 0),
        (["TIMESTAMP,A", "2023-11-16 18:17:03.9799600,1", "2023-11-16 18:17:04.0319601,2"], [0, 0.052], 0),
        (["2024-01-01T00:00:00Z", "2024-01-01T01:00:00+00:00"], [0, 3600], 0),
        (["2024-01-01", "2024-01-02 00:00:01"], [0, 86401], 0),
        (["t", "1700000000500", "1700000000000"], [0, 0.5], 1),
        (["1700000000000000", "1700000000250000"], [0, 0.25], 0),
        (["1700000000000000000", "1700000002000000000"], [0, 2.0], 0),
        (["2024-03-31T02:00:00+02:00", "2024-03-31T00:00:01"], [0, 1], 0),
    ],
)
def test_traces_that_people_write(rows: list[str], arrivals: list[float], unsorted: int) -> None:
    trace = parse(row.split(",") for row in rows)
    assert trace.arrivals == pytest.approx(arrivals, abs=1e-6)
    assert trace.unsorted == unsorted


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "holds no row"),
        (["time"], "a header and no time stamp"),
        (["time", "then"], "line 2: 'then'"),
        (["1", "2", "soon"], "line 3: 'soon' is not a number of seconds"),
        (["1", "2024-01-01"], "line 2: '2024-01-01' is not a number"),
        (["2024-01-01", "12"], "line 2: '12' is not an ISO date-time"),
        (["1", "nan"], "line 2: 'nan'"),
        (["1", "", ",5"], "line 3: ''"),
        (["0", "1700000000000000000"], "10 years"),
    ],
)
def test_traces_that_are_refused(rows: list[str], says: str) -> None:
    with pytest.raises(SpecError) as e:
        parse(row.split(",") for row in rows)
    assert says in e.value.message


def test_window_means_are_exact() -> None:
    window = Window(0.0)
    assert window.mean(10.0) == 0.0
    window.push(2.0, 4.0)
    window.push(6.0, 4.0)
    assert window.mean(4.0) == pytest.approx(1.0)
    assert window.mean(5.0) == pytest.approx((2 + 4) / 5)
    assert window.mean(100.0) == pytest.approx(8 / 6)
    with pytest.raises(ValueError, match="ascend"):
        window.push(6.0, 1.0)
