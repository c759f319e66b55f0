"""One unit everywhere: on stationary noise of several shapes a score of 3 is one in a thousand, whoever says it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest

from leptonai.ops.detect.ar import Ar
from leptonai.ops.detect.bocpd import Bocpd
from leptonai.ops.detect.cusum import Cusum
from leptonai.ops.detect.ewma import Ewma
from leptonai.ops.detect.exhaustion import Exhaustion
from leptonai.ops.detect.quantile import Quantile
from leptonai.ops.detect.seasonal import Seasonal
from leptonai.ops.detect.volatility import Volatility
from leptonai.protocols import Detector, Floats
from leptonai.series.garch import Garch
from leptonai.series.peaks import Peaks

STEPS, SERIES, COLD = 3500, 80, 1000
LAWS: dict[str, Callable[[np.random.Generator], Floats]] = {
    "normal": lambda rng: rng.standard_normal((STEPS, SERIES)),
    "Student t(4)": lambda rng: rng.standard_t(4, (STEPS, SERIES)),
    "exponential": lambda rng: rng.exponential(size=(STEPS, SERIES)),
    "log-normal": lambda rng: np.exp(0.5 * rng.standard_normal((STEPS, SERIES))),
    "counts": lambda rng: rng.poisson(20.0, (STEPS, SERIES)).astype(np.float64),
}
MADE: dict[str, Callable[[], Detector]] = {
    "ewma": Ewma,
    "ar": Ar,
    "quantile": Quantile,
    "cusum": Cusum,
    "seasonal": lambda: Seasonal(bins=8, day=64.0, weekly=False),
}


def scores(detector: Detector, x: Floats) -> Floats:
    detector.open(x.shape[1])
    every = np.ones(x.shape[1], dtype=np.bool_)
    return np.array([detector.step(float(t), row, every).score for t, row in enumerate(x)])


def side_by_side(names: Iterable[str], seed: int, steps: int, series: int) -> Floats:
    """So many series of each law; slots do not know of each other, so they are scored in one pass."""
    return np.hstack([LAWS[law](np.random.default_rng(seed))[:steps, :series] for law in names])


@pytest.mark.parametrize("name", MADE)
def test_a_score_of_three_is_one_in_a_thousand(name: str) -> None:
    """P(score >= 3) is within a factor of 2 of 1e-3 (2.2: the counting error of 200,000 dependent samples)."""
    known = scores(MADE[name](), side_by_side(LAWS, 7, STEPS, SERIES))[COLD:]
    for i, law in enumerate(LAWS):
        share = (known[:, i * SERIES : (i + 1) * SERIES] >= 3.0).mean()
        assert 1e-3 / 2.2 < share < 2.2e-3, law


@pytest.mark.parametrize("make", [Volatility, lambda: Bocpd(lengths=40, recent=20)], ids=["garch", "bocpd"])
def test_a_change_of_regime_is_calibrated_too(make: Callable[[], Detector]) -> None:
    """Their statistics remember, so it takes more series to tell: 60 of each law."""
    known = scores(make(), side_by_side(("normal", "Student t(4)"), 8, STEPS, 60))[COLD:]
    for mine in (known[:, :60], known[:, 60:]):
        assert 1e-3 / 2.2 < (mine >= 3.0).mean() < 2.2e-3


def test_what_only_fluctuates_fills_nothing() -> None:
    """Exhaustion is one-sided: on noise without a trend it may only be too quiet."""
    known = scores(Exhaustion(limit=60.0, floor=-40.0), side_by_side(LAWS, 9, 2000, 50))[100:]
    for i, law in enumerate(LAWS):
        assert (known[:, 50 * i : 50 * (i + 1)] >= 3.0).mean() < 1e-3, law


def test_a_random_walk_is_no_trend() -> None:
    """The spurious regression: sums of noise look like climbs, and are told as such no more often than 1 in 1,000."""
    walk = np.cumsum(np.random.default_rng(1).standard_normal((2000, 100)), axis=0)
    known = scores(Exhaustion(limit=200.0, floor=-200.0, horizon=300.0), walk)
    assert (known[100:] >= 3.0).mean() < 1e-3


def test_a_climb_that_has_just_begun_is_no_slower_for_the_quiet_before_it() -> None:
    """800 s after a climb of 0.5/s began, out of 1,000 s of nothing, the band holds when its limit is truly reached."""
    x = 400.0 + 0.5 * np.clip(np.arange(1800) - 1000, 0, None)[:, None]
    x = x + 5.0 * np.random.default_rng(3).standard_normal((1800, 50))
    detector = Exhaustion(limit=1000.0, horizon=900.0)
    scores(detector, x)
    likely, soonest, latest = detector.remaining()
    assert ((soonest <= 400.0) & (latest >= 400.0)).mean() > 0.9
    assert np.median(np.abs(likely - 400.0)) < 60.0


def test_bounded_noise_has_no_tail_and_the_threshold_follows_a_change() -> None:
    """Uniform noise never scores 3 by its level; after the scale doubles the tail is right again."""
    rng = np.random.default_rng(2)
    peaks = Peaks(memory=1000.0, peaks=200.0)
    peaks.open(200)
    every = np.ones(200, dtype=np.bool_)
    x = rng.random((3000, 200))
    x[1000:] *= 2
    told = []
    for row in x:
        told.append(peaks.score(row))
        peaks.learn(row, every)
    assert (np.array(told)[200:1000] >= 3).mean() < 2e-3
    assert (np.array(told)[2200:] >= 3).mean() < 2e-3


def garch(rng: np.random.Generator, steps: int, series: int, alpha: float, beta: float) -> tuple[Floats, Floats]:
    h, e = np.ones((steps, series)), np.zeros((steps, series))
    for t in range(steps):
        if t:
            h[t] = (1 - alpha - beta) + alpha * e[t - 1] ** 2 + beta * h[t - 1]
        e[t] = np.sqrt(h[t]) * rng.standard_normal(series)
    return e, h


def online(e: Floats) -> tuple[Garch, Floats]:
    bank = Garch()
    bank.open(e.shape[1])
    every, told = np.ones(e.shape[1], dtype=np.bool_), []
    for row in e:
        told.append(bank.variance())
        bank.learn(row, every)
    return bank, np.array(told)


def test_volatility_is_found_and_constant_variance_is_not_taken_for_it() -> None:
    rng = np.random.default_rng(4)
    e, h = garch(rng, 3000, 40, 0.12, 0.85)
    bank, said = online(e)
    late = slice(500, None)
    r = [np.corrcoef(np.sqrt(said[late, i]), np.sqrt(h[late, i]))[0, 1] for i in range(40)]
    assert np.median(r) > 0.9
    assert (bank.arch() > 3.0).mean() > 0.9
    still, _ = online(rng.standard_normal((3000, 40)))
    assert (still.arch() > 3.0).mean() < 0.1


def test_volatility_ahead_returns_to_the_long_run() -> None:
    e, _ = garch(np.random.default_rng(5), 1500, 20, 0.12, 0.85)
    bank, _ = online(e)
    far, near, usual = bank.variance(5000), bank.variance(1), bank["v"]
    np.testing.assert_allclose(far, usual, rtol=1e-3)
    assert (np.abs(bank.variance(20) - usual) <= np.abs(near - usual) + 1e-9).all()
    assert np.allclose(bank.risk(np.zeros(20), np.zeros(20)), 0.5)


def test_as_good_as_an_offline_fit() -> None:
    """QLIKE (Patton 2011) of the bank on the later half is within 2 % of ``arch`` fitted to the whole series."""
    arch = pytest.importorskip("arch")
    e, _ = garch(np.random.default_rng(6), 2500, 4, 0.1, 0.85)
    _, said = online(e)
    ours, theirs = [], []
    for i in range(4):
        fit = arch.arch_model(e[:, i], mean="Zero", rescale=False).fit(disp="off")
        square = e[1250:, i] ** 2
        for losses, h in ((ours, said[1250:, i]), (theirs, np.asarray(fit.conditional_volatility)[1250:] ** 2)):
            losses.append(np.mean(np.log(h) + square / h))
    assert np.mean(ours) < np.mean(theirs) + 0.02
