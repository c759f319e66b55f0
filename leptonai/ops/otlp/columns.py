"""An ExportMetricsServiceRequest read straight into columns: gauges and running sums, which most of it is.

    ResourceMetrics { resource = 1; scope_metrics = 2 }   ScopeMetrics { metrics = 2 }
    Metric { name = 1; unit = 3; gauge = 5; sum = 7; ... }   Sum { data_points = 1; temporality = 2; monotonic = 3 }
    NumberDataPoint { start = 2; time = 3; as_double = 4 | as_int = 6; attributes = 7; flags = 8 }

Source: opentelemetry-proto, metrics/v1. A sender repeats the same attribute bytes in every request, so those bytes are
the key of a series within its resource and metric, as label bytes are in ``remote_write``: read once by the generated
classes, looked up from then on. What is told in any other way, and every other kind of metric, is read by the generated
classes each time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from leptonai.errors import SpecError
from leptonai.ops.otlp.message import HINT
from leptonai.ops.otlp.metrics import DELTA, Metrics, target
from leptonai.ops.receive import Pairs
from leptonai.ops.remote_write import REFUSED, Columns, Labels
from leptonai.ops.units import otlp_name
from leptonai.ops.varint import varint

GAUGE, SUM = 0x2A, 0x3A  # tags of a Metric
_POINT = np.dtype([("tag", "u1"), ("at", "<u8"), ("kind", "u1"), ("value", "<u8")])  # time, then double or int
Intern = Callable[[Labels], int]


class _Head:
    """A metric of a resource. ``ids``: attribute bytes -> series."""

    def __init__(self, name: str, factor: float, own: Pairs) -> None:
        self.name, self.factor, self.own = name, factor, own
        self.ids: dict[bytes, int] = {}


class Known:
    """What has been read once. ``size``: series."""

    def __init__(self) -> None:
        self.size = 0
        self.heads: dict[tuple[bytes, bytes, bytes, int], _Head] = {}
        self.resources: dict[bytes, tuple[Pairs, int]] = {}  # its own labels, the series of its target_info

    def clear(self) -> None:
        self.size = 0
        self.heads.clear()
        self.resources.clear()


class _Rows:
    """Samples in the order sent: those read quickly as bytes, the others as numbers."""

    def __init__(self) -> None:
        self.count = 0
        self.quick: list[bytes] = []
        self.quick_ids: list[int] = []
        self.quick_places: list[int] = []
        self.factors: list[tuple[int, float]] = []  # how many quick ones in a row have which factor
        self.slow: list[tuple[int, int, float, float]] = []  # place, id, nanoseconds, value

    def add(self, id: int, nanoseconds: int, value: float) -> None:
        self.slow.append((self.count, id, nanoseconds, value))
        self.count += 1

    def columns(self) -> tuple[Any, Any, Any]:
        ids, at, value = np.empty(self.count, np.int32), np.empty(self.count), np.empty(self.count)
        if self.quick:
            read = np.frombuffer(b"".join(self.quick), _POINT)
            number = np.where(read["kind"] == 0x21, read["value"].view(np.float64), read["value"].view(np.int64))
            factor = np.repeat([f for _, f in self.factors], [n for n, _ in self.factors])
            ids[self.quick_places], at[self.quick_places] = self.quick_ids, read["at"] / 1e9
            value[self.quick_places] = number * factor
        if self.slow:
            places, slow_ids, times, values = (list(column) for column in zip(*self.slow, strict=True))
            ids[places], at[places], value[places] = slow_ids, np.array(times, np.float64) / 1e9, values
        return ids, at, value


def decode(data: bytes, known: Known, intern: Intern, metrics: Metrics) -> Columns:
    """The samples of the request. ``metrics`` counts policies and keeps the totals of delta counters. SpecError, when
    ``data`` is no such request; nothing but ``known`` has changed then."""
    from google.protobuf.message import DecodeError

    rows, counts, infos = _Rows(), Counter[str](), []
    try:
        for tag, start, stop in _fields(data, 0, len(data)):
            if tag == 0x0A:
                first = rows.count
                info = _resource(data, start, stop, known, intern, metrics, rows, counts)
                infos.append((first, rows.count, info))
        ids, at, value = rows.columns()
    except (DecodeError, UnicodeDecodeError, IndexError) as e:
        raise SpecError(f"OTLP metrics: {len(data)} bytes are no ExportMetricsServiceRequest: {e}", hint=HINT) from e
    metrics.counts.update(counts)
    newest = [(info, float(at[first:last].max(initial=0.0))) for first, last, info in infos if info != REFUSED]
    told = [(info, moment) for info, moment in newest if moment > 0.0]  # who sends no time tells of no moment
    if told:
        ids = np.append(ids, np.array([info for info, _ in told], np.int32))
        at, value = np.append(at, [moment for _, moment in told]), np.append(value, np.ones(len(told)))
    return Columns(ids, at, value, 0)


def _resource(
    data: bytes, here: int, end: int, known: Known, intern: Intern, metrics: Metrics, rows: _Rows, counts: Counter[str]
) -> int:
    """Read one ResourceMetrics; the series of its target_info, REFUSED when it has none."""
    parts = list(_fields(data, here, end))
    resource = b"".join(data[a:b] for tag, a, b in parts if tag == 0x0A)
    own, info = known.resources.get(resource) or _new_resource(resource, known, intern)
    for tag, start, stop in parts:
        if tag != 0x12:
            continue
        for inner, a, b in _fields(data, start, stop):
            if inner == 0x12:
                _metric(data, a, b, resource, own, known, intern, metrics, rows, counts)
    return info


def _new_resource(resource: bytes, known: Known, intern: Intern) -> tuple[Pairs, int]:
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource

    own, attributes = target(Resource.FromString(resource))
    labels = [("__name__", "target_info"), *sorted({**dict(attributes), **dict(own)}.items())]
    found = own, intern(labels) if attributes else REFUSED
    known.resources[resource] = found
    known.size += 1
    return found


def _metric(
    data: bytes, here: int, end: int, resource: bytes, own: Pairs, known: Known, intern: Intern, metrics: Metrics,
    rows: _Rows, counts: Counter[str],
) -> None:  # fmt: skip
    name = unit = b""
    kind = start = stop = 0
    for tag, a, b in _fields(data, here, end):
        if tag == 0x0A:
            name = data[a:b]
        elif tag == 0x1A:
            unit = data[a:b]
        elif tag in (GAUGE, SUM) and not kind:
            kind, start, stop = tag, a, b
        elif tag != 0x12 and tag != 0x62:
            kind = -1  # another kind of metric, or more than one
    points = [(tag, a, b) for tag, a, b in _fields(data, start, stop)] if kind > 0 else []
    told = {tag: a for tag, a, _ in points if tag != 0x0A}
    if kind <= 0 or (kind == SUM and data[told[0x10]] == DELTA if 0x10 in told else False):
        _any_metric(data[here:end], own, intern, metrics, rows)
        return
    rising = int(kind == SUM and 0x18 in told and data[told[0x18]] != 0)
    key = (resource, name, unit, kind + rising)
    head = known.heads.get(key)
    if head is None:
        spelt, factor = otlp_name(name.decode(), unit.decode())
        spelt += "_total" if rising and not spelt.endswith("_total") else ""
        head = known.heads[key] = _Head(spelt, factor, own)
        known.size += 1
    before = len(rows.quick)
    seen, ids, quick, quick_ids = 0, head.ids.get, rows.quick.append, rows.quick_ids.append
    for tag, a, b in points:
        if tag != 0x0A:
            continue
        seen += 1
        if b - a >= 9 and data[a] == 0x11:
            a += 9
        if b - a >= 18 and data[a] == 0x19 and data[a + 9] in (0x21, 0x31):
            id = ids(data[a + 18 : b])
            if id is not None:
                quick(data[a : a + 18])
                quick_ids(id)
                rows.quick_places.append(rows.count)
                rows.count += 1
                continue
        _number(data[a:b], head, known, intern, rows, counts)
    if len(rows.quick) > before:
        rows.factors.append((len(rows.quick) - before, head.factor))
    if head.factor != 1.0:
        counts["unit"] += seen


def _number(point: bytes, head: _Head, known: Known, intern: Intern, rows: _Rows, counts: Counter[str]) -> None:
    """A data point whose attributes are not known yet, or that is told in an unusual way."""
    from opentelemetry.proto.metrics.v1.metrics_pb2 import NumberDataPoint

    found = NumberDataPoint.FromString(point)
    labels = Metrics.labels(head.own, found)
    if labels is None:
        counts["no_value"] += 1
        return
    id = intern([("__name__", head.name), *labels])
    value = (found.as_double if found.WhichOneof("value") == "as_double" else found.as_int) * head.factor
    rows.add(id, found.time_unix_nano, value)
    usual = len(point) >= 18 and point[0] == 0x19 and point[9] in (0x21, 0x31)
    if id != REFUSED and usual and all(tag == 0x3A for tag, _, _ in _fields(point, 18, len(point))):
        head.ids[point[18:]] = id
        known.size += 1


def _any_metric(metric: bytes, own: Pairs, intern: Intern, metrics: Metrics, rows: _Rows) -> None:
    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

    for at, name, labels, value in metrics.metric(Metric.FromString(metric), own):
        rows.add(intern([("__name__", name), *labels]), at, value)


def _fields(data: bytes, here: int, end: int) -> Iterator[tuple[int, int, int]]:
    """``(tag, start, stop)`` of every field; of a number, where its bytes are. IndexError, SpecError: there is none."""
    while here < end:
        tag = data[here]
        here += 1
        if tag > 0x7F:
            tag, here = varint(data, here - 1, end, _broken)
        wire = tag & 7
        if wire == 2:
            length = data[here]
            here += 1
            if length > 0x7F:
                length, here = varint(data, here - 1, end, _broken)
        elif wire == 1 or wire == 5:
            length = 8 if wire == 1 else 4
        elif wire == 0:
            _, after = varint(data, here, end, _broken)
            length = after - here
        else:
            raise _broken(here, f"{tag} is no tag of a field")
        if here + length > end or tag < 8:
            raise _broken(here, "a field is longer than what holds it")
        yield tag, here, here + length
        here += length


def _broken(here: int, why: str) -> SpecError:
    return SpecError(f"OTLP metrics: no ExportMetricsServiceRequest: {why}, near byte {here}", hint=HINT)
