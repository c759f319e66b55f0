"""Shares of events: intervals, and sequential tests that may be looked at after every event."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betainc, betaincc, betaincinv, betaln, ndtri, rel_entr

from leptonai.protocols import Floats


def wilson(hits: ArrayLike, total: ArrayLike, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """Two-sided score interval of a proportion (Wilson 1927); (0, 1) where nothing was seen. Columnar."""
    k, n = np.asarray(hits, dtype=np.float64), np.asarray(total, dtype=np.float64)
    z = float(ndtri(0.5 + confidence / 2))
    some = np.maximum(n, 1.0)
    p = k / some
    centre = (p + z * z / (2 * some)) / (1 + z * z / some)
    half = z / (1 + z * z / some) * np.sqrt(p * (1 - p) / some + z * z / (4 * some * some))
    low, high = np.where(k <= 0, 0.0, centre - half), np.where(k >= n, 1.0, centre + half)
    return np.where(n > 0, np.clip(low, 0, 1), 0.0), np.where(n > 0, np.clip(high, 0, 1), 1.0)


def upper(hits: ArrayLike, total: ArrayLike, alpha: float) -> Floats:
    """Exact one-sided upper bound of a proportion (Clopper & Pearson 1934); 1 where nothing was seen."""
    k, n = np.asarray(hits, dtype=np.float64), np.asarray(total, dtype=np.float64)
    bound = betaincinv(k + 1.0, np.maximum(n - k, 1e-9), 1.0 - alpha)
    return np.where(k >= n, 1.0, bound)


def chance(hits: ArrayLike, total: ArrayLike, rate: float) -> Floats:
    """P(at least ``hits`` of ``total``) when each hits with probability ``rate``: the exact binomial tail."""
    k, n = np.asarray(hits, dtype=np.float64), np.asarray(total, dtype=np.float64)
    inside = betainc(np.maximum(k, 1.0), np.maximum(n - k, 0.0) + 1.0, rate)
    return np.where(k <= 0, 1.0, np.where(k > n, 0.0, inside))


def bound(hits: ArrayLike, total: ArrayLike, rate: float) -> Floats:
    """No less than ``chance``, and simple enough for a query language: exp(-total x relative entropy of the share to
    ``rate``) (Chernoff 1952; Hoeffding 1963, theorem 1). Equal to it when all hit; 1 at or below ``rate``."""
    k, n = np.asarray(hits, dtype=np.float64), np.asarray(total, dtype=np.float64)
    share = np.clip(k / np.maximum(n, 1.0), 0.0, 1.0)
    entropy = rel_entr(share, rate) + rel_entr(1.0 - share, 1.0 - rate)
    return np.where(share <= rate, 1.0, np.exp(-n * entropy))


def log_evidence(hits: int, total: int, rate: float) -> float:
    """Natural log of the evidence that the true share is above ``rate``, from counts alone.

    The mixture likelihood ratio of ``share ~ uniform(rate, 1)`` against ``rate`` (mixture SPRT: Robbins 1970; Johari
    et al. 2017). It is a supermartingale for every true share <= rate, so by Ville's inequality the chance that it
    *ever* reaches 1/alpha, however often one looks, is at most alpha.
    """
    if not 0 < rate < 1:
        raise ValueError(f"rate {rate}: wanted a share strictly between 0 and 1")
    misses = total - hits
    a, b = hits + 1.0, misses + 1.0
    above = float(betaincc(a, b, rate))
    if above <= 0:
        return -math.inf
    return (
        float(betaln(a, b)) + math.log(above) - math.log1p(-rate) - hits * math.log(rate) - misses * math.log1p(-rate)
    )


def log_evidence_below(hits: int, total: int, rate: float) -> float:
    """As log_evidence, for the share being below ``rate``."""
    return log_evidence(total - hits, total, 1.0 - rate)
