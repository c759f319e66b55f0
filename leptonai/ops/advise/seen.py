"""Telemetry of one service in windows of time, side by side: what every law of the room is fitted to. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from leptonai.protocols import Floats
from leptonai.types import Series

LEAST = 24  # windows with requests, until anything is told
MOST = 240  # windows of one stretch
SHORTEST = 5.0  # seconds of a window: with 10 requests a second its mean is known to a few percent

Across = Literal["sum", "mean", "max"]
COLUMNS: dict[str, tuple[str, Across]] = {
    "rate": ("request_rate_per_second", "mean"),
    "ready": ("ready_count", "mean"),
    "service": ("replica_service_seconds", "mean"),
    "compute": ("replica_compute_seconds", "mean"),
    "queued": ("replica_queue_seconds", "mean"),
    "cpu": ("replica_cpu_ratio", "sum"),
    "rss": ("replica_rss_bytes", "max"),
    "inside": ("replica_concurrency_count", "sum"),
    "p50": ("latency_p50_seconds", "mean"),
    "p99": ("latency_p99_seconds", "mean"),
    "host": ("host_cpu_ratio", "mean"),
    "slow": ("slow_ratio", "mean"),
}
CALLS = ("dependency_seconds", "dependency_rate_per_second")


@dataclass(frozen=True)
class Seen:
    """Columns over windows; nan where nothing was seen. ``service``: seconds of a compute thread that one request
    takes; ``compute``: of the batch it is in; ``cpu``: processors used by all replicas; ``rss``: bytes of the largest;
    ``inside``: requests inside all replicas; ``calls``: dependency -> seconds of a call of it; ``asked``: dependency ->
    calls of it a second."""

    rate: Floats
    ready: Floats
    service: Floats
    compute: Floats
    queued: Floats
    cpu: Floats
    rss: Floats
    inside: Floats
    p50: Floats
    p99: Floats
    host: Floats
    slow: Floats
    calls: Mapping[str, Floats]
    asked: Mapping[str, Floats]

    def __len__(self) -> int:
        return len(self.rate)

    def take(self, which: NDArray[np.intp]) -> Seen:
        """These windows, in this order; one may come twice."""
        columns = {f.name: getattr(self, f.name)[which] for f in fields(self) if f.name not in ("calls", "asked")}
        calls, asked = ({k: v[which] for k, v in of.items()} for of in (self.calls, self.asked))
        return replace(self, **columns, calls=calls, asked=asked)

    def carried(self, tail: float) -> float:
        """The load that was carried while no more than ``tail`` of the answers were late: the mean of the tenth of such
        windows with the most requests; 0 where lateness was not seen."""
        kept = np.sort(self.rate[np.isfinite(self.slow) & (self.slow <= tail)])
        return float(kept[-max(len(kept) // 10, 1) :].mean()) if len(kept) else 0.0

    def fan(self, dependency: str) -> float:
        """Calls of it that one request makes; 1 where they were not counted."""
        asked = self.asked[dependency]
        known = np.isfinite(asked)
        return float(asked[known].sum() / self.rate[known].sum()) if known.any() else 1.0

    def mean(self, name: str) -> float:
        """Of a column over requests, not over time; nan when it was never seen."""
        return weighted(getattr(self, name), self.rate)


def weighted(column: Floats, rate: Floats) -> float:
    known = np.isfinite(column) & (rate > 0)
    return float((column[known] * rate[known]).sum() / rate[known].sum()) if known.any() else float("nan")


def look(series: Mapping[str, Sequence[Series]], start: float, end: float) -> Seen:
    """The windows of ``[start, end)`` in which requests came. ``series``: signal name -> its series."""
    rates = series.get(COLUMNS["rate"][0], ())
    times = [t for s in rates for t, v in zip(s.at, s.value, strict=True) if v == v and v > 0]
    first = max(start, min(times)) if times else start
    last = min(end, max(times)) if times else end
    width = max(SHORTEST, (last - first) / MOST)
    edges = np.asarray(first + width * np.arange(max(1, int((last - first) // width)) + 1), dtype=np.float64)
    columns = {name: _column(series.get(signal, ()), edges, how) for name, (signal, how) in COLUMNS.items()}
    names = sorted({s.labels.get("dependency", "") for s in series.get(CALLS[0], ())} - {""})
    calls, asked = (
        {name: _column([s for s in series.get(signal, ()) if s.labels.get("dependency") == name], edges, "mean")
         for name in names}
        for signal in CALLS
    )  # fmt: skip
    seen = Seen(**columns, calls=calls, asked=asked)
    return seen.take(np.flatnonzero(np.isfinite(seen.rate) & (seen.rate > 0)))


def _column(series: Sequence[Series], edges: Floats, across: Across) -> Floats:
    """Each series' mean in each window, then across the series."""
    rows = []
    for one in series:
        at, value = np.asarray(one.at, dtype=np.float64), np.asarray(one.value, dtype=np.float64)
        known = np.isfinite(value)
        where = np.searchsorted(edges, at[known], side="right") - 1
        fits = (where >= 0) & (where < len(edges) - 1)
        count = np.bincount(where[fits], minlength=len(edges) - 1)
        total = np.bincount(where[fits], value[known][fits], len(edges) - 1)
        rows.append(np.divide(total, count, out=np.full(len(edges) - 1, np.nan), where=count > 0))
    if not rows:
        return np.full(len(edges) - 1, np.nan)
    table = np.array(rows)
    none = ~np.isfinite(table).any(axis=0)
    filled = np.where(np.isfinite(table), table, -np.inf if across == "max" else 0.0)
    seen = np.maximum(np.isfinite(table).sum(axis=0), 1)
    out: Floats = {
        "sum": filled.sum(axis=0), "mean": filled.sum(axis=0) / seen, "max": filled.max(axis=0)
    }[across]  # fmt: skip
    return np.where(none, np.nan, out)
