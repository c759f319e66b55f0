"""A start from which a deep network can learn: orthogonal weights, scaled layer by layer on one real batch.

Mishkin & Matas 2016, "All you need is a good init" (LSUV); orthogonal: Saxe, McClelland & Ganguli 2014.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from leptonai.improve.train.watch import tensors, watched

ROUNDS = 5  # scalings of one layer until its output has unit variance within 5 %


def initialise(model: Any, call: tuple[tuple[Any, ...], dict[str, Any]] | None) -> None:
    """All linear, convolutional and recurrent layers of ``model`` are new; with ``call`` each has unit output variance.

    Other parameters (embeddings, norms) and all buffers stay. Draws from torch's generator.
    """
    layers = dict(watched(model))
    buffers = [b.detach().clone() for b in model.buffers()]
    with torch.no_grad():
        for layer in layers.values():
            _orthogonal(layer)
        if call is not None:
            for layer in _in_order(model, layers.values(), call):
                if not isinstance(layer, nn.RNNBase):
                    _unit_variance(model, layer, call)
        for buffer, old in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(old)


def _orthogonal(layer: Any) -> None:
    if not isinstance(layer, nn.RNNBase):
        nn.init.orthogonal_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        return
    for name, parameter in layer.named_parameters():
        if parameter.dim() < 2:
            nn.init.zeros_(parameter)
        elif name.startswith("weight_hh"):
            for gate in parameter.split(parameter.shape[1]):
                nn.init.orthogonal_(gate)
        else:
            nn.init.xavier_uniform_(parameter)


def _in_order(model: Any, layers: Any, call: tuple[tuple[Any, ...], dict[str, Any]]) -> list[Any]:
    order: list[Any] = []
    handles = [m.register_forward_hook(lambda module, args, out: order.append(module)) for m in layers]
    try:
        model(*call[0], **call[1])
    finally:
        for handle in handles:
            handle.remove()
    return list(dict.fromkeys(order))


class _Enough(Exception):
    """The output asked for has been seen; the rest of the forward pass is not needed."""


def _unit_variance(model: Any, layer: Any, call: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
    seen: list[float] = []

    def hook(module: Any, args: Any, output: Any) -> None:
        seen.append(next(tensors(output)).float().std().item())
        raise _Enough

    handle = layer.register_forward_hook(hook)
    try:
        for _ in range(ROUNDS):
            try:
                model(*call[0], **call[1])
            except _Enough:
                pass
            if not 1e-12 < seen[-1] < float("inf") or abs(seen[-1] - 1) < 0.05:
                return
            layer.weight.div_(seen[-1])
    finally:
        handle.remove()
