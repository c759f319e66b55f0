"""The close look: what every layer does on one step. Hooks exist only while looking, so other steps pay nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import gcd, isfinite, nan, sqrt
from typing import Any

import numpy as np
import torch
from torch import nn

from leptonai.improve.train.observed import Layer

ACTIVATIONS = {  # by what autograd calls them: functions leave no module to hook
    "Clamp", "ClampMin", "Elu", "Gelu", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyRelu", "Maximum",
    "Mish", "Relu", "Sigmoid", "Silu", "Softplus", "Softshrink", "Tanh", "Threshold",
}  # fmt: skip
WATCHED = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase)
ROWS = 256  # rows of a layer's output that tell its magnitude and spread: a thousandth needs no more
SAMPLE = 1024  # values of a batch that tell its mean and spread
_ONES = np.ones(2 * SAMPLE + 1, np.float32)
_LINE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)  # first dimension of the weight: one row, one unit


def watched(model: Any) -> Iterator[tuple[str, Any]]:
    return ((name, m) for name, m in model.named_modules() if isinstance(m, WATCHED))


def tensors(value: Any) -> Iterator[Any]:
    """Every tensor in nested tuples, lists and dicts."""
    if torch.is_tensor(value):
        yield value
    elif isinstance(value, dict):
        for v in value.values():
            yield from tensors(v)
    elif isinstance(value, tuple | list):
        for v in value:
            yield from tensors(v)


def weight(module: Any) -> Any:
    """The one weight that stands for a layer: the recurrent one where there is one."""
    return module.weight_hh_l0 if isinstance(module, nn.RNNBase) else module.weight


class Look:
    """Open while a forward and a backward pass run; then ``layers()`` tells what was seen, in order of execution."""

    def __init__(self, model: Any) -> None:
        self._seen: dict[str, tuple[Any, float, float]] = {}
        self.input_magnitude = nan
        self.call: tuple[tuple[Any, ...], dict[str, Any]] | None = None  # how the model was called
        self._made: dict[Any, str] = {}  # graph nodes that are a layer's output
        self._through: list[tuple[frozenset[str], Any, Any]] = []  # layers, places with gradient after and before
        self._handles = [m.register_forward_hook(self._outputs(name)) for name, m in watched(model)]
        self._handles.append(model.register_forward_pre_hook(self._inputs, with_kwargs=True))

    def _inputs(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.call = (args, kwargs)
        floats = [t for t in tensors((args, kwargs)) if t.is_floating_point() and t.numel()]
        if floats:
            self.input_magnitude = floats[0].detach().float().square().mean().sqrt().item()

    def _outputs(self, name: str) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            made = next(tensors(output))
            if made.grad_fn is not None:
                self._made[made.grad_fn] = name
            out = made.detach()
            if isinstance(module, nn.modules.conv._ConvNd):
                out = out.movedim(1, -1)
            rows = out.reshape(-1, out.shape[-1])
            rows = rows[:: max(1, len(rows) // ROWS)].float()
            spread = rows.var(0).mean().sqrt().item() if len(rows) > 1 else nan
            self._seen[name] = (module, rows.square().mean().sqrt().item(), spread)

        return hook

    def reach(self, loss: Any) -> None:
        """The backward pass from ``loss`` will tell how much of the gradient each layer's activation lets through.

        Only of activations with a layer between them and the loss: what a loss itself cuts (a margin) is its affair.
        """
        known, todo = set(), [(loss.grad_fn, False)]
        while todo:
            node, below = todo.pop()
            if node is None or (node, below) in known or (node, True) in known:
                continue
            known.add((node, below))
            if below and _activation(node) and (names := self._before(node)):
                self._handles.append(node.register_hook(_counting(names, self._through)))
            below = below or node in self._made
            todo += [(n, below) for n, _ in node.next_functions]
        self._made.clear()  # they keep the graph alive

    def _before(self, activation: Any) -> frozenset[str]:
        """The layers whose output comes to it through no other layer or activation."""
        names, known, todo = set(), set(), [n for n, _ in activation.next_functions]
        while todo:
            node = todo.pop()
            if node is None or node in known:
                continue
            known.add(node)
            if node in self._made:
                names.add(self._made[node])
            elif not _activation(node):
                todo += [n for n, _ in node.next_functions]
        return frozenset(names)

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._made.clear()

    def layers(self) -> tuple[Layer, ...]:
        out: list[Layer] = []
        came: Counter[str] = Counter()
        left: Counter[str] = Counter()
        for names, after, before in self._through:
            for name in names:
                came[name] += int(after)
                left[name] += int(before)
        for i, (name, (module, magnitude, spread)) in enumerate(self._seen.items()):
            w = weight(module)
            grad, dead = w.grad, 0.0
            if grad is not None and isinstance(module, _LINE):
                dead = (grad.reshape(len(grad), -1).abs().amax(1) == 0).float().mean().item()
            out.append(
                Layer(
                    name=name,
                    gradient=0.0 if grad is None else grad.norm().item(),
                    weight=w.detach().norm().item(),
                    dead=dead,
                    passed=left[name] / came[name] if came[name] else 1.0,
                    magnitude=magnitude,
                    spread=spread,
                    last=i == len(self._seen) - 1,
                )
            )
        return tuple(out)


def _activation(node: Any) -> bool:
    return node.name().partition("Backward")[0] in ACTIVATIONS


def _counting(names: frozenset[str], told: list[tuple[frozenset[str], Any, Any]]) -> Any:
    """A hook on a graph node. It holds no node: those would never be freed."""

    def hook(inward: Any, outward: Any) -> None:
        if outward[0] is not None and inward[0] is not None:
            told.append((names, outward[0].count_nonzero(), inward[0].count_nonzero()))

    return hook


def moments(batch: Any) -> tuple[float, float]:
    """Mean and standard deviation of the largest floating-point tensor of a batch, by some thousand of its values.

    ``(0, 1)`` for a batch without such values: then nothing can be said. Values that are not finite are left out:
    they are the loss's affair, for a model may well mask them.
    """
    biggest, most = None, 1
    for t in tensors(batch):
        if t.is_floating_point() and (count := t.numel()) > most:
            biggest, most = t, count
    if biggest is None:
        return 0.0, 1.0
    flat = biggest.detach().reshape(-1)
    if most > 2 * SAMPLE:
        flat = flat[:: _stride(most)]
    if not biggest.is_cpu or biggest.dtype != torch.float32:
        flat = flat.float().cpu()
    return _spread(flat.numpy())


def _stride(count: int) -> int:
    """The smallest step of at least ``count / SAMPLE`` that shares no factor with ``count``: no column is favoured."""
    step = count // SAMPLE
    while gcd(step, count) != 1:
        step += 1
    return step


def _spread(x: Any) -> tuple[float, float]:
    """Mean and deviation by two dot products, from the distances to the first value, so that a level far from zero
    does not drown them (Chan, Golub & LeVeque 1983)."""
    first, n = float(x[0]), len(x)
    if -1e18 < first < 1e18:
        apart = x - first
        total, squares = float(np.dot(apart, _ONES[:n])), float(np.dot(apart, apart))
        if isfinite(squares):
            shift = total / n
            return first + shift, sqrt(max(squares - total * shift, 0.0) / (n - 1))
    known = x[np.isfinite(x)].astype(np.float64)
    return (float(known.mean()), float(known.std(ddof=1))) if len(known) > 1 else (0.0, 1.0)


def finite(values: Any) -> bool:
    """Whether every number in the floating-point tensors of ``values`` is finite."""
    return all(bool(torch.isfinite(t).all()) for t in tensors(values) if t.is_floating_point())


def plain(parameters: list[Any]) -> bool:
    """Whether the gradients of these can be read without torch: fp32 in memory."""
    return all(p.is_cpu and p.dtype == torch.float32 for p in parameters)


def norms(parts: list[Any], simple: bool = False) -> tuple[float, int]:
    """The norm of all tensors together (0 for none), and how many of them are zero in every place.

    ``simple``: they are ``plain``, and then it takes half the time.
    """
    squares = []
    try:
        for t in parts if simple or plain(parts) else ():
            flat = t.numpy().reshape(-1)
            squares.append(float(flat.dot(flat)))
    except TypeError:  # sparse ones
        squares = []
    if len(squares) < len(parts):
        whole = [p.coalesce().values() if p.is_sparse else p for p in parts]
        squares = [v * v for v in torch.stack(torch._foreach_norm(whole)).tolist()]  # one transfer
    return sqrt(sum(squares)), squares.count(0.0)
