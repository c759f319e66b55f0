"""What a model says of rows, in the form that measures need: a label for each row, and a probability for each class."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from leptonai.errors import ModelError, SpecError
from leptonai.improve.evaluate.rows import Array, Rows
from leptonai.protocols import Predictor

STEP = 256  # rows asked at once


class Answers(NamedTuple):
    """``predicted[n]``: labels, or numbers in a regression. ``probabilities[n, classes]``: None where none are told."""

    predicted: Array
    probabilities: Array | None
    classes: Array | None  # the label of each column


def opened(path: Path, options: dict[str, Any] | None = None, trust: str = "none") -> Predictor:
    """The model at ``path`` (a file, or a folder as it would be deployed) by the loader that a replica would use.

    ModelError or SpecError as the replica would say it.
    """
    from leptonai.improve.compress.foreign import quiet
    from leptonai.runtime import loaders
    from leptonai.types import Variant

    if not path.exists():
        raise SpecError(f"{path}: no such file", hint="give the path of a model file or of its folder")
    folder, chosen = (path, dict(options or {})) if path.is_dir() else (path.parent, {**(options or {})})
    if not path.is_dir():
        chosen["file"] = path.name
    variant = Variant(model=str(path), options=chosen, trust="pickle" if trust == "pickle" else "none")
    with quiet():
        predictor, _ = loaders.load(str(folder), variant)
    if not predictor.inputs:
        raise SpecError(f"{path} is a Python class; what it takes is not known", hint="give a model file")
    return predictor


def ask(predictor: Predictor, inputs: dict[str, Array]) -> dict[str, Array]:
    """Every output for all rows, asked STEP rows at a time (one at a time of a model that cannot batch)."""
    count = len(next(iter(inputs.values())))
    step = STEP if predictor.batchable else 1
    parts = []
    for i in range(0, count, step):
        try:
            parts.append(predictor.predict({k: v[i : i + step] for k, v in inputs.items()}))
        except ModelError:
            raise
        except Exception as e:
            raise ModelError(f"the model fails on rows {i} to {i + step - 1}: {' '.join(str(e).split())[:300]}") from e
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def answers(outputs: dict[str, Array], rows: Rows) -> Answers:
    """``outputs`` read as a classification where labels are whole numbers or words, else as a regression.

    Probabilities: the output of one number for each class; scores that are none are put through a softmax. A single
    number with labels 0 and 1 is the probability of 1 when it is in [0, 1], else its log-odds.
    """
    labels = rows.labels
    table = next((o for o in outputs.values() if o.ndim == 2 and o.shape[1] > 1 and o.dtype.kind == "f"), None)
    named = next((o for o in outputs.values() if o.ndim == 1 and o.dtype.kind in "iubUSO"), None)
    if named is not None and labels is not None and labels.dtype.kind not in "iubf" and named.dtype.kind in "iub":
        named = None  # places of labels that are words: the scores beside them say the same
    single = next((o for o in outputs.values() if o.size == len(o) and o.dtype.kind == "f"), None)
    if labels is not None and labels.dtype.kind == "f":
        if single is None:
            raise SpecError("labels are real numbers, but the model has no output of one number for each row")
        return Answers(single.reshape(-1).astype(np.float64), None, None)
    if table is not None:
        classes = _classes(table.shape[1], labels, named)
        p = probabilities(table)
        return Answers(classes[p.argmax(1)] if named is None else _like(named, labels), p, classes)
    if named is not None:
        return Answers(_like(named, labels), None, None)
    if single is None:
        shapes = {k: list(v.shape) for k, v in outputs.items()}
        raise SpecError(f"no output of the model can be read as labels or scores: {shapes}")
    if labels is None:
        return Answers(single.reshape(-1).astype(np.float64), None, None)
    found = np.unique(labels)
    if len(found) > 2:
        raise SpecError(f"the model gives one number a row, but there are {len(found)} classes of labels")
    one = single.reshape(-1).astype(np.float64)
    p1 = one if one.min() >= 0 and one.max() <= 1 else 1 / (1 + np.exp(-np.clip(one, -700, 700)))
    classes = np.array([0, 1]) if set(found.tolist()) <= {0, 1} else found
    return Answers(classes[(p1 > 0.5).astype(int)], np.stack([1 - p1, p1], 1), classes)


def probabilities(scores: Array) -> Array:
    s = scores.astype(np.float64)
    if s.min(initial=0) >= 0 and np.allclose(s.sum(1), 1, atol=1e-3):
        return np.asarray(s / s.sum(1, keepdims=True))
    e = np.exp(s - s.max(1, keepdims=True))
    out: Array = e / e.sum(1, keepdims=True)
    return out


def _classes(columns: int, labels: Array | None, named: Array | None) -> Array:
    """The labels of the columns: what is told in sorted order when it is as many, else 0, 1, 2 ..."""
    for told in (labels, named):
        if told is not None and len(unique := np.unique(told)) == columns:
            return np.asarray(_like(unique, labels))
    if labels is not None and labels.dtype.kind not in "iub":
        raise SpecError(
            f"the model has {columns} classes, the data {len(np.unique(labels))} kinds of labels, which are words",
            hint="number the classes as the model does, or give rows of all classes",
        )
    if labels is not None and labels.max() >= columns:
        raise SpecError(f"label {int(labels.max())} is over the {columns} classes of the model (0 to {columns - 1})")
    return np.arange(columns)


def _like(values: Array, labels: Array | None) -> Array:
    """Bytes as text, so that they compare with labels."""
    if values.dtype.kind in "SO" and labels is not None:
        return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in values])
    return values
