"""Pages of others: both formats, limits, targets that are away; the machine's own numbers."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from hypothesis import given
from hypothesis import strategies as st

from leptonai.ops import gpu
from leptonai.ops.host import Host
from leptonai.ops.receive import Receiver
from leptonai.ops.scrape import Scraper, read_page
from leptonai.platforms.embedded import Embedded
from leptonai.settings import Scrape, Target, Telemetry

NOW = 1_700_000_000.0
PLAIN = """# HELP strokes_total Strokes of the press.
# TYPE strokes_total counter
strokes_total{line="3",job="own"} 7 1699999999000
idle 0
this is no sample
"""
OPEN = """# TYPE wait histogram
wait_bucket{le="1.0"} 4 # {trace_id="abc"} 0.5 1699999999.5
wait_bucket{le="+Inf"} 5 1699999998
# EOF
"""


def scraped(
    folder: Path, answer: Callable[[httpx.Request], httpx.Response], **limits: int
) -> tuple[Embedded, Receiver]:
    store = Embedded(folder, settings=Telemetry(), clock=lambda: NOW)
    receiver = Receiver(store, Telemetry(), lambda: NOW)
    target = Target(name="press", url="http://10.0.0.7:9100/metrics", labels={"plant": "north"}, token="t")

    async def main() -> None:
        scraper = Scraper(Scrape(targets=(target,), **limits), receiver, lambda: NOW)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
            await scraper.once(http, target)

    asyncio.run(main())
    return store, receiver


def page(text: str, **headers: str) -> httpx.Response:
    return httpx.Response(200, stream=httpx.ByteStream(text.encode()), headers=headers)


def value(store: Embedded, name: str) -> float:
    (series,) = store.read(name, 0.0, 2 * NOW)
    return series.value[-1]


def test_a_page_is_read_with_its_own_times_and_the_targets_labels(tmp_path: Path) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == "Bearer t"
        return page(PLAIN)

    store, receiver = scraped(tmp_path, answer)
    (series,) = store.read("strokes_total", 0.0, 2 * NOW)
    own = {"plant": "north", "job": "press", "instance": "10.0.0.7:9100"}
    assert series.labels == {"line": "3", "exported_job": "own", **own} and series.at == [1699999999.0]
    assert value(store, "up") == 1.0 and value(store, "idle") == 0.0
    assert receiver.counts["default", "scrape_odd_lines"] == 1


def test_openmetrics_times_are_seconds_and_exemplars_are_passed_over() -> None:
    read = read_page(OPEN, openmetrics=True)
    assert read.whole and not read.odd
    assert read.samples[0] == ("wait_bucket", (("le", "1.0"),), None, 4.0)
    assert read.samples[1][2] == 1699999998.0
    assert not read_page(OPEN.replace("# EOF\n", ""), openmetrics=True).whole


def test_a_target_that_fails_is_down_and_never_half_taken(tmp_path: Path) -> None:
    pages = "".join(f'x{{n="{i}"}} 1\n' for i in range(50))
    for i, (answer, limits) in enumerate(
        [
            (httpx.Response(503), {}),
            (page(pages), {"page_series": 20}),
            (page(pages), {"page_bytes": 100}),
            (page("<html>no metrics here</html>"), {}),
            (page(OPEN[:40], **{"content-type": "application/openmetrics-text"}), {}),
        ]
    ):
        store, receiver = scraped(tmp_path / str(i), lambda request, answer=answer: answer, **limits)
        assert value(store, "up") == 0.0 and store.read("x", 0.0, 2 * NOW) == []
        assert receiver.counts["default", "scrape_failed"] == 1


@given(st.text(max_size=200))
def test_any_text_is_a_page_with_some_odd_lines(text: str) -> None:
    read = read_page(text, openmetrics=False)
    assert len(read.samples) + read.odd <= text.count("\n") + 1


def test_the_host_tells_of_itself(tmp_path: Path) -> None:
    host = Host({"host": "till-3"}, str(tmp_path))
    host.read(time.time() - 1.0)
    found = {s.name: s for s in host.read(time.time())}
    assert {"host_memory_used_ratio", "host_disk_free_bytes", "host_load_per_core_ratio"} <= found.keys()
    assert all(s.labels["host"] == "till-3" for s in found.values())
    assert all(0.0 <= s.value <= 1.0 for n, s in found.items() if n.endswith("_used_ratio"))
    assert found["host_disk_free_bytes"].value > 0


def test_gpus_tell_what_they_know_and_none_gives_no_series() -> None:
    fake = gpu.FakeGpus(gpu.Reading(0, "H200", busy=0.5, memory_used=1e9, memory_total=4e9), gpu.Reading(1, "old"))
    found = {(s.name, s.labels["gpu"]): s.value for s in gpu.signals(fake.read(), NOW)}
    assert found == {
        ("gpu_busy_ratio", "0"): 0.5,
        ("gpu_memory_used_bytes", "0"): 1e9,
        ("gpu_memory_used_ratio", "0"): 0.25,
    }
    assert gpu.signals(gpu.FakeGpus().read(), NOW) == []
    assert isinstance(gpu.Nvml().read(), list)  # with a card or without
