"""From frames and a graph to suspects, the most probable cause first. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from leptonai.errors import SpecError
from leptonai.ops.rank.blame import Blame, Chain, chain, flow
from leptonai.ops.rank.frame import Frame, Graph, Key
from leptonai.ops.rank.layers import Layer, Volume, direction, measure, measure_volume, silent, symptoms
from leptonai.ops.rank.window import Episode, change, episode
from leptonai.protocols import Floats
from leptonai.types import Noun

ALPHA = 0.02  # share of normal windows in which a target may be called anomalous by itself
ALPHA_EXPLAINED = 0.25  # ... when another service, far beyond its own noise, explains most of it
EXPLAINED = 0.5
LEAST = 0.01  # a smaller score is not worth a line
MOST = 20  # suspects listed


class Suspect(Noun, frozen=True, kw_only=True):
    """A service that may be the cause, and the metric it shows in. ``score``: its share of the blame, in (0, 1]."""

    node: str
    metric: str
    score: float
    evidence: list[str]


@dataclass(frozen=True)
class Inquest:
    """All that a ranking was decided from; ``states`` are layers x nodes, the volume's last."""

    target: Key
    at: int
    when: Episode
    graph: Graph
    layers: list[Layer]
    volume: Volume
    edges: Chain
    blame: Blame


def rank(
    window: Frame, normal: Frame, graph: Graph, target: Key, likelihood: Mapping[str, float] | None = None
) -> list[Suspect]:
    """The suspects for what the target did in ``window``, most probable first; empty when it did nothing unusual.

    ``window`` should hold rows from before the trouble too; when all its rows are troubled, ``normal`` says what was
    before. ``likelihood`` is the seat of logs and traces: per service, how many times likelier what they show is if
    it is a cause than if not; 1 where absent. Scores sum to at most 1. The result depends neither on the order of
    columns or nodes (but for ties), nor on names of services, nor on units.
    Raises SpecError when the target is in none of the three.
    """
    inquest = examine(window, normal, graph, target, likelihood or {})
    if inquest is None:
        return []
    from leptonai.ops.rank.words import evidence

    n = len(graph.nodes)
    by_layer = inquest.blame.score.reshape(-1, n)
    score = by_layer.sum(axis=0)
    score = score / score.sum()
    amount = inquest.layers[0].amount
    order = np.lexsort((-amount, -np.round(score, 9)))[:MOST]
    suspects = []
    for i in order.tolist():
        if score[i] < LEAST:
            break
        layer = int(np.argmax(by_layer[:, i]))
        metric = inquest.layers[layer].metric if layer < len(inquest.layers) else inquest.volume.metric
        words = evidence(inquest, i, layer, window.times)
        suspects.append(Suspect(node=graph.nodes[i], metric=metric, score=float(score[i]), evidence=words))
    return suspects


def examine(window: Frame, normal: Frame, graph: Graph, target: Key, likelihood: Mapping[str, float]) -> Inquest | None:
    """The flow of blame behind ``rank``; None when the target is not anomalous."""
    _check(window, normal, graph, target)
    at = graph.nodes.index(target.service)
    sign = direction(target.metric)
    when = episode(window.take([target])[:, 0], normal.take([target])[:, 0], sign)
    if when.p > ALPHA_EXPLAINED:
        return None
    volume, calls = measure_volume(window, normal, graph, when)
    names = symptoms(window, target)
    if names[0][1] != target.statistic and _unmoved(window, normal, Key(target.service, *names[0]), when):
        names[0] = (target.metric, target.statistic)
    layers = [
        measure(window, normal, graph, when, name, when.sign if i == 0 else direction(name[0]), calls)
        for i, name in enumerate(names)
    ]
    layers[0] = _certain(layers[0], at, calls)
    mute = silent(window, normal, graph, names)
    mute[at] = False
    calling = graph.without(mute).forward(at)
    edges = chain(layers, volume, calling.caller, calling.callee)
    trust = np.array([likelihood.get(node, 1.0) for node in graph.nodes])
    blame = flow(at, edges, np.tile(trust, len(layers) + 1))
    inquest = Inquest(target, at, when, graph, layers, volume, edges, blame)
    return inquest if when.p <= ALPHA or _explained(inquest) else None


def _certain(layer: Layer, at: int, calls: Floats) -> Layer:
    """The target's layer with the target's trouble taken for real: that it is has been decided already."""
    amount = layer.amount.copy()
    whole = layer.sign * (layer.moved.during[at] - layer.moved.before[at]) * max(1.0, float(calls[:, at].mean()))
    amount[at] = max(amount[at], float(np.nan_to_num(whole)), 1e-300)
    return replace(layer, amount=amount)


def _unmoved(window: Frame, normal: Frame, key: Key, when: Episode) -> bool:
    moved = change(window.take([key]), normal.take([key]), when, when.sign)
    return not bool(when.sign * (moved.during[0] - moved.before[0]) > moved.noise[0])


def _explained(inquest: Inquest) -> bool:
    """Most of the blame stays in the target's own metric at one other service that is sure to be in trouble."""
    n = len(inquest.graph.nodes)
    score = inquest.blame.score[:n]
    best = int(np.argmax(score))
    share = score[best] / inquest.blame.score.sum()
    return best != inquest.at and share >= EXPLAINED and bool(inquest.layers[0].sure[best] > EXPLAINED)


def _check(window: Frame, normal: Frame, graph: Graph, target: Key) -> None:
    if target.service not in graph.nodes:
        raise SpecError(
            f"the target {target.service!r} is not in the call graph of {len(graph.nodes)} services",
            hint="name one of its services",
        )
    for frame, name in ((window, "metrics"), (normal, "normal data")):
        if target not in frame.column:
            near = sorted({f"{k.metric},{k.statistic}" for k in frame.keys if k.service == target.service})
            raise SpecError(
                f"the {name} have no series {target}",
                hint=f"of {target.service} they have {'; '.join(near)}" if near else "nor any other of that service",
            )
