"""ONNX by onnxruntime, on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from leptonai.errors import ModelError, SpecError
from leptonai.protocols import Predictor
from leptonai.types import Variant

DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
OPTIONS = {"threads", "loader", "file"}


class OnnxLoader:
    name = "onnx"

    def match(self, files: list[str]) -> str | None:
        return next((f for f in files if f.endswith(".onnx")), None)

    def load(self, path: str, variant: Variant) -> Predictor:
        unknown = set(variant.options) - OPTIONS
        if unknown:
            raise ModelError(
                f"unknown options for an ONNX model: {', '.join(sorted(unknown))}",
                hint=f"known: {', '.join(sorted(OPTIONS))}",
            )
        return OnnxPredictor(path, threads_of(variant))


def threads_of(variant: Variant) -> int:
    """``options.threads``, else the whole cores of ``resources.cpu``, else 1.

    Replicas scale by processes, and beside each model runs an I/O loop and before it a gateway: a pool as large as the
    machine in every replica would fight with all of them for the cores. Cores that a replica was given are its own.
    """
    threads = variant.options.get("threads", max(1, int(variant.resources.cpu or 1)))
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ModelError(f"options.threads is {threads!r}", hint="give a whole number of at least 1")
    return threads


class OnnxPredictor:
    """One session. Batchable when every input and output has a free first dimension."""

    platform = "onnx_onnxv1"

    def __init__(self, path: str, threads: int) -> None:
        import onnxruntime

        onnxruntime.set_default_logger_severity(3)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle replicas must be idle
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = [self._tensor(i) for i in self._session.get_inputs()]
        self.outputs = [self._tensor(o, lenient=True) for o in self._session.get_outputs()]
        self._names = [o["name"] for o in self.outputs]
        self._texts = [i["name"] for i in self.inputs if i["datatype"] == "BYTES"]
        self.batchable = all(t["shape"][:1] == [-1] for t in [*self.inputs, *self.outputs])

    @staticmethod
    def _tensor(node: Any, lenient: bool = False) -> dict[str, Any]:
        shape = [d if isinstance(d, int) and d >= 0 else -1 for d in node.shape or []]
        datatype = DATATYPES.get(node.type)
        if datatype is None:
            if not lenient:
                raise ModelError(
                    f"input {node.name!r} has type {node.type}, which the protocol cannot carry",
                    hint="export the model with tensor inputs",
                )
            return {"name": node.name, "datatype": "FP32", "shape": [-1, -1]}  # a ZipMap's sequence of maps
        return {"name": node.name, "datatype": datatype, "shape": shape}

    def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """SpecError for BYTES that are not text: onnxruntime would compute with how Python spells them."""
        for name in self._texts:
            if any(isinstance(element, bytes) for element in inputs[name].flat):
                raise SpecError(
                    f"input {name!r} holds bytes that are not UTF-8", hint="strings of an ONNX model are text"
                )
        values = self._session.run(self._names, inputs)
        return {n: v if isinstance(v, np.ndarray) else _table(v) for n, v in zip(self._names, values, strict=True)}


def _table(rows: Any) -> Any:
    """A sequence of maps (class to probability) as a matrix, columns in the order of the first map."""
    return np.array([list(row.values()) for row in rows], np.float32)
