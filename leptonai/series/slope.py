"""How fast many series climb: slopes with standard errors, alone and against their siblings."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import stdtr

from leptonai.protocols import Floats

MIN_CORRELATION = 0.5  # believed of increments even when a dozen of them show less
MIN_PAST = 30  # increments before the span, from which on its past says how a series swings ...
UNKNOWN_CORRELATION = 0.8  # ... and what is believed until then


class Slope(NamedTuple):
    """Per series: units per second, and the standard error of it; nan below three values."""

    slope: Floats
    error: Floats


def slope(times: Floats, values: Floats, lags: int | None = None) -> Slope:
    """Least-squares slope of ``values[S, T]`` over ``times[T]`` with Newey & West (1987) standard errors, nan ignored.

    ``lags``: how far residuals may be correlated; None: floor(4 (T/100)^(2/9)), their rule. A trend that is really a
    random walk still looks significant (spurious regression); ``slope_against_siblings`` does not have that fault.
    """
    seen = np.isfinite(values)
    n = seen.sum(axis=1)
    safe = np.maximum(n, 1)
    t = np.where(seen, times - np.where(seen, times, 0.0).sum(axis=1, keepdims=True) / safe[:, None], 0.0)
    y = np.where(seen, values - np.where(seen, values, 0.0).sum(axis=1, keepdims=True) / safe[:, None], 0.0)
    square = (t * t).sum(axis=1)
    enough = (n >= 3) & (square > 0)
    fit = np.divide((t * y).sum(axis=1), square, out=np.full(len(n), np.nan), where=enough)
    moment = t * (y - np.nan_to_num(fit)[:, None] * t)
    reach = int(4 * (values.shape[1] / 100) ** (2 / 9)) if lags is None else lags
    long_run = (moment * moment).sum(axis=1)
    for lag in range(1, min(reach, values.shape[1] - 1) + 1):
        long_run += 2 * (1 - lag / (reach + 1)) * (moment[:, lag:] * moment[:, :-lag]).sum(axis=1)
    scale = np.divide(n, n - 2, out=np.ones(len(n)), where=n > 2)  # the degrees of freedom spent on the line
    error = np.sqrt(np.maximum(long_run, 0.0) * scale)
    return Slope(fit, np.divide(error, square, out=np.full(len(n), np.nan), where=enough))


class Climb(NamedTuple):
    """Per series: its mean rate, the median rate of the others (0 when alone), and -log10 p that it climbs more."""

    rate: Floats
    others: Floats
    score: Floats
    early: Floats  # mean rate of the first half of the span
    late: Floats  # and of the second half
    before: Floats  # median rate of as long a stretch before the span; nan when that is not known


def slope_against_siblings(times: Floats, values: Floats, span: int | None = None) -> Climb:
    """Does each of ``values[S, T]`` climb faster than the median of the others? nan where unknown.

    Judged are the last ``span`` increments (None: all); what lies before tells only how the series used to move.
    A one-sided t test on the increments, not on the levels: under "a random walk that goes nowhere" increments are
    centred at zero, so the test holds where a fitted line would be fooled. A single jump is one large increment among
    small ones: its t is 1 whatever its size, so an allocation step is not a slope. What all siblings do together
    (traffic, a warm cache) cancels. Score: the smaller of "climbs at all" and "climbs more than its siblings".

    Increments that swing (correlation r from one to the next) make n of them worth n (1 - r)/(1 + r); r is the
    greatest of 0.5 (0.8 while the past is unknown), of the span's and of the past's own (bias-corrected, Marriott &
    Pope 1954): t is divided by the root of 3 at least, and a series that always swung must climb far more. A row with
    a gap in its span scores nan.
    """
    first = 0 if span is None else max(values.shape[1] - 1 - span, 0)
    whole = np.isfinite(values[:, first:]).all(axis=1)
    rates = np.diff(values[whole], axis=1) / np.diff(times)
    known = np.isfinite(rates).all(axis=0)
    apart = np.where(known, rates - _median_of_others(np.where(known, rates, 0.0)), rates)
    now, steps = rates[:, first:], rates.shape[1] - first
    score = _score(rates, first)
    if len(rates) > 1:
        score = np.fmin(score, _score(apart, first))
    half = steps // 2
    nothing = np.full(len(rates), np.nan)
    earlier = np.median(rates[:, first - steps : first], axis=1) if first >= steps else nothing
    others = now.mean(axis=1) - apart[:, first:].mean(axis=1)
    found = (now.mean(axis=1), others, score, now[:, :half].mean(axis=1), now[:, half:].mean(axis=1), earlier)
    out = Climb(*(np.full(len(values), np.nan) for _ in Climb._fields))
    for column, value in zip(out, found, strict=True):
        column[whole] = value
    return out


def _score(rates: Floats, first: int) -> Floats:
    """-log10 of the one-sided t test that the mean of ``rates[:, first:]`` is above zero."""
    now = rates[:, first:]
    steps = now.shape[1]
    past = _correlation(rates[:, :first]) if first >= MIN_PAST else np.full(len(rates), np.nan)
    r = np.maximum(_correlation(now), np.where(np.isfinite(past), np.fmax(past, MIN_CORRELATION), UNKNOWN_CORRELATION))
    r = np.minimum(r, 0.97)
    error = now.std(axis=1, ddof=1) * np.sqrt((1 + r) / (1 - r) / steps)
    mean = now.mean(axis=1)
    t = np.divide(mean, error, out=np.where(mean > 0, 1e6, 0.0), where=error > 0)
    score: Floats = -np.log10(np.maximum(stdtr(steps - 1, -t), 1e-30))
    return score


def _correlation(rates: Floats) -> Floats:
    """Lag-one autocorrelation per row, its small-sample bias of -(1 + 3r)/n taken off."""
    n = rates.shape[1]
    e = rates - rates.mean(axis=1, keepdims=True)
    square = (e * e).sum(axis=1)
    r = np.divide((e[:, 1:] * e[:, :-1]).sum(axis=1), square, out=np.zeros(len(e)), where=square > 0)
    unbiased: Floats = (r * n + 1) / max(n - 3, 1)
    return unbiased


def _median_of_others(rates: Floats) -> Floats:
    """Per row and column the median of the other rows; 0 when there are none."""
    series = rates.shape[0]
    if series < 2:
        return np.zeros_like(rates)
    order = np.argsort(rates, axis=0, kind="stable")
    ranked = np.take_along_axis(rates, order, axis=0)
    rank = np.argsort(order, axis=0, kind="stable")
    middle: list[Floats] = []
    for k in ((series - 2) // 2, (series - 1) // 2):  # the middle two of the series - 1 that are left
        place = np.where(rank > k, k, k + 1)
        middle.append(np.take_along_axis(ranked, place, axis=0))
    return (middle[0] + middle[1]) / 2
