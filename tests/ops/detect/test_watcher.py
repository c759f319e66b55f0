import numpy as np
import pytest

from leptonai.ops.detect import GOLDEN, Threshold, Watcher
from leptonai.types import Signal

NOISE = np.random.default_rng(4).standard_normal((400, 12))


def signal(name: str, at: float, value: float, **labels: str) -> Signal:
    return Signal(name=name, labels={"service": "digits", **labels}, at=at, value=value)


def golden(at: int, latency: float = 0.02, rate: float = 30.0, skip: tuple[str, ...] = ()) -> list[Signal]:
    n = NOISE[at % 400]
    values = {
        "request_rate_per_second": rate + n[0] if rate else 0.0,
        "error_ratio": 0.0,
        "latency_p50_seconds": latency + 0.0005 * n[1],
        "latency_p99_seconds": 2 * latency + 0.001 * n[2],
        "slow_ratio": 0.0 if latency < 0.25 else 0.9,
        "ready_count": 2.0,
    }
    return [signal(name, at, value) for name, value in values.items() if name not in skip]


def test_nothing_is_anomalous_in_quiet_times() -> None:
    watcher = Watcher()
    assert [watcher.step(float(t), golden(t)) for t in range(300)] == [[]] * 300
    assert watcher.golden("digits") == len(GOLDEN) == len(watcher)


def test_a_slow_service_is_seen_at_once_with_its_onset_and_let_go_after_the_hold() -> None:
    watcher = Watcher(hold=3.0)
    for t in range(100):
        watcher.step(float(t), golden(t))
    first = watcher.step(100.0, golden(100, latency=0.4))
    assert {a.signal for a in first} >= {"latency_p50_seconds", "latency_p99_seconds", "slow_ratio"}
    later = [watcher.step(float(t), golden(t, latency=0.4)) for t in range(101, 110)][-1]
    assert {a.began for a in later} == {100.0} and {a.last for a in later} == {109.0}
    assert all("expected" in a.detail for a in later)
    after = [watcher.step(float(t), golden(t)) for t in range(110, 116)]
    assert after[0] and not after[3]


def test_significant_but_immaterial_is_not_an_anomaly() -> None:
    """Half a millisecond on two is tens of sigmas here, and nobody's concern."""
    watcher = Watcher()
    seen = []
    for t in range(200):
        value = 0.002 + 1e-6 * NOISE[t][0] + (0.0005 if t > 150 else 0.0)
        seen += watcher.step(float(t), [signal("latency_p50_seconds", t, value)])
    assert seen == []


def test_golden_data_that_stops_is_an_anomaly_unless_explained() -> None:
    def missing(expected: tuple[str, ...] | None, rate: float, skip: tuple[str, ...]) -> set[str]:
        watcher = Watcher()
        for t in range(60):
            watcher.step(float(t), golden(t))
        told = [watcher.step(float(t), golden(t, rate=rate, skip=skip), expected=expected) for t in range(60, 70)][-1]
        return {a.signal for a in told if a.signal.endswith(":missing")}

    latencies = ("latency_p50_seconds", "latency_p99_seconds")
    assert missing(None, 30.0, GOLDEN) == {name + ":missing" for name in GOLDEN}
    assert missing(("digits",), 30.0, latencies) == {name + ":missing" for name in latencies}
    assert missing((), 30.0, GOLDEN) == set()
    assert missing(None, 0.0, latencies) == set()  # no traffic, no latency


def test_missing_data_says_since_when() -> None:
    watcher = Watcher()
    for t in range(60):
        watcher.step(float(t), golden(t))
    for t in range(60, 70):
        told = watcher.step(float(t), [])
    assert {a.began for a in told} == {59.0} and min(a.score for a in told) >= 4


def test_vanished_series_give_their_slots_back() -> None:
    watcher = Watcher(forget=10.0)
    for t in range(200):
        watcher.step(float(t), [signal("replica_rss_bytes", t, 1e8, replica=f"r{t}")])
    assert len(watcher) <= 11


def test_a_slot_that_was_handed_on_remembers_nothing() -> None:
    watcher = Watcher(forget=5.0)
    for t in range(60):
        watcher.step(float(t), [signal("replica_queue_seconds", t, 0.01 + 1e-4 * NOISE[t][0], replica="a")])
    told = []
    for t in range(70, 90):
        told += watcher.step(float(t), [signal("replica_queue_seconds", t, 9.0, replica="b")])
    assert told == [] and len(watcher) == 1


def test_a_frozen_service_is_not_learnt_from() -> None:
    """With an incident open for longer than the patience of a level, the fault is still news at its end."""
    watcher = Watcher()
    for t in range(100):
        watcher.step(float(t), golden(t))
    frozen = [watcher.step(float(t), golden(t, latency=0.4), frozen={"digits"}) for t in range(100, 250)][-1]
    assert {"latency_p50_seconds", "latency_p99_seconds"} <= {a.signal for a in frozen}


def test_the_order_of_signals_and_other_series_do_not_matter() -> None:
    plain, mixed = Watcher(), Watcher()
    rng = np.random.default_rng(0)
    for t in range(150):
        latency = 0.4 if 120 <= t < 125 else 0.02
        a = plain.step(float(t), golden(t, latency))
        noise = [signal("x_count", t, float(v), replica=f"r{i}") for i, v in enumerate(rng.standard_normal(100))]
        signals = golden(t, latency) + noise
        b = mixed.step(float(t), [signals[i] for i in rng.permutation(len(signals))])
        assert [x for x in b if x.signal in GOLDEN] == [x for x in a if x.signal in GOLDEN]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_no_numbers_are_missing(value: float) -> None:
    watcher = Watcher()
    told = []
    for t in range(100):
        told += watcher.step(float(t), [signal("x_seconds", t, value if t % 10 == 5 else 1.0)])
    assert told == []


def test_any_detector_fits() -> None:
    watcher = Watcher(detector=Threshold(upper=0.5))
    told = watcher.step(0.0, [signal("x_ratio", 0, 0.9), signal("y_ratio", 0, 0.1)])
    assert [a.signal for a in told] == ["x_ratio"]
