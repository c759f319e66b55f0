"""PyTorch: exported programs (``.pt2``), TorchScript (``.pt``), a Module class with weights; never a pickled module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from leptonai.errors import ModelError
from leptonai.protocols import Predictor
from leptonai.runtime.loaders.onnx import threads_of
from leptonai.runtime.tensors import DTYPES, datatype_of
from leptonai.types import Variant

OPTIONS = {"threads", "loader", "file", "inputs", "outputs", "class", "weights", "args"}
WEIGHTS = (".pt", ".pth", ".safetensors")


class Tensor(msgspec.Struct, forbid_unknown_fields=True):
    """One entry of ``options.inputs``: what a TorchScript file or a Module does not say about itself."""

    name: str
    datatype: str
    shape: list[int]


class TorchLoader:
    name = "torch"

    def match(self, files: list[str]) -> str | None:
        return next((f for f in files if f.endswith(".pt2")), None) or next(
            (f for f in files if f.endswith((".pt", ".pth"))), None
        )

    def load(self, path: str, variant: Variant) -> Predictor:
        import torch

        _prepare(variant)
        if path.endswith(".pt2"):
            program = torch.export.load(path)
            made = TorchPredictor(program.module(), "pytorch_export", _exported_inputs(program), variant)
            if "outputs" not in variant.options:
                made.outputs = _exported_outputs(program)
            return made
        try:
            module = torch.jit.load(path, map_location="cpu")
        except RuntimeError as e:
            raise ModelError(
                f"{Path(path).name} is not TorchScript: {' '.join(str(e).split())[:120]}",
                hint="save with torch.export.save or torch.jit.save; weights alone need a model.py beside them",
            ) from e
        return TorchPredictor(module.eval(), "pytorch_torchscript", _declared(variant), variant)


def module_predictor(cls: type, path: Path, variant: Variant) -> Predictor:
    """A user's Module class with the weights beside it, loaded with ``weights_only``: data, never code.

    ``options.args`` are the constructor's arguments, ``options.weights`` the file when there are several.
    """
    import torch

    _prepare(variant)
    found = sorted(p.name for p in path.parent.iterdir() if p.suffix in WEIGHTS)
    wanted = variant.options.get("weights")
    if wanted is not None and wanted not in found:
        raise ModelError(f"options.weights {wanted!r} is not beside {path.name}", hint=f"there is: {', '.join(found)}")
    if wanted is None and len(found) != 1:
        raise ModelError(
            f"{path.name} needs one weights file, there are: {', '.join(found) or 'none'}",
            hint="put one .pt, .pth or .safetensors beside it, or name it in options.weights",
        )
    weights = path.parent / (wanted or found[0])
    module = cls(**variant.options.get("args", {}))
    if weights.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(weights)
    else:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    module.load_state_dict(state)
    return TorchPredictor(module.eval(), "pytorch_module", _declared(variant), variant)


def _prepare(variant: Variant) -> None:
    import torch

    unknown = set(variant.options) - OPTIONS
    if unknown:
        raise ModelError(
            f"unknown options for a PyTorch model: {', '.join(sorted(unknown))}",
            hint=f"known: {', '.join(sorted(OPTIONS))}",
        )
    torch.set_num_threads(threads_of(variant))


def _declared(variant: Variant) -> list[dict[str, Any]]:
    """The inputs as ``options.inputs`` says."""
    try:
        tensors = msgspec.convert(variant.options.get("inputs") or [], list[Tensor])
    except msgspec.ValidationError as e:
        raise ModelError(f"options.inputs: {e}", hint='[{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]') from e
    if not tensors:
        raise ModelError(
            "this PyTorch file does not say what its inputs are",
            hint='give options.inputs: [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}], or export a .pt2',
        )
    for tensor in tensors:
        if tensor.datatype not in DTYPES:
            raise ModelError(
                f"options.inputs: unknown datatype {tensor.datatype!r}", hint=f"one of {', '.join(DTYPES)}"
            )
    return [msgspec.to_builtins(t) for t in tensors]


def _exported_inputs(program: Any) -> list[dict[str, Any]]:
    """The user inputs of an exported program: a symbolic dimension is -1."""
    wanted = list(program.graph_signature.user_inputs)
    found = []
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in wanted:
            value = node.meta["val"]
            shape = [int(d) if isinstance(d, int) else -1 for d in value.shape]
            dtype = str(value.dtype).removeprefix("torch.")
            found.append({"name": node.name, "datatype": datatype_of(np.empty(0, dtype)), "shape": shape})
    return found


def _exported_outputs(program: Any) -> list[dict[str, Any]]:
    """The outputs of an exported program: named by its dictionary's keys, else as ``TorchPredictor`` names them."""
    from torch.utils import _pytree

    values = {n.name: n.meta.get("val") for n in program.graph.nodes}
    wanted = [values.get(name) for name in program.graph_signature.user_outputs]
    told = _pytree.tree_unflatten(wanted, program.call_spec.out_spec)
    if isinstance(told, dict):
        named = {str(k): v for k, v in told.items()}
    else:
        flat = list(told) if isinstance(told, list | tuple) else [told]
        named = {"output" if len(flat) == 1 else f"output{i}": v for i, v in enumerate(flat)}
    found = []
    for name, value in named.items():
        shape = [int(d) if isinstance(d, int) else -1 for d in getattr(value, "shape", (-1,))]
        dtype = str(getattr(value, "dtype", "float32")).removeprefix("torch.")
        found.append({"name": name, "datatype": datatype_of(np.empty(0, dtype)), "shape": shape})
    return found


class TorchPredictor:
    """A module called with tensors in the order of ``inputs``. Batchable when every first dimension is free."""

    def __init__(self, module: Any, platform: str, inputs: list[dict[str, Any]], variant: Variant) -> None:
        import torch

        self.module = module
        self._tensor, self._no_grad = torch.from_numpy, torch.no_grad
        self.platform = platform
        self.inputs = inputs
        self.batchable = all(t["shape"][:1] == [-1] for t in inputs)
        declared = variant.options.get("outputs") or ["output"]
        if not isinstance(declared, list) or not all(isinstance(n, str) for n in declared):
            raise ModelError(f"options.outputs is {declared!r}", hint='a list of names: ["logits"]')
        self._names: list[str] = declared
        self.outputs: list[dict[str, Any]] = [{"name": n, "datatype": "FP32", "shape": [-1]} for n in declared]

    def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
        with self._no_grad():
            result = self.module(*[self._tensor(np.ascontiguousarray(inputs[t["name"]])) for t in self.inputs])
        if isinstance(result, dict):
            return {str(k): v.detach().numpy() for k, v in result.items()}
        values = list(result) if isinstance(result, list | tuple) else [result]
        names = self._names if len(self._names) == len(values) else [f"output{n}" for n in range(len(values))]
        return {n: v.detach().numpy() for n, v in zip(names, values, strict=True)}
