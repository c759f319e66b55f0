"""Our policy term by term, and what it learns from arrivals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scale_stage import sight

from leptonai.plan.scale import Outlook, Setup, simulate
from leptonai.plan.scale.learn import Learner, Spread
from leptonai.plan.scale.ours import HEADROOM, Memory, Ours

FRESH = Memory()


@pytest.mark.parametrize(
    ("target", "load", "outlook", "desired", "reason"),
    [
        (0.5, 4.0, None, 8, "stable"),  # nothing is known: the target is the headroom
        (0.5, 4.0, Outlook(0.0, 0.0, ""), 4, "stable"),  # the forecast can only add: the present is still carried
        (0.5, 4.0, Outlook(4.0, 4.0, ""), 10, "forecast"),  # 4 + 2.99 x 2 = 9.98
        (0.7, 4.0, Outlook(9.0, 9.0, ""), 13, "forecast"),  # the 90th percentile: 9 + 1.2816 x 3 = 12.8
        (1.0, 4.0, Outlook(9.0, 9.0, ""), 9, "forecast"),  # the mean
        (2.0, 4.0, Outlook(9.0, 9.0, ""), 5, "forecast"),  # 9 / 2
    ],
)
def test_the_most_of_three_terms(
    target: float, load: float, outlook: Outlook | None, desired: int, reason: str
) -> None:
    decision, _ = Ours(target).decide(sight(1000.0, load, ready=4, outlook=outlook), FRESH)
    assert (decision.desired, decision.reason) == (desired, reason)
    assert {"stable", "panic", "forecast", "wanted", "target", "z", "left"} <= decision.terms.keys()


def test_headroom_is_the_90th_percentile_at_knatives_utilisation() -> None:
    assert pytest.approx(1.2816) == HEADROOM * (1 / 0.7 - 1)


def test_capacity_divides_demand() -> None:
    decision, _ = Ours(5.6).decide(sight(1000.0, 40.0, ready=4, capacity=8.0), FRESH)
    assert decision.desired == math.ceil(40 / 5.6)


def test_a_surge_as_long_as_a_start_up_is_a_panic_and_its_queue_counts() -> None:
    seen = sight(1000.0, 2.0, ready=3, recent=(30.0, 9.0), waiting=180.0, outlook=Outlook(2.0, 2.0, ""))
    decision, _ = Ours(1.0).decide(seen, FRESH)
    # 9 now; 180 replica-seconds wait and grow by 6 a second for 30 s, worked off within another 30 s: 12
    assert (decision.desired, decision.reason) == (21, "panic")


def test_a_surge_shorter_than_that_is_left_to_the_forecast() -> None:
    seen = sight(1000.0, 2.0, ready=3, recent=(4.0, 20.0), outlook=Outlook(2.0, 2.0, ""))
    assert Ours(1.0).decide(seen, FRESH)[0].terms["panic"] == 0.0


def test_scale_down_is_held_for_the_present_five_minutes_and_for_the_future_one() -> None:
    ours = Ours(1.0)
    _, memory = ours.decide(sight(1000.0, 8.0, ready=8), FRESH)
    decision, memory = ours.decide(sight(1299.0, 2.0, ready=8), memory)
    assert (decision.desired, decision.reason) == (8, "held")
    decision, memory = ours.decide(sight(1301.0, 2.0, ready=8), memory)
    assert decision.desired == 2
    _, memory = ours.decide(sight(2000.0, 2.0, ready=2, outlook=Outlook(9.0, 0.0, "")), FRESH)
    decision, memory = ours.decide(sight(2059.0, 2.0, ready=9, outlook=Outlook(2.0, 0.0, "")), memory)
    assert decision.desired == 9
    decision, memory = ours.decide(sight(2061.0, 2.0, ready=9, outlook=Outlook(2.0, 0.0, "")), memory)
    assert decision.desired == 2


def test_to_zero_five_minutes_after_the_last_demand_and_back_at_once() -> None:
    ours = Ours(0.7)
    _, memory = ours.decide(sight(1000.0, 0.1, ready=1, least=0), ours.begin(1, 998.0))
    decision, memory = ours.decide(sight(1299.0, 0.0, ready=1, least=0), memory)
    assert decision.desired == 1
    decision, memory = ours.decide(sight(1301.0, 0.0, ready=1, least=0), memory)
    assert decision.desired == 0
    decision, _ = ours.decide(sight(1302.0, 0.0, ready=0, least=0, recent=(2.0, 0.5), waiting=1.0), memory)
    assert decision.desired >= 1


def test_bounds_come_last() -> None:
    decision, _ = Ours(0.1).decide(sight(1000.0, 50.0, ready=4, most=7), FRESH)
    assert (decision.desired, decision.reason) == (7, "bounds")


@given(load=st.floats(0, 50), mean=st.floats(0, 50), variance=st.floats(0, 400), ready=st.integers(0, 64))
@settings(max_examples=80, deadline=None)
def test_a_forecast_never_asks_for_less_than_carrying_the_present(
    load: float, mean: float, variance: float, ready: int
) -> None:
    decision, _ = Ours(0.7).decide(sight(1000.0, load, ready=ready, outlook=Outlook(mean, variance, "")), FRESH)
    assert decision.desired >= min(math.ceil(load - 1e-6), 64)


def test_the_spread_of_counts_follows_their_mean_and_that_of_blind_bursts_does_not() -> None:
    rng = np.random.default_rng(0)
    counts, bursts = Spread(), Spread()
    for mean in rng.uniform(2, 30, 4000):
        counts.learn(mean, float(rng.poisson(mean)), 1.0)
        bursts.learn(mean, float(rng.normal(mean, 6.0)), 1.0)
    assert counts.variance(25.0) == pytest.approx(25.0, rel=0.15)
    assert counts.variance(4.0) == pytest.approx(4.0, abs=2.0)
    assert bursts.variance(4.0) == pytest.approx(36.0, rel=0.25)
    assert bursts.variance(25.0) == pytest.approx(36.0, rel=0.25)


def test_with_nothing_seen_the_spread_is_poissons() -> None:
    assert Spread().variance(7.0) == 7.0


@given(quiet=st.floats(0, 100), mean=st.floats(0.001, 2.0))
@settings(max_examples=60, deadline=None)
def test_after_a_quiet_the_spread_of_what_comes_back_is_no_flood(quiet: float, mean: float) -> None:
    """However many hours almost nothing was forecast, and one request came: variance stays near Poisson's."""
    spread = Spread()
    spread.learn(1.0, 1.0, 600.0)
    for _ in range(round(quiet * 60)):
        spread.learn(1e-9, 0.0, 60.0)
    spread.learn(1e-9, 1.0, 2.0)
    assert 0 <= spread.variance(mean) <= 4 * mean + 1.0


def test_a_learner_answers_after_one_sample_whatever_the_intervals() -> None:
    learner = Learner(30.0)
    assert learner.step(4.0, 4.0, 3.0) is None
    outlook = learner.step(12.0, 8.0, 3.0)
    assert outlook is not None
    assert outlook.mean == pytest.approx(3.0, rel=0.01)
    long = learner.step(1000.0, 988.0, 3.0)
    assert long is not None
    assert long.mean == pytest.approx(3.0, rel=0.05)


def test_traffic_after_a_quiet_day_starts_no_flood_of_replicas() -> None:
    """A request each two seconds for half an hour needs two or three replicas, also after a day without any."""
    half = np.cumsum(np.random.default_rng(0).exponential(2, 900))
    assert simulate(np.concatenate((half, half[-1] + 86_400 + half)), "ours", Setup()).peak_replicas <= 3


def test_a_daily_rise_is_met_before_it_comes() -> None:
    """After four (compressed) days, capacity is there when the fifth morning comes; the KPA is late each morning."""
    rng = np.random.default_rng(0)
    day, days = 2400, 7
    rate = 3 + 25 * np.clip(np.sin(2 * np.pi * np.arange(day * days) / day), 0, None)
    arrivals = np.repeat(np.arange(day * days, dtype=float), rng.poisson(rate))
    setup = Setup(counted_from=5 / days)
    ours = simulate(arrivals, "ours", setup, 0.7)
    kpa = simulate(arrivals, "kpa", setup, 0.7)
    assert ours.slo_violations < 0.3 * kpa.slo_violations
    assert ours.replica_seconds < 1.1 * kpa.replica_seconds
