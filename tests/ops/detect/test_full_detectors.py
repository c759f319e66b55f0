"""Every further detector conforms, and finds what it is for."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from leptonai.errors import SpecError
from leptonai.ops.detect.bocpd import Bocpd
from leptonai.ops.detect.cusum import Cusum
from leptonai.ops.detect.exemplar import Exemplar
from leptonai.ops.detect.exhaustion import Exhaustion
from leptonai.ops.detect.missing import Missing
from leptonai.ops.detect.quantile import Quantile
from leptonai.ops.detect.rarity import Rarity
from leptonai.ops.detect.seasonal import Seasonal
from leptonai.ops.detect.volatility import Volatility
from leptonai.protocols import Detector, Floats
from leptonai.settings import load
from leptonai.testing.detector_suite import DetectorSuite


class TestQuantileConforms(DetectorSuite):
    def detector(self) -> Detector:
        return Quantile()


class TestCusumConforms(DetectorSuite):
    def detector(self) -> Detector:
        return Cusum()


class TestBocpdConforms(DetectorSuite):
    steps = 720

    def detector(self) -> Detector:
        return Bocpd(lengths=40, recent=20)


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


def test_bocpd_tells_a_new_level_and_a_new_spread_and_no_outlier() -> None:
    """A change of one and a half sigmas, and one of spread alone, are told within 40 steps; a lone value is not."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((900, 60))
    x[700:, :20] += 1.5
    x[700:, 20:40] *= 3.0
    x[700, 40:] = 9.0
    detector = Bocpd()
    detector.open(60)
    every = np.ones(60, dtype=np.bool_)
    told = np.array([detector.step(float(t), row, every).score for t, row in enumerate(x)])[700:740].max(axis=0)
    level, spread, alone = told[:20], told[20:40], told[40:]
    assert (level >= 3.0).mean() >= 0.8 and (spread >= 3.0).mean() >= 0.8
    assert (alone >= 3.0).mean() <= 0.15


def test_a_listed_holiday_is_like_a_sunday_from_local_midnight_on(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("watch: {holidays: [2026-12-25], utc_offset: 3600}")
    of = load(path).watch
    seasonal = Seasonal(holidays=of.holidays, offset=of.utc_offset)

    def kind(day: int, hour: int) -> int:
        return seasonal.place(datetime(2026, 12, day, hour, tzinfo=UTC).timestamp()) // seasonal.bins

    assert kind(25, 12) == kind(27, 12) != kind(24, 12) == kind(28, 12)  # Friday, Sunday; Thursday, Monday
    assert kind(24, 23) == kind(27, 12) and kind(25, 23) == kind(26, 12) != kind(27, 12)
    with pytest.raises(SpecError, match="no date"):
        Seasonal(holidays=["christmas"])
    path.write_text("watch: {holidays: [christmas]}")
    with pytest.raises(SpecError, match=r"watch.holidays"):
        load(path)
