"""The close look: what every layer does on one step. Hooks exist only while looking, so other steps pay nothing."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite, nan, sqrt
from typing import Any

import numpy as np
import torch
from torch import nn

from leptonai.improve.train.observed import Layer

WATCHED = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase)
ROWS = 256  # rows of a layer's output that tell its magnitude and spread: a thousandth needs no more
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
        self._handles = [m.register_forward_hook(self._outputs(name)) for name, m in watched(model)]
        self._handles.append(model.register_forward_pre_hook(self._inputs, with_kwargs=True))

    def _inputs(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.call = (args, kwargs)
        floats = [t for t in tensors((args, kwargs)) if t.is_floating_point() and t.numel()]
        if floats:
            self.input_magnitude = floats[0].detach().float().square().mean().sqrt().item()

    def _outputs(self, name: str) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            out = next(tensors(output)).detach()
            if isinstance(module, nn.modules.conv._ConvNd):
                out = out.movedim(1, -1)
            rows = out.reshape(-1, out.shape[-1])
            rows = rows[:: max(1, len(rows) // ROWS)].float()
            spread = rows.var(0).mean().sqrt().item() if len(rows) > 1 else nan
            self._seen[name] = (module, rows.square().mean().sqrt().item(), spread)

        return hook

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def layers(self) -> tuple[Layer, ...]:
        out = []
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
                    magnitude=magnitude,
                    spread=spread,
                    last=i == len(self._seen) - 1,
                )
            )
        return tuple(out)


def moments(batch: Any) -> tuple[float, float]:
    """Mean and standard deviation over the largest floating-point tensor of a batch: not finite if any value is not.

    ``(0, 1)`` for a batch without such values: then nothing can be said.
    """
    found = [t.detach() for t in tensors(batch) if t.is_floating_point() and t.numel() > 1]
    if not found:
        return 0.0, 1.0
    biggest = max(found, key=lambda t: t.numel())
    if biggest.is_cpu:
        mean, deviation = _spread(biggest)
    else:
        deviation, mean = (v.item() for v in torch.std_mean(biggest.float()))
    if len(found) == 1:
        return mean, deviation
    rest = [t.float().sum() for t in found if t is not biggest]  # one transfer for all of them
    return mean + sum(torch.stack([s - s for s in rest]).tolist()), deviation


def _spread(x: Any) -> tuple[float, float]:
    """Mean and deviation by plain sums: a tenth of what ``torch.std_mean`` takes on a CPU.

    Distances are taken from the first value, so that a level far from zero does not drown them (Chan, Golub & LeVeque
    1983); where their squares overflow, ``std_mean`` has the word.
    """
    flat = x.reshape(-1).float().numpy()
    first = float(flat[0])
    with np.errstate(all="ignore"):
        apart = flat - flat[0]
        total, squares = float(apart.sum()), float(np.dot(apart, apart))
    if not isfinite(squares):
        deviation, mean = torch.std_mean(x.double())
        return mean.item(), deviation.item()
    shift = total / len(flat)
    return first + shift, sqrt(max(squares - total * shift, 0.0) / (len(flat) - 1))
