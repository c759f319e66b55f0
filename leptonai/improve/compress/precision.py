"""The numbers of an ONNX model in fewer bits: what its file holds, and what it computes with.

Stored as int8, fp16 or bf16, weights are turned into fp32 once, while the model loads (onnxruntime folds constants):
the file shrinks, the speed stays. Dynamic and static int8 and fp16 compute in fewer bits: onnxruntime's own quantiser
(Jacob et al. 2018; static as QDQ pairs calibrated on real rows) and its fp16 converter.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from leptonai.errors import ModelError
from leptonai.improve.compress.foreign import quiet
from leptonai.improve.evaluate.rows import Array

SMALL = 64  # numbers below which a tensor is left alone
CALIBRATION = 256  # rows

Apply = Callable[[Path, Path, dict[str, Array]], None]  # (model, result, calibration rows)


def store_half(source: Path, target: Path, rows: dict[str, Array]) -> None:
    _stored(source, target, lambda w, name: ([(f"{name}.half", w.astype(np.float16))], None))


def store_bfloat(source: Path, target: Path, rows: dict[str, Array]) -> None:
    import ml_dtypes

    _stored(source, target, lambda w, name: ([(f"{name}.half", w.astype(ml_dtypes.bfloat16))], None))


def store_int8(source: Path, target: Path, rows: dict[str, Array]) -> None:
    """Symmetric, one scale for each row or column of a weight, whichever fits it better."""

    def pack(w: Array, name: str) -> tuple[list[tuple[str, Array]], str | None]:
        if w.ndim < 2:
            return [], None
        found = [_int8(w, axis) for axis in range(2)]
        quantised, scale = min(found, key=lambda qs: float(((qs[0] * qs[1] - w) ** 2).sum()))
        return [(f"{name}.int8", quantised), (f"{name}.scale", scale)], "scaled"

    _stored(source, target, pack)


def _int8(w: Array, axis: int) -> tuple[Array, Array]:
    others = tuple(i for i in range(w.ndim) if i != axis)
    scale = np.maximum(np.abs(w).max(others, keepdims=True), 1e-12) / w.dtype.type(127)
    return np.clip(np.round(w / scale), -127, 127).astype(np.int8), scale


def _stored(
    source: Path, target: Path, pack: Callable[[Array, str], tuple[list[tuple[str, Array]], str | None]]
) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(source)
    nodes, kept, done = [], [], 0
    for tensor in model.graph.initializer:
        real = tensor.data_type in (TensorProto.FLOAT, TensorProto.DOUBLE)
        w = numpy_helper.to_array(tensor) if real else np.zeros(0)
        parts, kind = pack(w, tensor.name) if w.size >= SMALL else ([], None)
        if not parts:
            kept.append(tensor)
            continue
        done += 1
        kept += [numpy_helper.from_array(value, name) for name, value in parts]
        raw = tensor.name if kind is None else f"{tensor.name}.float"
        nodes.append(helper.make_node("Cast", [parts[0][0]], [raw], to=tensor.data_type))
        if kind == "scaled":
            nodes.append(helper.make_node("Mul", [raw, parts[1][0]], [tensor.name]))
    if not done:
        raise ModelError("the model has no weights of a size worth storing in fewer bits")
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    body = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *body])
    onnx.save(model, target)


def half(source: Path, target: Path, rows: dict[str, Array]) -> None:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with quiet():
        onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), target)


def dynamic_int8(source: Path, target: Path, rows: dict[str, Array]) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _prepared(source) as prepared, quiet():
        quantize_dynamic(prepared, target, weight_type=QuantType.QInt8, per_channel=True)
    _changed(source, target)


def static_int8(method: str, reduce: bool = False) -> Apply:
    """``method``: MinMax, Percentile or Entropy. ``reduce``: 7-bit weights, for processors that saturate sums."""

    def apply(source: Path, target: Path, rows: dict[str, Array]) -> None:
        from onnxruntime.quantization import (
            CalibrationDataReader,
            CalibrationMethod,
            QuantFormat,
            QuantType,
            quantize_static,
        )

        class Reader(CalibrationDataReader):  # type: ignore[misc] # an untyped base
            def __init__(self) -> None:
                count = min(CALIBRATION, len(next(iter(rows.values()))))
                self._left = iter([{k: v[i : i + 32] for k, v in rows.items()} for i in range(0, count, 32)])

            def get_next(self) -> dict[str, Array] | None:
                return next(self._left, None)

        with _prepared(source) as prepared, quiet():
            quantize_static(
                prepared, target, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, reduce_range=reduce,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod[method],
            )  # fmt: skip
        _changed(source, target)

    return apply


PRECISIONS: dict[str, Apply] = {
    "fp16 stored": store_half,
    "bf16 stored": store_bfloat,
    "int8 stored": store_int8,
    "fp16": half,
    "int8 dynamic": dynamic_int8,
    "int8 static": static_int8("MinMax"),
    "int8 static percentile": static_int8("Percentile"),
    "int8 static reduced": static_int8("MinMax", reduce=True),
}


@contextmanager
def _prepared(source: Path) -> Iterator[Path]:
    """A copy with shapes inferred and constants folded, as the quantiser wants it; gone afterwards."""
    from onnxruntime.quantization import shape_inference

    with tempfile.TemporaryDirectory(prefix="leptonai-") as folder:
        path = Path(folder) / "prepared.onnx"
        with quiet():
            try:
                shape_inference.quant_pre_process(source, path, skip_symbolic_shape=True)
            except Exception:  # noqa: BLE001 - it is a preparation only; the quantiser says what it cannot do
                path.write_bytes(source.read_bytes())
        yield path


def _changed(source: Path, target: Path) -> None:
    import onnx

    def kinds(path: Path) -> list[str]:
        return sorted(n.op_type for n in onnx.load(path, load_external_data=False).graph.node)

    if not any("Quantize" in k or "Integer" in k or "QLinear" in k for k in kinds(target)):
        raise ModelError("the quantiser found no operator that it can compute in int8")
