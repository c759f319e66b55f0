"""Seasons are found, forecasts beat naive ones where there is something to know, and fall back where there is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leptonai.errors import SpecError
from leptonai.series.forecast import RULES, Forecaster
from leptonai.series.season import History, autocorrelation, periods


def fill(values: np.ndarray) -> History:
    history = History()
    for value in values:
        history.push(float(value))
    return history


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=300))
@settings(max_examples=50, deadline=None)
def test_each_level_holds_means_of_twice_as_many(values: list[float]) -> None:
    """Level k's point i is the mean of samples [i 2^k, (i + 1) 2^k), and only whole stretches are there."""
    history = fill(np.array(values))
    for level, points in enumerate(history.levels):
        size = 1 << level
        whole = len(values) // size
        assert points == pytest.approx(np.array(values[: whole * size]).reshape(-1, size).mean(axis=1))


def test_a_history_is_bounded_and_still_answers_by_time() -> None:
    history = fill(np.arange(20_000.0))
    assert sum(len(points) for points in history.levels) < 25_000
    assert history.at(100.0, 0) is None
    assert history.at(19_999.0, 0) == 19_999.0
    assert history.at(5_000.5, 4) == pytest.approx(5_000.5, abs=1e-6)


@pytest.mark.parametrize("period", [24, 50.5, 288, 700])
def test_a_period_is_found_through_counting_noise(period: float) -> None:
    t = np.arange(int(period * 6))
    counts = np.random.default_rng(0).poisson(20 * (1 + 0.8 * np.sin(2 * np.pi * t / period)))
    found = periods(fill(np.sqrt(counts)))
    assert found[0] == pytest.approx(period, rel=0.02)


def test_a_week_over_days_is_found() -> None:
    t = np.arange(48 * 7 * 5)
    day = 1 + 0.8 * np.sin(2 * np.pi * t / 48)
    weekend = np.where((t // 48) % 7 >= 5, 0.4, 1.0)
    found = periods(fill(np.sqrt(np.random.default_rng(0).poisson(50 * day * weekend))))
    assert found == pytest.approx((48, 336), rel=0.01)


def test_no_period_in_noise_a_trend_or_a_constant() -> None:
    rng = np.random.default_rng(0)
    assert sum(bool(periods(fill(rng.normal(size=600)))) for _ in range(30)) == 0
    assert periods(fill(np.linspace(0, 100, 600))) == ()
    assert periods(fill(np.full(600, 7.0))) == ()
    assert autocorrelation(np.full(50, 3.0), 10).tolist() == [0.0] * 11


def errors(values: np.ndarray, horizon: int, forecaster: Forecaster) -> tuple[float, float]:
    """Mean absolute error of the median and of the last value, over the second half."""
    said = []
    for value in values:
        forecaster.step(float(value))
        said.append(float(forecaster.quantiles((0.5,))[0, 0]))
    start = len(values) // 2
    truth = values[start + horizon :]
    return (
        float(np.abs(np.array(said[start : len(values) - horizon]) - truth).mean()),
        float(np.abs(values[start : len(values) - horizon] - truth).mean()),
    )


def test_a_season_is_foreseen() -> None:
    t = np.arange(48 * 12)
    counts = np.random.default_rng(0).poisson(100 * (1 + 0.8 * np.sin(2 * np.pi * t / 48)))
    forecaster = Forecaster((4,))
    ours, naive = errors(counts, 4, forecaster)
    assert ours < 0.45 * naive  # counting noise alone is 0.28 of it
    assert forecaster.rules == ("regression",)


def test_on_noise_the_simple_rule_speaks_and_says_so() -> None:
    forecaster = Forecaster((3,))
    ours, naive = errors(np.random.default_rng(0).poisson(5.0, 800), 3, forecaster)
    assert forecaster.rules == ("long mean",)
    assert ours < 0.8 * naive


def test_after_a_level_shift_it_follows() -> None:
    rng = np.random.default_rng(0)
    forecaster = Forecaster((1,))
    for value in np.concatenate((rng.poisson(5.0, 500), rng.poisson(50.0, 60))):
        forecaster.step(float(value))
    assert 35 < forecaster.mean()[0] < 60


def test_quantiles_cover_their_share_and_ascend() -> None:
    rng = np.random.default_rng(0)
    forecaster, inside, levels = Forecaster((2,)), [], (0.1, 0.5, 0.9)
    values = rng.poisson(20.0, 1500)
    for t, value in enumerate(values[:-2]):
        forecaster.step(float(value))
        if t > 500:
            low, middle, high = forecaster.quantiles(levels)[:, 0]
            assert low <= middle <= high
            inside.append(low <= values[t + 2] <= high)
    assert 0.74 < np.mean(inside) < 0.88  # 80 % wanted; standard error 1.3 %


@given(
    st.lists(st.one_of(st.floats(0, 1e6), st.just(float("nan")), st.floats(-5, 0)), min_size=1, max_size=150),
    st.floats(0, 1e6),
)
@settings(max_examples=40, deadline=None)
def test_forecasts_are_finite_and_do_not_look_ahead(values: list[float], later: float) -> None:
    """Whatever comes in, forecasts are finite and at least 0, and the past of a forecast alone decides it."""
    one, two = Forecaster((1, 3)), Forecaster((1, 3))
    for value in values:
        one.step(value)
        two.step(value)
        said = one.quantiles((0.1, 0.9))
        assert np.isfinite(said).all()
        assert (said >= 0).all()
        assert set(one.rules) <= set(RULES)
    before = two.quantiles((0.5,))
    one.step(later)
    assert (two.quantiles((0.5,)) == before).all()


def test_horizons_are_checked() -> None:
    with pytest.raises(SpecError, match="horizons"):
        Forecaster(())
    with pytest.raises(SpecError, match="horizons"):
        Forecaster((0,))


def test_a_jump_in_a_young_series_is_not_taken_further() -> None:
    """Three equal samples, then next to nothing: a regression on them could say anything."""
    forecaster = Forecaster((1, 2))
    for value in [2.06, 2.11, 2.1] + [0.1] * 20:
        forecaster.step(value)
        assert forecaster.mean().max() < 6.0
