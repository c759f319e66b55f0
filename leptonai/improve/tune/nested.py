"""Parameters of a classifier on labelled rows, such as incidents, with an honest estimate: nested cross-validation.

The parameters are chosen by inner folds of each outer fold's training part, so the outer rows judge a choice they had
no part in (Varma & Simon 2006). Rows of one ``group`` (one incident) never stand on both sides. Short histories may be
augmented: training rows are repeated with noise of a tenth of each column's spread, never rows that judge.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from leptonai.errors import ModelError, SpecError, needs
from leptonai.improve.evaluate.rows import Array, Rows
from leptonai.improve.train.splits import stratified
from leptonai.improve.tune.study import Best, Objective, Study, Told, Value, work
from leptonai.types import Noun

NOISE = 0.1  # of a column's standard deviation
Make = Callable[[dict[str, Value]], Any]


class Classify(Noun, frozen=True, kw_only=True):
    """``group``: the column that names the incident a row belongs to. ``augment``: noisy copies of each row."""

    data: str
    estimator: str
    label: str | None = None
    group: str | None = None
    args: dict[str, Any] = {}
    outer: int = 5
    inner: int = 3
    augment: int = 0


class Nested(Noun, frozen=True, kw_only=True):
    """``accuracy``: balanced, of the outer folds, each judged by parameters chosen without it."""

    accuracy: float
    folds: tuple[float, ...]
    best: Best  # chosen on all rows, for use


def folds(labels: Array, count: int, groups: Array | None, seed: int) -> list[tuple[Array, Array]]:
    """Stratified; with ``groups`` whole groups are held out, dealt so that each fold has some of each class."""
    if groups is None:
        return [(a, b) for a, b in stratified(labels, count, seed)]
    names, first = np.unique(groups, return_index=True)
    if len(names) < count:
        raise SpecError(f"{count} folds of {len(names)} groups; there must be a group for each")
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(names))
    order = order[np.argsort(labels[first][order].astype(str), kind="stable")]
    part = {names[g]: i % count for i, g in enumerate(order)}
    at = np.array([part[g] for g in groups])
    return [(np.flatnonzero(at != k), np.flatnonzero(at == k)) for k in range(count)]


def augmented(x: Array, y: Array, copies: int, seed: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    scale = NOISE * x.std(0)
    parts = [x, *(x + scale * rng.standard_normal(x.shape) for _ in range(copies))]
    return np.concatenate(parts), np.tile(y, copies + 1)


def balanced(labels: Array, said: Array) -> float:
    """Mean recall over classes: a rare fault counts as much as a frequent one."""
    return float(np.mean([(said[labels == c] == c).mean() for c in np.unique(labels)]))


def objective(rows: Rows, make: Make, count: int, groups: Array | None, augment: int, seed: int) -> Objective:
    """The mean balanced accuracy over ``count`` folds; after each fold the mean so far is told."""
    x, y = _features(rows), rows.labelled()
    parts = folds(y, count, groups, seed)

    def value(params: dict[str, Value], told: Told) -> float:
        from leptonai.improve.tune.study import Pruned

        seen: list[float] = []
        for number, (train, held) in enumerate(parts):
            model = make(params)
            model.fit(*augmented(x[train], y[train], augment, seed))
            seen.append(balanced(y[held], model.predict(x[held])))
            if not told(number, float(np.mean(seen))):
                raise Pruned
        return float(np.mean(seen))

    return value


def nested(rows: Rows, study: Study, make: Make, task: Classify) -> Nested:
    """The honest estimate, and the parameters for use. SpecError for too few rows of a class or groups."""
    y, groups = rows.labelled(), _groups(rows, task)
    scores = []
    for number, (train, held) in enumerate(folds(y, task.outer, groups, study.seed)):
        inner = rows.take(train)
        inner_groups = None if groups is None else groups[train]
        small = msgspec.structs.replace(study, name=f"{study.name}-{number}", seed=study.seed + number)
        found = work(small, objective(inner, make, task.inner, inner_groups, task.augment, small.seed))
        model = make(found.params)
        model.fit(*augmented(_features(inner), y[train], task.augment, small.seed))
        scores.append(balanced(y[held], model.predict(_features(rows.take(held)))))
    chosen = work(study, objective(rows, make, task.inner, groups, task.augment, study.seed))
    return Nested(accuracy=float(np.mean(scores)), folds=tuple(scores), best=chosen)


def _groups(rows: Rows, task: Classify) -> Array | None:
    if task.group is None:
        return None
    if task.group not in rows.columns:
        raise SpecError(f"there is no column {task.group!r}", hint=f"columns: {', '.join(rows.columns)}")
    return rows.columns[task.group]


def _features(rows: Rows) -> Array:
    x = next(iter(rows.inputs.values()))
    return x.reshape(len(x), -1).astype(np.float64)


def maker(task: Classify, seed: int) -> Make:
    """Makes the estimator with its fixed arguments and a trial's. SpecError for a name that is none of scikit-learn."""
    module, _, name = task.estimator.rpartition(".")
    if not module.startswith("sklearn"):
        raise SpecError(f"estimator is {task.estimator!r}; it must be a class of scikit-learn")
    needs(f"estimator {task.estimator}", "sklearn")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as e:
        raise SpecError(f"estimator {task.estimator} is not known: {e}") from e

    def make(params: dict[str, Value]) -> Any:
        import inspect

        known = inspect.signature(cls).parameters
        given = {"random_state": seed} if "random_state" in known else {}
        try:
            return cls(**{**given, **task.args, **params})
        except TypeError as e:
            raise ModelError(f"{name} cannot be made: {e}", hint=f"parameters: {', '.join(known)}") from e

    return make
