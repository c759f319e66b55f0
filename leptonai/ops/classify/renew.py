"""A new classifier is taken into force only where it is better on incidents that neither it nor the old one saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from leptonai.errors import SpecError
from leptonai.ops.classify.ensemble import CLASSES, Ensemble
from leptonai.ops.classify.files import save
from leptonai.ops.classify.samples import Sample, data_of
from leptonai.ops.classify.score import Score, score
from leptonai.ops.classify.train import train

FEWEST = 20  # incidents to judge by


@dataclass(frozen=True)
class Renewal:
    """``before`` and ``after``: of the old one (None: there is none) and of the new one on the same held-out incidents.
    ``gain``: of the mean logarithm of the probability given to the true cause."""

    ensemble: Ensemble
    before: Score | None
    after: Score
    gain: float
    kept: bool


def whole(learn: Sequence[Sample], seed: int, about: dict[str, object], path: Path) -> None:
    """Train on all of ``learn`` and write what came of it to ``path``, with ``about`` it. SpecError: it cannot be."""
    made = train(data_of(learn), seed)
    made.about.update(about)
    try:
        save(path, made)
    except OSError as e:
        raise SpecError(f"{path}: {e.strerror}", hint="name a file in a folder that can be written") from e


def renew(learn: Sequence[Sample], judge: Sequence[Sample], old: Ensemble | None, seed: int = 0) -> Renewal:
    """Train on ``learn``; ``kept`` when there is no old one, or the true causes of ``judge`` get higher probabilities
    and macro-F1 does not fall. SpecError: too few to judge by, or one incident on both sides."""
    judged = [s for s in judge if s.last]
    if len(judged) < FEWEST:
        raise SpecError(f"{len(judged)} incidents to judge by; {FEWEST} are the fewest", hint="draw or review more")
    if both := {s.incident for s in learn} & {s.incident for s in judge}:
        raise SpecError(f"incident {min(both)} is to be learnt from and judged by")
    new, data = train(data_of(learn), seed), data_of(judged)
    truth, rows = [s.cause for s in judged], np.arange(len(judged))
    p = new.pooled(data.table, data.rules)
    after = score(truth, p, CLASSES)
    if old is None:
        return Renewal(new, None, after, float("nan"), True)
    q = old.pooled(data.table, data.rules)
    before = score(truth, q, CLASSES)
    gain = float(np.mean(np.log(p[rows, data.truth]) - np.log(q[rows, data.truth])))
    return Renewal(new, before, after, gain, gain > 0 and after.macro_f1 >= before.macro_f1)
