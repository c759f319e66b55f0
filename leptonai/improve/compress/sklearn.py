"""scikit-learn to ONNX, with the names and answers it is served with, and a check that they are the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from leptonai.errors import ModelError
from leptonai.improve.compress.network import quiet
from leptonai.improve.evaluate.rows import Array
from leptonai.protocols import Predictor

AGREE = 0.99  # share of rows whose answers must be the same; trees may split a tie the other way in float32


def to_onnx(predictor: Predictor, rows: Array, path: Path) -> None:
    """The estimator behind ``predictor`` is in ``path``: input X, outputs prediction and probabilities.

    ModelError when skl2onnx has no converter for it, or the answers differ.
    """
    import onnx
    from skl2onnx import to_onnx as convert
    from skl2onnx.common.data_types import DoubleTensorType

    model = getattr(predictor, "model", None)
    classifier = hasattr(model, "predict_proba")
    names = [o["name"] for o in predictor.outputs]
    try:
        with quiet():
            made = convert(
                model, initial_types=[("X", DoubleTensorType([None, rows.shape[1]]))], target_opset=18,
                options={id(model): {"zipmap": False}} if classifier else None,
            )  # fmt: skip
    except Exception as e:
        raise ModelError(f"{type(model).__name__} cannot be exported to ONNX: {' '.join(str(e).split())[:300]}") from e
    for old, name in zip([o.name for o in made.graph.output], names, strict=False):
        _rename(made, old, name)
    onnx.save(made, path)
    from leptonai.improve.compress.network import session

    some = rows[:256]
    have = session(path).run(None, {"X": some})[0].reshape(len(some))
    want = predictor.predict({"X": some})["prediction"]
    same = np.isclose(have, want, rtol=1e-3) if want.dtype.kind == "f" else have.astype(str) == want.astype(str)
    if same.mean() < AGREE:
        raise ModelError(f"the exported model agrees with its original on {100 * same.mean():.1f} % of the rows only")


def _rename(model: object, old: str, new: str) -> None:
    for node in model.graph.node:  # type: ignore[attr-defined]
        for names in (node.input, node.output):
            for i, n in enumerate(names):
                if n == old:
                    names[i] = new
    for output in model.graph.output:  # type: ignore[attr-defined]
        if output.name == old:
            output.name = new
