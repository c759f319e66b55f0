"""OTLP/HTTP: what the standard's own messages say arrives, limits answer with a partial success, garbage with words."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from leptonai.errors import SpecError
from leptonai.ops.feeds import Feeds
from leptonai.ops.logs.handoff import Handoff
from leptonai.ops.otlp.traces import request, spans
from leptonai.platforms.embedded import Embedded
from leptonai.settings import Settings, Telemetry, Traces
from leptonai.types import LogRecord, Span

PROTOBUF, JSON = "application/x-protobuf", "application/json"
NOW = 1_700_000_000.0


def made(folder: Path, **limits: Any) -> tuple[Embedded, Feeds]:
    settings = Settings(telemetry=Telemetry(**limits), traces=Traces(received_per_second=3.0))
    store = Embedded(folder, settings=settings.telemetry, clock=lambda: NOW)
    return store, Feeds(None, settings, store, lambda: NOW)


def metrics() -> Any:
    sent = ExportMetricsServiceRequest()
    resource = sent.resource_metrics.add()
    for key, value in (("service.name", "till"), ("service.instance.id", "shop-3"), ("os.type", "linux")):
        pair = resource.resource.attributes.add()
        pair.key, pair.value.string_value = key, value
    return sent


def number(sent: Any, name: str, unit: str, value: float, kind: str = "gauge", at: float = NOW, **labels: str) -> Any:
    metric = sent.resource_metrics[0].scope_metrics.add().metrics.add()
    metric.name, metric.unit = name, unit
    point = getattr(metric, kind).data_points.add()
    point.time_unix_nano, point.as_double = int(at * 1e9), value
    for key, text in labels.items():
        pair = point.attributes.add()
        pair.key, pair.value.string_value = key, text
    return metric


def test_numbers_arrive_in_base_units_under_the_name_of_their_service(tmp_path: Path) -> None:
    store, feeds = made(tmp_path)
    sent = metrics()
    number(sent, "scan.time", "ms", 250.0, lane="2")
    number(sent, "sales", "{item}", 7.0, kind="sum").sum.is_monotonic = True
    number(sent, "drawer.open", "%", 50.0)
    answer = feeds.otlp("metrics", gzip.compress(sent.SerializeToString()), PROTOBUF, "gzip", "shop")
    assert not ExportMetricsServiceResponse.FromString(answer).HasField("partial_success")
    (scan,) = store.read("scan_time_seconds", 0.0, 2 * NOW)
    assert scan.labels == {"job": "till", "instance": "shop-3", "lane": "2", "workspace": "shop"}
    assert scan.value == [0.25] and scan.at == [NOW]
    assert store.read("sales_total", 0.0, 2 * NOW)[0].value == [7.0]
    assert store.read("drawer_open_ratio", 0.0, 2 * NOW)[0].value == [0.5]
    assert store.read("target_info", 0.0, 2 * NOW)[0].labels["os_type"] == "linux"
    assert feeds.counts()["received"]["shop"]["unit"] == 2


def test_a_histogram_becomes_rising_buckets_and_deltas_running_totals(tmp_path: Path) -> None:
    store, feeds = made(tmp_path)
    for round in range(2):
        sent = metrics()
        metric = sent.resource_metrics[0].scope_metrics.add().metrics.add()
        metric.name, metric.unit, metric.histogram.aggregation_temporality = "wait", "ms", 1
        point = metric.histogram.data_points.add()
        point.time_unix_nano, point.count, point.sum = int((NOW + round) * 1e9), 6, 900.0
        point.explicit_bounds.extend([100.0, 200.0])
        point.bucket_counts.extend([1, 2, 3])
        feeds.otlp("metrics", sent.SerializeToString(), PROTOBUF, "", "default")
    buckets = {s.labels["le"]: s.value for s in store.read("wait_seconds_bucket", 0.0, 2 * NOW)}
    assert buckets == {"0.1": [1.0, 2.0], "0.2": [3.0, 6.0], "+Inf": [6.0, 12.0]}
    assert store.read("wait_seconds_sum", 0.0, 2 * NOW)[0].value == [0.9, 1.8]
    assert feeds.counts()["received"]["default"]["delta"] == 10


def test_past_the_limit_of_series_the_answer_is_a_partial_success_with_numbers(tmp_path: Path) -> None:
    _, feeds = made(tmp_path, tenant_series=3)
    sent = metrics()
    for lane in range(6):
        number(sent, "scan.time", "s", 1.0, lane=str(lane))
    body = feeds.otlp("metrics", sent.SerializeToString(), PROTOBUF, "", "shop")
    told = ExportMetricsServiceResponse.FromString(body).partial_success
    assert told.rejected_data_points == 4  # three of the lanes and target_info
    assert "3 series a workspace" in told.error_message
    assert feeds.receiver.counts["shop", "taken"] == 3


def test_json_spells_ids_in_hex_and_is_answered_in_json(tmp_path: Path) -> None:
    _, feeds = made(tmp_path)
    trace, span = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174"
    sent = {
        "resourceSpans": [
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "checkout"}}]},
                "scopeSpans": [
                    {
                        "spans": [
                            {
                                "traceId": trace,
                                "spanId": span,
                                "name": "POST /pay",
                                "kind": 2,
                                "startTimeUnixNano": str(int(NOW * 1e9)),
                                "endTimeUnixNano": str(int((NOW + 0.5) * 1e9)),
                                "status": {"code": 2},
                                "somethingNew": 1,
                            }
                        ]
                    }
                ],
            }
        ]
    }
    assert json.loads(feeds.otlp("traces", json.dumps(sent).encode(), JSON, "", "default")) == {}
    (kept,) = feeds.traces.trace(trace)
    assert (kept.id, kept.service, kept.kind, kept.failed, kept.seconds) == (span, "checkout", "server", True, 0.5)


def test_logs_become_records_with_their_source_and_trace(tmp_path: Path) -> None:
    _, feeds = made(tmp_path)
    sent = ExportLogsServiceRequest()
    resource = sent.resource_logs.add()
    pair = resource.resource.attributes.add()
    pair.key, pair.value.string_value = "service.name", "press"
    record = resource.scope_logs.add().log_records.add()
    record.body.string_value, record.severity_number, record.trace_id = "oil low", 13, bytes(range(16))
    feeds.otlp("logs", sent.SerializeToString(), PROTOBUF, "", "plant")
    (got,) = feeds.logs.take(10)
    assert got.body == "oil low" and got.severity == 13 and got.at == NOW
    assert got.source == {"service": "press", "workspace": "plant"} and got.trace == bytes(range(16)).hex()


def test_too_many_or_broken_spans_are_told_and_the_others_kept(tmp_path: Path) -> None:
    _, feeds = made(tmp_path)
    good = [span_at(i) for i in range(5)]
    sent = ExportTraceServiceRequest.FromString(request(good))
    broken = sent.resource_spans[0].scope_spans[0].spans.add()
    broken.trace_id = b"short"
    answer = feeds.otlp("traces", sent.SerializeToString(), PROTOBUF, "", "default")
    told = ExportTraceServiceResponse.FromString(answer).partial_success
    assert told.rejected_spans == 3 and "bad id" in told.error_message and "3 a second" in told.error_message
    assert len(feeds.traces) == 3


def span_at(i: int, **more: Any) -> Span:
    return Span(trace=f"{i + 1:032x}", id=f"{i + 1:016x}", name="x", service="s", start=NOW, seconds=0.25, **more)


@given(st.lists(st.tuples(st.integers(0, 1000), st.booleans(), st.text(max_size=8)), max_size=6))
def test_what_is_exported_reads_back_the_same(drawn: list[tuple[int, bool, str]]) -> None:
    sent = [span_at(i, failed=failed, attributes={"a": text}) for i, failed, text in drawn]
    found, wrong = spans(ExportTraceServiceRequest.FromString(request(sent)))
    assert not wrong and found == sent


@pytest.fixture(scope="module")
def feeds(tmp_path_factory: pytest.TempPathFactory) -> Feeds:
    return made(tmp_path_factory.mktemp("fuzz"))[1]


WHOLE = metrics()
number(WHOLE, "a", "s", 1.0)
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["resourceMetrics", "scopeMetrics", "metrics", "gauge", "dataPoints", "asInt", "traceId"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@examples(max_examples=150)
@given(data=st.data())
def test_no_body_brings_it_down(feeds: Feeds, data: st.DataObject) -> None:
    """Whatever the bytes, the answer is a taken request or a SpecError with a status of the client's and a hint."""
    what = data.draw(st.sampled_from(["metrics", "logs", "traces"]))
    kind = data.draw(st.sampled_from([PROTOBUF, JSON]))
    encoding = data.draw(st.sampled_from(["", "gzip", "br"]))
    cut = bytearray(WHOLE.SerializeToString())
    cut[data.draw(st.integers(0, len(cut) - 1))] = data.draw(st.integers(0, 255))
    body = data.draw(
        st.one_of(st.binary(max_size=60), st.just(bytes(cut)), TREES.map(lambda t: json.dumps(t).encode()))
    )
    if encoding == "gzip" and data.draw(st.booleans()):
        body = gzip.compress(body)
    try:
        feeds.otlp(what, body, kind, encoding, "default")
    except SpecError as e:
        assert e.status in (400, 413, 415) and e.hint


def test_a_body_that_swells_is_refused(tmp_path: Path) -> None:
    _, feeds = made(tmp_path, request_bytes=10_000)
    with pytest.raises(SpecError, match="limit is 10000") as caught:
        feeds.otlp("logs", gzip.compress(bytes(1_000_000)), PROTOBUF, "gzip", "default")
    assert caught.value.status == 413


def test_the_hand_off_of_logs_drops_the_oldest_and_says_so() -> None:
    logs = Handoff(3)
    records = [LogRecord(at=float(i), source={}, body=str(i)) for i in range(5)]
    assert logs.put(records[:2]) == 0 and logs.put(records[2:]) == 2
    assert [r.body for r in logs.take(2)] == ["2", "3"] and len(logs) == 1 and logs.dropped == 2


def test_odd_samples_are_kept_and_counted_by_policy(tmp_path: Path) -> None:
    store, feeds = made(tmp_path)
    for at, value in ((0, 5.0), (1, 6.0), (2, 7.0), (9, 8.0), (10, 2.0), (10, 3.0), (5, 6.5), (11, float("nan"))):
        sent = metrics()
        number(sent, "strokes_total", "", value, at=NOW + at)
        feeds.otlp("metrics", sent.SerializeToString(), PROTOBUF, "", "default")
    counts = feeds.counts()["received"]["default"]
    assert counts["reset"] == counts["nan"] == 1
    assert counts["gap"] == counts["out_of_order"] == counts["duplicate"] == 2  # of strokes_total and of target_info
    (series,) = store.read("strokes_total", 0.0, 2 * NOW)
    assert len(series.at) == 7 and series.value[series.at.index(NOW + 10)] == 3.0
