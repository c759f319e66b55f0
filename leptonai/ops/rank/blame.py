"""Blame flows from the target along the calls until it stays: an absorbing Markov chain. Pure.

A state is a service in one metric. A symptom hands blame down to the callees that explain it; what none explains may
pass to a callee that is in trouble in another metric, or is gone, or to the service's own surge of calls, and a surge
is handed up to the callers that explain it. What is left stays.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from leptonai.ops.rank.layers import Layer, Volume
from leptonai.protocols import Floats

KEPT = 0.02  # share of its blame a state keeps at least: the chain ends in every cycle
CROSSED = 0.9  # share of what no callee explains that another metric's change may explain at most
FORWARDED = 0.1  # what a state that only forwards scores, as a share of what it forwards to
SETTLED = 1e-9
STEPS = 1000


class Chain(NamedTuple):
    """Edges between states: ``passed`` is the share of its blame that ``source`` hands to ``sink``; ``n`` states."""

    source: NDArray[np.intp]
    sink: NDArray[np.intp]
    passed: Floats
    n: int


class Blame(NamedTuple):
    """Per state: ``score`` as ranked; ``visits``, the share of the target's trouble that passes through it; ``own``,
    the share of what passes that stays."""

    score: Floats
    visits: Floats
    own: Floats


def shares(amount: Floats, caller: NDArray[np.intp], callee: NDArray[np.intp]) -> Floats:
    """Per edge: the share of the caller's trouble that the callee explains, in [0, 1], at most 1 over all callees.

    ``amount`` is trouble a node adds, in one unit for all. A callee with several troubled callers is divided among
    them in proportion to their own trouble: who is well did not suffer from it.
    """
    n = len(amount)
    callers = np.bincount(callee, weights=amount[caller], minlength=n)
    with np.errstate(invalid="ignore", divide="ignore"):
        explained = np.minimum(amount[callee] / callers[callee], 1.0)
    explained = np.where((amount[caller] > 0) & (callers[callee] > 0), explained, 0.0)
    total = np.bincount(caller, weights=explained, minlength=n)
    out: Floats = explained / np.maximum(1.0, total[caller])
    return out


def surge_shares(volume: Volume, caller: NDArray[np.intp], callee: NDArray[np.intp]) -> Floats:
    """Per edge: the share of the callee's surge of calls that the caller's surge explains.

    A caller brings as many calls for each of its own as all callers of the callee do together in normal times.
    """
    n = len(volume.surge)
    before = np.nan_to_num(volume.moved.before)
    arriving = np.bincount(callee, weights=before[caller], minlength=n)
    with np.errstate(invalid="ignore", divide="ignore"):
        fan = before[callee] / arriving[callee]
        explained = np.nan_to_num(fan * volume.surge[caller] / volume.surge[callee], posinf=0.0)
    explained = np.where(volume.surge[callee] > 0, np.minimum(explained, 1.0), 0.0)
    total = np.bincount(callee, weights=explained, minlength=n)
    out: Floats = explained / np.maximum(1.0, total[callee])
    return out


def gone_alone(volume: Volume, caller: NDArray[np.intp], callee: NDArray[np.intp]) -> Floats:
    """Per edge: how sure it is that the callee is gone while its caller is not.

    When most of what a caller calls lost its calls at once, it is the caller that calls nobody: each callee counts by
    the share of the others that did not.
    """
    n = len(volume.surge)
    called = (np.nan_to_num(volume.moved.before) > 0)[callee]  # of who was not called before nothing can be lost
    lost = np.bincount(caller, weights=volume.gone[callee] * called, minlength=n)[caller] - volume.gone[callee]
    others = np.bincount(caller, weights=called, minlength=n)[caller] - 1.0
    kept = np.where(others > 0, 1.0 - np.clip(lost / np.maximum(others, 1.0), 0.0, 1.0), 1.0)
    out: Floats = volume.gone[callee] * (1.0 - volume.gone[caller]) * kept
    return out


def chain(layers: list[Layer], volume: Volume, caller: NDArray[np.intp], callee: NDArray[np.intp]) -> Chain:
    """State ``layer x nodes + node``; the layer after the last symptom is the volume's."""
    n = len(volume.surge)
    last = len(layers) * n
    inside = [shares(layer.amount, caller, callee) for layer in layers]
    source, sink, passed = [], [], []
    for i, within in enumerate(inside):
        left = 1.0 - np.bincount(caller, weights=within, minlength=n)
        source.append(i * n + caller)
        sink.append(i * n + callee)
        passed.append(within)
        ways = [  # (from, to, how sure) of what takes over where no callee explains
            (
                caller,
                j * n + callee,
                (other.sure * other.severe)[callee] * np.where(other.amount[caller] > 0, inside[j], 1.0),
            )
            for j, other in enumerate(layers)
            if j != i
        ]
        ways.append((caller, last + callee, gone_alone(volume, caller, callee)))
        ways.append((np.arange(n), last + np.arange(n), volume.sure))
        total = sum(np.bincount(start, weights=sure, minlength=n) for start, _, sure in ways)
        for start, end, sure in ways:
            source.append(i * n + start)
            sink.append(end)
            passed.append(CROSSED * left[start] * sure / np.maximum(1.0, np.asarray(total)[start]))
    source.append(last + callee)
    sink.append(last + caller)
    passed.append(surge_shares(volume, caller, callee))
    every = np.concatenate(passed)
    real = every > 0
    return Chain(np.concatenate(source)[real], np.concatenate(sink)[real], every[real], last + n)


def flow(start: int, edges: Chain, weight: Floats) -> Blame:
    """Where one unit of blame put on state ``start`` stays.

    ``weight`` (states,) multiplies what a state keeps: evidence from elsewhere, 1 where it says nothing. A state that
    hands everything on still scores FORWARDED of the best it hands to, so that among those without own blame the ones
    next to a cause come first, and none comes before the cause it forwards.
    """
    source, sink, passed, n = edges
    out = np.bincount(source, weights=passed, minlength=n)
    passed = np.asarray(passed * np.minimum(1.0, (1.0 - KEPT) / np.maximum(out, KEPT))[source], dtype=np.float64)
    own: Floats = np.subtract(1.0, np.bincount(source, weights=passed, minlength=n), dtype=np.float64)
    moving: Floats = np.zeros(n)
    moving[start] = 1.0
    visits: Floats = moving.copy()
    for _ in range(STEPS):
        moving = np.bincount(sink, weights=moving[source] * passed, minlength=n).astype(np.float64)
        np.add(visits, moving, out=visits)
        if moving.sum() < SETTLED:
            break
    kept: Floats = np.where(own > KEPT + SETTLED, own, 0.0) * weight
    worth = kept
    for _ in range(STEPS):
        best = np.zeros(n)
        np.maximum.at(best, source, passed * worth[sink])
        fresh = kept + FORWARDED * best
        if np.abs(fresh - worth).max() < SETTLED:
            break
        worth = np.asarray(fresh, dtype=np.float64)
    return Blame(visits * worth, visits, own)
