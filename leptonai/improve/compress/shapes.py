"""Other shapes of the same network, cut out of its graph: fewer units, zeros, factors, groups. Each works on a copy.

Structured pruning: units ranked by the first-order change of the loss (Molchanov et al. 2019). Low rank: the factors
that keep the layer's outputs on real inputs best (singular values of W C^1/2, C the inputs' second moment). Magnitude
pruning: Han et al. 2015. Channel split: a layer becomes groups that run side by side (Xie et al. 2017).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from leptonai.errors import ModelError
from leptonai.improve.compress.network import copied

aten = torch.ops.aten
LINEAR, CONV = aten.linear.default, aten.conv2d.default
# One unit in, the same unit out, whatever the others are.
_UNITWISE = {
    aten.relu.default, aten.relu_.default, aten.gelu.default, aten.silu.default, aten.silu_.default, aten.tanh.default,
    aten.sigmoid.default, aten.elu.default, aten.leaky_relu.default, aten.hardtanh.default, aten.hardswish.default,
    aten.dropout.default, aten.max_pool2d.default, aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default,
    aten.clone.default, aten.contiguous.default,
}  # fmt: skip
_NORM = aten.batch_norm.default
_FLATTEN = (aten.flatten.using_ints, aten.view.default, aten.reshape.default)


class Group(NamedTuple):
    """Hidden units that can go together: the layer that makes them, norms on their way, the layers that take them."""

    maker: Any  # graph node
    norms: tuple[Any, ...]
    takers: tuple[tuple[Any, int], ...]  # (node, numbers it takes of each unit)
    flats: tuple[Any, ...]  # views to be made free of the old width
    units: int


def parameter(graph: Any, node: Any) -> Any:
    value = graph
    for part in node.target.split("."):
        value = getattr(value, part)
    return value


def put(graph: Any, node: Any, value: Any) -> None:
    *path, name = node.target.split(".")
    holder = graph
    for part in path:
        holder = getattr(holder, part)
    if isinstance(getattr(holder, name), torch.nn.Parameter):
        value = torch.nn.Parameter(value.detach().clone())
    setattr(holder, name, value if isinstance(value, torch.nn.Parameter) else value.detach().clone())


def layers(graph: Any) -> Iterator[Any]:
    """Linear and plain 2-d convolution nodes whose weight is a parameter used nowhere else."""
    for node in graph.graph.nodes:
        if node.op != "call_function" or node.target not in (LINEAR, CONV):
            continue
        w = node.args[1]
        if w.op == "get_attr" and len(w.users) == 1 and (node.target is LINEAR or _argument(node, 6, 1) == 1):
            yield node


def _argument(node: Any, index: int, default: Any) -> Any:
    return node.args[index] if len(node.args) > index else default


def groups(graph: Any) -> list[Group]:
    """Every set of hidden units that can be cut without touching the network's inputs and outputs."""
    return [g for node in layers(graph) if (g := _group(graph, node)) is not None]


def _group(graph: Any, maker: Any) -> Group | None:
    units = len(parameter(graph, maker.args[1]))
    norms: list[Any] = []
    takers: list[tuple[Any, int]] = []
    flats: list[Any] = []
    seen: set[Any] = set()
    front = [(maker, 1)]
    while front:
        node, each = front.pop()
        for user in node.users:
            if user in seen:
                continue
            seen.add(user)
            if user.op != "call_function" or user.args[0] is not node:
                return None
            if user.target in _UNITWISE:
                front.append((user, each))
            elif user.target is _NORM:
                norms.append(user)
                front.append((user, each))
            elif user.target in _FLATTEN and maker.target is CONV and _flat(user):
                flats.append(user)
                front.append((user, int(user.meta["val"].shape[1]) // units))
            elif user.target in (LINEAR, CONV) and user in set(layers(graph)):
                width = parameter(graph, user.args[1]).shape[1]
                if width != units * each or (user.target is LINEAR and maker.target is CONV and not flats):
                    return None
                takers.append((user, each))
            else:
                return None
    return Group(maker, tuple(norms), tuple(takers), tuple(flats), units) if takers else None


def _flat(node: Any) -> bool:
    shape: tuple[Any, ...] = tuple(getattr(node.meta.get("val"), "shape", ()))
    return len(shape) == 2 and isinstance(shape[1], int)


def importance(graph: Any, group: Group) -> Any:
    """Of each unit, from the gradients that are in the graph: the squared first-order change were it gone."""
    w = parameter(graph, group.maker.args[1])
    total = (w.grad * w).reshape(len(w), -1).sum(1)
    for node in group.norms:
        for index in (1, 2):
            if node.args[index] is not None:
                p = parameter(graph, node.args[index])
                total = total + (p.grad * p if p.grad is not None else 0)
    if (bias := _argument(group.maker, 2, None)) is not None:
        b = parameter(graph, bias)
        total = total + b.grad * b
    return total.detach().square()


def prune(graph: Any, share: float, gradients: Callable[[Any], None]) -> Any:
    """A copy with ``share`` of the units of every group gone; ``gradients(graph)`` runs one backward pass over data.

    What is left is a multiple of 4 where there are enough: odd widths cost vector units. ModelError: nothing to cut.
    """
    new = copied(graph)
    found = groups(new)
    if not found:
        raise ModelError("no hidden units that can be cut without touching inputs or outputs")
    gradients(new)
    keep = []
    for group in found:
        left = max(1, round(group.units * (1 - share)))
        left = max(4, left // 4 * 4) if group.units >= 8 else left
        keep.append(importance(new, group).topk(min(left, group.units)).indices.sort().values)
    for group, kept in zip(found, keep, strict=True):
        _cut(new, group, kept)
    new.recompile()
    for p in new.parameters():
        p.grad = None
    return new


def _cut(graph: Any, group: Group, kept: Any) -> None:
    for index in (1, 2):
        if (node := _argument(group.maker, index, None)) is not None:
            put(graph, node, parameter(graph, node)[kept])
    for norm in group.norms:
        for index in (1, 2, 3, 4):
            if norm.args[index] is not None:
                put(graph, norm.args[index], parameter(graph, norm.args[index])[kept])
    for taker, each in group.takers:
        w = parameter(graph, taker.args[1])
        columns = (kept[:, None] * each + torch.arange(each)).reshape(-1)
        put(graph, taker.args[1], w[:, columns])
    for node in group.flats:
        node.target, node.args = aten.flatten.using_ints, (node.args[0], 1)


def magnitude(graph: Any, share: float) -> tuple[Any, dict[str, Any]]:
    """A copy with ``share`` of the weights of its layers zero, the smallest of all; and masks by parameter name."""
    new = copied(graph)
    weights = {n.args[1].target: parameter(new, n.args[1]) for n in layers(new)}
    if not weights:
        raise ModelError("no linear or convolutional layer whose weights can be zeroed")
    cut = torch.cat([w.detach().abs().reshape(-1) for w in weights.values()]).quantile(share) if _few(weights) else None
    masks = {}
    for name, w in weights.items():
        limit = cut if cut is not None else w.detach().abs().reshape(-1).kthvalue(max(1, int(share * w.numel()))).values
        masks[name] = w.detach().abs() > limit
        w.data.mul_(masks[name])
    return new, masks


def _few(weights: dict[str, Any]) -> bool:
    return bool(sum(w.numel() for w in weights.values()) < 16_000_000)  # torch.quantile's own limit


def low_rank(graph: Any, share: float, inputs: list[Any]) -> Any:
    """A copy whose linear layers are two, with ``share`` of the parameters; those that cannot gain stay whole.

    ModelError when none can.
    """
    new = copied(graph)
    wide = {n: parameter(new, n.args[1]) for n in layers(new) if n.target is LINEAR}
    ranks = {n: int(share * w.shape[0] * w.shape[1] / sum(w.shape)) for n, w in wide.items()}
    chosen = {n: k for n, k in ranks.items() if k >= 2 and min(wide[n].shape) >= 16}
    if not chosen:
        raise ModelError("no linear layer wide enough to be factorised")
    moments = _second_moments(new, chosen, inputs)
    for number, (node, rank) in enumerate(chosen.items()):
        w = wide[node].detach().double()
        c = moments[node].double()
        values, vectors = torch.linalg.eigh(c + 1e-6 * c.trace() / len(c) * torch.eye(len(c), dtype=c.dtype))
        root = vectors * values.clamp_min(1e-30).sqrt() @ vectors.T
        u, s, v = torch.linalg.svd(w @ root, full_matrices=False)
        first = s[:rank].sqrt()[:, None] * v[:rank] @ torch.linalg.inv(root)
        _factor(new, node, f"rank{number}_{len(list(new.parameters()))}", u[:, :rank] * s[:rank].sqrt(), first)
    new.recompile()
    return new


def _second_moments(graph: Any, wanted: dict[Any, int], inputs: list[Any]) -> dict[Any, Any]:
    found: dict[Any, Any] = {}

    class Seen(torch.fx.Interpreter):  # type: ignore[misc] # torch's types are not read
        def run_node(self, n: Any) -> Any:
            if n in wanted:
                x = self.env[n.args[0]]
                rows = x.reshape(-1, x.shape[-1])
                found[n] = rows.T @ rows / len(rows)
            return super().run_node(n)

    with torch.no_grad():
        Seen(graph).run(*inputs)
    return found


def _factor(graph: Any, node: Any, name: str, second: Any, first: Any) -> None:
    graph.register_parameter(f"{name}_a", torch.nn.Parameter(first.float().contiguous()))
    graph.register_parameter(f"{name}_b", torch.nn.Parameter(second.float().contiguous()))
    g = graph.graph
    with g.inserting_before(node):
        a, b = g.get_attr(f"{name}_a"), g.get_attr(f"{name}_b")
        narrow = g.call_function(LINEAR, (node.args[0], a))
    old = node.args[1]
    node.args = (narrow, b, *node.args[2:])
    if not old.users:
        g.erase_node(old)


def split(graph: Any, parts: int) -> Any:
    """A copy whose inner convolutions and linear layers are ``parts`` side by side, each with its share of the inputs.

    Only layers between hidden units on both sides, so that training can move what belongs together. ModelError when
    there is none.
    """
    new = copied(graph)
    hidden = {t for group in groups(new) for t, each in group.takers}
    makers = {group.maker for group in groups(new)}
    chosen = [
        n for n in layers(new)
        if n in hidden and n in makers and all(d % parts == 0 for d in parameter(new, n.args[1]).shape[:2])
    ]  # fmt: skip
    if not chosen:
        raise ModelError(f"no inner layer that can be split in {parts}")
    for node in chosen:
        w = parameter(new, node.args[1]).detach()
        size = w.shape[1] // parts
        blocks = [b[:, i * size : (i + 1) * size] for i, b in enumerate(w.chunk(parts))]
        if node.target is CONV:
            put(new, node.args[1], torch.cat(blocks))
            args = [*node.args, *(None, [1, 1], [0, 0], [1, 1], 1)[len(node.args) - 2 :]]
            node.args = (*args[:6], parts)
        else:
            _split_linear(new, node, blocks)
    new.recompile()
    return new


def _split_linear(graph: Any, node: Any, blocks: list[Any]) -> None:
    g = graph.graph
    name = str(node.args[1].target).replace(".", "_")
    outs = []
    with g.inserting_before(node):
        for i, (block, part) in enumerate(zip(blocks, _chunks(g, node, blocks), strict=True)):
            graph.register_parameter(f"{name}_part{i}", torch.nn.Parameter(block.clone()))
            outs.append(g.call_function(LINEAR, (part, g.get_attr(f"{name}_part{i}"))))
        whole = g.call_function(aten.cat.default, (outs, -1))
        if (bias := _argument(node, 2, None)) is not None:
            whole = g.call_function(aten.add.Tensor, (whole, bias))
    old = node.args[1]
    node.replace_all_uses_with(whole)
    g.erase_node(node)
    if not old.users:
        g.erase_node(old)


def _chunks(g: Any, node: Any, blocks: list[Any]) -> list[Any]:
    size = blocks[0].shape[1]
    return [
        g.call_function(aten.slice.Tensor, (node.args[0], -1, i * size, (i + 1) * size)) for i in range(len(blocks))
    ]
