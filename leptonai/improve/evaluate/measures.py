"""How right answers are: confusion, precision, recall, F1, curves, calibration; errors of a regression. Pure.

Definitions: Davis & Goadrich 2006 (ROC and PR), Naeini et al. 2015 (expected calibration error), Brier 1950.
"""

from __future__ import annotations

from math import nan
from typing import Any

import numpy as np

from leptonai.improve.evaluate.answers import Answers
from leptonai.improve.evaluate.rows import Array
from leptonai.types import Noun

BINS = 10  # of equal width, for calibration


class OfClass(Noun, frozen=True, kw_only=True):
    """One class against all others. ``precision`` is nan when the class was never said."""

    label: str
    support: int
    precision: float
    recall: float
    f1: float
    auroc: float = nan
    average_precision: float = nan


class Bin(Noun, frozen=True, kw_only=True):
    count: int
    confidence: float  # mean of what was said
    accuracy: float  # share that was right


class Classification(Noun, frozen=True, kw_only=True):
    rows: int
    accuracy: float
    macro_f1: float  # mean over classes; a class never said counts as 0
    classes: tuple[OfClass, ...]
    confusion: tuple[tuple[int, ...], ...]  # rows: true class, columns: said class, both as ``classes``
    log_loss: float = nan
    brier: float = nan  # mean squared distance from the one-hot truth, in [0, 2]
    calibration_error: float = nan
    calibration: tuple[Bin, ...] = ()


class Regression(Noun, frozen=True, kw_only=True):
    rows: int
    mae: float
    rmse: float
    r2: float
    bias: float  # mean of predicted minus true


Measures = Classification | Regression


def measure(labels: Array, said: Answers) -> Measures:
    """All measures that labels and answers allow; nan where probabilities are needed and none were told."""
    if labels.dtype.kind == "f":
        return _regression(labels, said.predicted)
    names = np.unique(np.concatenate([labels.astype(str), said.predicted.astype(str)]))
    if labels.dtype.kind in "iub" and said.predicted.dtype.kind in "iub":
        names = np.unique(np.concatenate([labels, said.predicted])).astype(str)
    code = {n: i for i, n in enumerate(names.tolist())}
    true = np.array([code[str(v)] for v in labels.tolist()])
    predicted = np.array([code[str(v)] for v in said.predicted.tolist()])
    matrix = np.zeros((len(names), len(names)), np.int64)
    np.add.at(matrix, (true, predicted), 1)
    columns = {} if said.classes is None else {str(c): i for i, c in enumerate(said.classes.tolist())}
    classes = []
    for i, name in enumerate(names.tolist()):
        hit, told, there = int(matrix[i, i]), int(matrix[:, i].sum()), int(matrix[i].sum())
        precision, recall = hit / told if told else nan, hit / there if there else nan
        f1 = 2 * hit / (told + there) if told + there else nan
        area = average = nan
        if said.probabilities is not None and name in columns and 0 < there < len(true):
            score = said.probabilities[:, columns[name]]
            area, average = auroc(true == i, score), average_precision(true == i, score)
        classes.append(
            OfClass(
                label=name, support=there, precision=precision, recall=recall, f1=f1,
                auroc=area, average_precision=average,
            )
        )  # fmt: skip
    scored = _probabilistic(labels, said, columns)
    return Classification(
        rows=len(true),
        accuracy=float((true == predicted).mean()),
        macro_f1=float(np.mean([c.f1 for c in classes if c.support])),
        classes=tuple(classes),
        confusion=tuple(tuple(int(v) for v in row) for row in matrix),
        **scored,
    )


def _probabilistic(labels: Array, said: Answers, columns: dict[str, int]) -> dict[str, Any]:
    p = said.probabilities
    if p is None or any(str(v) not in columns for v in np.unique(labels).tolist()):
        return {}
    at = np.array([columns[str(v)] for v in labels.tolist()])
    truth = np.zeros_like(p)
    truth[np.arange(len(at)), at] = 1
    confidence, right = p.max(1), p.argmax(1) == at
    bins = calibration(confidence, right)
    error = sum(b.count * abs(b.accuracy - b.confidence) for b in bins) / len(at)
    return {
        "log_loss": float(-np.log(np.clip(p[np.arange(len(at)), at], 1e-15, 1)).mean()),
        "brier": float(((p - truth) ** 2).sum(1).mean()),
        "calibration_error": float(error),
        "calibration": bins,
    }


def calibration(confidence: Array, right: Array) -> tuple[Bin, ...]:
    """Of each tenth of confidence that was said: how often it was right. Tenths never said are left out."""
    index = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return tuple(
        Bin(count=int(here.sum()), confidence=float(confidence[here].mean()), accuracy=float(right[here].mean()))
        for b in range(BINS)
        if (here := index == b).any()
    )


def roc(positive: Array, score: Array) -> tuple[Array, Array]:
    """False and true positive rates as the threshold falls, from (0, 0) to (1, 1); equal scores are one point."""
    hits, total = _steps(positive, score)
    misses = total - hits
    return np.r_[0, misses / misses[-1]], np.r_[0, hits / hits[-1]]


def pr(positive: Array, score: Array) -> tuple[Array, Array]:
    """Recall and precision as the threshold falls."""
    hits, total = _steps(positive, score)
    return hits / hits[-1], hits / total


def auroc(positive: Array, score: Array) -> float:
    false, true = roc(positive, score)
    return float((np.diff(false) * (true[1:] + true[:-1]) / 2).sum())


def average_precision(positive: Array, score: Array) -> float:
    """The step-wise integral of precision over recall (no interpolation)."""
    recall, precision = pr(positive, score)
    return float((np.diff(np.r_[0, recall]) * precision).sum())


def _steps(positive: Array, score: Array) -> tuple[Array, Array]:
    order = np.argsort(-score, kind="stable")
    last = np.r_[np.flatnonzero(np.diff(score[order])), len(score) - 1]  # where equal scores end
    return np.cumsum(positive[order].astype(np.int64))[last], last + 1


def _regression(labels: Array, predicted: Array) -> Regression:
    error = predicted.astype(np.float64) - labels
    spread = float(((labels - labels.mean()) ** 2).sum())
    return Regression(
        rows=len(labels),
        mae=float(np.abs(error).mean()),
        rmse=float(np.sqrt((error**2).mean())),
        r2=1 - float((error**2).sum()) / spread if spread else nan,
        bias=float(error.mean()),
    )
