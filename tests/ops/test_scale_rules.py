"""The scaler without processes: what it reads, what it may do, what it keeps, and what the door lets it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptonai.admit import World as Judged
from leptonai.admit import judge
from leptonai.ops.collect import Collected
from leptonai.ops.scale.memory import Shelf
from leptonai.ops.scale.meter import UNKNOWN_STARTUP, Held, Meter, by_replica, idlest
from leptonai.ops.scale.rules import Situation, allowed
from leptonai.plan.scale import Learner
from leptonai.settings import Admit
from leptonai.types import (
    Auto,
    Dial,
    DialChange,
    Proposal,
    Replica,
    Revision,
    Scale,
    Signal,
    Spec,
    SpecChange,
    Token,
    Variant,
    effective_dials,
)

NOW = 1000.0
SPEC = Spec(name="digits", variants=(Variant(model="sha256:" + "a" * 64),), scale=Scale(max=9, auto=Auto()))
OPS = Token(name="ops", role="operator", secret_sha256="", created=0.0)


def replica(name: str, state: Any = "ready", started: float = 900.0, since: float = 902.0) -> Replica:
    return Replica(id=name, service="digits", variant="main", digest="d", state=state, since=since, started=started)


def seen(at: float, **replicas: dict[str, float]) -> Collected:
    signals = [
        Signal(name=n, labels={"replica": r}, at=at, value=v) for r, vs in replicas.items() for n, v in vs.items()
    ]
    return Collected(at=at, seconds=1.0, signals=signals)


def busy(rate: float, inside: float, service: float = 0.1, through: float = 0.0) -> dict[str, float]:
    return {
        "replica_request_rate_per_second": rate,
        "replica_in_flight_count": inside,
        "replica_service_seconds": service,
        "replica_concurrency_count": through,
    }


# --- what is read --------------------------------------------------------------------------------------------------


def read(meter: Meter, found: Collected, replicas: list[Replica], held: int = 0) -> Any:
    return meter.read(found, by_replica(found), replicas, Auto(), 1, 9, Held(held=held))


def test_demand_counts_arrivals_so_a_queue_is_seen_as_it_grows() -> None:
    meter, one = Meter(), [replica("r1")]
    assert read(meter, seen(1.0, r1=busy(5, 2)), one) is None  # nothing to compare with yet
    reading = read(meter, seen(2.0, r1=busy(10, 12, through=1.0)), one)
    # 10 answered and 10 more inside: 20 arrivals of 0.1 s each; 11 of the 12 inside wait 0.1 s of a replica each
    assert reading.demand == pytest.approx(2.0)
    assert reading.waiting == pytest.approx(1.1)
    assert reading.concurrency == pytest.approx((12 + 2) / 2)  # more inside than went through
    later = read(meter, seen(3.0, r1=busy(10, 12, through=20.0)), one)
    assert later.demand == pytest.approx(1.0) and later.concurrency == 20.0  # Little's law over what went through


def test_two_replicas_are_added_up_and_a_silent_one_is_missing() -> None:
    meter, two = Meter(), [replica("r1"), replica("r2"), replica("r3", "starting")]
    read(meter, seen(1.0, r1=busy(5, 0), r2=busy(5, 0)), two)
    both = read(meter, seen(2.0, r1=busy(5, 0), r2=busy(15, 0)), two)
    assert (both.demand, both.ready, both.starting, both.missing) == (pytest.approx(2.0), 2, 1, 0)
    half = read(meter, seen(3.0, r1=busy(5, 0)), two)
    assert (half.missing, half.ready) == (1, 2)
    assert read(meter, seen(4.0), two) is None, "nobody shows anything: stale, not idle"
    assert meter.at == 3.0


def test_held_requests_are_demand_of_a_service_without_replicas() -> None:
    meter = Meter()
    read(meter, seen(1.0), [])
    reading = read(meter, seen(2.0), [], held=3)
    assert reading.demand == 3.0 and reading.ready == 0


def test_the_start_up_is_the_median_of_what_was_measured() -> None:
    meter = Meter()
    assert meter.startup == UNKNOWN_STARTUP
    for number, took in enumerate((2.0, 9.0, 3.0)):
        meter.look([replica(f"r{number}", "starting", started=100.0)])
        meter.look([replica(f"r{number}", "ready", started=100.0, since=100.0 + took)])
        meter.look([replica(f"r{number}", "ready", started=100.0, since=500.0)])  # hung for a while: no start
    assert meter.startup == 3.0


def test_the_idlest_go_first() -> None:
    found = by_replica(seen(1.0, r1=busy(1, 4), r2=busy(9, 0), r3=busy(2, 0)))
    assert idlest([replica("r1"), replica("r2"), replica("r3"), replica("r4", "starting")], found, 2) == ["r3", "r2"]
    assert idlest([replica("r1")], found, -1) == []


# --- what may be done ----------------------------------------------------------------------------------------------

SITUATIONS = st.builds(
    Situation,
    wished=st.integers(0, 9),
    auto=st.booleans(),
    age=st.floats(0, 20),
    stale_after=st.just(5.0),
    incident=st.sampled_from(["none", "open", "remedy"]),
    missing=st.integers(0, 2),
)


@given(desired=st.integers(0, 9), situation=SITUATIONS)
def test_nothing_changes_blindly_and_nothing_goes_in_trouble(desired: int, situation: Situation) -> None:
    final, bound = allowed(desired, situation)
    assert final in (desired, situation.wished)
    assert (bound != "") == (final != desired)
    if situation.age > 5.0 or not situation.auto or situation.incident == "remedy":
        assert final == situation.wished
    if situation.incident == "open" or situation.missing:
        assert final >= situation.wished
    if situation == Situation(situation.wished, True, 0.0, 5.0, "none"):
        assert final == desired


def judged(change: Any, dials: tuple[Dial, ...] = (), recent: int = 0, spec: Spec = SPEC, by: str = "scaler") -> str:
    was = tuple(Proposal(id=f"{i}", change=change, by="scaler", why="", at=NOW - 1, expires=NOW) for i in range(recent))
    head = Revision(service="digits", number=1, by="human:ana", why="", at=0.0, spec=spec)
    world = Judged(now=NOW, admit=Admit(), history=(head,), dials=dials, recent=was)
    status, reasons = judge(Proposal(id="p", change=change, by=by, why="", at=NOW, expires=NOW + 9), OPS, world)
    return "; ".join(reasons) if status == "denied" else status


def dial(path: str, value: float, owner: str, expires: float | None = None) -> Dial:
    return Dial(path=path, value=value, owner=owner, reason="", at=NOW - 5, expires=expires)


UP = DialChange(service="digits", set={"main.replicas": 3.0})


def test_the_door_lets_the_scaler_do_its_work_and_nothing_else() -> None:
    assert judged(UP) == "admitted"
    assert judged(DialChange(service="digits", set={"main.replicas": 1.0, "evict.r1": 1.0})) == "admitted"
    assert "not main.weight" in judged(DialChange(service="digits", set={"main.weight": 1.0}))
    assert "sets dials only" in judged(SpecChange(spec=SPEC, base=1))
    fixed = msgspec.structs.replace(SPEC, scale=Scale(max=9))
    assert "set by people" in judged(UP, spec=fixed)
    assert "scaled 30 times in 60 s" in judged(UP, recent=30)
    assert judged(UP, recent=29) == "admitted"
    assert judged(UP, recent=29, by="incident:1") == "admitted", "the scaler's changes delay no runbook"


def test_a_persons_word_stands_until_it_expires_or_is_handed_back() -> None:
    ana = dial("main.replicas", 2.0, "human:ana")
    assert "main.replicas was set by human:ana" in judged(UP, (ana,))
    assert judged(UP, (dial("main.replicas", 2.0, "human:ana", expires=NOW - 1),)) == "admitted"
    assert judged(UP, (ana, dial("main.auto", 1.0, "human:ana"))) == "admitted"
    assert "human:ana" in judged(UP, (dial("main.auto", 1.0, "human:ana"), ana))
    assert judged(UP, (dial("main.replicas", 2.0, "scaler"),)) == "admitted"


def test_what_the_scaler_set_is_forgotten_with_scale_auto() -> None:
    log = [dial("main.replicas", 7.0, "scaler")]
    assert effective_dials(SPEC, log, NOW).variants["main"].replicas == 7
    fixed = msgspec.structs.replace(SPEC, scale=Scale(max=9, replicas=2))
    assert effective_dials(fixed, log, NOW).variants["main"].replicas == 2


# --- what is kept --------------------------------------------------------------------------------------------------


def test_a_learnt_season_outlives_a_restart_and_a_damaged_file_costs_no_more(tmp_path: Path) -> None:
    def wave(t: float) -> float:
        return 4.0 + 3.0 * (int(t / 300) % 2)

    learner, shelf = Learner(30.0), Shelf(tmp_path / "scaler")
    for i in range(800):
        learner.step(i * 10.0, 10.0, wave(i * 10.0))
    assert learner.forecaster.season, "a period of 600 s is found"
    shelf.keep("team/digits", "main", learner, 8000.0)
    back = shelf.learner("team/digits", "main", 8000.0)
    assert back is not None and back.forecaster.season == pytest.approx(learner.forecaster.season)
    for i in range(800, 860):
        one, two = learner.step(i * 10.0, 10.0, wave(i * 10.0)), back.step(i * 10.0, 10.0, wave(i * 10.0))
    assert one is not None and two is not None
    assert two.mean == pytest.approx(one.mean, rel=0.1)
    moved = shelf.learner("team/digits", "main", 8300.0)
    assert moved is not None and moved.forecaster.history.count == learner.forecaster.history.count - 60 + 30
    assert shelf.learner("team/digits", "main", 1e9) is None, "too long ago"
    (file,) = (tmp_path / "scaler").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert shelf.learner("team/digits", "main", 8000.0) is None
    shelf.drop("team/digits", "main")
    assert shelf.learner("team/digits", "main", 8000.0) is None


def test_another_start_up_time_moves_the_outlook_and_keeps_the_season() -> None:
    learner = Learner(30.0)
    for i in range(800):
        learner.step(i * 10.0, 10.0, 4.0 + 3.0 * (i // 30 % 2))
    season = learner.forecaster.season
    learner.retime(31.0)
    assert learner.ahead == 4, "a second more is within what starts differ by"
    learner.retime(90.0)
    assert (learner.ahead, learner.forecaster.season) == (10, season)
    assert learner.step(8010.0, 10.0, 4.0) is not None
