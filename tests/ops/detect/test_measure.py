"""The scorers against examples worked out by hand and values of the published packages."""

from __future__ import annotations

import math

import numpy as np
import pytest

from leptonai.ops.detect.measure import PROFILES, Counts, Judged, climb, count, nab, period, vus_pr, windows_of


def sigmoid(y: float) -> float:
    return 2.0 / (1.0 + math.exp(5.0 * y)) - 1.0


def scored(rows: int, **alarms: float) -> np.ndarray:
    out = np.zeros(rows)
    for row, score in alarms.items():
        out[int(row[1:])] = score
    return out


WINDOW = [(50, 59)]  # of 100 rows; the first 15 are probation
LEFT = -sigmoid(1.0)  # 0.98661


@pytest.mark.parametrize(
    ("alarms", "raw"),
    [
        ({}, -1.0),
        ({"r50": 1.0}, 1.0),
        ({"r54": 1.0}, sigmoid(-0.6) / LEFT),
        ({"r54": 1.0, "r58": 1.0}, sigmoid(-0.6) / LEFT),
        ({"r59": 1.0}, sigmoid(-0.1) / LEFT),
        ({"r3": 1.0}, -1.0),  # in probation: not judged
        ({"r20": 1.0}, -1.0 - 0.11),  # before any window
        ({"r62": 1.0}, -1.0 + 0.11 * sigmoid(3 / 9)),
        ({"r95": 1.0}, -1.0 - 0.11),  # four widths past it
        ({"r50": 1.0, "r62": 1.0, "r20": 1.0}, 1.0 + 0.11 * sigmoid(3 / 9) - 0.11),
    ],
)
def test_nab_by_hand(alarms: dict[str, float], raw: float) -> None:
    got = nab([Judged(scored(100, **alarms), WINDOW)], threshold=0.5)
    assert got.score == pytest.approx(100 * (raw + 1) / 2, abs=1e-9)


def test_nab_profiles_weigh_false_alarms_and_misses() -> None:
    series = [Judged(scored(100, r20=1.0), WINDOW)]
    scores = {name: nab(series, profile, 0.5).score for name, profile in PROFILES.items()}
    assert scores == pytest.approx({"standard": -5.5, "reward_low_FP_rate": -11.0, "reward_low_FN_rate": -11 / 3})


def test_the_best_threshold_is_one_for_all_series() -> None:
    series = [Judged(scored(100, r50=0.9, r20=0.4), WINDOW), Judged(scored(100, r50=0.5, r20=0.3), WINDOW)]
    best = nab(series)
    assert (best.score, best.threshold, best.found, best.false_alarms) == (pytest.approx(100.0), 0.5, 2, 0)
    assert climb(series).score == pytest.approx(100.0)
    assert nab([Judged(np.zeros(0), [])]).score == 0.0


def test_no_alarm_scores_0_and_no_threshold_is_worse() -> None:
    bad = [Judged(scored(100, **{f"r{i}": 1.0 for i in range(15, 50)}), [])]
    assert nab(bad).score == 0.0


def test_vus_pr_matches_the_vus_package() -> None:
    """Values of vus 0.0.6 (RangeAUC_volume_opt, 250 thresholds) for the same arrays."""
    rng = np.random.default_rng(7)
    label = np.zeros(600, dtype=bool)
    label[100:120] = label[300:340] = label[352:360] = label[590:600] = True
    score = rng.random(600) + 0.5 * label
    assert vus_pr(label, score, 8) == pytest.approx(VUS_8, abs=1e-9)
    assert vus_pr(label, np.round(score, 1), 20) == pytest.approx(VUS_20, abs=1e-9)


VUS_8 = 0.7502233665497041
VUS_20 = 0.7328322235871804


def test_vus_pr_of_a_perfect_score_is_near_1_and_of_nothing_unsaid() -> None:
    label = np.zeros(1000, dtype=bool)
    label[400:450] = True
    assert vus_pr(label, label.astype(float), 10) > 0.9
    assert math.isnan(vus_pr(np.zeros(50, dtype=bool), np.zeros(50), 10))


def test_period_of_a_sine() -> None:
    assert period(np.sin(np.arange(2000) * 2 * np.pi / 48)) == 48
    assert period(np.full(100, 3.0)) == 125
    assert period(np.zeros(2)) == 125


def test_windows_and_counts() -> None:
    label = np.array([1, 1, 0, 0, 1], dtype=bool)
    assert windows_of(label) == [(0, 1), (4, 4)]
    counts = count(label, np.array([1, 0, 1, 0, 1], dtype=bool))
    assert counts == Counts(2, 1, 1, 1)
    assert (counts.precision, counts.recall, counts.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
