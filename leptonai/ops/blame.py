"""Whose trouble is it: what a service calls, ranked by ``ops.rank`` on the signals that ops has of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from leptonai.ops.rank.frame import Frame, Graph
from leptonai.ops.rank.frame import Key as Column
from leptonai.ops.rank.ranking import Suspect, rank
from leptonai.protocols import Floats, TelemetryStore
from leptonai.types import Key, Series

ROW = 5.0  # seconds of a row
LEAD = 60.0  # seconds before the onset that belong to the window
NORMAL = 600.0  # seconds before that say what is normal
FEWEST = 24  # rows of them, before anything is said
MOST = 300  # services looked at, the nearest to the target first
LATENCY, AVAILABILITY, REQUESTS = (
    ("latency", "Average"),
    ("availability", "Average"),
    ("requests", "Sum"),
)
# Of a service that we serve the median stands for the mean, which the gateway does not tell.
_OURS = {"latency_p50_seconds": LATENCY, "error_ratio": AVAILABILITY, "request_rate_per_second": REQUESTS}
_CALLED = {"dependency_seconds": LATENCY, "dependency_error_ratio": AVAILABILITY}


def suspects(
    store: TelemetryStore, calls: Iterable[tuple[Key, Key]], target: Key, onset: float, now: float, errors: bool
) -> list[Suspect]:
    """Who explains the trouble of ``target`` since ``onset``, most probable first; the target itself may be among them.

    ``calls``: (caller, callee). ``errors``: it is about errors, else about latency. []: nobody is called, too little is
    known of normal times, or the target does nothing unusual.
    """
    near = around(calls, target)
    if len(near) < 2:
        return []
    graph = Graph.of(near)
    begin = onset - LEAD - NORMAL
    frame = frame_of(store, graph.nodes, begin, now)
    cut = int(np.searchsorted(frame.times, onset - LEAD))
    column = Column(target, *(AVAILABILITY if errors else LATENCY))
    if column not in frame.column:
        return []
    known = np.isfinite(frame.values[:cut, frame.column[column]]).sum()
    if known < FEWEST or cut >= len(frame.times):
        return []
    return rank(frame.rows(cut, len(frame.times)), frame.rows(0, cut), graph, column)


def around(calls: Iterable[tuple[Key, Key]], target: Key) -> dict[str, list[str]]:
    """Caller -> callees of everything the target calls, directly or not, and of those who call the same; at most MOST
    services. A service that calls nobody is a key too."""
    down: dict[str, list[str]] = {}
    up: dict[str, list[str]] = {}
    for caller, callee in calls:
        if caller != callee:
            down.setdefault(caller, []).append(callee)
            up.setdefault(callee, []).append(caller)
    found = dict.fromkeys([target])
    for ways in (down, up):
        front = list(found)
        while front and len(found) < MOST:
            fresh = [b for a in front for b in ways.get(a, ()) if b not in found]
            found |= dict.fromkeys(fresh[: MOST - len(found)])
            front = [b for b in dict.fromkeys(fresh) if b in found]
    return {node: [b for b in dict.fromkeys(down.get(node, ())) if b in found] for node in found}


def frame_of(store: TelemetryStore, nodes: Sequence[str], start: float, end: float) -> Frame:
    """Latency, availability and requests of each node in rows of ROW seconds. What others serve is known by the spans
    of those that call it: the mean over its callers."""
    wanted = frozenset(nodes)
    rows = max(int((end - start) / ROW), 1)
    columns: dict[Column, list[Floats]] = {}
    for signals, label in ((_OURS, "service"), (_CALLED, "dependency")):
        for name, metric in signals.items():
            for series in store.read(name, start, start + rows * ROW, step=ROW):
                node = series.labels.get(label, "")
                extra = set(series.labels) - {"service", "dependency"}
                if node in wanted and not extra and (label == "dependency" or "dependency" not in series.labels):
                    columns.setdefault(Column(node, *metric), []).append(_row(series, name, rows))
    own = {key.service for key in columns if key.metric == "requests"}
    keys = tuple(key for key in columns)
    values = np.full((rows, len(keys)), np.nan)
    for i, key in enumerate(keys):
        parts = columns[key]
        values[:, i] = parts[0] if key.service in own else _mean(parts)
    return Frame(start + ROW * np.arange(rows, dtype=np.float64), keys, values)


def _row(series: Series, name: str, rows: int) -> Floats:
    out = np.full(rows, np.nan)
    value = np.array(series.value, dtype=np.float64)[:rows]
    out[: len(value)] = value
    if name.endswith("error_ratio"):
        return np.asarray(100.0 * (1.0 - out), dtype=np.float64)
    return np.asarray(out * ROW, dtype=np.float64) if name == "request_rate_per_second" else out


def _mean(parts: Sequence[Floats]) -> Floats:
    both = np.stack(parts)
    count = np.isfinite(both).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        out: Floats = np.nansum(both, axis=0) / count
    return out


def path(calls: Mapping[str, Sequence[str]], start: str, end: str) -> bool:
    """Whether ``start`` calls ``end``, directly or through others."""
    seen, front = {start}, [start]
    while front:
        for b in calls.get(front.pop(), ()):
            if b == end:
                return True
            if b not in seen:
                seen.add(b)
                front.append(b)
    return False
