"""PyTorch models, where torch is installed: exported programs, TorchScript, and a Module class with its weights."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.runtime.conftest import Running

torch = pytest.importorskip("torch", reason="torch is not installed: no PyTorch loader is tested here")

MODULE = """
import torch
class Net(torch.nn.Module):
    def __init__(self, width: int = 3):
        super().__init__()
        self.layer = torch.nn.Linear(4, width)
    def forward(self, x):
        return torch.relu(self.layer(x))
"""
X = [[0.1, 0.2, 0.3, 0.4], [1.0, -1.0, 2.0, -2.0], [0.0, 0.0, 0.0, 0.0]]
INPUTS = [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]


def net() -> Any:
    space: dict[str, Any] = {}
    exec(MODULE, space)
    torch.manual_seed(1)
    return space["Net"]().eval()


def expected(module: Any) -> list[list[float]]:
    with torch.no_grad():
        return module(torch.tensor(X)).tolist()


def saved(save: Callable[[Any], None]) -> bytes:
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


def test_an_exported_program_knows_its_inputs(start: Callable[..., Running]) -> None:
    module = net()
    program = torch.export.export(module, (torch.rand(2, 4),), dynamic_shapes={"x": {0: torch.export.Dim("n")}})
    replica = start({"m.pt2": saved(lambda f: torch.export.save(program, f))}).wait_ready()
    assert replica.client.get("/v2/models/m").json()["inputs"] == INPUTS
    for rows in (X, X[:1]):  # one sample and several
        answer = replica.predict({"x": rows}).json()["output"]
        assert answer == [pytest.approx(row, abs=1e-5) for row in expected(module)[: len(rows)]]


@pytest.mark.filterwarnings("ignore")
def test_torchscript_needs_its_inputs_declared(start: Callable[..., Running]) -> None:
    module = net()
    data = saved(lambda f: torch.jit.save(torch.jit.trace(module, torch.rand(2, 4)), f))
    failure = start({"m.pt": data}).failure()
    assert "options.inputs" in failure["hint"]
    replica = start({"m.pt": data}, options={"inputs": INPUTS, "outputs": ["logits"]}).wait_ready()
    assert replica.predict({"x": X}).json()["logits"] == [pytest.approx(row, abs=1e-5) for row in expected(module)]


def test_a_module_class_loads_weights_as_data_only(start: Callable[..., Running]) -> None:
    module = net()
    weights = saved(lambda f: torch.save(module.state_dict(), f))
    golden = json.dumps([{"inputs": {"x": X}, "outputs": {"output": expected(module)}}])
    files = {"model.py": MODULE, "weights.pt": weights, "golden.json": golden}
    replica = start(files, options={"inputs": INPUTS, "args": {"width": 3}}).wait_ready()
    assert replica.predict({"x": X}).json()["output"] == [pytest.approx(row, abs=1e-5) for row in expected(module)]
    whole = saved(lambda f: torch.save({"layer": print}, f))  # a pickle that names code
    assert "weights" in start({**files, "weights.pt": whole}, options={"inputs": INPUTS}).failure()["error"].lower()
    assert "needs one weights file" in start({"model.py": MODULE}, options={"inputs": INPUTS}).failure()["error"]
