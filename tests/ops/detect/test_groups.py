"""Detectors over groups: alone they are detectors like any other, together they see relations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from leptonai.errors import SpecError
from leptonai.ops.detect.correlation import Mahalanobis, Pca
from leptonai.ops.detect.forest import IsolationForest, RandomForest
from leptonai.ops.detect.groups import MOST, Grouped
from leptonai.ops.detect.oneclass import OneClass
from leptonai.protocols import Detector, Floats
from leptonai.testing.detector_suite import DetectorSuite


class TestMahalanobisConforms(DetectorSuite):
    steps = 480

    def detector(self) -> Detector:
        return Mahalanobis()


class TestPcaConforms(DetectorSuite):
    steps = 480

    def detector(self) -> Detector:
        return Pca()


class TestIsolationForestConforms(DetectorSuite):
    steps = 420
    alone = (1, 4)

    def detector(self) -> Detector:
        return IsolationForest()


class TestRandomForestConforms(DetectorSuite):
    steps = 420
    alone = (1, 4)

    def detector(self) -> Detector:
        return RandomForest()


class TestOneClassConforms(DetectorSuite):
    steps = 420
    alone = (1, 4)

    def detector(self) -> Detector:
        return OneClass()


ALL: list[Callable[[], Grouped]] = [Mahalanobis, Pca, IsolationForest, RandomForest, OneClass]


def together(rng: np.random.Generator, steps: int, groups: int, members: int) -> Floats:
    """Members that follow one factor, each with noise of its own; groups side by side."""
    factor = rng.standard_normal((steps, groups, 1))
    return (factor + 0.3 * rng.standard_normal((steps, groups, members))).reshape(steps, groups * members)


def grouped(make: Callable[[], Grouped], groups: int, members: int) -> Grouped:
    detector = make()
    detector.open(groups * members)
    for g in range(groups):
        detector.assign(np.arange(g * members, (g + 1) * members), g)
    return detector


def play(detector: Grouped, x: Floats) -> Floats:
    every = np.ones(x.shape[1], dtype=np.bool_)
    return np.array([detector.step(float(t), row, every).score for t, row in enumerate(x)])


@pytest.mark.parametrize("make", [Mahalanobis, Pca, RandomForest])
def test_a_broken_relation_is_seen_though_each_value_is_ordinary(make: Callable[[], Grouped]) -> None:
    """One member goes against the others by less than two of its own sigmas; the culprit is named."""
    x = together(np.random.default_rng(0), 700, 20, 4)
    x[600] = np.tile([1.4, 1.4, 1.4, -1.8], 20)
    score = play(grouped(make, 20, 4), x).reshape(700, 20, 4)
    assert np.median(score[600].max(axis=1)) >= 2.0
    if make is not RandomForest:
        assert (score[600, :, 3] >= score[600, :, :3].max(axis=1)).mean() > 0.9


@pytest.mark.parametrize("make", ALL)
def test_a_group_far_out_scores_and_noise_is_calibrated(make: Callable[[], Grouped]) -> None:
    """P(group score >= 2) on noise is within a factor 2 of 1e-2; all members 7 sigmas up is beyond 2."""
    x = together(np.random.default_rng(1), 1900, 30, 3)
    x[1800] += 7.0
    score = play(grouped(make, 30, 3), x).reshape(1900, 30, 3).max(axis=2)
    assert 0.5e-2 < (score[600:1800] >= 2.0).mean() < 2e-2
    # Pca and the random forest ask whether members belong to each other, not whether they are usual
    if make not in (Pca, RandomForest):
        assert np.median(score[1800]) >= 2.0


@pytest.mark.parametrize("make", ALL)
def test_contributions_sum_to_one_and_a_group_does_not_know_of_another(make: Callable[[], Grouped]) -> None:
    x = together(np.random.default_rng(2), 300, 6, 3)
    both = grouped(make, 6, 3)
    score = play(both, x)
    np.testing.assert_allclose(np.nansum(both.contributions.reshape(6, 3), axis=1), 1.0)
    np.testing.assert_allclose(play(grouped(make, 2, 3), x[:, :6]), score[:, :6], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", ALL)
def test_a_member_may_go_and_another_come(make: Callable[[], Grouped]) -> None:
    x = together(np.random.default_rng(3), 850, 3, 3)
    detector = grouped(make, 3, 3)
    play(detector, x[:300])
    detector.drop(np.array([0]))
    detector.assign(np.array([0]), 0)
    score = play(detector, x[300:])
    assert np.isnan(score[0, 0]) and np.isfinite(score[100 + detector.settle :]).all()
    assert (score[100 + detector.settle :] < 6).all()


def test_a_group_of_too_many_is_refused() -> None:
    detector = Mahalanobis()
    detector.open(30)
    with pytest.raises(SpecError, match="at most 16"):
        detector.assign(np.arange(MOST + 1), 1)
