"""How much each signal of a service moved around an onset, against its own past and against its siblings."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from statistics import fmean, median

from leptonai.ops.scene import Level
from leptonai.protocols import TelemetryStore
from leptonai.types import Key, Series

# Of the service, of its replicas, and of the machine it runs on.
OF_SERVICE = ("client_error_ratio", "latency_p99_seconds", "ready_count")
OF_REPLICA = (
    "replica_rss_bytes",
    "replica_cpu_ratio",
    "replica_compute_seconds",
    "replica_queue_seconds",
    "replica_in_flight_count",
    "replica_request_rate_per_second",
    "replica_error_ratio",
    "replica_nan_ratio",
)
OF_MACHINE = ("host_cpu_ratio", "host_memory_used_ratio", "host_disk_used_ratio", "gpu_busy_ratio")
FEWEST = 2  # values of a series, before it is compared with its siblings

Stretch = tuple[float, float]


def read_levels(store: TelemetryStore, key: Key, before: Stretch, since: Stretch) -> dict[str, Level]:
    """Signal -> its level before and since the onset; a signal that was not seen since then is left out."""
    found: dict[str, Level] = {}
    for names, labels in ((OF_SERVICE + OF_REPLICA, {"service": key}), (OF_MACHINE, {})):
        for name in names:
            level = _level(store.read(name, before[0], since[1], labels), before, since)
            if level is not None:
                found[name] = level
    return found


def _level(series: Iterable[Series], before: Stretch, since: Stretch) -> Level | None:
    early: list[float] = []
    late: list[list[float]] = []
    for one in series:
        early += _between(one, before)
        if values := _between(one, since):
            late.append(values)
    if not late:
        return None
    every = [v for values in late for v in values]
    means = [fmean(values) for values in late if len(values) >= FEWEST]
    apart = 0.0
    if len(means) > 1:
        middle = median(means)
        apart = max((m - middle for m in means), key=abs)
    return Level(before=fmean(early) if early else None, since=fmean(every), apart=apart)


def _between(series: Series, stretch: Stretch) -> list[float]:
    return [v for at, v in zip(series.at, series.value, strict=True) if stretch[0] <= at < stretch[1] and isfinite(v)]
