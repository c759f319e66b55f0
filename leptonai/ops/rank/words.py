"""The numbers behind one suspect, in sentences."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from leptonai.protocols import Floats

if TYPE_CHECKING:
    from leptonai.ops.rank.ranking import Inquest


def evidence(inquest: Inquest, node: int, layer: int, times: Floats) -> list[str]:
    """What changed at this node, since when, how much of the target's trouble goes through it, and by which way."""
    n = len(inquest.graph.nodes)
    states = np.arange(len(inquest.layers) + 1) * n + node
    visits = float(inquest.blame.visits[states].sum())
    stays = float((inquest.blame.visits * inquest.blame.own)[states].sum())
    out = [_changed(inquest, node, layer, times)]
    if node == inquest.at:
        out.append(f"{stays:.0%} of its trouble is its own, explained by nothing else")
    else:
        out.append(f"{min(visits, 1.0):.0%} of the trouble of {inquest.target.service} passes through it")
        out.append(f"{stays:.0%} is its own, explained by nothing else")
        way = _way(inquest, layer * n + node)
        if len(way) > 1:
            out.append("reached by " + " -> ".join(way))
    return out


def _changed(inquest: Inquest, node: int, layer: int, times: Floats) -> str:
    symptom = layer < len(inquest.layers)
    moved = inquest.layers[layer].moved if symptom else inquest.volume.moved
    metric = f"{inquest.layers[layer].metric} {inquest.layers[layer].statistic}" if symptom else inquest.volume.metric
    before, during, noise = (float(x[node]) for x in moved)
    since = datetime.fromtimestamp(float(times[inquest.when.start]), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if not np.isfinite(during):
        return f"{metric} is missing from {since} on"
    if not np.isfinite(before):
        return f"{metric} is {during:.4g} from {since} on; nothing is known of before"
    chance = f", {abs(during - before) / noise:.1f} times what chance does" if noise > 0 else ""
    return f"{metric} went from {before:.4g} to {during:.4g} at {since}{chance}"


def _way(inquest: Inquest, state: int) -> list[str]:
    """The services on the way along which most blame came, from the target to this state; each service once."""
    n = len(inquest.graph.nodes)
    carried = inquest.blame.visits[inquest.edges.source] * inquest.edges.passed
    states, seen = [state], {state}
    while states[-1] != inquest.at:
        arriving = np.flatnonzero(inquest.edges.sink == states[-1])
        arriving = arriving[[int(inquest.edges.source[e]) not in seen for e in arriving.tolist()]]
        if not len(arriving):
            break
        states.append(int(inquest.edges.source[arriving[np.argmax(carried[arriving])]]))
        seen.add(states[-1])
    return list(dict.fromkeys(inquest.graph.nodes[s % n] for s in reversed(states)))
