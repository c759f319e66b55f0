"""Two models on the same rows; one model on parts of the rows. Pure."""

from __future__ import annotations

import numpy as np
from scipy.stats import binomtest

from leptonai.improve.evaluate.rows import Array
from leptonai.types import Noun

ROUNDS = 2000  # of the bootstrap


class Comparison(Noun, frozen=True, kw_only=True):
    """``gain``: how much better this one is than the other, with a 95 % interval (paired bootstrap over rows).

    ``p``: chance of so uneven a split of the rows where only one is right, were both as good (exact McNemar test);
    nan in a regression.
    """

    gain: float
    low: float
    high: float
    only_this: int = 0
    only_other: int = 0
    p: float = float("nan")


def paired(this: Array, other: Array, seed: int = 0) -> Comparison:
    """``this`` and ``other``: how good each answer is, row by row (bool: right or wrong; float: higher is better)."""
    difference = this.astype(np.float64) - other
    draws = np.random.default_rng(seed).integers(0, len(difference), (ROUNDS, len(difference)))
    low, high = np.quantile(difference[draws].mean(1), [0.025, 0.975])
    told = {}
    if this.dtype.kind == "b":
        mine, theirs = int((this & ~other).sum()), int((other & ~this).sum())
        told = {"only_this": mine, "only_other": theirs}
        p = binomtest(mine, mine + theirs).pvalue if mine + theirs else 1.0
        return Comparison(gain=float(difference.mean()), low=float(low), high=float(high), p=float(p), **told)
    return Comparison(gain=float(difference.mean()), low=float(low), high=float(high))


class Slice(Noun, frozen=True, kw_only=True):
    """Rows where ``column`` is ``value`` (or in a quarter of its numbers): ``quality`` is their mean goodness."""

    column: str
    value: str
    rows: int
    quality: float
    p: float  # two-sided, against all other rows; nan in a regression


def slices(column: str, values: Array, good: Array, least: int = 10) -> list[Slice]:
    """One for each value of ``column``, worst first; numbers with more than 10 values are cut into quarters.

    Slices of fewer than ``least`` rows are left out. p by Fisher's exact test.
    """
    from scipy.stats import fisher_exact

    groups: dict[str, Array] = {}
    if values.dtype.kind in "iuf" and len(np.unique(values)) > 10:
        cuts = np.quantile(values, [0.25, 0.5, 0.75])
        index = np.searchsorted(cuts, values, side="left")
        edges = [f"<= {cuts[0]:.4g}", f"{cuts[0]:.4g} to {cuts[1]:.4g}", f"{cuts[1]:.4g} to {cuts[2]:.4g}"]
        for i, name in enumerate([*edges, f"> {cuts[2]:.4g}"]):
            groups[name] = index == i
    else:
        for v in np.unique(values):
            groups[str(v)] = values == v
    found = []
    for name, here in groups.items():
        if here.sum() < least:
            continue
        p = float("nan")
        if good.dtype.kind == "b" and not here.all():
            a, b = good[here], good[~here]
            p = float(fisher_exact([[a.sum(), (~a).sum()], [b.sum(), (~b).sum()]]).pvalue)
        found.append(Slice(column=column, value=name, rows=int(here.sum()), quality=float(good[here].mean()), p=p))
    return sorted(found, key=lambda s: s.quality)
