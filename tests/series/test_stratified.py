"""The sequential test of a rollout: how often it convicts the innocent, and how soon the guilty."""

from __future__ import annotations

import math

import numpy as np
import pytest

from leptonai.series.stratified import CAP, ODDS, OddsTest, log_ratios, needed


def history(rng: np.random.Generator, new: float, old: float, seconds: int = 90, rate: int = 20) -> OddsTest:
    """A rollout's traffic: its share moves along the steps, the common rate of hits with the time of day."""
    test, most = OddsTest(), 0.0
    for second in range(seconds):
        share = (0.5, 0.02, 0.05, 0.25, 0.5, 1.0 - 1e-9)[second * 6 // seconds]
        season = 1.0 + 0.8 * math.sin(second / 15.0)
        n = rng.binomial(rate, share)
        test.add(rng.binomial(n, min(1.0, new * season)), n, rng.binomial(rate - n, min(1.0, old * season)), rate - n)
        most = max(most, test.log_evidence)
    test.most = most  # type: ignore[attr-defined]
    return test


@pytest.mark.parametrize(("new", "old"), [(0.02, 0.02), (0.3, 0.3), (0.0, 0.05), (0.5, 0.55)])
def test_a_version_no_worse_is_convicted_no_more_often_than_alpha_however_often_one_looks(
    new: float, old: float
) -> None:
    rng = np.random.default_rng(5)
    alpha, runs = 0.2, 50
    convicted = sum(history(rng, new, old).most >= -math.log(alpha) for _ in range(runs))  # type: ignore[attr-defined]
    assert convicted <= alpha * runs + 2 * math.sqrt(alpha * runs)


def test_the_stated_effect_is_found_with_the_stated_power_in_the_stated_samples() -> None:
    rng = np.random.default_rng(6)
    alpha, power, effect = 0.0025, 0.9, 0.05
    wanted = needed(effect, alpha, power, 0.5)
    found = 0
    for _ in range(200):
        test = OddsTest()
        while test.total < wanted:
            test.add(rng.binomial(10, effect), 10, 0, 10)
        found += test.log_evidence >= -math.log(alpha)
    assert found >= (power - 0.06) * 200
    assert 100 < wanted < 1000


def test_the_ratios_average_to_one_over_all_that_could_have_happened() -> None:
    """The definition of a fair bet: under equal odds the expectation of each likelihood ratio is 1."""
    n, m, both = 7, 12, 6
    total = np.zeros(len(ODDS))
    for k in range(both + 1):
        chance = math.comb(n, k) * math.comb(m, both - k) / math.comb(n + m, both)
        total += chance * np.exp(log_ratios(k, n, both - k, m))
    assert np.allclose(total, 1.0)


def test_one_bad_second_convicts_nobody() -> None:
    test = OddsTest()
    test.add(500, 500, 0, 500)
    assert test.log_evidence <= CAP
    for _ in range(10):
        test.add(50, 50, 0, 50)
    assert test.log_evidence > -math.log(1e-4)


def test_where_only_one_version_answers_nothing_is_learnt() -> None:
    test = OddsTest()
    for _ in range(100):
        test.add(5, 5, 0, 0)
        test.add(0, 0, 5, 5)
        test.add(3, 3, 3, 3)
    assert test.log_evidence == 0.0
    assert math.isclose(test.excess, 800 / 800 - 800 / 800)
