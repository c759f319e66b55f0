"""Quantiles and shares from cumulative bucket counts, as Prometheus reads them. Columnar over series."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leptonai.protocols import Floats


def increase(before: ArrayLike, after: ArrayLike) -> Floats:
    """What counters ``[S, ...]`` gained; one that fell was reset, and then gained all it shows now.

    A histogram is reset as a whole: when any bucket of a row fell, the row counts from zero.
    """
    old, new = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    fell: NDArray[np.bool_] = np.atleast_1d(new < old)
    if old.ndim > 1:
        fell = np.any(fell, axis=-1, keepdims=True)
    gained: Floats = np.where(fell, new, new - old)
    return gained


def quantile(q: float, bounds: ArrayLike, counts: ArrayLike) -> Floats:
    """The q-quantile per row of ``counts[S, B]``, cumulative over upper ``bounds[B]`` of which the last is +Inf.

    Prometheus' ``histogram_quantile``: linear inside a bucket, the first bucket starts at 0 when its bound is
    positive, a rank in the +Inf bucket gives the greatest finite bound, nan for a row of nothing.
    """
    edges, cumulative = _checked(bounds, counts)
    total = cumulative[:, -1]
    rank = q * total
    bucket = np.minimum((cumulative < rank[:, None]).sum(axis=1), edges.size - 1)
    rows = np.arange(cumulative.shape[0])
    inside = np.minimum(bucket, max(edges.size - 2, 0))
    first = inside == 0
    start = np.where(first, min(0.0, edges[0]) if edges[0] <= 0 else 0.0, edges[np.maximum(inside - 1, 0)])
    below = np.where(first, 0.0, cumulative[rows, np.maximum(inside - 1, 0)])
    here = cumulative[rows, inside] - below
    part = np.divide(rank - below, here, out=np.ones_like(rank), where=here > 0)
    value = start + (edges[inside] - start) * np.clip(part, 0.0, 1.0)
    value = np.where(bucket == edges.size - 1, edges[-2] if edges.size > 1 else np.nan, value)
    if edges[0] <= 0:
        value = np.where(bucket == 0, edges[0], value)
    return np.where(total > 0, value, np.nan)


def share_above(threshold: float, bounds: ArrayLike, counts: ArrayLike) -> Floats:
    """The share of observations above ``threshold`` per row, linear inside a bucket; nan for a row of nothing.

    Above the greatest finite bound nothing is known of the values: there, all of the +Inf bucket counts as above.
    """
    edges, cumulative = _checked(bounds, counts)
    total = cumulative[:, -1]
    bucket = min(int(np.searchsorted(edges, threshold, side="left")), edges.size - 1)
    below = cumulative[:, bucket - 1] if bucket else np.zeros_like(total)
    start = edges[bucket - 1] if bucket else min(0.0, threshold)
    width = edges[bucket] - start
    part = (threshold - start) / width if np.isfinite(width) and width > 0 else float(threshold >= edges[bucket])
    under = below + part * (cumulative[:, bucket] - below)
    return np.divide(total - under, total, out=np.full_like(total, np.nan), where=total > 0)


def _checked(bounds: ArrayLike, counts: ArrayLike) -> tuple[Floats, Floats]:
    edges = np.asarray(bounds, dtype=np.float64)
    cumulative = np.maximum.accumulate(np.atleast_2d(np.asarray(counts, dtype=np.float64)), axis=1)
    if edges.ndim != 1 or edges.size != cumulative.shape[1] or not np.isposinf(edges[-1]):
        raise ValueError(f"bounds {edges.shape} and counts {cumulative.shape}: wanted B bounds ending in +Inf, [S, B]")
    return edges, cumulative
