"""How far rows have moved from a reference: each column by PSI and KS, all together by a kernel distance. Pure, seeded.

PSI: Siddiqi 2006 (below 0.1 no change to speak of, above 0.25 a large one). KS: two-sample Kolmogorov-Smirnov.
Kernel distance: maximum mean discrepancy with a Gaussian kernel as wide as the median distance (Gretton et al. 2012).
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import ks_2samp

from leptonai.errors import SpecError
from leptonai.improve.evaluate.rows import Array
from leptonai.types import Noun

BINS = 10
LARGE = 0.25  # PSI
ALPHA = 0.01  # chance of calling drift where there is none, over all columns together
ROWS = 300  # of each side that the kernel distance looks at
ROUNDS = 199  # permutations


class Column(Noun, frozen=True, kw_only=True):
    name: str
    psi: float
    ks: float  # largest distance of the distribution functions
    p: float  # of ks, for this column alone
    drifted: bool


class Drift(Noun, frozen=True, kw_only=True):
    """``distance`` is the square of the kernel distance (0: the same), ``p`` how often chance gives as much."""

    columns: tuple[Column, ...]
    distance: float
    p: float

    @property
    def drifted(self) -> bool:
        return self.p <= ALPHA or any(c.drifted for c in self.columns)


def psi(reference: Array, now: Array, bins: int = BINS) -> float:
    """Population stability index over the reference's quantiles; an empty bin counts as half a row."""
    cuts = np.unique(np.quantile(reference, np.linspace(0, 1, bins + 1)[1:-1]))
    a = np.bincount(np.searchsorted(cuts, reference, side="left"), minlength=len(cuts) + 1)
    b = np.bincount(np.searchsorted(cuts, now, side="left"), minlength=len(cuts) + 1)
    p, q = np.maximum(a, 0.5) / len(reference), np.maximum(b, 0.5) / len(now)
    return float(((q - p) * np.log(q / p)).sum())


def drift(reference: Array, now: Array, names: list[str] | None = None, seed: int = 0) -> Drift:
    """``reference[n, d]`` against ``now[m, d]``: embeddings, features or outputs.

    A column has drifted when its KS test passes ALPHA shared over the columns (Bonferroni) and its PSI is LARGE or its
    sample so big that chance is ruled out; few rows make PSI large by themselves, so it never convicts alone.
    """
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (reference, now))
    if a.shape[1] != b.shape[1]:
        raise SpecError(f"the reference has {a.shape[1]} columns, the rows have {b.shape[1]}")
    if min(len(a), len(b)) < 2:
        raise SpecError(f"{len(a)} and {len(b)} rows; drift needs at least 2 of each")
    found = []
    for i in range(a.shape[1]):
        told = ks_2samp(a[:, i], b[:, i], method="asymp")
        moved = psi(a[:, i], b[:, i])
        found.append(
            Column(
                name=names[i] if names else str(i), psi=moved, ks=float(told.statistic), p=float(told.pvalue),
                drifted=bool(told.pvalue <= ALPHA / a.shape[1] and moved > 0.1),
            )
        )  # fmt: skip
    distance, p = kernel_distance(a, b, seed)
    return Drift(columns=tuple(found), distance=distance, p=p)


def kernel_distance(a: Array, b: Array, seed: int = 0) -> tuple[float, float]:
    """The unbiased estimate of the squared distance, and its permutation p. Columns are scaled by the reference."""
    rng = np.random.default_rng(seed)
    scale = a.std(0)
    scale[scale == 0] = 1.0
    x = a[rng.permutation(len(a))[:ROWS]] / scale
    y = b[rng.permutation(len(b))[:ROWS]] / scale
    both = np.concatenate([x, y])
    d = cdist(both, both, "sqeuclidean")
    width = np.median(d[d > 0]) if (d > 0).any() else 1.0
    k = np.exp(-d / width)
    np.fill_diagonal(k, 0.0)
    side = np.r_[np.ones(len(x), bool), np.zeros(len(y), bool)]
    seen = _mmd(k, side)
    chance = sum(_mmd(k, rng.permutation(side)) >= seen for _ in range(ROUNDS))
    return seen, float(1 + chance) / (1 + ROUNDS)


def _mmd(k: Array, side: Array) -> float:
    s = side.astype(np.float64)
    n, m = s.sum(), (1 - s).sum()
    row = k @ s
    within_a = float(s @ row) / (n * (n - 1))
    across = float((1 - s) @ row) / (n * m)
    within_b = float((1 - s) @ (k @ (1 - s))) / (m * (m - 1))
    return float(within_a + within_b - 2 * across)
