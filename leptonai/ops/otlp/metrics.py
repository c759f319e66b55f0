"""OTLP metrics as samples, by the rules of the Prometheus compatibility specification.

Source: opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics. ``service.name`` is the label
``job``, ``service.instance.id`` (else ``host.name``) is ``instance``, all resource attributes are on ``target_info``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from leptonai.ops.otlp.message import any_value
from leptonai.ops.receive import Pairs, Point
from leptonai.ops.units import otlp_name, prometheus_name

NO_VALUE = 1  # data point flag: "no recorded value"
DELTA = 1  # AggregationTemporality
BOUND_STATE = 200_000  # delta series whose running totals are remembered; past it all begin anew


class Metrics:
    """Remembers the running totals of delta counters. ``counts``: by policy, since it was made."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._totals: dict[tuple[str, Pairs], float] = {}

    def points(self, request: Any) -> Iterator[Point]:
        """Every sample of the request, in its order.

        Counted and not a sample: ``no_value`` (the sender says there is none), ``exponential`` (of such a histogram
        only count and sum are read). Counted and changed: ``delta`` (added up to a running total), ``unit``.
        """
        for resource in request.resource_metrics:
            own, info = target(resource.resource)
            newest = 0
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in self.metric(metric, own):
                        newest = max(newest, point[0])
                        yield Point(point[1], point[2], point[0] / 1e9, point[3])
            if info and newest:
                yield Point("target_info", tuple(sorted({**dict(info), **dict(own)}.items())), newest / 1e9, 1.0)

    @staticmethod
    def labels(own: Pairs, point: Any) -> Pairs | None:
        """The labels of a data point; None: it says that there is no value."""
        if point.flags & NO_VALUE:
            return None
        return own + tuple((prometheus_name(a.key), any_value(a.value)) for a in point.attributes)

    def metric(self, metric: Any, own: Pairs) -> Iterator[tuple[int, str, Pairs, float]]:
        """``(nanoseconds, name, labels, value)`` of every sample of one metric."""
        kind = metric.WhichOneof("data")
        if kind is None:
            return
        data = getattr(metric, kind)
        name, factor = otlp_name(metric.name, metric.unit)
        if factor != 1.0:
            self.counts["unit"] += len(data.data_points)
        delta = kind != "gauge" and kind != "summary" and data.aggregation_temporality == DELTA
        if kind == "sum" and data.is_monotonic and not name.endswith("_total"):
            name += "_total"
        for point in data.data_points:
            at = point.time_unix_nano
            labels = self.labels(own, point)
            if labels is None:
                self.counts["no_value"] += 1
                continue
            if kind in ("gauge", "sum"):
                value = (point.as_double if point.WhichOneof("value") == "as_double" else point.as_int) * factor
                found = [(name, labels, value)]
            else:
                found = self._spread(kind, name, labels, point, factor)
            for spelt, pairs, value in found:
                yield at, spelt, pairs, self._total(spelt, pairs, value) if delta else value

    def _spread(self, kind: str, name: str, labels: Pairs, point: Any, factor: float) -> list[tuple[str, Pairs, float]]:
        found = [(f"{name}_count", labels, float(point.count))]
        if kind == "summary" or point.HasField("sum"):
            found.append((f"{name}_sum", labels, point.sum * factor))
        if kind == "summary":
            for q in point.quantile_values:
                found.append((name, (*labels, ("quantile", f"{q.quantile:g}")), q.value * factor))
        elif kind == "exponential_histogram":
            self.counts["exponential"] += 1
        else:
            below = 0
            bounds = [*(f"{b * factor:g}" for b in point.explicit_bounds), "+Inf"]
            for bound, count in zip(bounds, point.bucket_counts, strict=False):
                below += count
                found.append((f"{name}_bucket", (*labels, ("le", bound)), float(below)))
        return found

    def _total(self, name: str, labels: Pairs, value: float) -> float:
        self.counts["delta"] += 1
        if len(self._totals) >= BOUND_STATE:
            self._totals.clear()
        key = (name, labels)
        total = self._totals[key] = self._totals.get(key, 0.0) + value
        return total


def target(resource: Any) -> tuple[Pairs, Pairs]:
    """``(job and instance, all attributes)`` of a resource, as labels."""
    found = {a.key: any_value(a.value) for a in resource.attributes}
    own: list[tuple[str, str]] = []
    if name := found.get("service.name"):
        space = found.get("service.namespace")
        own.append(("job", f"{space}/{name}" if space else name))
    if instance := found.get("service.instance.id") or found.get("host.name"):
        own.append(("instance", instance))
    return tuple(own), tuple((prometheus_name(k), v) for k, v in found.items())
