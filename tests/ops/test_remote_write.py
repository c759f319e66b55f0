"""Remote-write: an encoder of our own as the opposite side, limits, garbage, and a real Prometheus."""

import asyncio
import shutil
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest
import uvicorn
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from leptonai.errors import SpecError
from leptonai.ops.feeds import Feeds
from leptonai.ops.receive import Receiver
from leptonai.ops.remote_write import STALE, decode, unpack
from leptonai.ops.signals import app
from leptonai.platforms.embedded import Embedded
from leptonai.settings import Settings, Telemetry

Sent = list[tuple[list[tuple[str, str]], list[tuple[int, float]]]]


def varint(n: int) -> bytes:
    n &= (1 << 64) - 1
    out = b""
    while n > 0x7F:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def field(tag: int, content: bytes) -> bytes:
    return bytes([tag]) + varint(len(content)) + content


def encode(series: Sent) -> bytes:
    """As Prometheus does: zero values are left out."""
    out = b""
    for labels, samples in series:
        body = b"".join(field(0x0A, field(0x0A, k.encode()) + field(0x12, v.encode())) for k, v in labels)
        for at, value in samples:
            number = struct.pack("<d", value)
            body += field(0x12, (b"\x09" + number if any(number) else b"") + (b"\x10" + varint(at) if at else b""))
        out += field(0x0A, body)
    return out


def packed(series: Sent) -> bytes:
    return pa.Codec("snappy").compress(encode(series), asbytes=True)  # type: ignore[no-any-return]


def receiver(folder: Path, now: float = 1e9, **limits: int) -> tuple[Embedded, Receiver]:
    settings = Telemetry(**limits)  # type: ignore[arg-type]
    store = Embedded(folder, settings=settings, clock=lambda: now)
    return store, Receiver(store, settings, lambda: now)


LABELS = st.lists(st.tuples(st.text(max_size=5), st.text(max_size=20)), max_size=4)
SAMPLES = st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False)), max_size=3)
MOMENTS = st.lists(st.tuples(st.integers(2**35, 2**42 - 1), st.floats(allow_nan=False)), min_size=1, max_size=1)


@given(st.lists(st.tuples(LABELS, st.one_of(SAMPLES, MOMENTS)), max_size=8))
def test_what_was_sent_is_decoded_in_order_the_quick_way_too(sent: Sent) -> None:
    """Whatever the labels and times, every sample comes out under its own labels, on first and on later sight."""
    known: dict[bytes, int] = {}
    kept: list[list[tuple[str, str]]] = []

    def intern(labels: list[tuple[str, str]]) -> int:
        kept.append(labels)
        return len(kept) - 1

    wanted = [(labels, at / 1000.0, value) for labels, samples in sent for at, value in samples]
    for _ in range(3):  # the second and third time most series are known by their bytes
        got = decode(encode(sent), known, intern)
        assert [(kept[i], a, v) for i, a, v in zip(got.ids, got.at, got.value, strict=True)] == wanted


@given(st.binary(max_size=200))
def test_garbage_is_refused_in_words(data: bytes) -> None:
    for reading in (lambda: decode(data, {}, lambda labels: 0), lambda: unpack(data, 1000)):
        try:
            reading()
        except SpecError as e:
            assert e.hint and e.status in (400, 413)


@examples(max_examples=200)
@given(st.data())
def test_a_request_with_a_wrong_byte_is_taken_or_refused_in_words(data: st.DataObject) -> None:
    whole = bytearray(encode([([("__name__", "a"), ("x", str(i))], [(10**12, 0.5)]) for i in range(5)]))
    known: dict[bytes, int] = {}
    decode(bytes(whole), known, lambda labels: len(known))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    try:
        decode(bytes(whole[:cut]), known, lambda labels: 0)
    except SpecError as e:
        assert "near byte" in e.message


def test_a_block_that_swells_is_refused_before_it_is_unpacked() -> None:
    block = pa.Codec("snappy").compress(b"\x00" * 2000, asbytes=True)
    with pytest.raises(SpecError, match="2000 bytes, the limit is 1000") as caught:
        unpack(block, 1000)
    assert caught.value.status == 413
    with pytest.raises(SpecError, match="limit is 1000"):
        unpack(b"\xff\xff\xff\xff\x0f", 1000)


def test_samples_are_stored_and_none_poses_as_ours(tmp_path: Path) -> None:
    store, got = receiver(tmp_path)
    end = struct.unpack("<d", struct.pack("<Q", STALE))[0]
    name = ("__name__", "press_temperature_celsius")
    for t in (999_999_000, 999_999_001):
        got.remote_write(packed([([name, ("service", "digits")], [(t * 1000, 20.5)])]), "plant")
    got.remote_write(packed([([name, ("service", "digits")], [(999_999_002_000, end)])]), "plant")
    (series,) = store.read(name[1], 0.0, 2e9)
    assert series.labels == {"exported_service": "digits", "workspace": "plant"}
    assert series.at == [999_999_000.0, 999_999_001.0] and series.value == [20.5, 20.5]
    assert got.counts["plant", "taken"] == 2 and got.counts["plant", "stale"] == 1


def test_limits_are_told_and_the_rest_is_taken(tmp_path: Path) -> None:
    store, got = receiver(tmp_path, tenant_series=3, labels=2, label_bytes=30)
    moment = 999_999_000_000

    def series(name: str, **labels: str) -> tuple[list[tuple[str, str]], list[tuple[int, float]]]:
        return [("__name__", name), *labels.items()], [(moment, 1.0)]

    with pytest.raises(SpecError, match="dropped 2 samples of series past a limit \\(3 series") as caught:
        got.remote_write(packed([series("a_count", x=str(i)) for i in range(5)]))
    assert caught.value.status == 400 and len(store.read("a_count", 0.0, 2e9)) == 3
    for bad in (series("b", x="1", y="2", z="3"), series("b", x="x" * 31), series("")):
        with pytest.raises(SpecError, match="dropped 1 samples"):
            got.remote_write(packed([bad, series("a_count", x="0")]), "other")
    with pytest.raises(SpecError, match=r"dropped 1 samples more than 600 s ahead.*1 samples older"):
        got.remote_write(packed([([("__name__", "a_count"), ("x", "0")], [(2 * moment, 1.0), (1000, 1.0)])]))
    counts = {what: n for (workspace, what), n in got.counts.items() if workspace == "default" and n}
    assert counts == {"taken": 3, "refused": 2, "series_limit": 2, "future": 1, "old": 1}
    assert store.names() == ["a_count"]


@pytest.mark.world
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="Debian's prometheus is not installed: tests/setup.sh")
def test_a_real_prometheus_writes_to_us(tmp_path: Path) -> None:
    settings = Telemetry()
    store = Embedded(tmp_path / "telemetry", settings=settings)
    application = app(store, Feeds(None, Settings(telemetry=settings), store, time.time))
    page = '# TYPE press_strokes_total counter\npress_strokes_total{line="3"} 7\nidle_count 0\n'
    application.routes.append(Route("/press", lambda request: PlainTextResponse(page)))
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(application, log_level="warning", lifespan="off", ws="none"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
    thread.start()
    config = tmp_path / "prometheus.yml"
    config.write_text(
        f"""
global: {{scrape_interval: 1s}}
scrape_configs: [{{job_name: press, metrics_path: /press, static_configs: [{{targets: ["127.0.0.1:{port}"]}}]}}]
remote_write: [{{url: "http://127.0.0.1:{port}/write", queue_config: {{batch_send_deadline: 500ms}}}}]
"""
    )
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
    with (tmp_path / "log").open("wb") as out:
        prometheus = subprocess.Popen([*command, "--web.listen-address=127.0.0.1:0"], stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 40
        found = []
        while not found or len(found[0].at) < 2:
            assert prometheus.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.1)
            found = store.read("press_strokes_total", 0.0, 1e11)
        assert found[0].labels == {"line": "3", "job": "press", "instance": f"127.0.0.1:{port}"}
        assert set(found[0].value) == {7.0} and abs(found[0].at[0] - time.time()) < 60
        (up,) = store.read("up", 0.0, 1e11)
        assert 1.0 in up.value
        (idle,) = store.read("idle_count", 0.0, 1e11)
        assert set(idle.value) == {0.0}
    finally:
        prometheus.kill()
        prometheus.wait()
        server.should_exit = True
        thread.join(timeout=20)
    assert not thread.is_alive()
