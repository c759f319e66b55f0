"""How good probabilities are: F1 per class, the confusion, and whether stated confidences come true. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leptonai.protocols import Floats

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

BINS = 10  # of equal width, over the stated confidence


@dataclass(frozen=True)
class PerClass:
    cause: str
    count: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Score:
    """``macro_f1``: the mean over the classes that occur. ``calibration``: expected calibration error of the first
    cause, the mean over BINS of |share right - mean confidence|, weighted by incidents (Naeini et al. 2015).
    ``confusion``: truth -> said -> incidents. ``low`` and ``high``: 95 % bootstrap interval of macro_f1."""

    count: int
    accuracy: float
    second: float  # the truth is among the first two
    macro_f1: float
    low: float
    high: float
    calibration: float
    classes: tuple[PerClass, ...]
    confusion: dict[str, dict[str, int]]
    bins: tuple[tuple[float, float, int], ...]  # mean confidence, share right, incidents


def score(truth: Sequence[str], p: Floats, names: Sequence[str], seed: int = 0, again: int = 400) -> Score:
    """Of probabilities ``p`` (incidents, names) against the truth, which is among ``names``."""
    wanted = np.array([list(names).index(t) for t in truth], dtype=np.int64)
    said = p.argmax(axis=1)
    order = np.argsort(-p, axis=1, kind="stable")[:, :2]
    rng = np.random.default_rng(seed)
    seen = np.unique(wanted)
    rows = len(wanted)
    several = [_macro(wanted[i], said[i], seen) for i in (rng.integers(0, rows, rows) for _ in range(again))]
    low, high = np.quantile(several, (0.025, 0.975)) if several else (np.nan, np.nan)
    confusion: dict[str, dict[str, int]] = {}
    for t, s in zip(wanted.tolist(), said.tolist(), strict=True):
        row = confusion.setdefault(names[t], {})
        row[names[s]] = row.get(names[s], 0) + 1
    bins = _bins(p.max(axis=1), said == wanted)
    return Score(
        count=rows,
        accuracy=float((said == wanted).mean()),
        second=float((order == wanted[:, None]).any(axis=1).mean()),
        macro_f1=_macro(wanted, said, seen),
        low=float(low),
        high=float(high),
        calibration=float(sum(n * abs(right - sure) for sure, right, n in bins) / max(rows, 1)),
        classes=tuple(_of(names[c], wanted == c, said == c) for c in seen.tolist()),
        confusion=confusion,
        bins=bins,
    )


def _of(name: str, wanted: Flags, said: Flags) -> PerClass:
    right = float((wanted & said).sum())
    precision = right / said.sum() if said.any() else 0.0
    recall = right / wanted.sum() if wanted.any() else 0.0
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    return PerClass(name, int(wanted.sum()), float(precision), float(recall), float(f1))


def _macro(wanted: Ints, said: Ints, classes: Ints) -> float:
    return float(np.mean([_of("", wanted == c, said == c).f1 for c in classes.tolist()]))


def _bins(sure: Floats, right: Flags) -> tuple[tuple[float, float, int], ...]:
    at = np.minimum((sure * BINS).astype(int), BINS - 1)
    return tuple(
        (float(sure[at == b].mean()), float(right[at == b].mean()), int((at == b).sum()))
        for b in range(BINS)
        if (at == b).any()
    )
