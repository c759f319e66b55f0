"""OTLP metrics read into columns say what the generated classes say, of anything; and broken bytes are refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from leptonai.errors import SpecError
from leptonai.ops.otlp.columns import Known, decode
from leptonai.ops.otlp.metrics import Metrics

TEXTS = st.sampled_from(["", "a", "ü", "line 3", "x" * 200])
NAMES = st.sampled_from(["room", "http.method", "n"])
POINT = st.fixed_dictionaries(
    {
        "time": st.sampled_from([0, 1]) | st.integers(0, 2**62),
        "start": st.booleans(),
        "value": st.floats(allow_nan=False) | st.integers(-(2**63), 2**63 - 1),
        "attributes": st.lists(st.tuples(NAMES, TEXTS | st.integers(0, 9)), max_size=3),
        "flags": st.sampled_from([0, 0, 0, 1]),
        "exemplar": st.sampled_from([False, False, True]),
    }
)  # fmt: skip
METRIC = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["press.temp", "requests", "size"]),
        "unit": st.sampled_from(["", "ms", "By", "1"]),
        "kind": st.sampled_from(["gauge", "sum", "rising", "delta", "histogram", "none"]),
        "points": st.lists(POINT, max_size=4),
    }
)
RESOURCE = st.lists(st.tuples(st.just("service.name"), TEXTS), max_size=1)
RESOURCES = st.lists(st.tuples(RESOURCE, st.lists(METRIC, max_size=3)), max_size=3)


def pairs(into: Any, attributes: list[tuple[str, Any]]) -> None:
    for key, value in attributes:
        pair = into.add()
        pair.key = key
        if isinstance(value, int):
            pair.value.int_value = value
        else:
            pair.value.string_value = value


def request(resources: list[tuple[list[tuple[str, Any]], list[dict[str, Any]]]]) -> ExportMetricsServiceRequest:
    sent = ExportMetricsServiceRequest()
    for attributes, metrics in resources:
        resource = sent.resource_metrics.add()
        pairs(resource.resource.attributes, attributes)
        scope = resource.scope_metrics.add()
        scope.scope.name = "a scope"
        for told in metrics:
            metric = scope.metrics.add(name=told["name"], unit=told["unit"], description="what it is")
            if told["kind"] == "none":
                continue
            field = told["kind"] if told["kind"] in ("gauge", "histogram") else "sum"
            data = getattr(metric, field)
            data.SetInParent()
            if field != "gauge":
                data.aggregation_temporality = 1 if told["kind"] == "delta" else 2
            if field == "sum":
                data.is_monotonic = told["kind"] == "rising"
            for given_point in told["points"]:
                point = data.data_points.add(time_unix_nano=given_point["time"], flags=given_point["flags"])
                if given_point["start"]:
                    point.start_time_unix_nano = 7
                pairs(point.attributes, given_point["attributes"])
                if field == "histogram":
                    point.count, point.sum = 3, 2.5
                    point.explicit_bounds.append(1.0)
                    point.bucket_counts.extend([1, 2])
                elif isinstance(given_point["value"], int):
                    point.as_int = given_point["value"]
                else:
                    point.as_double = given_point["value"]
                if given_point["exemplar"] and field != "histogram":
                    point.exemplars.add().as_double = 1.0
    return sent


Samples = dict[Any, list[tuple[float, float]]]


def by_classes(sent: ExportMetricsServiceRequest, metrics: Metrics) -> Samples:
    out: Samples = {}
    for point in metrics.points(sent):
        key = frozenset(dict([("__name__", point.name), *point.labels]).items())
        out.setdefault(key, []).append((point.at, point.value))
    return out


def by_columns(
    body: bytes, known: Known, ids: dict[Any, int], metrics: Metrics
) -> dict[Any, list[tuple[float, float]]]:
    def intern(labels: list[tuple[str, str]]) -> int:
        return ids.setdefault(frozenset(dict(labels).items()), len(ids))

    got = decode(body, known, intern, metrics)
    names = {id: key for key, id in ids.items()}
    out: Samples = {}
    for id, at, value in zip(got.ids.tolist(), got.at.tolist(), got.value.tolist(), strict=True):
        out.setdefault(names[id], []).append((at, value))
    return out


@given(RESOURCES)
@settings(max_examples=150, deadline=None)
def test_columns_say_what_the_generated_classes_say_the_first_time_and_once_known(resources: Any) -> None:
    """Per series the same samples in the same order, and the same counts of policies."""
    sent = request(resources)
    body = sent.SerializeToString()
    known = Known()
    ids: dict[Any, int] = {}
    slow, quick = Metrics(), Metrics()
    for _ in range(2):
        wanted, found = by_classes(sent, slow), by_columns(body, known, ids, quick)
        info = [key for key in wanted if dict(key)["__name__"] == "target_info"]
        for key in info:  # of one told twice at one moment one is enough; order among resources is kept
            assert [at for at, _ in found.pop(key)] == pytest.approx([at for at, _ in wanted.pop(key)])
        assert {k: v for k, v in found.items() if dict(k)["__name__"] != "target_info"} == wanted
        assert quick.counts == slow.counts


@given(RESOURCES.filter(bool), st.data())
@settings(max_examples=150, deadline=None)
def test_broken_bytes_are_refused_or_read_and_nothing_else_happens(resources: Any, data: st.DataObject) -> None:
    body = bytearray(request(resources).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(body) - 1)))
        if data.draw(st.booleans()):
            body[at : at + 1] = bytes([data.draw(st.integers(0, 255))])
        else:
            del body[at:]
    try:
        by_columns(bytes(body), Known(), {}, Metrics())
    except SpecError as e:
        assert e.message.startswith("OTLP metrics") and e.hint


def test_a_point_cut_within_its_time_is_no_sample() -> None:
    sent = request([([], [{"name": "a", "unit": "", "kind": "gauge", "points": [
        {"time": 5, "start": True, "value": 1.0, "attributes": [], "flags": 0, "exemplar": False}]}])])  # fmt: skip
    point = sent.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points[0].SerializeToString()
    cut = point[:5]
    body = b"\x0a\x10" + b"\x12\x0e" + b"\x12\x0c" + b"\x0a\x01a" + b"\x2a\x07" + b"\x0a\x05" + cut
    with pytest.raises(SpecError, match="ExportMetricsServiceRequest"):
        decode(body, Known(), lambda labels: 0, Metrics())
