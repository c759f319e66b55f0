"""Do more of these than of those hit? A sequential test over strata that may be looked at after every one of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, gammaln, logsumexp

from leptonai.protocols import Floats

ODDS = np.array([1.5, 2.0, 4.0, 8.0, 16.0, 64.0])  # alternatives, mixed evenly: from half as much again to always
CAP = math.log(4.0)  # most that one stratum may add


class OddsTest:
    """Evidence that the first arm's odds of a hit are above the second's, over strata of unlike rates and sizes.

    In one stratum (a second of traffic), given how many hit in both arms together, the hits of the first arm follow
    the hypergeometric distribution when the arms are alike, whatever their common rate is (Fisher 1935); so a rate
    that moves with the time of day, and a share of the traffic that moves with the rollout, cannot fool it (strata as
    in Mantel & Haenszel 1959). Each stratum gives the likelihood ratio of odds ODDS against 1, the noncentral
    hypergeometric's; their product, mixed over ODDS, is a supermartingale whenever the first arm is no worse. By
    Ville's inequality the chance that it *ever* reaches 1/alpha is at most alpha (Robbins 1970; Grunwald, de Heide &
    Koolen 2024). A stratum counts at most for exp(CAP), which keeps that: one pause of one process is not a rate.
    """

    def __init__(self) -> None:
        self._log = np.zeros(len(ODDS))
        self.hits = self.total = self.other_hits = self.other_total = 0

    def state(self) -> list[float]:
        """All of it, as plain numbers: the four counts, then the log evidence for each of ODDS."""
        return [self.hits, self.total, self.other_hits, self.other_total, *self._log.tolist()]

    @classmethod
    def of(cls, state: Sequence[float]) -> Self:
        """The test whose ``state`` that was. ValueError when it has other alternatives."""
        if len(state) != 4 + len(ODDS):
            raise ValueError(f"{len(state)} numbers are no state of a test with {len(ODDS)} alternatives")
        test = cls()
        test.hits, test.total, test.other_hits, test.other_total = (int(n) for n in state[:4])
        test._log = np.array(state[4:], dtype=np.float64)
        return test

    def add(self, hits: int, total: int, other_hits: int, other_total: int) -> None:
        """One stratum: ``hits`` of ``total`` in the first arm, ``other_hits`` of ``other_total`` in the second."""
        self.hits, self.total = self.hits + hits, self.total + total
        self.other_hits, self.other_total = self.other_hits + other_hits, self.other_total + other_total
        if total and other_total and 0 < hits + other_hits < total + other_total:
            self._log += np.minimum(log_ratios(hits, total, other_hits, other_total), CAP)

    @property
    def log_evidence(self) -> float:
        """Natural log; at 0 it says nothing, ln(1/alpha) convicts."""
        return float(logsumexp(self._log) - math.log(len(ODDS)))

    @property
    def excess(self) -> float:
        """Share of hits in the first arm above that in the second, as counted."""
        if not self.total or not self.other_total:
            return 0.0
        return self.hits / self.total - self.other_hits / self.other_total


def log_ratios(hits: int, total: int, other_hits: int, other_total: int) -> Floats:
    """ln of the likelihood ratio of each of ODDS against 1, given the sum of the hits."""
    both = hits + other_hits
    k = np.arange(max(0, both - other_total), min(both, total) + 1)
    ways = _log_choose(total, k) + _log_choose(other_total, both - k)
    ways = ways - logsumexp(ways)
    expected = logsumexp(ways[None, :] + np.log(ODDS)[:, None] * k[None, :], axis=1)
    return np.asarray(hits * np.log(ODDS) - expected, dtype=np.float64)


def needed(effect: float, alpha: float, power: float, share: float) -> int:
    """Samples of the first arm until hits that come there alone, at the rate ``effect``, convict with ``power``.

    ``share``: its part of all samples. A lone hit falls to the first arm with that chance when the arms are alike, so
    it weighs odds / (1 + (odds - 1) share).
    """
    share = min(max(share, 1e-6), 0.999)
    one = np.minimum(np.log(ODDS / (1.0 + (ODDS - 1.0) * share)), CAP)
    hits = 1
    while logsumexp(hits * one) - math.log(len(ODDS)) < -math.log(alpha):
        hits += 1
    low, high = hits, hits
    while betainc(hits, high - hits + 1, effect) < power:  # P(Binomial(n, effect) >= hits)
        low, high = high, 2 * high
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if betainc(hits, middle - hits + 1, effect) >= power else (middle + 1, high)
    return high


def _log_choose(n: int, k: NDArray[np.int64]) -> Floats:
    return np.asarray(gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0), dtype=np.float64)
