"""How good the ensemble is on incidents whose service, load shape and severity it has not seen. Runs apart from ops."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from leptonai.errors import SpecError
from leptonai.ops.classify.ensemble import CLASSES, RULES, Ensemble, pool
from leptonai.ops.classify.samples import Sample, data_of
from leptonai.ops.classify.score import Score, score
from leptonai.ops.classify.train import train
from leptonai.protocols import Floats

ENSEMBLE, FREQUENT, CHANCE = "ensemble", "most frequent", "chance"
FEWEST = 50  # incidents
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Held:
    """Scores by voter, of incidents that were held out: ``ensemble``, each classifier, ``rules``, and two baselines."""

    scores: dict[str, Score]
    folds: int


@dataclass(frozen=True)
class Lived:
    """Scores by voter of incidents of real processes, by a classifier that was made without them.

    ``gained``: told rightly by the ensemble and not by the rules, ``lost``: the other way round; ``chance``: that as
    uneven a pair comes of two that are as good (sign test, two-sided: McNemar 1947, exact).
    """

    scores: dict[str, Score]
    gained: int
    lost: int
    chance: float


def lived_by(ensemble: Ensemble, samples: Sequence[Sample]) -> Lived:
    """``samples``: labelled incidents that the ensemble has not learnt from."""
    data = data_of(samples)
    votes = ensemble.each(ensemble.scaler.rows(data.table))
    said = {m.name: v for m, v in zip(ensemble.models, votes, strict=True)}
    said = {
        ENSEMBLE: ensemble.pooled(data.table, data.rules),
        "classifiers alone": pool(votes, [1 / len(votes)] * len(votes)),
        **said,
        RULES: data.rules,
    }
    scores, right = {}, {}
    for name, p in said.items():
        truth = [_right(s, CLASSES[i]) for s, i in zip(samples, p.argmax(axis=1).tolist(), strict=True)]
        scores[name] = score(truth, p, CLASSES)
        right[name] = p.argmax(axis=1) == np.array([CLASSES.index(t) for t in truth])
    gained, lost = (int((right[a] & ~right[b]).sum()) for a, b in ((ENSEMBLE, RULES), (RULES, ENSEMBLE)))
    chance = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return Lived(scores, gained, lost, chance)


def _right(sample: Sample, said: str) -> str:
    """The true cause, where several are as right the one that was said."""
    return said if said in sample.also else sample.cause


Split = Callable[[Sequence[Sample], int], Iterator[tuple[Flags, Flags]]]


def strictly(samples: Sequence[Sample], seed: int) -> Iterator[tuple[Flags, Flags]]:
    """(training, test) by load shape and severity at once: tested is one of each, trained on all that have neither.

    A service occurs in one incident only, or all of its incidents are left out of training with it.
    """
    shape, level = np.array([s.shape for s in samples]), np.array([s.level for s in samples])
    service = np.array([s.service for s in samples])
    for a in sorted(set(shape.tolist())):
        for b in sorted(set(level.tolist())):
            test = (shape == a) & (level == b)
            if test.any():
                yield (shape != a) & (level != b) & ~np.isin(service, service[test]), test


def by_service(samples: Sequence[Sample], seed: int, folds: int = 5) -> Iterator[tuple[Flags, Flags]]:
    """(training, test) by service alone."""
    names, at = np.unique([s.service for s in samples], return_inverse=True)
    dealt = np.random.default_rng(seed).permutation(np.arange(len(names)) % folds)[at]
    for fold in range(folds):
        yield dealt != fold, dealt == fold


def held_out(samples: Sequence[Sample], split: Split = strictly, seed: int = 0) -> Held:
    """Every incident is judged once, at its last look, by an ensemble that was trained without it (all looks of the
    others). SpecError: too few incidents to say anything."""
    data = data_of(samples)
    last = np.array([s.last for s in samples])
    if last.sum() < FEWEST:
        raise SpecError(
            f"{int(last.sum())} labelled incidents; {FEWEST} are the fewest", hint="draw more, or review more"
        )
    said: dict[str, Floats] = {}
    count = 0
    order: list[int] = []
    for train_on, test_on in split(samples, seed):
        test = np.flatnonzero(test_on & last)
        if not len(test):
            continue
        count += 1
        made = train(data.take(train_on), seed)
        x = made.scaler.rows(data.table[test])
        votes = made.each(x)
        found = {m.name: v for m, v in zip(made.models, votes, strict=True)}
        found[ENSEMBLE] = made.pooled(data.table[test], data.rules[test])
        found["classifiers alone"] = pool(votes, [1 / 3] * 3)
        found[RULES] = data.rules[test]
        shares = np.bincount(data.truth[train_on & last], minlength=len(CLASSES)) + 1e-6
        found[FREQUENT] = np.tile(shares / shares.sum(), (len(test), 1))
        found[CHANCE] = np.random.default_rng(seed).dirichlet(np.ones(len(CLASSES)), len(test))
        for name, p in found.items():
            said[name] = np.concatenate((said[name], p)) if name in said else p
        order += test.tolist()
    truth = [samples[i].cause for i in order]
    return Held({name: score(truth, p, CLASSES) for name, p in said.items()}, count)
