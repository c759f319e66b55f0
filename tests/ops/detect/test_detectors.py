from collections.abc import Callable

import numpy as np
import pytest

from leptonai.errors import SpecError
from leptonai.ops.detect import Agreement, Ar, Ewma, Threshold, base_tier
from leptonai.ops.detect.base import agree
from leptonai.protocols import Detector, Floats
from leptonai.testing.detector_suite import DetectorSuite


class TestEwmaConforms(DetectorSuite):
    def detector(self) -> Detector:
        return Ewma()


class TestArConforms(DetectorSuite):
    def detector(self) -> Detector:
        return Ar()


class TestThresholdConforms(DetectorSuite):
    def detector(self) -> Detector:
        return Threshold(lower=-5.0, upper=40.0)


class TestBaseTierConforms(DetectorSuite):
    def detector(self) -> Detector:
        return base_tier()


def scores(detector: Detector, x: Floats) -> Floats:
    detector.open(x.shape[1])
    learn = np.ones(x.shape[1], dtype=np.bool_)
    return np.array([detector.step(float(t), row, learn).score for t, row in enumerate(x)])


def noise(law: str, steps: int, series: int, seed: int = 3) -> Floats:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((steps, series)) if law == "normal" else rng.standard_t(4, (steps, series))


@pytest.mark.parametrize("law", ["normal", "t4"])
@pytest.mark.parametrize("make", [Ewma, Ar])
def test_a_score_of_three_is_one_in_a_thousand_light_tails_or_heavy(make: Callable[[], Detector], law: str) -> None:
    """Over 1e6 independent samples the share above 3.0 is within a factor of 3 of 1e-3."""
    known = scores(make(), noise(law, 2830, 400))[330:]
    assert known.size == 1_000_000
    assert 1e-3 / 3 < (known > 3.0).mean() < 3e-3


@pytest.mark.parametrize("law", ["normal", "t4"])
def test_agreement_is_never_more_alarmed_than_a_calibrated_voter(law: str) -> None:
    known = scores(base_tier(), noise(law, 1330, 200))[330:]
    assert 1e-4 < (known > 3.0).mean() < 3e-3


@pytest.mark.parametrize(("make", "cold"), [(Ewma, 30), (Ar, 60), (base_tier, 30)])
def test_cold_start_is_as_stated(make: Callable[[], Detector], cold: int) -> None:
    x = 50 + noise("normal", 80, 5)
    first = np.isfinite(scores(make(), x)).argmax(axis=0)
    assert (first >= cold).all() and (first <= cold + 6).all()


@pytest.mark.parametrize("make", [Ewma, base_tier])
def test_a_level_shift_is_news_for_a_minute_and_its_end_is_not(make: Callable[[], Detector]) -> None:
    x = 100 + noise("normal", 700, 100)
    x[300:] += 12.0
    x[500:] -= 12.0
    hit = scores(make(), x) >= 4
    assert hit[300:355].mean() > 0.9
    assert hit[370:500].mean() < 0.01
    assert hit[500:].mean() < 0.01  # the return ticket: the old level is not news


def test_a_second_fault_after_the_return_is_news_again() -> None:
    x = 100 + noise("normal", 600, 100)
    x[300:400] += 12.0
    x[450:500] += 12.0
    assert (scores(Ewma(), x)[450:500] >= 4).mean() > 0.9


def test_a_climb_is_never_adopted_while_it_climbs() -> None:
    x = 100 + noise("normal", 900, 100)
    x[300:] += 0.2 * np.arange(600)[:, None]
    assert (scores(base_tier(), x)[400:] >= 4).mean() > 0.95


def test_a_wider_spread_unsticks_without_a_rule() -> None:
    x = noise("normal", 900, 100)
    x[400:] *= 5
    assert (scores(base_tier(), x)[600:] >= 4).mean() < 0.01


def test_one_spike_does_not_hide_the_next() -> None:
    x = 10 + noise("normal", 420, 100)
    x[400] += 30
    x[410] += 30
    told = scores(base_tier(), x)
    assert (told[400] >= 4).all() and (told[410] >= 3).mean() > 0.9


def test_a_series_with_memory_is_forecast() -> None:
    """Strong memory makes a wander ordinary for AR where a level alone would be alarmed; AR's residual is smaller."""
    rng = np.random.default_rng(2)
    x = np.zeros((1500, 50))
    for t in range(1, 1500):
        x[t] = 0.95 * x[t - 1] + rng.standard_normal(50)
    ar = Ar()
    ar.open(50)
    learn = np.ones(50, dtype=np.bool_)
    last = [ar.step(float(t), row, learn) for t, row in enumerate(x)][-1]
    assert 0.7 < np.median(last.scale) < 1.4  # the innovations have sigma 1, the series itself 3.2


NAN = float("nan")


@pytest.mark.parametrize(
    ("a", "b", "told"), [(5, 4, 4), (9, 1, 6), (3, 1, 1), (NAN, 8, 5), (NAN, NAN, NAN), (2, NAN, 0), (30, 30, 30)]
)
def test_agreement_takes_both_at_once_or_one_that_is_a_thousand_times_surer(a: float, b: float, told: float) -> None:
    np.testing.assert_array_equal(agree([np.array([a]), np.array([b])]), [told])
    np.testing.assert_array_equal(agree([np.array([b]), np.array([a])]), [told])


def test_a_stated_limit_speaks_alone_and_at_once() -> None:
    threshold = Threshold()
    tier = Agreement((Ewma(),), stated=(threshold,))
    tier.open(2)
    threshold.set(np.array([1]), -np.inf, 0.5)
    told = tier.step(0.0, np.array([9.0, 0.9]), np.ones(2, dtype=np.bool_)).score
    assert np.isnan(told[0]) and told[1] == 6.0


def test_the_state_of_another_detector_is_refused() -> None:
    ewma, ar = Ewma(), Ar()
    ewma.open(3)
    with pytest.raises(SpecError, match="ewma"):
        ar.load(ewma.dump())
    other = Ar(order=5)
    other.open(3)
    with pytest.raises(SpecError, match="columns"):
        ar.load(other.dump())
