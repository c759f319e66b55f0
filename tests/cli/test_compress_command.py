"""What was made smaller is proposed to a service whose class works around the model: a real search, a real API."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from leptonai.cli.main import run

if TYPE_CHECKING:
    from api_stage import Stage

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: nothing is compressed here")

CLASS = "class Model:\n    def predict(self, x: int) -> int:\n        return x\n"


def linear(path: Path) -> None:
    """Scores of ten classes from 64 numbers: enough weights to be worth storing in fewer bits."""
    from onnx import TensorProto, helper, numpy_helper, save

    weights = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["scores"])], "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(weights, "w")],
    )  # fmt: skip
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    x = np.random.default_rng(1).normal(size=(120, 64)).astype(np.float32)
    np.savez(path.with_name("rows.npz"), x=x, y=(x @ weights).argmax(1))


@pytest.mark.timeout(400)
def test_the_smaller_model_is_proposed_with_the_class_around_it(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from leptonai.improve.compress import replica

    monkeypatch.setattr(replica, "ROUNDS", 2)  # the size is what is asked for
    monkeypatch.setenv("LEPTONAI_HOST", stage.url)
    monkeypatch.setenv("LEPTONAI_TOKEN", stage.token("ana", "admin"))
    monkeypatch.setenv("LEPTONAI_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(CLASS)
    linear(tmp_path / "lin.onnx")
    given = ["compress", "lin.onnx", "--data", "rows.npz", "--only", "int8 stored", "--for", "size"]
    given += ["--budget", "accuracy=20%", "--beside", "model.py", "--deploy", "digits"]
    assert run(given) == 4, "there is no such service: said before the search"
    assert not Path("lin-compressed").exists()
    capsys.readouterr()
    assert run(["deploy", "model.py", "--name", "digits"]) == 0
    capsys.readouterr()
    assert run(given) == 0
    out = capsys.readouterr().out
    assert "digits revision 2" in out and "`leptonai undo digits`" in out
    deployed = {p.name for p in Path("lin-compressed/deployed").iterdir()}
    assert deployed == {"model.py", "model.onnx"}, "golden answers are those of the bare file"
