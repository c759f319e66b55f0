"""The full tier: a Detector whose members must agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptonai.errors import SpecError
from leptonai.ops.detect.full import ALARM, OFF, ON, FullTier, agreed
from leptonai.protocols import Detector, Floats
from leptonai.testing.detector_suite import DetectorSuite

NAN = float("nan")


class TestFullTierConforms(DetectorSuite):
    steps = 300
    alone = (1, 4)

    def detector(self) -> Detector:
        return FullTier(every=4, day=40.0, weekly=False)

    def test_missing_values_score_nothing_and_poison_nothing(self) -> None:
        """Voters say nothing of a missing value; silence itself is told. Other slots never notice."""
        x = self.history()
        holed = x.copy()
        holed[200:220, 0] = np.nan
        plain, scored = self.reference(), self.play(self.opened(self.series), holed)
        assert (scored.score[205:220, 0] >= ALARM).all()
        assert np.isfinite(scored.score[220:, 0]).all()
        np.testing.assert_array_equal(scored.score[:, 1:], plain.score[:, 1:])


@pytest.mark.parametrize(
    ("votes", "told"),
    [
        ([4.0, 3.5], 3.5),
        ([4.0, 3.5, 0.1, 0.2], 3.5 - np.log10(2)),
        ([9.0, 0.0, 0.0], 6.0),
        ([2.9, NAN, 0.0], 0.0),
        ([5.0, NAN], 5.0),
        ([NAN, NAN], NAN),
        ([0.1, 0.1, 0.1], 0.0),
    ],
)
def test_two_agree_or_one_is_a_thousand_times_surer(votes: list[float], told: float) -> None:
    np.testing.assert_allclose(agreed([np.array([v]) for v in votes]), [told])


@given(st.integers(2, 9), st.floats(0.0, 1.0), st.integers(0, 5))
def test_agreement_stays_a_tail_probability_whatever_depends_on_whatever(n: int, common: float, seed: int) -> None:
    """P(agreed >= s) <= 10^-s for n dependent voters, each of which is calibrated (4 sigmas of counting allowed)."""
    rng = np.random.default_rng(seed)
    shared, own = rng.random(4000), rng.random((n, 4000))
    votes = -np.log10(np.where(rng.random((n, 4000)) < common, shared, own))
    got = agreed(list(votes))
    for s in (0.5, 1.0, 2.0):
        p = 10**-s
        assert (got >= s).mean() <= p + 4 * np.sqrt(p / 4000)


def play(tier: FullTier, x: Floats) -> tuple[Floats, Floats]:
    every = np.ones(x.shape[1], dtype=np.bool_)
    told = []
    for t, row in enumerate(x):
        score = tier.step(float(t), row, every).score
        told.append((score, tier.news.astype(float)))
    scores, news = zip(*told, strict=True)
    return np.array(scores), np.array(news)


def test_quiet_on_noise_and_loud_once_on_a_shift() -> None:
    rng = np.random.default_rng(0)
    x = 100 + rng.standard_normal((1500, 100))
    x[1200:] += 10.0
    tier = FullTier(weekly=False)
    tier.open(100)
    score, news = play(tier, x)
    assert (score[200:1200] >= ALARM).mean() < 1e-3
    assert (score[1200:1203].max(axis=0) >= ALARM).mean() > 0.95
    assert 1 <= news[1200:1300].sum(axis=0).mean() <= 3  # told once, and again only when it got worse
    assert (score[1450:] >= ALARM).mean() < 0.01  # adopted


def test_a_slow_leak_is_told_before_the_limit_and_never_adopted() -> None:
    """A climb of 0.02 sigmas a step, slower than any level notices: exhaustion tells, with when."""
    rng = np.random.default_rng(1)
    x = 100 + 5 * rng.standard_normal((2700, 8))
    x[500:] += 0.1 * np.arange(2200)[:, None]
    tier = FullTier(voters=("ewma", "ar", "cusum"), horizon=1500.0)
    tier.open(8)
    tier.limit(np.arange(8), upper=400.0)
    score, _ = play(tier, x)
    assert (score[2600:2700] >= ALARM).mean() > 0.5
    assert any(r.detector == "exhaustion" for r in tier.reasons(0))
    left = tier.remaining()
    truth = (400 - (100 + 0.1 * 2200)) / 0.1
    assert ((left.soonest < truth) & (truth < left.latest)).mean() >= 0.75


def test_a_group_names_the_member_that_left_it() -> None:
    rng = np.random.default_rng(2)
    x = (rng.standard_normal((800, 10, 1)) + 0.2 * rng.standard_normal((800, 10, 4))).reshape(800, 40)
    x[700, 3::4] = -2.5
    x[700, 0::4] = x[700, 1::4] = x[700, 2::4] = 2.0
    tier = FullTier(weekly=False)
    tier.open(40)
    for g in range(10):
        tier.assign(np.arange(4 * g, 4 * g + 4), g)
    play(tier, x[:701])
    reasons = [tier.reasons(4 * g + 3) for g in range(10)]
    assert all(r and r[0].detector in {"mahalanobis", "pca"} and r[0].share > 0.4 for r in reasons)


def test_voters_are_named_and_unknown_ones_refused() -> None:
    FullTier(voters=(*ON, *(name for name in OFF if name != "autoencoder"))).open(3)  # that one needs torch
    with pytest.raises(SpecError, match="no detector 'magic'"):
        FullTier(voters=("magic",))
    small, large = FullTier(voters=("ewma",)), FullTier(voters=("ewma", "ar"))
    small.open(2)
    with pytest.raises(SpecError, match="wanted ewma, ar"):
        large.load(small.dump())
