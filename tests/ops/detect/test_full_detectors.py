"""Every further detector conforms, and finds what it is for."""

from __future__ import annotations

import numpy as np

from leptonai.ops.detect.cusum import Cusum
from leptonai.ops.detect.exemplar import Exemplar
from leptonai.ops.detect.exhaustion import Exhaustion
from leptonai.ops.detect.missing import Missing
from leptonai.ops.detect.quantile import Quantile
from leptonai.ops.detect.rarity import Rarity
from leptonai.ops.detect.seasonal import Seasonal
from leptonai.ops.detect.volatility import Volatility
from leptonai.protocols import Detector, Floats
from leptonai.testing.detector_suite import DetectorSuite


class TestQuantileConforms(DetectorSuite):
    def detector(self) -> Detector:
        return Quantile()


class TestCusumConforms(DetectorSuite):
    def detector(self) -> Detector:
        return Cusum()


class TestVolatilityConforms(DetectorSuite):
    steps = 420

    def detector(self) -> Detector:
        return Volatility()


class TestExhaustionConforms(DetectorSuite):
    def detector(self) -> Detector:
        return Exhaustion(limit=100.0, floor=-100.0)


class TestSeasonalConforms(DetectorSuite):
    def detector(self) -> Detector:
        return Seasonal(bins=12, day=24.0, weekly=False)


class TestWeeklyConforms(DetectorSuite):
    steps = 840  # a half is whole weeks: a slot that begins then finds the same days

    def detector(self) -> Detector:
        return Seasonal(bins=5, day=10.0)


class TestMissingConforms(DetectorSuite):
    def detector(self) -> Detector:
        return Missing()

    def test_missing_values_score_nothing_and_poison_nothing(self) -> None:
        """Here what is missing is what scores: more with every step; a slot that never spoke says nothing."""
        x = self.history()
        holed = x.copy()
        holed[120:140, 0] = np.nan
        plain, scored = self.play(self.opened(self.series), x), self.play(self.opened(self.series), holed)
        gap = scored.score[120:140, 0]
        assert (np.diff(gap[:15]) > 0).all() and gap[2] > 3.0
        assert (scored.score[140:, 0] == 0.0).all()
        np.testing.assert_array_equal(scored.score[:, 1:], plain.score[:, 1:])
        assert np.isnan(self.play(self.opened(2), np.full((240, 2), np.nan)).score).all()


class TestExemplarConforms(DetectorSuite):
    def detector(self) -> Detector:
        return Exemplar(every=3, kept=64, warm=8)


class TestRarityConforms(DetectorSuite):
    def detector(self) -> Detector:
        return Rarity()

    def history(self) -> Floats:
        return np.maximum(np.round(super().history()), 0.0)
