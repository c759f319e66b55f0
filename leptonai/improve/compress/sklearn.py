"""scikit-learn to ONNX, with the names and answers it is served with, and a check that they are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from leptonai.errors import ModelError, needs
from leptonai.improve.compress.foreign import quiet, session
from leptonai.improve.evaluate.rows import Array
from leptonai.protocols import Predictor

AGREE = 0.99  # share of rows whose answers must be the same; trees may split a tie the other way in float32


def to_onnx(predictor: Predictor, rows: Array, path: Path) -> None:
    """The estimator behind ``predictor`` is in ``path``: input X, outputs prediction and probabilities.

    ModelError when skl2onnx has no converter for it, or the answers differ.
    """
    needs("a scikit-learn model as ONNX", "skl2onnx", "onnx", "onnxruntime")
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    model = getattr(predictor, "model", None)
    problem: Exception | None = None
    for kind, dtype in ((DoubleTensorType, np.float64), (FloatTensorType, np.float32)):  # trees know float32 only
        try:
            _convert(model, kind, [o["name"] for o in predictor.outputs], rows.shape[1], path)
            have = session(path).run(None, {"X": rows[:256].astype(dtype)})[0].reshape(-1)
            break
        except Exception as e:  # noqa: BLE001 - the converter's own, or onnxruntime's when it loads the result
            problem = e
    else:
        told = " ".join(str(problem).split())[:300]
        raise ModelError(f"{type(model).__name__} cannot be exported to ONNX: {told}") from problem
    want = predictor.predict({"X": rows[:256]})["prediction"]
    same = np.isclose(have, want, rtol=1e-3) if want.dtype.kind == "f" else have.astype(str) == want.astype(str)
    if same.mean() < AGREE:
        raise ModelError(f"the exported model agrees with its original on {100 * same.mean():.1f} % of the rows only")


def _convert(model: Any, kind: Any, names: list[str], width: int, path: Path) -> None:
    import onnx
    from skl2onnx import to_onnx as convert

    options = {id(model): {"zipmap": False}} if hasattr(model, "predict_proba") else None
    with quiet():
        made = convert(model, initial_types=[("X", kind([None, width]))], target_opset=18, options=options)
    for old, name in zip([o.name for o in made.graph.output], names, strict=False):
        _rename(made, old, name)
    onnx.save(made, path)


def _rename(model: Any, old: str, new: str) -> None:
    for node in model.graph.node:
        for names in (node.input, node.output):
            for i, n in enumerate(names):
                if n == old:
                    names[i] = new
    for output in model.graph.output:
        if output.name == old:
            output.name = new
