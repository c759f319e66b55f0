"""TensorFlow Lite by ai-edge-litert, on the CPU. TensorFlow itself is not needed."""

from __future__ import annotations

from typing import Any

import numpy as np

from leptonai.errors import ModelError
from leptonai.protocols import Predictor
from leptonai.runtime.loaders.onnx import threads_of
from leptonai.runtime.tensors import datatype_of
from leptonai.types import Variant

OPTIONS = {"threads", "loader", "file"}


class TfliteLoader:
    name = "tflite"

    def match(self, files: list[str]) -> str | None:
        return next((f for f in files if f.endswith(".tflite")), None)

    def load(self, path: str, variant: Variant) -> Predictor:
        unknown = set(variant.options) - OPTIONS
        if unknown:
            raise ModelError(
                f"unknown options for a TensorFlow Lite model: {', '.join(sorted(unknown))}",
                hint=f"known: {', '.join(sorted(OPTIONS))}",
            )
        return TflitePredictor(path, threads_of(variant))


class TflitePredictor:
    """One interpreter. A free first dimension is resized to the batch; a fixed one of 1 is run row by row."""

    platform = "tensorflow_tflite"

    def __init__(self, path: str, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_path=path, num_threads=threads)
        self._interpreter.allocate_tensors()
        self._in = self._interpreter.get_input_details()
        self._out = self._interpreter.get_output_details()
        self._free = all(len(d["shape_signature"]) and d["shape_signature"][0] == -1 for d in self._in)
        fixed = all(len(d["shape"]) and d["shape"][0] == 1 for d in [*self._in, *self._out])
        self.batchable = self._free or fixed
        self.inputs = [self._tensor(d) for d in self._in]
        self.outputs = [self._tensor(d) for d in self._out]
        self._rows = -1  # the batch that tensors are allocated for

    def _tensor(self, detail: dict[str, Any]) -> dict[str, Any]:
        signature = detail["shape_signature"]
        shape = [int(d) for d in (signature if len(signature) else detail["shape"])]
        if self.batchable and shape:
            shape[0] = -1
        name = str(detail["name"]).removeprefix("serving_default_").split(":")[0]
        return {"name": name, "datatype": datatype_of(np.empty(0, detail["dtype"])), "shape": shape}

    def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
        arrays = [np.ascontiguousarray(inputs[t["name"]]) for t in self.inputs]
        if self._free or not self.batchable:
            return self._run(arrays)
        parts = [self._run([a[i : i + 1] for a in arrays]) for i in range(len(arrays[0]))]
        return {t["name"]: np.concatenate([p[t["name"]] for p in parts]) for t in self.outputs}

    def _run(self, arrays: list[Any]) -> dict[str, Any]:
        if self._free and len(arrays[0]) != self._rows:
            for detail, array in zip(self._in, arrays, strict=True):
                self._interpreter.resize_tensor_input(detail["index"], array.shape)
            self._interpreter.allocate_tensors()
            self._rows = len(arrays[0])
        for detail, array in zip(self._in, arrays, strict=True):
            self._interpreter.set_tensor(detail["index"], array)
        self._interpreter.invoke()
        return {
            t["name"]: self._interpreter.get_tensor(d["index"]) for t, d in zip(self.outputs, self._out, strict=True)
        }
