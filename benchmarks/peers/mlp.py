"""The model every framework serves: an ONNX multilayer perceptron 784-512-512-10 in fp32, with seeded weights.

Weights are drawn once from a fixed seed (He et al. 2015); the answers mean nothing, the arithmetic is that of a trained
network.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZES = (784, 512, 512, 10)


def model() -> onnx.ModelProto:
    random = np.random.default_rng(0)
    nodes, weights, name = [], [], "x"
    for i, (before, after) in enumerate(itertools.pairwise(SIZES)):
        w = random.normal(0, (2 / before) ** 0.5, (before, after)).astype(np.float32)
        weights += [numpy_helper.from_array(w, f"w{i}"), numpy_helper.from_array(np.zeros(after, np.float32), f"b{i}")]
        out = "y" if i == len(SIZES) - 2 else f"h{i}"
        linear = out if out == "y" else f"l{i}"
        nodes.append(helper.make_node("Gemm", [name, f"w{i}", f"b{i}"], [linear]))
        if linear != out:
            nodes.append(helper.make_node("Relu", [linear], [out]))
        name = out
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", SIZES[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", SIZES[-1]])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write(path: Path) -> Path:
    """The network at ``path``, its folder made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model(), str(path))
    return path
