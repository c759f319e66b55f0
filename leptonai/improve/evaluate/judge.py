"""One evaluation: a model on rows, with what was asked for beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leptonai.errors import SpecError
from leptonai.improve.evaluate.answers import Answers, answers, ask
from leptonai.improve.evaluate.compare import Comparison, Slice, paired, slices
from leptonai.improve.evaluate.drift import Drift, drift
from leptonai.improve.evaluate.measures import Measures, measure
from leptonai.improve.evaluate.rows import Array, Rows
from leptonai.protocols import Predictor
from leptonai.types import Noun


class Evaluation(Noun, frozen=True, kw_only=True):
    measures: Measures
    against: Comparison | None = None  # how much better than the other model
    slices: tuple[Slice, ...] = ()  # worst first
    drift: Drift | None = None  # of the inputs, from the reference
    said_drift: Drift | None = None  # of what the model says


def good(labels: Array, said: Answers) -> Array:
    """Row by row: right or wrong; of a regression minus the squared error."""
    if labels.dtype.kind == "f":
        return np.asarray(-((said.predicted - labels) ** 2))
    return np.asarray(said.predicted.astype(str) == labels.astype(str))


def evaluate(
    predictor: Predictor,
    rows: Rows,
    *,
    against: Predictor | None = None,
    by: Sequence[str] = (),
    reference: Rows | None = None,
) -> tuple[Evaluation, Answers]:
    """All measures; ``against`` another model on the same rows; slices ``by`` columns; drift from ``reference``.

    SpecError for a column that is not there, rows without labels, or labels of one class only.
    """
    labels = rows.labelled()
    outputs = ask(predictor, rows.inputs)
    said = answers(outputs, rows)
    right = good(labels, said)
    found: list[Slice] = []
    for column in by:
        if column not in rows.columns:
            known = ", ".join(rows.columns) or "none"
            raise SpecError(f"there is no column {column!r} to slice by", hint=f"columns: {known}")
        found += slices(column, rows.columns[column], right)
    compared = None
    if against is not None:
        compared = paired(right, good(labels, answers(ask(against, rows.inputs), rows)))
    moved = spoken = None
    if reference is not None:
        moved = drift(flat(reference.inputs), flat(rows.inputs))
        spoken = drift(flat(ask(predictor, reference.inputs)), flat(outputs))
    return (
        Evaluation(
            measures=measure(labels, said),
            against=compared,
            slices=tuple(sorted(found, key=lambda s: s.quality)),
            drift=moved,
            said_drift=spoken,
        ),
        said,
    )


def flat(arrays: dict[str, Array]) -> Array:
    """Every number of every array, side by side."""
    numeric = [a.reshape(len(a), -1).astype(np.float64) for a in arrays.values() if a.dtype.kind in "biuf"]
    if not numeric:
        raise SpecError("there are no numbers whose drift could be told")
    return np.concatenate(numeric, 1)
