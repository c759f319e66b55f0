"""Fitting the classifiers with scikit-learn (the extra ``sklearn``). Runs in a process of its own, never in ops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from leptonai.errors import PluginError
from leptonai.ops.classify.ensemble import CLASSES, Ensemble
from leptonai.ops.classify.models import LEAST, Forest, Model, Net, Scaler, Svm, softmax
from leptonai.ops.features import FEATURES
from leptonai.protocols import Floats

Ints = NDArray[np.int64]

LANDMARKS = 200
TREES, LEAVES = 80, 160
HIDDEN, ROUNDS = 64, 60
FOLDS = 4  # inside the training data, for sharpness
EQUAL = (0.25, 0.25, 0.25, 0.25)  # svm, forest, net, rules
OUT_OF_REACH = 0.002  # share of held-out incidents that are further from all learnt ones than ``reach``


@dataclass(frozen=True)
class Data:
    """Rows of incidents: features (nan where not seen), the rules' probabilities, the true cause; ``group``: rows of
    one group are never split between training and test; ``weight``: how much a row counts."""

    table: Floats
    rules: Floats
    truth: Ints
    group: Ints

    def take(self, rows: Any) -> Data:
        return Data(self.table[rows], self.rules[rows], self.truth[rows], self.group[rows])


def scaler_of(table: Floats) -> Scaler:
    """Not seen counts as 0: no shift, no errors. A feature that never moved has scale 1."""
    names = tuple(FEATURES)
    fill = np.zeros(len(names))
    known = np.where(np.isfinite(table), table, fill)
    scale = known.std(axis=0)
    return Scaler(names, fill, known.mean(axis=0), np.where(scale > 1e-9, np.maximum(scale, 0.02), 1.0))


def balanced(truth: Ints) -> Floats:
    """Weights with which every class counts the same, together as many as there are rows."""
    count = np.bincount(truth, minlength=len(CLASSES)).astype(np.float64)
    out: Floats = len(truth) / (count > 0).sum() / count[truth]
    return out


def fit(x: Floats, truth: Ints, seed: int) -> tuple[Model, ...]:
    """The three machines, class-weighted, on standardised rows. PluginError: scikit-learn is not installed."""
    _sklearn()
    return _svm(x, truth, seed), _forest(x, truth, seed), _net(x, truth, seed)


def train(data: Data, seed: int = 0) -> Ensemble:
    """An ensemble: its machines learn from all rows; sharpness is fitted on what machines say of rows whose group they
    have not seen. Weights are equal: fitted ones trust the forest more and the rules less, which is no better for
    incidents of another make (docs/benchmarks/loop.md)."""
    scaler = scaler_of(data.table)
    x = scaler.rows(data.table)
    held = [np.full((len(x), len(CLASSES)), np.nan) for _ in range(3)]
    near = np.ones(len(x))
    folds = _folds(data.group, FOLDS, seed)
    for fold in np.unique(folds).tolist():
        rest, own = folds != fold, folds == fold
        for out, model in zip(held, fit(x[rest], data.truth[rest], seed), strict=True):
            out[own] = model.scores(x[own])
            if isinstance(model, Svm):
                near[own] = model.near(x[own]).max(axis=1)
    per = 1.0 / np.bincount(data.group)[data.group]  # every incident counts once, however often it was looked at
    sharpness = tuple(_sharpness(scores, data.truth, per) for scores in held)
    reach = float(np.quantile(near, OUT_OF_REACH))
    about: dict[str, object] = {"incidents": len(np.unique(data.group)), "seed": seed}
    return Ensemble(scaler, fit(x, data.truth, seed), sharpness, EQUAL, reach, about)


def _folds(group: Ints, folds: int, seed: int) -> Ints:
    """Whole groups, dealt out at random."""
    names, at = np.unique(group, return_inverse=True)
    dealt = np.random.default_rng(seed).permutation(np.arange(len(names)) % folds)
    out: Ints = dealt[at]
    return out


def _sharpness(scores: Floats, truth: Ints, per: Floats) -> float:
    rows = np.arange(len(truth))

    def loss(log_s: Floats) -> float:
        return float(-(per * np.log(softmax(scores * np.exp(log_s[0]))[rows, truth])).sum() / per.sum())

    return float(np.exp(minimize(loss, np.zeros(1), method="Nelder-Mead").x[0]))


def _sklearn() -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError as e:
        raise PluginError(
            "training classifiers needs scikit-learn", hint="pip install 'leptonai-platform[sklearn]'"
        ) from e


def _full(scores: Floats, classes: Floats, missing: float) -> Floats:
    """Columns for all of CLASSES; those that were never seen are least likely."""
    out = np.full((*scores.shape[:-1], len(CLASSES)), missing)
    out[..., np.asarray(classes, dtype=np.int64)] = scores
    return out


def _svm(x: Floats, truth: Ints, seed: int) -> Svm:
    from sklearn.kernel_approximation import Nystroem
    from sklearn.svm import LinearSVC

    gamma = 0.5 / x.shape[1]
    mapped = Nystroem(gamma=gamma, n_components=min(LANDMARKS, len(x)), random_state=seed).fit(x)
    machine = LinearSVC(loss="squared_hinge", C=4.0, class_weight="balanced", random_state=seed, max_iter=3000)
    machine.fit(mapped.transform(x), truth)
    weights = mapped.normalization_.T @ machine.coef_.T
    return Svm(
        mapped.components_.astype(np.float16).astype(np.float64),
        _full(weights, machine.classes_, 0.0),
        _full(machine.intercept_, machine.classes_, -3.0),
        gamma,
    )


def _forest(x: Floats, truth: Ints, seed: int) -> Forest:
    from sklearn.ensemble import RandomForestClassifier

    made = RandomForestClassifier(
        n_estimators=TREES, max_leaf_nodes=LEAVES, min_samples_leaf=2, max_features=0.3, class_weight="balanced",
        random_state=seed, n_jobs=1,
    ).fit(x, truth)  # fmt: skip
    roots, feature, threshold, left, right, leaf, votes = [], [], [], [], [], [], []
    base = leaves = 0
    for one in made.estimators_:
        tree = one.tree_
        ends = tree.children_left < 0
        roots.append(base)
        feature.append(np.where(ends, -1, tree.feature))
        threshold.append(tree.threshold.astype(np.float32))
        left.append(np.where(ends, 0, tree.children_left + base))
        right.append(np.where(ends, 0, tree.children_right + base))
        leaf.append(np.where(ends, np.cumsum(ends) - 1 + leaves, 0))
        share = tree.value[ends, 0, :]
        share = share / share.sum(axis=1, keepdims=True)
        votes.append(_full(np.round(share * 255.0), made.classes_, 0.0).astype(np.uint8))
        base += len(ends)
        leaves += int(ends.sum())
    joined = [np.concatenate(part) for part in (feature, left, right, leaf)]
    return Forest(
        np.array(roots, dtype=np.int64), joined[0].astype(np.int64), np.concatenate(threshold),
        joined[1].astype(np.int64), joined[2].astype(np.int64), joined[3].astype(np.int64), np.concatenate(votes),
    )  # fmt: skip


def _net(x: Floats, truth: Ints, seed: int) -> Net:
    """Class-weighted by drawing rows; the net itself knows no weights in the oldest release we work with."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    chance = balanced(truth)
    drawn = np.random.default_rng(seed).choice(len(x), size=len(x), p=chance / chance.sum())
    made = MLPClassifier(
        (HIDDEN,), alpha=3e-2, max_iter=ROUNDS, random_state=seed, learning_rate_init=3e-3, batch_size=min(64, len(x))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it is stopped on purpose
        made.fit(x[drawn], truth[drawn])
    last = _full(made.coefs_[-1], made.classes_, 0.0)
    return Net(
        (*made.coefs_[:-1], last), (*made.intercepts_[:-1], _full(made.intercepts_[-1], made.classes_, np.log(LEAST)))
    )
