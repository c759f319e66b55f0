"""What each service did in each metric, measured in amounts that add up along calls. Pure, columnar.

A *symptom* (latency, availability, errors ...) is passed from callee to caller; its amount is shift x calls: seconds
added, or calls failed, per row. *Volume* (requests) is passed from caller to callee. Everything else is decoration.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leptonai.ops.rank.frame import Frame, Graph, Key
from leptonai.ops.rank.window import Change, Episode, change, shrunk
from leptonai.protocols import Floats

RISES = ("latency", "duration", "response_time", "error", "failure", "timeout", "fault")  # symptoms: worse when higher
FALLS = ("availability", "success")  # symptoms: worse when lower
VOLUMES = ("request", "call", "throughput", "rps", "traffic")
TOTALS = ("sum", "count", "total")  # statistics that are amounts by themselves
MEANS = ("average", "avg", "mean")
BEYOND = 3.0  # times the noise: a change in another metric than the target's is looked at only beyond it
CHANCE = 2.0  # failed calls in an episode that are chance
GONE = (0.5, 0.9)  # share of its calls a service must lose to be suspected, and to be believed, gone


def direction(metric: str) -> int:
    """+1: worse when higher; -1: worse when lower; 0: not known by its name."""
    name = metric.lower()
    if any(word in name for word in FALLS):
        return -1
    return 1 if any(word in name for word in RISES) else 0


def is_volume(metric: str) -> bool:
    return direction(metric) == 0 and any(word in metric.lower() for word in VOLUMES)


@dataclass(frozen=True)
class Layer:
    """One metric over all nodes: ``amount`` >= 0, what each adds in trouble, 0 where noise explains it.

    ``sure`` in [0, 1]: how far the change is beyond BEYOND times its noise. ``severe`` in [0, 1]: its size as a share
    of the larger of before and during; a service that fails one call more in a hundred does not stall its callers.
    """

    metric: str
    statistic: str
    sign: int
    moved: Change
    amount: Floats
    sure: Floats
    severe: Floats


@dataclass(frozen=True)
class Volume:
    """Calls a row, per node. ``surge``: calls added beyond noise; ``sure`` of it; ``gone`` in [0, 1]: calls lost."""

    metric: str
    moved: Change
    surge: Floats
    sure: Floats
    gone: Floats


def symptoms(frame: Frame, target: Key) -> list[tuple[str, str]]:
    """(metric, statistic) of the layers: the target's first, then each other symptom.

    A mean where there is one, for means times calls add up and quantiles do not; else the target's statistic where the
    metric has it, else the one most services have.
    """
    found: dict[str, Counter[str]] = {target.metric: Counter()}
    for key in frame.keys:
        if key.metric == target.metric or direction(key.metric):
            found.setdefault(key.metric, Counter())[key.statistic] += 1

    def statistic(metric: str) -> str:
        counts = found[metric]
        means = [s for s in counts if s.lower() in MEANS]
        if target.statistic in counts and not means:
            return target.statistic
        return max(sorted(means or counts), key=lambda s: counts[s])

    return [(metric, statistic(metric)) for metric in [target.metric, *sorted(found.keys() - {target.metric})]]


def volume_of(frame: Frame) -> tuple[str, str] | None:
    """(metric, statistic) that says how many calls a service got; None when the frame has none."""
    counts = Counter((k.metric, k.statistic) for k in frame.keys if is_volume(k.metric))
    return max(sorted(counts), key=lambda name: counts[name]) if counts else None


def measure_volume(window: Frame, normal: Frame, graph: Graph, when: Episode) -> tuple[Volume, Floats]:
    """The volume layer and the calls of each row of the episode, (rows, nodes); all ones where nothing counts calls."""
    n = len(graph.nodes)
    name = volume_of(window)
    if name is None:
        nothing = np.zeros(n)
        unknown = np.full(n, np.nan)
        volume = Volume("", Change(unknown, unknown, unknown), nothing, nothing, nothing)
        return volume, np.ones((when.stop - when.start, n))
    keys = [Key(node, *name) for node in graph.nodes]
    x, known = window.take(keys), normal.take(keys)
    up, down = change(x, known, when, 1), change(x, known, when, -1)
    rise = np.nan_to_num(up.during - up.before)
    with np.errstate(invalid="ignore", divide="ignore"):
        lost = np.clip((-rise / np.abs(up.before) - GONE[0]) / (GONE[1] - GONE[0]), 0.0, 1.0)
    real = certainty(-rise, np.maximum(down.noise, CHANCE / (when.stop - when.start)))
    volume = Volume(name[0], up, shrunk(rise, up.noise), certainty(rise, up.noise), np.nan_to_num(lost) * real)
    calls = x[when.start : when.stop]
    absent = ~np.isfinite(x).any(axis=0)
    if absent.any() and not absent.all():  # a service nobody counts is taken to be called as the typical one
        calls = np.where(absent, np.nanmedian(calls[:, ~absent]), calls)
    known = np.isfinite(calls)  # a row in which only the count is missing has as many calls as the others
    typical = np.where(known.any(axis=0), _row_mean(calls), up.before)
    return volume, np.nan_to_num(np.where(known, calls, typical))


def _row_mean(x: Floats) -> Floats:
    known = np.isfinite(x)
    out: Floats = np.where(known, x, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return out


def measure(
    window: Frame, normal: Frame, graph: Graph, when: Episode, name: tuple[str, str], sign: int, calls: Floats
) -> Layer:
    """One symptom's layer. Amounts of a layer are comparable with one another, not with those of another layer."""
    metric, statistic = name
    keys = [Key(node, metric, statistic) for node in graph.nodes]
    x = window.take(keys)
    moved = change(x, normal.take(keys), when, sign)
    if statistic.lower() in TOTALS:
        calls = np.ones_like(calls)
    elif sign < 0:  # of few calls one fails by chance
        with np.errstate(divide="ignore", invalid="ignore"):
            alone = CHANCE * np.abs(np.nan_to_num(moved.before)) / calls.sum(axis=0)
        moved = moved._replace(noise=np.maximum(moved.noise, alone))
    shift = sign * (moved.during - moved.before)
    high = sign * (x[when.start : when.stop] - moved.before) * calls
    counts = np.isfinite(high) | (calls == 0)  # a row without calls adds nothing; one without a value is not known
    added = np.nansum(high, axis=0) / np.maximum(counts.sum(axis=0), 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        kept = np.nan_to_num(shrunk(shift, moved.noise) / shift)
    amount = np.maximum(np.nan_to_num(added), 0.0) * kept
    with np.errstate(invalid="ignore", divide="ignore"):
        severe = np.nan_to_num(np.abs(shift) / np.maximum(np.abs(moved.before), np.abs(moved.during)))
    return Layer(metric, statistic, sign, moved, amount, certainty(shift, moved.noise), np.minimum(severe, 1.0))


def certainty(shift: Floats, noise: Floats) -> Floats:
    """0 up to BEYOND times the noise, then rising towards 1."""
    with np.errstate(invalid="ignore", divide="ignore"):
        out = 1.0 - (BEYOND * noise / shift) ** 2
    result: Floats = np.where((shift > BEYOND * noise) & np.isfinite(out), out, 0.0)
    return result


def silent(window: Frame, normal: Frame, graph: Graph, names: list[tuple[str, str]]) -> NDArray[np.bool_]:
    """Nodes of which nothing is known in any of these metrics, neither now nor normally."""
    out = np.ones(len(graph.nodes), dtype=np.bool_)
    for name in names:
        keys = [Key(node, *name) for node in graph.nodes]
        for frame in (window, normal):
            out &= ~np.isfinite(frame.take(keys)).any(axis=0)
    return out
