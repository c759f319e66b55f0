"""What was before an onset is a time when the service was well; what stood still and is caught up is not more."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptonai.ops.diagnosis.readings import read_signal
from leptonai.ops.diagnosis.rules import SignalFeature
from leptonai.ops.evidence import gather
from leptonai.ops.lookout import Lookout
from leptonai.ops.scene import Scene
from leptonai.ops.scenery import BACK, BEFORE, CALM, GAP, calm_before, set_scene
from leptonai.platforms.telemetry import Memory
from leptonai.settings import Ops
from leptonai.types import Dials, Service, Signal, Slo, Spec, Variant

ONSET = 1_000.0
PLAIN = (ONSET - GAP - BEFORE, ONSET - GAP)


def scene(
    rate: Callable[[float], float], seconds: float, p50: Callable[[float], float] = lambda at: 0.04, **more: object
) -> Scene:
    """Of a service whose seconds from 200 on had that rate of answers and that median, looked at ``seconds`` after."""
    spec = Spec(name="digits", variants=(Variant(model="m"),))
    store, at = Memory(), 200.0
    while at <= ONSET + seconds:
        values = {"request_rate_per_second": rate(at)}
        if rate(at) > 0:
            values["latency_p50_seconds"] = p50(at)
        store.write([Signal(name=n, labels={"service": "digits"}, at=at, value=v) for n, v in values.items()])
        at += 1.0
    lookout = Lookout(Service(spec=spec, dials=Dials(variants={}), revision=1), Ops())
    return set_scene(lookout, {}, ONSET, ONSET + seconds, store, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("troubled", "wanted"),
    [
        ([], PLAIN),
        ([(100.0, 300.0)], PLAIN),  # long ago
        ([(900.0, 980.0)], (980.0, 999.0)),  # there was calm since
        ([(900.0, 997.0)], (840.0, 900.0)),  # hardly any: before it, then
        ([(900.0, 997.0), (850.0, 899.0)], (790.0, 850.0)),
        ([(900.0, 997.0), (700.0, 880.0)], (880.0, 900.0)),
        ([(850.0, 960.0), (955.0, 1_005.0)], (790.0, 850.0)),  # one within the other, and beyond the onset
        ([(100.0, 998.0)], PLAIN),  # it was never well in all that is known
    ],
)
def test_the_newest_calm_stretch_is_compared_with(
    troubled: list[tuple[float, float]], wanted: tuple[float, float]
) -> None:
    assert calm_before(ONSET, troubled) == pytest.approx(wanted)


stretches = st.tuples(st.floats(0.0, ONSET), st.floats(0.0, 300.0)).map(lambda s: (s[0], s[0] + s[1]))


@given(troubled=st.lists(stretches, max_size=6))
def test_what_is_compared_with_is_calm_whole_and_recent_or_the_minute_before(
    troubled: list[tuple[float, float]],
) -> None:
    start, end = calm_before(ONSET, troubled)
    assert 0.0 < end - start <= BEFORE and end <= ONSET - GAP
    if (start, end) != PLAIN:
        assert end - start >= CALM and end > ONSET - BACK
        assert not any(began < end and start < ended for began, ended in troubled if ended > began)


def test_a_flash_crowd_after_a_surge_is_more_than_before_the_surge() -> None:
    def users(at: float) -> float:
        return 45.0 if 930.0 <= at < 985.0 or at >= ONSET else 11.0

    def waits(at: float) -> float:
        return 3.5 if 930.0 <= at < 985.0 or at >= ONSET else 0.04

    seen = scene(users, 10.0, waits, troubled=[(931.0, 992.0)])
    assert (seen.before.rate, seen.before.p50, seen.after.rate) == (11.0, 0.04, 45.0)
    fooled = scene(users, 10.0, waits)
    assert fooled.before.rate == 45.0  # nobody told that a trouble was there


def test_what_stood_still_and_is_caught_up_is_no_more_traffic() -> None:
    """The machine stops for two seconds; what was asked meanwhile is answered in the third, which is the onset."""
    seen = scene(lambda at: 0.0 if ONSET - 2 <= at < ONSET else 48.0 if at == ONSET else 16.0, 1.0)
    assert seen.after.rate == pytest.approx(16.0)


def test_a_surge_is_seen_in_its_first_second_and_a_short_burst_does_not_last() -> None:
    surge = scene(lambda at: 45.0 if at >= ONSET - 1 else 11.0, 1.0)
    assert surge.after.rate and surge.before.rate and surge.after.rate / surge.before.rate >= 2.0
    burst = scene(lambda at: 100.0 if ONSET <= at < ONSET + 2 else 11.0, 20.0)
    assert burst.after.rate == 11.0


def test_the_time_before_the_first_request_of_a_fresh_service_does_not_count() -> None:
    assert scene(lambda at: 0.0 if at < 970.0 else 16.0, 10.0).before.rate == 16.0
    assert scene(lambda at: 0.0, 10.0).before.rate == 0.0


def test_when_a_share_was_refused_is_known_as_one_stretch_each_time() -> None:
    def wish(shed: float) -> Service:
        spec = Spec(name="digits", variants=(Variant(model="m"),))
        return Service(spec=spec, dials=Dials(variants={}, shed=shed), revision=1)

    lookout = Lookout(wish(0.0), Ops())
    for at, shed in enumerate((0.0, 0.5, 0.3, 0.0, 0.0, 0.9, 0.9)):
        lookout.wish(wish(shed), (), float(at))
    assert list(lookout.refusals) == [(1.0, 3.0), (5.0, 6.0)]


def seen(store: Memory, name: str, replica: str, values: dict[float, float], service: str = "digits") -> None:
    labels = {"service": service, "replica": replica, "digest": "d"} if replica else {}
    store.write([Signal(name=name, labels=labels, at=at, value=value) for at, value in values.items()])


def test_who_came_when_the_worst_was_over_makes_nobody_stand_out() -> None:
    """Two failed alike for ten seconds, then a third was started: over the time of all three, none fails."""
    store, made = Memory(), SignalFeature(signal="replica_error_ratio", about="replica", take="excess")
    for id in ("a", "b"):
        seen(store, "replica_error_ratio", id, {ONSET + t: 0.8 if t < 10 else 0.0 for t in range(30)})
    seen(store, "replica_error_ratio", "c", {ONSET + t: 0.0 for t in range(12, 30)})
    excess = {r.subject: r.value for r in read_signal("beyond", made, store, "digits", PLAIN, (ONSET, ONSET + 30))}
    assert excess == {"a": 0.0, "b": 0.0, "c": 0.0}
    seen(store, "replica_error_ratio", "d", {ONSET + t: 0.0 for t in range(27, 30)})
    young = {r.subject: r.value for r in read_signal("beyond", made, store, "digits", PLAIN, (ONSET, ONSET + 30))}
    assert young == {"a": 0.0, "b": 0.0, "c": 0.0, "d": 0.0}, "who has only just come is nobody's measure"
    seen(store, "replica_error_ratio", "e", {ONSET + t: 0.9 for t in range(30)})
    worst = {r.subject: r.value for r in read_signal("beyond", made, store, "digits", PLAIN, (ONSET, ONSET + 30))}
    assert worst["e"] == pytest.approx(0.9) and worst["a"] <= 0.0


def test_who_takes_the_processors_is_told_of_the_service_and_of_all_others() -> None:
    store, lookout = (
        Memory(),
        Lookout(
            Service(spec=Spec(name="digits", variants=(Variant(model="m"),)), dials=Dials(variants={}), revision=1),
            Ops(),
        ),
    )
    early, late = [ONSET - 60 + t for t in range(60)], [ONSET + t for t in range(20)]
    seen(store, "host_cpu_ratio", "", dict.fromkeys(early, 0.5) | dict.fromkeys(late, 1.0))
    for id, times in (("a", early + late), ("b", early), ("c", late)):  # c is the successor of b
        seen(store, "replica_cpu_ratio", id, dict.fromkeys(times, 0.4))
    found = set_scene(lookout, {}, ONSET, ONSET + 20, store, cores=2.0)
    assert found.own_cpu == pytest.approx((0.4, 0.4)) and found.host_cpu_before == pytest.approx(0.5)
    told = gather(found).features["service", "digits"]
    assert told["others_cpu_rise"].value == pytest.approx(0.5) and told["own_cpu_ratio"].value == pytest.approx(1.0)


def test_a_promise_that_changes_as_a_share_is_refused_makes_no_old_refusal_longer() -> None:
    spec = Spec(name="digits", variants=(Variant(model="m"),))
    lookout = Lookout(Service(spec=spec, dials=Dials(variants={}), revision=1), Ops())
    stricter = msgspec.structs.replace(spec, slo=Slo(latency=0.1))
    for at, of, share in ((1.0, spec, 0.5), (3.0, spec, 0.0), (400.0, stricter, 0.5), (401.0, stricter, 0.5)):
        lookout.wish(Service(spec=of, dials=Dials(variants={}, shed=share), revision=1), (), at)
    assert list(lookout.refusals) == [(1.0, 3.0), (400.0, 401.0)]
