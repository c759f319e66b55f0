"""TensorFlow Lite in a real replica, from a model that is written here; Keras where tensorflow is."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

litert = pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed: .tflite is not tested here")


def linear(batch: int) -> bytes:
    """y = x W^T + b for 3 inputs and 2 outputs, as TensorFlow's converter would write it."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as tfl

    def buffer(values: np.ndarray | None) -> Any:
        b = tfl.BufferT()
        b.data = None if values is None else np.frombuffer(values.tobytes(), np.uint8)
        return b

    def tensor(name: bytes, shape: list[int], index: int, free: bool = False) -> Any:
        t = tfl.TensorT()
        t.name, t.shape, t.buffer, t.type = name, shape, index, tfl.TensorType.FLOAT32
        if free:
            t.shapeSignature = [-1, *shape[1:]]
        return t

    code = tfl.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = tfl.BuiltinOperator.FULLY_CONNECTED
    op = tfl.OperatorT()
    op.opcodeIndex, op.inputs, op.outputs = 0, [0, 1, 2], [3]
    op.builtinOptionsType, op.builtinOptions = (
        tfl.BuiltinOptions.FullyConnectedOptions,
        tfl.FullyConnectedOptionsT(),
    )
    graph = tfl.SubGraphT()
    free = batch == -1
    rows = 1 if free else batch
    graph.tensors = [
        tensor(b"serving_default_x:0", [rows, 3], 1, free), tensor(b"w", [2, 3], 2), tensor(b"b", [2], 3),
        tensor(b"y", [rows, 2], 4, free),
    ]  # fmt: skip
    graph.inputs, graph.outputs, graph.operators = [0], [3], [op]
    model = tfl.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    w, b = np.array([[1, 2, 3], [0, 0, 1]], np.float32), np.array([0.5, -1], np.float32)
    model.buffers = [buffer(None), buffer(None), buffer(w), buffer(b), buffer(None)]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.world
@pytest.mark.parametrize("batch", [-1, 1], ids=["free", "one row"])
def test_a_tflite_model_answers_batches(start: Callable[..., Any], batch: int) -> None:
    replica = start({"model.tflite": linear(batch)}).wait_ready()
    for rows in (1, 3, 2):
        x = [[1.0, 1.0, float(i)] for i in range(rows)]
        answer = replica.predict({"x": x})
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"y": [[3.5 + 3 * i, i - 1.0] for i in range(rows)]}
    assert replica.predict({"x": [[1.0, 2.0]]}).status_code == 400


@pytest.mark.world
def test_a_torn_tflite_file_says_so(start: Callable[..., Any]) -> None:
    assert start({"model.tflite": linear(1)[:200]}).failure()["code"] == "model"


PYTHON = os.environ.get("LEPTONAI_TENSORFLOW_PYTHON", "")


@pytest.mark.skipif(not PYTHON, reason="LEPTONAI_TENSORFLOW_PYTHON names no interpreter with tensorflow: no Keras here")
def test_keras_becomes_tflite_in_an_interpreter_of_its_own(tmp_path: Path) -> None:
    from leptonai.improve.compress import keras
    from leptonai.improve.evaluate.answers import ask, opened

    make = """
import sys, tensorflow as tf
m = tf.keras.Sequential([tf.keras.Input((8,)), tf.keras.layers.Dense(64, "relu"), tf.keras.layers.Dense(3)])
m.save(sys.argv[1] + "/m.keras"); m.export(sys.argv[1] + "/saved")
"""
    subprocess.run([PYTHON, "-c", make, str(tmp_path)], check=True, capture_output=True)
    rows = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)
    for name in ("m.keras", "saved"):
        work = tmp_path / f"work-{name}"
        work.mkdir()
        made = keras.calibrated(tmp_path / name, PYTHON, work, rows)
        assert set(made) == set(keras.MODES)
        said = {
            k: next(iter(ask(p, {p.inputs[0]["name"]: rows}).values())) for k, v in made.items() for p in [opened(v)]
        }
        for step in said:
            assert np.abs(said[step] - said["tflite"]).max() < 0.1 * np.abs(said["tflite"]).max()


def test_without_tensorflow_it_says_what_to_install(tmp_path: Path) -> None:
    from leptonai.errors import NotInstalled
    from leptonai.improve.compress import keras

    (tmp_path / "m.keras").write_bytes(b"PK")
    with pytest.raises(NotInstalled) as e:
        keras.plain(tmp_path / "m.keras", None, tmp_path)
    assert "leptonai-platform[tensorflow]" in e.value.hint
