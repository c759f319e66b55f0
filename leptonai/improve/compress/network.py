"""A PyTorch model as a graph that can be changed and learns, and its way to ONNX with a check that both are equal."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leptonai.errors import ModelError, SpecError
from leptonai.improve.compress.foreign import quiet, session
from leptonai.improve.evaluate.rows import Array
from leptonai.protocols import Predictor
from leptonai.types import Noun

TOLERANCE = 1e-3  # of the largest output: what float32 kernels of two libraries may differ by


class Equality(Noun, frozen=True, kw_only=True):
    """The exported model against the one it came from, over ``rows``: difference relative to the largest output."""

    rows: int
    difference: float


def copied(graph: Any) -> Any:
    with quiet():
        return copy.deepcopy(graph)


def capture(predictor: Predictor, inputs: dict[str, Array]) -> Any:
    """The model behind ``predictor`` as a GraphModule of aten operations whose parameters learn; a copy.

    SpecError when it is no PyTorch model, or one that holds no parameters to change.
    """
    module = getattr(predictor, "module", None)
    if predictor.platform == "pytorch_export":
        graph = copied(module)
    elif predictor.platform == "pytorch_module":
        graph = exported(module, [torch.from_numpy(inputs[t["name"]][:2].copy()) for t in predictor.inputs])
    else:
        raise SpecError(
            f"a model of kind {predictor.platform} has no graph that can be changed",
            hint="save it with torch.export.save as .pt2, or as model.py with its weights",
        )
    for p in graph.parameters():
        p.requires_grad_(p.is_floating_point())
    return graph


def exported(module: Any, example: list[Any]) -> Any:
    """``module`` as a graph with a free batch dimension, as it is in evaluation."""
    dims = tuple({0: torch.export.Dim("batch")} for _ in example)
    try:
        with quiet():
            return torch.export.export(module.eval(), tuple(example), dynamic_shapes=dims).module()
    except Exception as e:
        raise ModelError(
            f"the model cannot be exported: {' '.join(str(e).split())[:300]}",
            hint="torch.export says what stands against it; the first dimension must be free",
        ) from e


def forward(graph: Any, inputs: list[Any]) -> Any:
    """The first output of real numbers: scores, not the label that may stand before them."""
    return _scores(graph(*inputs))


def _scores(out: Any) -> Any:
    if isinstance(out, dict):
        out = list(out.values())
    if not isinstance(out, tuple | list):
        return out
    return next((t for t in out if t.dtype in (torch.float32, torch.float64, np.float32, np.float64)), out[0])


def to_onnx(graph: Any, predictor: Predictor, inputs: dict[str, Array], path: Path) -> Equality:
    """``graph`` is in ``path`` with the names of ``predictor``, and gives the same outputs for ``inputs``.

    ModelError when an operator has no ONNX form, or the outputs differ by more than TOLERANCE.
    """
    import onnx

    names = [t["name"] for t in predictor.inputs]
    example = tuple(torch.from_numpy(inputs[n][:2].copy()) for n in names)
    outputs = [t["name"] for t in predictor.outputs]
    try:
        with quiet():
            program = torch.onnx.export(
                copy.deepcopy(graph), example, dynamo=True, input_names=names, output_names=outputs,
                dynamic_shapes=tuple({0: torch.export.Dim.DYNAMIC} for _ in example), verbose=False,
            )  # fmt: skip
            model = program.model_proto
    except Exception as e:
        cause = e.__cause__ or e
        raise ModelError(
            f"the model cannot be exported to ONNX: {' '.join(str(cause).split())[:300]}",
            hint="replace the operator that is named, or leave the model as it is",
        ) from e
    onnx.save(stripped(model), path)
    return equal(graph, path, [inputs[n] for n in names])


def stripped(model: Any) -> Any:
    """Without the exporter's notes: they can weigh more than a small model."""
    for node in [*model.graph.node, *(n for f in model.functions for n in f.node)]:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    del model.graph.value_info[:]
    return model


def equal(graph: Any, path: Path, inputs: list[Array], rows: int = 64) -> Equality:
    rows = min(rows, len(inputs[0]))
    some = [x[:rows] for x in inputs]
    with torch.no_grad():
        want = forward(graph, [torch.from_numpy(x.copy()) for x in some]).numpy()
    one = session(path)
    have = _scores(one.run(None, dict(zip([i.name for i in one.get_inputs()], some, strict=True))))
    difference = float(np.abs(want - have).max() / max(np.abs(want).max(), 1e-12))
    if not difference <= TOLERANCE:
        raise ModelError(
            f"the exported ONNX model differs from its original by {difference:.2g} of the largest output; "
            f"at most {TOLERANCE:g} is float32 noise",
            hint="do not deploy it; an operator is exported wrongly",
        )
    return Equality(rows=rows, difference=difference)
