"""Floods of labels and spoilt bodies: no workspace holds more series than its limit, loudly, and nothing breaks."""

from __future__ import annotations

import gzip
import logging
from itertools import permutations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from leptonai.errors import SpecError
from leptonai.ops.agent import batch as agents
from leptonai.ops.feeds import Feeds
from leptonai.ops.otlp.traces import request
from leptonai.ops.remote_write import unpack
from leptonai.platforms.embedded import Embedded
from leptonai.platforms.prometheus.encode import encode, label_bytes
from leptonai.settings import Settings, Telemetry
from leptonai.types import LogRecord, Signal, Span

PROTOBUF, JSON = "application/x-protobuf", "application/json"
NOW = 1_700_000_000.0
LIMIT = 20


def made(folder: Path, **limits: Any) -> tuple[Embedded, Feeds]:
    settings = Settings(telemetry=Telemetry(**limits))
    store = Embedded(folder, settings=settings.telemetry, clock=lambda: NOW)
    return store, Feeds(None, settings, store, lambda: NOW)


def kept(store: Embedded) -> int:
    return sum(len(store.read(name, 0.0, 2 * NOW)) for name in store.names())


def metrics(value: float, **attributes: str) -> Any:
    """One gauge of a resource of its own: each of its attributes explodes a part that is remembered."""
    sent = ExportMetricsServiceRequest()
    resource = sent.resource_metrics.add()
    metric = resource.scope_metrics.add().metrics.add()
    metric.name = attributes.get("metric", "a.count")
    point = metric.gauge.data_points.add()
    point.time_unix_nano, point.as_double = int(NOW * 1e9), value
    for into, key in ((resource.resource.attributes, "service.name"), (point.attributes, "line")):
        pair = into.add()
        pair.key, pair.value.string_value = key, attributes.get(key, "x")
    return sent


def remote(feeds: Feeds, i: int) -> None:
    labels = {"a": str(i % 1000), "b": "x", "c": "y"}
    feeds.receiver.remote_write(encode([(label_bytes("flood_count", labels), [(NOW, 1.0)])]))


def otlp(kind: str, key: str) -> Any:
    def send(feeds: Feeds, i: int) -> None:
        sent = metrics(1.0, **{key: f"n{i}"})
        body = sent.SerializeToString() if kind == PROTOBUF else json_format.MessageToJson(sent, indent=None).encode()
        feeds.otlp("metrics", body, kind, "", "default")

    return send


def agent(feeds: Feeds, i: int) -> None:
    signals = [Signal(name="flood_count", labels={"n": str(i)}, at=NOW, value=1.0)]
    feeds.agent(agents.encode(agents.Batch(agent="hall-1", run="r", number=i + 1, signals=signals)), "", "default")


FLOODS: dict[str, Any] = {
    "remote-write": remote,
    "OTLP, points": otlp(PROTOBUF, "line"),
    "OTLP, metrics": otlp(PROTOBUF, "metric"),
    "OTLP, resources": otlp(PROTOBUF, "service.name"),
    "OTLP JSON": otlp(JSON, "line"),
    "agent": agent,
}


@pytest.mark.parametrize("how", sorted(FLOODS))
def test_a_flood_of_labels_never_admits_more_series_than_the_limit(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """However long it lasts and whatever is remembered of it: told in the log once, counted, others untouched."""
    store, feeds = made(tmp_path, tenant_series=LIMIT)
    refused = 0
    with caplog.at_level(logging.ERROR):
        for i in range(12 * LIMIT):
            try:
                FLOODS[how](feeds, i)
            except SpecError as e:
                assert e.hint and str(LIMIT) in e.message
                refused += 1
    assert kept(store) == LIMIT
    told = [r.getMessage() for r in caplog.records if "past a limit" in r.getMessage()]
    assert len(told) == 1 and "workspace default" in told[0]
    counts = feeds.counts()["received"]["default"]
    assert counts["series_limit"] >= 11 * LIMIT and counts["refused"] >= 10 * LIMIT
    assert refused == (counts["refused"] if how == "remote-write" else 0)
    feeds.receiver.remote_write(encode([(label_bytes("quiet_count", {}), [(NOW, 1.0)])]), "plant")
    assert kept(store) == LIMIT + 1
    store.close()


def test_one_series_told_in_any_order_of_labels_counts_once_and_is_taken_when_the_limit_is_reached(
    tmp_path: Path,
) -> None:
    store, feeds = made(tmp_path, tenant_series=2)
    for turn, order in enumerate(permutations("abcd")):  # more spellings than are remembered of two series
        spelt = [(name, "x") for name in order]
        feeds.receiver.remote_write(pa_block([("__name__", "press_count"), *spelt], NOW + turn))
        feeds.receiver.remote_write(pa_block([("__name__", "oven_count")], NOW + turn))
    assert kept(store) == 2
    counts = feeds.counts()["received"]["default"]
    assert counts["taken"] == 48 and "refused" not in counts
    store.close()


def pa_block(labels: list[tuple[str, str]], at: float) -> bytes:
    def field(tag: int, content: bytes) -> bytes:
        return bytes([tag, len(content)]) + content

    body = b"".join(field(0x0A, field(0x0A, k.encode()) + field(0x12, v.encode())) for k, v in labels)
    moment, spelt = round(at * 1000), b""
    while moment > 0x7F:
        moment, spelt = moment >> 7, spelt + bytes([moment & 0x7F | 0x80])
    body += field(0x12, b"\x09" + bytes(8) + b"\x10" + spelt + bytes([moment]))
    return pa.Codec("snappy").compress(field(0x0A, body), asbytes=True)  # type: ignore[no-any-return]


# --- spoilt bodies ----------------------------------------------------------------------------------------------------


def logs() -> Any:
    sent = ExportLogsServiceRequest()
    resource = sent.resource_logs.add()
    pair = resource.resource.attributes.add()
    pair.key, pair.value.string_value = "service.name", "press"
    scope = resource.scope_logs.add()
    for i, text in enumerate(("oil low", "x" * 300, "\x1b[2J\x00\u202e")):
        record = scope.log_records.add()
        record.body.string_value, record.severity_number, record.time_unix_nano = text, i * 8, int(NOW * 1e9)
        record.trace_id, record.span_id = bytes(range(16)), bytes(range(8))
    nested = scope.log_records.add().body.kvlist_value.values.add()
    nested.key = "a"
    nested.value.array_value.values.add().bytes_value = b"\xff\x00"
    return sent


SPAN = Span(trace=f"{1:032x}", id=f"{2:016x}", name="x", service="s", start=NOW, seconds=0.25, attributes={"a": "b"})
WHOLE = {
    "metrics": metrics(1.0).SerializeToString(),
    "logs": logs().SerializeToString(),
    "traces": request([SPAN, SPAN]),
    "write": encode([(label_bytes("a_count", {"line": str(i)}), [(NOW, 0.5)]) for i in range(4)]),
    "agent": agents.encode(
        agents.Batch(
            agent="hall-1",
            run="r",
            number=1,
            signals=[Signal(name="a_count", labels={}, at=NOW, value=1.0)],
            logs=[LogRecord(at=NOW, source={"file": "/var/log/x"}, body="it broke")],
        )
    ),
}
JSONS = {
    "metrics": json_format.MessageToJson(metrics(1.0), indent=None).encode(),
    "logs": json_format.MessageToJson(logs(), indent=None).encode(),
    "traces": json_format.MessageToJson(ExportTraceServiceRequest.FromString(WHOLE["traces"]), indent=None).encode(),
}


@st.composite
def spoilt(draw: st.DrawFn, whole: bytes) -> bytes:
    """A good body with a few bytes changed, put in, taken out, or cut off."""
    body = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(body) - 1)))
        what = draw(st.sampled_from(["change", "insert", "delete", "cut"]))
        if what == "change":
            body[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif what == "insert":
            body[at:at] = draw(st.binary(max_size=4))
        elif what == "delete":
            del body[at : at + draw(st.integers(1, 4))]
        else:
            del body[at:]
    return bytes(body)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> tuple[Embedded, Feeds]:
    return made(tmp_path_factory.mktemp("spoilt"))


@examples(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_spoilt_body_of_any_kind_is_taken_or_refused_in_words(
    stage: tuple[Embedded, Feeds], data: st.DataObject
) -> None:
    """Never another error than a client's with a hint; what was kept can be read; the next good body is taken."""
    store, feeds = stage
    what = data.draw(st.sampled_from(sorted(WHOLE)))
    json = what in JSONS and data.draw(st.booleans())
    body = data.draw(spoilt(JSONS[what] if json else WHOLE[what]))
    squeezed = data.draw(st.booleans()) and what != "write"
    if squeezed:
        body = gzip.compress(body)
        if data.draw(st.booleans()):
            body = data.draw(spoilt(body))
    try:
        if what == "write":
            inside = data.draw(spoilt(unpack(WHOLE["write"], 1 << 20)))
            whole = pa.Codec("snappy").compress(inside, asbytes=True)
            feeds.receiver.remote_write(body if data.draw(st.booleans()) else whole)
        elif what == "agent":
            feeds.agent(body, "gzip" if squeezed else "", "default")
        else:
            feeds.otlp(what, body, JSON if json else PROTOBUF, "gzip" if squeezed else "", "default")
    except SpecError as e:
        assert e.status in (400, 413, 415) and e.hint and len(e.message) < 2000
    feeds.logs.take(1000)
    before = feeds.receiver.counts["good", "taken"]
    feeds.receiver.remote_write(WHOLE["write"], "good")
    assert feeds.receiver.counts["good", "taken"] == before + 4
    assert store.read("a_count", NOW - 1, NOW + 1, {"workspace": "good"})
