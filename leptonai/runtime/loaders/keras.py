"""Keras files (``.keras``, ``.h5``) and SavedModel folders, where tensorflow is installed: see ``Variant.python``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from leptonai.errors import ModelError
from leptonai.protocols import Predictor
from leptonai.runtime.loaders.onnx import threads_of
from leptonai.runtime.tensors import datatype_of
from leptonai.types import Variant

OPTIONS = {"threads", "loader", "file"}


class KerasLoader:
    name = "keras"

    def match(self, files: list[str]) -> str | None:
        known = (f for f in files if f.endswith((".keras", ".h5")) or Path(f).name == "saved_model.pb")
        return next(known, None)

    def load(self, path: str, variant: Variant) -> Predictor:
        unknown = set(variant.options) - OPTIONS
        if unknown:
            raise ModelError(
                f"unknown options for a Keras model: {', '.join(sorted(unknown))}",
                hint=f"known: {', '.join(sorted(OPTIONS))}",
            )
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads_of(variant))
        tf.config.threading.set_inter_op_parallelism_threads(1)
        if Path(path).name == "saved_model.pb":
            return SavedPredictor(tf.saved_model.load(str(Path(path).parent)))
        # safe_mode: a file may carry Python code as a Lambda layer; it is refused
        return KerasPredictor(tf.keras.models.load_model(path, compile=False, safe_mode=True))


class KerasPredictor:
    platform = "tensorflow_keras"
    batchable = True

    def __init__(self, model: Any) -> None:
        self._model = model
        self.inputs = [_tensor(i.name, i.shape, i.dtype) for i in model.inputs]
        self.outputs = [_tensor(o.name, o.shape, o.dtype) for o in model.outputs]

    def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
        arrays = [inputs[t["name"]] for t in self.inputs]
        out = self._model(arrays[0] if len(arrays) == 1 else arrays, training=False)
        values = out if isinstance(out, list | tuple) else [out]
        return {t["name"]: v.numpy() for t, v in zip(self.outputs, values, strict=True)}


class SavedPredictor:
    """The signature ``serving_default`` of a SavedModel."""

    platform = "tensorflow_savedmodel"

    def __init__(self, loaded: Any) -> None:
        self._loaded = loaded  # its variables live as long as it does
        if "serving_default" not in loaded.signatures:
            known = ", ".join(loaded.signatures) or "none"
            raise ModelError(f"the SavedModel has no signature serving_default (there is: {known})")
        self._call = loaded.signatures["serving_default"]
        self.inputs = [_tensor(n, s.shape, s.dtype) for n, s in self._call.structured_input_signature[1].items()]
        self.outputs = [_tensor(n, s.shape, s.dtype) for n, s in self._call.structured_outputs.items()]
        self.batchable = all(t["shape"][:1] == [-1] for t in [*self.inputs, *self.outputs])

    def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
        import tensorflow as tf

        out = self._call(**{t["name"]: tf.constant(inputs[t["name"]]) for t in self.inputs})
        return {n: v.numpy() for n, v in out.items()}


def _tensor(name: str, shape: Any, dtype: Any) -> dict[str, Any]:
    dims = [-1 if d is None else int(d) for d in shape]
    kind = np.dtype(getattr(dtype, "as_numpy_dtype", dtype))
    return {"name": name.split(":")[0], "datatype": datatype_of(np.empty(0, kind)), "shape": dims}
