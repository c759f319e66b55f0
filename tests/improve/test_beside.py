"""A class around a model file: it opens whatever lies beside it, and an improvement exchanges the file alone."""

import json
from pathlib import Path

import numpy as np
import pytest

from leptonai.errors import ModelError, SpecError
from leptonai.improve.propose import beside as together
from leptonai.runtime.loaders import beside


def linear(path: Path, factor: float) -> None:
    """``y = factor * x`` as ONNX."""
    from onnx import TensorProto, helper, numpy_helper, save

    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])], "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(np.array([factor], np.float32), "factor")],
    )  # fmt: skip
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def test_the_model_beside_a_class_is_opened_and_exchanged(tmp_path: Path) -> None:
    old, chosen = tmp_path / "old", tmp_path / "chosen"
    old.mkdir()
    chosen.mkdir()
    (old / "model.py").write_text("")
    (old / "words.json").write_text("{}")
    linear(old / "model.onnx", 2)
    linear(chosen / "model.onnx", 3)
    (chosen / "golden.json").write_text(json.dumps([{"inputs": {"x": [1]}, "outputs": {"y": [3]}}]))
    x = {"x": np.ones(2, np.float32)}
    assert beside(str(old / "model.py")).predict(x)["y"].tolist() == [2, 2]
    new = together(chosen, [old / "model.py", old / "words.json"], tmp_path / "new")
    assert {p.name for p in new.iterdir()} == {"model.py", "words.json", "model.onnx"}  # golden answers are the file's
    assert beside(str(new / "model.py")).predict(x)["y"].tolist() == [3, 3]
    with pytest.raises(SpecError, match=r"nothing\.json"):
        together(chosen, [tmp_path / "nothing.json"], tmp_path / "new")
    (old / "model.onnx").unlink()
    with pytest.raises(ModelError, match="no loader knows a file"):
        beside(str(old / "model.py"))
