"""Curves, calibration and confusion of one evaluation as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from leptonai.errors import NotInstalled, SpecError
from leptonai.improve.evaluate.answers import Answers
from leptonai.improve.evaluate.measures import Classification, Measures, pr, roc
from leptonai.improve.evaluate.rows import Array

SHOWN = 10  # classes with a curve of their own


def plot(labels: Array, said: Answers, measured: Measures, path: Path) -> None:
    """ROC, precision over recall, calibration and confusion are in ``path``; of a regression, said over true."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as e:
        raise NotInstalled("a picture", e.name) from e
    figure = Figure(figsize=(11, 9), layout="constrained")
    if not isinstance(measured, Classification):
        ax = figure.subplots()
        ax.scatter(labels, said.predicted, s=8)
        ax.set(xlabel="true", ylabel="said", title=f"rmse {measured.rmse:.4g}, r2 {measured.r2:.3f}")
    else:
        (a, b), (c, d) = figure.subplots(2, 2)
        if said.probabilities is not None and said.classes is not None:
            for i, name in list(enumerate(said.classes.tolist()))[:SHOWN]:
                positive = labels.astype(str) == str(name)
                if 0 < positive.sum() < len(positive):
                    a.plot(*roc(positive, said.probabilities[:, i]), label=str(name))
                    b.plot(*pr(positive, said.probabilities[:, i]), label=str(name))
            a.legend(fontsize=7)
        a.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC")
        b.set(xlabel="recall", ylabel="precision", title="precision over recall")
        c.plot([0, 1], [0, 1], color="#b0b7c0", linewidth=1)
        c.plot([x.confidence for x in measured.calibration], [x.accuracy for x in measured.calibration], marker="o")
        c.set(xlabel="said", ylabel="was right", title=f"calibration error {measured.calibration_error:.3f}")
        matrix = np.array(measured.confusion)
        d.imshow(matrix / np.maximum(matrix.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
        names = [k.label for k in measured.classes]
        d.set_xticks(range(len(names)), names, fontsize=7)
        d.set_yticks(range(len(names)), names, fontsize=7)
        d.set(xlabel="said", ylabel="true", title=f"confusion, accuracy {measured.accuracy:.3f}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as e:  # ValueError: no such format
        raise SpecError(f"{path} cannot be written: {e}", hint="name a .png, .svg or .pdf file") from e
