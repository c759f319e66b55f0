"""Which rows train and which judge. Seeded; every row is held out exactly once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leptonai.errors import SpecError

Fold = tuple[NDArray[np.int64], NDArray[np.int64]]  # indices that train, indices held out; both sorted


def kfold(count: int, folds: int = 5, seed: int = 0) -> list[Fold]:
    """``folds`` splits of ``range(count)``; held-out parts differ in size by at most one."""
    if not 2 <= folds <= count:
        raise SpecError(f"{folds} folds of {count} rows; there must be at least 2, and a row for each")
    order = np.random.default_rng(seed).permutation(count)
    return _folds(np.arange(count) % folds, order)


def stratified(labels: ArrayLike, folds: int = 5, seed: int = 0) -> list[Fold]:
    """As ``kfold``, and the rows of each class are spread over the held-out parts evenly, to within one."""
    y: NDArray[Any] = np.asarray(labels)
    if y.ndim != 1 or not len(y):
        raise SpecError(f"labels have shape {y.shape}; one label for each row is needed")
    classes, codes = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise SpecError(f"all {len(y)} labels are {classes[0]!r}; at least two classes are needed")
    rarest = int(np.bincount(codes).min())
    if not 2 <= folds <= rarest:
        raise SpecError(f"{folds} folds, but the rarest class has {rarest} rows", hint=f"use 2 to {rarest} folds")
    order = np.random.default_rng(seed).permutation(len(y))
    order = order[np.argsort(codes[order], kind="stable")]
    return _folds(np.arange(len(y)) % folds, order)


def _folds(part: NDArray[np.int64], order: NDArray[np.int64]) -> list[Fold]:
    return [(np.sort(order[part != k]), np.sort(order[part == k])) for k in range(int(part.max()) + 1)]
