"""The store over a real Prometheus: the suite of every store, and what happens while it is away."""

from __future__ import annotations

import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from typing import ClassVar

import httpx
import pytest
from waiting import free_port

from leptonai.errors import SpecError, TelemetryError
from leptonai.ops.remote_write import decode, unpack
from leptonai.platforms.prometheus import PrometheusStore
from leptonai.platforms.prometheus.encode import encode, label_bytes
from leptonai.settings import Prometheus, Telemetry
from leptonai.testing.telemetry_suite import TelemetrySuite, sample

NEEDED = "Debian's prometheus is not installed: tests/setup.sh"


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("prometheus")
    config = folder / "prometheus.yml"
    config.write_text("storage: {tsdb: {out_of_order_time_window: 1h}}\n")
    url = f"http://127.0.0.1:{free_port()}"
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    command += ["--web.enable-remote-write-receiver", f"--web.listen-address={url.removeprefix('http://')}"]
    with (folder / "log").open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            try:
                if httpx.get(f"{url}/-/ready", trust_env=False).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            time.sleep(0.05)
        yield url
    finally:
        process.kill()
        process.wait()


@pytest.mark.world
@pytest.mark.skipif(shutil.which("prometheus") is None, reason=NEEDED)
class TestPrometheus(TelemetrySuite):
    """All share one Prometheus, told apart by a label: as platforms do that share one."""

    url: ClassVar[str]
    made: ClassVar[list[PrometheusStore]]

    @pytest.fixture(autouse=True)
    def stores(self, prometheus: str) -> Iterator[None]:
        type(self).url, type(self).made = prometheus, []
        yield
        for store in self.made:
            store.close()

    def store(self) -> PrometheusStore:
        store = PrometheusStore(Prometheus(url=self.url, labels={"platform": uuid.uuid4().hex}))
        self.made.append(store)
        return store

    def test_labels_with_every_kind_of_character_come_back(self) -> None:
        store = self.store()
        odd = 'a "quoted" \\ path\nand ü'
        store.write([sample(5.0, 1.5, "x_count", what=odd)])
        (series,) = store.read("x_count", 0.0, 10.0, {"what": odd})
        assert series.labels == {"what": odd} and series.value == [1.5]

    def test_what_prometheus_refuses_is_counted(self) -> None:
        store = self.store()
        store.write([sample(1e9, 1.0, "late_count")])
        store.settle()
        store.write([sample(1e9 + t, 2.0, "late_count") for t in (1.0, 2.0)])
        store.write([sample(10.0, 1.0, "late_count"), sample(1e9 + 3.0, 3.0, "late_count")])
        store.settle()
        assert store.counts.get("refused") == 1
        (series,) = store.read("late_count", 1e9, 1e9 + 10.0)
        assert series.value == [1.0, 2.0, 2.0, 3.0]  # the refusal of one takes no other with it


class TestPrometheusRecent(TestPrometheus):
    """The newest seconds are answered from memory, what was before the store began is asked of Prometheus."""

    def store(self) -> PrometheusStore:
        store = PrometheusStore(
            Prometheus(url=self.url, labels={"platform": uuid.uuid4().hex}), keep=3600.0, clock=lambda: 2.0
        )
        self.made.append(store)
        return store

    def test_a_later_life_reads_on_and_memory_answers_while_prometheus_is_away(self) -> None:
        settings = Prometheus(url=self.url, labels={"platform": uuid.uuid4().hex})
        now = float(int(time.time()))  # Prometheus knows milliseconds: what is sent twice has one time only then
        first = PrometheusStore(settings, keep=600.0)
        first.write([sample(now - 3.0, 1.0), sample(now - 2.0, 2.0), sample(now - 3.0, 9.0, "other_count")])
        first.settle()
        first.close()
        second = PrometheusStore(settings, keep=600.0, clock=lambda: now)
        self.made.append(second)
        second.write([sample(now + 1.0, 4.0), sample(now - 2.0, 2.5)])  # one comes late
        (series,) = second.read("latency_p99_seconds", now - 60.0, now + 10.0, {"service": "digits"})
        assert series.value == [1.0, 2.5, 4.0]
        (means,) = second.read("latency_p99_seconds", now - 4.0, now + 2.0, step=3.0)
        assert means.value == [1.75, 4.0]
        second._http.base_url = httpx.URL(f"http://127.0.0.1:{free_port()}")  # it goes away
        second.write([sample(now + 2.0, 5.0), sample(now + 2.0, 7.0, "other_count")])
        (series,) = second.read("latency_p99_seconds", now - 60.0, now + 10.0)
        assert series.value == [1.0, 2.5, 4.0, 5.0]
        (series,) = second.read("other_count", now - 60.0, now + 10.0)  # what was before is missing, and that is told
        assert series.value == [7.0]
        with pytest.raises(TelemetryError, match="does not answer as a Prometheus"):
            second.read("latency_p99_seconds", now - 3000.0, now)


def test_memory_beside_prometheus_is_bounded() -> None:
    store = PrometheusStore(
        Prometheus(url=f"http://127.0.0.1:{free_port()}", timeout=1.0), 600.0, Telemetry(hot_samples=100), lambda: 0.0
    )
    for t in range(500):
        store.write([sample(float(t), float(t))])
    assert store._recent is not None and store._recent._held <= 101
    (series,) = store.read("latency_p99_seconds", 480.0, 500.0)
    assert series.value == [float(t) for t in range(480, 500)]
    with pytest.raises(TelemetryError):
        store.read("latency_p99_seconds", 300.0, 500.0)  # no longer in memory, and never half an answer
    store.close()


def test_samples_wait_while_prometheus_is_away_and_the_oldest_go_when_too_many_do() -> None:
    store = PrometheusStore(Prometheus(url=f"http://127.0.0.1:{free_port()}", timeout=2.0, pending=5))
    store.write([sample(float(i), 1.0) for i in range(8)])
    with pytest.raises(TelemetryError, match="does not answer as a Prometheus"):
        store.read("latency_p99_seconds", 0.0, 10.0)
    assert store.counts["dropped"] >= 3
    store.close()
    with pytest.raises(SpecError, match="no URL"):
        PrometheusStore(Prometheus(url="nowhere"))


def test_what_is_encoded_is_what_our_own_receiver_reads() -> None:
    sent = [(label_bytes("a_count", {"z": "1", "b": "ü"}), [(1.5, 2.0), (3.25, -1.0)])]
    seen: list[list[tuple[str, str]]] = []
    got = decode(unpack(encode(sent), 1000), {}, lambda labels: seen.append(labels) or 0)  # type: ignore[func-returns-value]
    assert seen == [[("__name__", "a_count"), ("b", "ü"), ("z", "1")]]
    assert got.at.tolist() == [1.5, 3.25] and got.value.tolist() == [2.0, -1.0]
