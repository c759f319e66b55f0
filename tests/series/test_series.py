import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import bdtr

from leptonai.errors import SpecError
from leptonai.series.columns import Columns
from leptonai.series.histogram import increase, quantile, share_above
from leptonai.series.proportion import chance, log_evidence, log_evidence_below, upper, wilson
from leptonai.series.rls import Rls
from leptonai.series.robust import Level, median_mad
from leptonai.series.slope import slope, slope_against_siblings
from leptonai.series.tails import MAX_SCORE, Tail, gaussian

INF = float("inf")
BOUNDS = [0.1, 0.2, 0.5, INF]


# --- columns -------------------------------------------------------------------------------------------------------


def test_columns_grow_with_fresh_slots_and_never_shrink() -> None:
    columns = Columns(a=1.0, m=np.eye(2))
    columns.open(2)
    columns["a"][:] = 7.0
    columns.grow(4)
    columns.grow(3)
    assert columns["a"].tolist() == [7, 7, 1, 1] and columns["m"].shape == (2, 2, 4)
    columns.drop(np.array([0]))
    assert columns["a"].tolist() == [1, 7, 1, 1]
    with pytest.raises(SpecError, match="columns"):
        columns.load({"a": np.zeros(3)})


# --- recursive least squares ---------------------------------------------------------------------------------------


def autoregressive(a: tuple[float, ...], steps: int, series: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = np.zeros((steps + len(a), series))
    for t in range(len(a), steps + len(a)):
        x[t] = sum(c * x[t - 1 - i] for i, c in enumerate(a)) + rng.standard_normal(series)
    return x


def test_rls_finds_the_coefficients_of_a_known_process() -> None:
    x = autoregressive((0.6, -0.3), 3000, 40)
    rls = Rls(order=2, forgetting=0.999)
    rls.open(40)
    every = np.ones(40, dtype=np.bool_)
    for t in range(2, len(x)):
        lags = np.stack((x[t - 1], x[t - 2]))
        rls.learn(lags, x[t] - rls.predict(lags), every)
    np.testing.assert_allclose(np.median(rls["a"], axis=1), [0, 0.6, -0.3], atol=0.03)


def test_rls_equals_least_squares_without_forgetting() -> None:
    """Without forgetting and with a vague start the recursion is ordinary least squares on all that was seen."""
    x = autoregressive((0.5,), 200, 1)[:, 0]
    rls = Rls(order=1, forgetting=1.0, spread=1e6, cap=1e9)
    rls.open(1)
    for t in range(1, len(x)):
        lags = x[t - 1 : t][None, :]
        rls.learn(lags, x[t] - rls.predict(lags), np.ones(1, dtype=np.bool_))
    design = np.column_stack((np.ones(len(x) - 1), x[:-1]))
    np.testing.assert_allclose(rls["a"][:, 0], np.linalg.lstsq(design, x[1:], rcond=None)[0], atol=1e-5)


def test_rls_survives_a_silent_and_a_wild_input() -> None:
    """P stays finite, symmetric and positive on the diagonal after 20,000 constant steps and after huge ones."""
    rls = Rls(order=3)
    rls.open(3)
    every = np.ones(3, dtype=np.bool_)
    rng = np.random.default_rng(0)
    for t in range(20_000):
        lags = np.zeros((3, 3)) if t % 5000 < 4990 else rng.standard_normal((3, 3)) * 10.0 ** rng.integers(-8, 8)
        rls.learn(lags, rng.standard_normal(3), every)
    p = rls["P"]
    assert np.isfinite(p).all() and np.isfinite(rls["a"]).all()
    assert np.array_equal(p, p.transpose(1, 0, 2)) and (np.einsum("iis->is", p) > 0).all()
    assert np.einsum("iis->s", p).max() <= 1e3 * (1 + 1e-9)


# --- level and tail ------------------------------------------------------------------------------------------------


def test_one_outlier_moves_the_level_by_three_hundredths_of_a_sigma() -> None:
    level = Level()
    level.open(1)
    every = np.ones(1, dtype=np.bool_)
    rng = np.random.default_rng(1)
    for _ in range(500):
        level.step(rng.standard_normal(1), every)
    before, scale = level["mean"].copy(), level.scale()
    level.step(np.array([1e9]), every)
    assert abs(level["mean"][0] - before[0]) <= 0.03 * scale[0] * (1 + 1e-9)


def test_median_and_mad_ignore_what_is_missing() -> None:
    values = np.array([[1.0, 2, 3, np.nan, 100], [np.nan] * 5])
    middle, spread = median_mad(values)
    assert middle[0] == 2.5 and spread[0] == pytest.approx(1.4826) and np.isnan(middle[1]) and np.isnan(spread[1])


@given(st.lists(st.floats(-1e12, 1e12), min_size=2, max_size=40), st.integers(0, 200))
@settings(max_examples=50, deadline=None)
def test_a_tail_score_rises_with_the_distance_and_stays_within_bounds(z: list[float], lessons: int) -> None:
    """Whatever was learnt: farther out is never more likely, and the score is a number from 0 to MAX_SCORE."""
    tail = Tail()
    tail.open(len(z))
    rng = np.random.default_rng(lessons)
    for _ in range(lessons):
        tail.learn(
            np.full(len(z), rng.standard_t(2)), np.ones(len(z), dtype=np.bool_), np.zeros(len(z), dtype=np.bool_)
        )
    score = tail.score(np.array(sorted(z, key=abs)))
    assert (np.diff(score) >= -1e-9).all() and (score >= 0).all() and (score <= MAX_SCORE).all()


def test_gaussian_scores_are_the_textbook_tail() -> None:
    np.testing.assert_allclose(gaussian(np.array([1.959964, -3.290527, 4.891638])), [1.30103, 3.0, 6.0], atol=1e-4)
    assert gaussian(np.array([1e6]))[0] == MAX_SCORE and np.isnan(gaussian(np.array([np.nan]))[0])


# --- proportions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3 (score without continuity correction)
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_against_published_values(hits: int, total: int, low: float, high: float) -> None:
    assert [float(v) for v in wilson(hits, total)] == pytest.approx([low, high], abs=5e-5)


def test_wilson_of_nothing_is_everything() -> None:
    assert [float(v) for v in wilson(0, 0)] == [0.0, 1.0]


@given(st.integers(0, 200), st.integers(0, 200), st.floats(0.001, 0.999))
def test_exact_bounds_mean_what_they_say(hits: int, more: int, rate: float) -> None:
    """``chance`` is the binomial tail; at the upper bound so few hits have exactly the stated chance."""
    total = hits + more
    assert float(chance(hits, total, rate)) == pytest.approx(1 - bdtr(hits - 1, total, rate) if hits else 1.0, abs=1e-9)
    if more:
        assert bdtr(hits, total, float(upper(hits, total, 0.01))) == pytest.approx(0.01, rel=1e-4)
    assert float(upper(total, total, 0.01)) == 1.0


def test_sequential_evidence_may_be_looked_at_after_every_event() -> None:
    """At the boundary rate, at most alpha = 0.05 of the histories ever reach 1/alpha, looked at 600 times."""
    rng = np.random.default_rng(0)
    hits = np.cumsum(rng.random((600, 300)) < 0.1, axis=0)
    crossed = 0
    for path in hits.T:
        crossed += any(log_evidence(int(k), n + 1, 0.1) >= np.log(20) for n, k in enumerate(path))
    assert crossed / 300 <= 0.05
    assert log_evidence(5, 5, 0.1) > np.log(1e4) > log_evidence(3, 5, 0.1)
    assert log_evidence_below(0, 200, 0.1) > np.log(1e4)


def test_evidence_needs_a_share_strictly_inside() -> None:
    with pytest.raises(ValueError, match="strictly between"):
        log_evidence(1, 2, 1.0)


# --- slopes --------------------------------------------------------------------------------------------------------


def test_slope_is_least_squares_and_ignores_gaps() -> None:
    t = np.arange(20.0)
    values = np.stack((3 * t + 1, -t, np.where(t % 3 == 0, np.nan, 0.5 * t), np.full(20, np.nan)))
    fit = slope(t, values)
    np.testing.assert_allclose(fit.slope[:3], [3, -1, 0.5], atol=1e-12)
    assert np.isnan(fit.slope[3]) and np.isnan(fit.error[3])


def test_slope_error_covers_correlated_noise() -> None:
    """With AR(1) noise of 0.5 the t statistics of no slope have a spread near one (plain errors would give 1.7)."""
    rng = np.random.default_rng(0)
    e = rng.standard_normal((400, 300))
    for i in range(1, 300):
        e[:, i] += 0.5 * e[:, i - 1]
    fit = slope(np.arange(300.0), e)
    assert 0.8 < (fit.slope / fit.error).std() < 1.4


def test_who_climbs_alone_is_told_from_all_climbing_and_from_a_jump() -> None:
    rng = np.random.default_rng(0)
    t = np.arange(13.0)
    walk = np.cumsum(rng.normal(0, 0.05, (4, 13)), axis=1)
    alone = walk.copy()
    alone[2] += 5 * t
    assert slope_against_siblings(t, alone).score.argmax() == 2
    assert slope_against_siblings(t, alone).score[2] > 8 and slope_against_siblings(t, alone).score[[0, 1, 3]].max() < 4
    assert slope_against_siblings(t, walk + 5 * t).score.max() < 4
    jumped = walk.copy()
    jumped[1, 6:] += 1000
    assert slope_against_siblings(t, jumped).score.max() < 4


@given(st.integers(2, 7), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_siblings_are_the_median_of_the_others_in_any_order(series: int, random: object) -> None:
    rng = np.random.default_rng(random.randint(0, 10**6))  # type: ignore[attr-defined]
    t, values = np.arange(10.0), np.cumsum(rng.standard_normal((series, 10)), axis=1)
    climb = slope_against_siblings(t, values)
    rates = np.diff(values, axis=1)
    for i in range(series):
        assert climb.others[i] == pytest.approx(np.median(np.delete(rates, i, axis=0), axis=0).mean())
    order = rng.permutation(series)
    np.testing.assert_allclose(slope_against_siblings(t, values[order]).score, climb.score[order], rtol=1e-9)


# --- histograms ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("q", "counts", "value"),
    [
        (0.5, [10, 20, 40, 40], 0.2),  # on a boundary
        (0.75, [10, 20, 40, 40], 0.35),  # half way into (0.2, 0.5]
        (0.125, [10, 20, 40, 40], 0.05),  # the first bucket starts at 0
        (0.99, [10, 20, 40, 50], 0.5),  # in the +Inf bucket: the greatest finite bound
        (0.5, [0, 0, 0, 0], np.nan),
        (0.5, [0, 0, 10, 10], 0.35),
    ],
)
def test_quantiles_as_prometheus_reads_them(q: float, counts: list[int], value: float) -> None:
    assert quantile(q, BOUNDS, [counts])[0] == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize(
    ("threshold", "share"), [(0.1, 0.75), (0.2, 0.5), (0.35, 0.25), (0.05, 0.875), (0.0, 1.0), (0.5, 0.0), (9.0, 0.0)]
)
def test_share_above_a_threshold(threshold: float, share: float) -> None:
    assert share_above(threshold, BOUNDS, [[10, 20, 40, 40]])[0] == pytest.approx(share)


def test_what_lies_beyond_the_last_bound_counts_as_above() -> None:
    assert share_above(9.0, BOUNDS, [[10, 20, 40, 50]])[0] == pytest.approx(0.2)
    assert np.isnan(share_above(0.1, BOUNDS, [[0, 0, 0, 0]])[0])


@given(st.lists(st.integers(0, 50), min_size=4, max_size=4).filter(lambda c: sum(c[:3]) > 0), st.floats(0.01, 0.95))
def test_share_above_undoes_quantile(added: list[int], q: float) -> None:
    """Inside the finite buckets, 1 - q of the observations lie above the q-quantile."""
    counts = np.cumsum(added)
    if q * counts[-1] < counts[2]:
        value = quantile(q, BOUNDS, [counts])[0]
        assert share_above(value, BOUNDS, [counts])[0] <= 1 - q + 1e-9
        assert share_above(value * (1 - 1e-9) - 1e-12, BOUNDS, [counts])[0] >= 1 - q - 1e-6


def test_a_counter_that_fell_was_reset() -> None:
    assert increase([5.0, 9.0], [8.0, 2.0]).tolist() == [3.0, 2.0]
    assert increase([[5, 9], [1, 2]], [[4, 20], [2, 4]]).tolist() == [[4, 20], [1, 2]]


def test_buckets_must_end_in_infinity() -> None:
    with pytest.raises(ValueError, match=r"\+Inf"):
        quantile(0.5, [1, 2], [[1, 2]])
