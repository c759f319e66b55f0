"""scikit-learn: ``.skops`` with only trusted types; ``.pkl`` and ``.joblib`` only where the variant trusts pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from leptonai.errors import ModelError
from leptonai.protocols import Predictor
from leptonai.runtime.tensors import datatype_of
from leptonai.types import Variant

PICKLES = (".pkl", ".pickle", ".joblib")
OPTIONS = {"loader", "file"}


class SklearnLoader:
    name = "sklearn"

    def match(self, files: list[str]) -> str | None:
        return next((f for f in files if f.endswith(".skops")), None) or next(
            (f for f in files if f.endswith(PICKLES)), None
        )

    def load(self, path: str, variant: Variant) -> Predictor:
        unknown = set(variant.options) - OPTIONS
        if unknown:
            raise ModelError(
                f"unknown options for a scikit-learn model: {', '.join(sorted(unknown))}",
                hint=f"known: {', '.join(sorted(OPTIONS))}",
            )
        if path.endswith(".skops"):
            return SklearnPredictor(_skops(path), "sklearn_skops")
        if variant.trust != "pickle":
            raise ModelError(
                f"{Path(path).name} is a pickle, which runs any code it contains when it is loaded",
                hint="save it with skops.io.dump, or say trust: pickle if you made the file yourself",
                code="untrusted",
            )
        return SklearnPredictor(_pickle(path), "sklearn_pickle")


def _skops(path: str) -> Any:
    import skops.io

    unknown = skops.io.get_untrusted_types(file=path)
    if unknown:
        raise ModelError(
            f"{Path(path).name} holds types that skops does not trust: {', '.join(sorted(unknown))}",
            hint="use models of scikit-learn and numpy only, or a pickle with trust: pickle",
            code="untrusted",
        )
    return skops.io.load(path)


def _pickle(path: str) -> Any:
    if path.endswith(".joblib"):
        import joblib

        return joblib.load(path)
    import pickle

    with Path(path).open("rb") as file:
        return pickle.load(file)  # noqa: S301 - the variant says trust: pickle


class SklearnPredictor:
    """Any fitted estimator: output ``prediction``, and ``probabilities`` when it has predict_proba."""

    batchable = True

    def __init__(self, model: Any, platform: str) -> None:
        if not callable(getattr(model, "predict", None)):
            raise ModelError(
                f"the file holds a {type(model).__name__}, which cannot predict", hint="save a fitted estimator"
            )
        self.model = model
        self.platform = platform
        features = getattr(model, "n_features_in_", None)
        tensor = ("FP64", [-1, int(features)]) if features is not None else ("BYTES", [-1])
        self.inputs: list[dict[str, Any]] = [{"name": "X", "datatype": tensor[0], "shape": tensor[1]}]
        classes = getattr(model, "classes_", None)
        label = datatype_of(np.asarray(classes)) if classes is not None else "FP64"
        self.outputs: list[dict[str, Any]] = [{"name": "prediction", "datatype": label, "shape": [-1]}]
        self._proba = hasattr(model, "predict_proba")
        if self._proba and classes is not None:
            self.outputs.append({"name": "probabilities", "datatype": "FP64", "shape": [-1, len(classes)]})

    def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
        x = inputs["X"]
        if self._proba:
            probabilities = self.model.predict_proba(x)
            return {"prediction": self.model.predict(x), "probabilities": np.asarray(probabilities)}
        return {"prediction": np.asarray(self.model.predict(x))}
