"""Rules and classifiers as one opinion with a calibrated confidence.

Each voter gives probabilities over the causes of the taxonomy and ``unknown``. They are pooled as a weighted product
(logarithmic opinion pool; Genest & Zidek 1986): p ~ prod p_m ** w_m, all with the same weight. Each classifier's scores
are sharpened first so that its own probabilities come true on incidents it was not trained on (temperature scaling; Guo
et al. 2017).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from leptonai.ops.classify.models import LEAST, Model, Scaler, Svm, softmax
from leptonai.ops.diagnosis.causes import CAUSES
from leptonai.protocols import Floats
from leptonai.types import Cause

CLASSES = tuple(CAUSES)  # "unknown" is one of them, the last
RULES = "rules"


class Opinion(NamedTuple):
    """``p``: cause -> probability, together 1; ``votes``: voter -> the same of each. ``near`` in 0..1: how much the
    incident is like those learnt from."""

    p: dict[str, float]
    votes: dict[str, dict[str, float]]
    near: float


@dataclass(frozen=True)
class Ensemble:
    """``sharpness``: per classifier, what its scores are multiplied by to be probabilities; ``weights``: of the
    classifiers in their order, then of the rules. ``reach``: an incident less like any learnt one is left to the rules.
    """

    scaler: Scaler
    models: tuple[Model, ...]
    sharpness: tuple[float, ...]
    weights: tuple[float, ...]
    reach: float = 0.0
    about: dict[str, object] = field(default_factory=dict)

    def each(self, x: Floats) -> list[Floats]:
        """Per classifier: probabilities (rows, classes) of standardised rows."""
        return [softmax(m.scores(x) * s) for m, s in zip(self.models, self.sharpness, strict=True)]

    def near(self, x: Floats) -> Floats:
        """Per row: how near the nearest landmark of the support vector machine is, 1 = there."""
        for model in self.models:
            if isinstance(model, Svm):
                out: Floats = model.near(x).max(axis=1)
                return out
        return np.ones(len(x))

    def pooled(self, table: Floats, rules: Floats) -> Floats:
        """Probabilities of rows of features as told (nan where not seen), with those of the rules; where a row is out
        of reach, the rules' own."""
        x = self.scaler.rows(table)
        out = pool([*self.each(x), rules], self.weights)
        far = self.near(x) < self.reach
        out[far] = rules[far]
        return out

    def opinion(self, features: dict[str, float], causes: Iterable[Cause]) -> Opinion | None:
        """What all voters together say of one incident; None: it is unlike everything learnt."""
        x = self.scaler.row(features)
        near = float(self.near(x)[0])
        if near < self.reach:
            return None
        rules = of_rules(causes)[None, :]
        votes = [*self.each(x), rules]
        p = pool(votes, self.weights)[0]
        names = [*(m.name for m in self.models), RULES]
        return Opinion(_named(p), {n: _named(v[0]) for n, v in zip(names, votes, strict=True)}, near)


def pool(votes: Sequence[Floats], weights: Sequence[float]) -> Floats:
    """The weighted product of probabilities (rows, classes), as probabilities."""
    logs = sum(w * np.log(np.maximum(v, LEAST)) for w, v in zip(weights, votes, strict=True))
    return softmax(np.asarray(logs, dtype=np.float64))


def of_rules(causes: Iterable[Cause]) -> Floats:
    """The rules' confidences as probabilities over CLASSES: of one cause the highest of its subjects; what is left is
    ``unknown``'s. Causes of an operator's own count as ``unknown``: no classifier knows them."""
    out = np.zeros(len(CLASSES))
    for cause in causes:
        if cause.name == "unknown":
            continue
        at = CLASSES.index(cause.name) if cause.name in CAUSES else len(CLASSES) - 1
        out[at] = max(out[at], cause.confidence)
    total = out.sum()
    if total > 1.0:
        out /= total
    else:
        out[-1] += 1.0 - total
    out = np.maximum(out, LEAST)
    rows: Floats = out / out.sum()
    return rows


def _named(p: Floats) -> dict[str, float]:
    return {name: float(v) for name, v in zip(CLASSES, p, strict=True)}
