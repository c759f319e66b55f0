"""The embedded store: the suite, restarts, damage, compaction, retention, and a writer that is killed many times."""

import math
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from leptonai.errors import TelemetryError
from leptonai.platforms.embedded import Embedded
from leptonai.platforms.embedded.log import replay
from leptonai.settings import Telemetry
from leptonai.testing.telemetry_suite import TelemetrySuite, sample
from leptonai.types import Series, Signal

NAME = "latency_p99_seconds"


class TestEmbedded(TelemetrySuite):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path

    def store(self) -> Embedded:
        return Embedded(self.path / "telemetry")


class Reopening:
    """Opened anew for every call, and sealed after every write: all is read from segments."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, batch: Sequence[Signal]) -> None:
        store = Embedded(self._folder)
        store.write(batch)
        store.seal()
        store.close()

    def read(self, *given: Any, **named: Any) -> list[Series]:
        return Embedded(self._folder).read(*given, **named)

    def names(self) -> list[str]:
        return Embedded(self._folder).names()


class TestFromSegments(TelemetrySuite):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path

    def store(self) -> Reopening:
        return Reopening(self.path / "telemetry")


def values(store: Embedded, end: float = 1e9) -> list[float]:
    found = store.read(NAME, 0.0, end)
    return found[0].value if found else []


def reopened(store: Embedded, **settings: float) -> Embedded:
    """As after kill -9: nothing is closed, the files are all there is."""
    store.settle()
    return Embedded(store.folder, settings=Telemetry(**settings) if settings else store.settings)


def test_a_restart_keeps_everything(tmp_path: Path) -> None:
    store = Embedded(tmp_path)
    store.write([sample(float(t), float(t)) for t in range(10)])
    store.seal()
    store.write([sample(float(t), float(t)) for t in range(10, 20)])
    again = reopened(store)
    assert values(again) == [float(t) for t in range(20)]
    again.write([sample(5.0, 50.0)])
    again.settle()
    assert values(again)[5] == 50.0
    assert values(reopened(again))[5] == 50.0
    assert again.names() == [NAME] and not again.counts


def test_the_log_becomes_a_segment_that_any_notebook_reads(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    store = Embedded(tmp_path)
    store.write([sample(1.0, 0.5), sample(2.0, math.nan), sample(1.0, 3.0, "b_count", unit="ä")])
    store.seal()
    store.settle()
    table = pq.read_table(tmp_path / "segments")
    assert table.column_names == ["name", "labels", "at", "value"]
    assert table["labels"].to_pylist() == ['{"unit":"ä"}', '{"service":"digits"}', '{"service":"digits"}']
    assert table["at"].to_pylist() == [1.0, 1.0, 2.0]
    assert [str(t) for t in pq.read_schema(next((tmp_path / "segments").glob("*.parquet"))).types[:2]] == [
        "string",
        "string",
    ]


def test_a_torn_tail_costs_the_last_record_only(tmp_path: Path) -> None:
    store = Embedded(tmp_path)
    for t in range(10):
        store.write([sample(float(t), float(t))])
    path = next(tmp_path.glob("*.log"))
    whole = path.read_bytes()
    for cut in range(1, 37):  # a record of one sample has 37 bytes
        path.write_bytes(whole[:-cut])
        found = replay(path)
        assert found.value.tolist() == [float(t) for t in range(9)] and found.torn and not found.lost


def test_damage_in_the_log_costs_what_it_touches_and_is_told(tmp_path: Path) -> None:
    store = Embedded(tmp_path)
    for t in range(10):
        store.write([sample(float(t), float(t))])
    store.settle()
    path = next(tmp_path.glob("*.log"))
    data = bytearray(path.read_bytes())
    data[-5 * 37 + 20] ^= 0xFF  # inside the fifth record from the end: 12 bytes of head, 25 of payload
    path.write_bytes(data)
    again = Embedded(tmp_path)
    assert values(again) == [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 7.0, 8.0, 9.0]
    assert again.counts == {"log_lost": 1, "logs_damaged": 1}
    assert (tmp_path / "damaged" / path.name).exists()


@pytest.mark.parametrize("where", ["head", "middle", "foot", "short", "empty"])
def test_a_damaged_segment_is_set_aside_and_the_others_are_read(tmp_path: Path, where: str) -> None:
    store = Embedded(tmp_path)
    for start in (0, 100, 200):
        store.write([sample(float(t), float(t)) for t in range(start, start + 100)])
        store.seal()
        store.settle()
    path = sorted((tmp_path / "segments").glob("*.parquet"))[1]
    data = bytearray(path.read_bytes())
    if where == "short":
        data = data[: len(data) // 2]
    elif where == "empty":
        data = data[:0]
    else:
        here = {"head": 0, "middle": 300, "foot": len(data) - 3}[where]
        data[here] ^= 0xFF
    path.write_bytes(data)
    again = Embedded(tmp_path)
    got = values(again)
    if where == "head" and not again.counts:
        assert got == [float(t) for t in range(300)]  # the magic at the head is not read again: nothing was lost
        return
    assert got == [float(t) for t in (*range(100), *range(200, 300))]
    assert again.counts == {"segments_damaged": 1}
    assert (tmp_path / "damaged" / path.name).exists() and again.names() == [NAME]
    again.write([sample(300.0, 300.0)])
    assert values(reopened(again))[-1] == 300.0


def test_small_segments_become_one_and_say_the_same(tmp_path: Path) -> None:
    store = Embedded(tmp_path)
    for t in range(13):
        store.write([sample(float(t), float(t)), sample(0.0, float(t)), sample(float(t), 1.0, "b_count", x=str(t))])
        store.seal()
    store.settle()
    assert len(list((tmp_path / "segments").glob("*.parquet"))) == 2
    again = reopened(store)
    assert values(again) == [12.0, *(float(t) for t in range(1, 13))]
    assert len(again.read("b_count", 0.0, 20.0)) == 13


def test_the_oldest_segments_go_by_age_and_by_size(tmp_path: Path) -> None:
    now = 0.0
    store = Embedded(tmp_path, settings=Telemetry(retain=100.0), clock=lambda: now)
    for now in (0.0, 50.0, 120.0):
        store.write([sample(now, now)])
        store.seal()
        store.settle()
    assert values(Embedded(tmp_path, clock=lambda: now)) == [50.0, 120.0] and store.counts == {"segments_expired": 1}
    small = Embedded(tmp_path, settings=Telemetry(retain_bytes=1), clock=lambda: now)
    small.write([sample(130.0, 130.0)])
    small.seal()
    small.settle()
    assert not list((tmp_path / "segments").glob("*.parquet"))


def test_memory_is_bounded_and_what_leaves_it_is_read_from_disk(tmp_path: Path) -> None:
    store = Embedded(tmp_path, settings=Telemetry(hot_samples=500, log_bytes=4000))
    for t in range(300):
        store.write([sample(float(t), float(t), "a_count", x=str(x)) for x in range(10)])
        store.settle()
    assert sum(len(s.at) for s in store._memory.read("a_count", 0.0, 1e9)) < 1000
    found = store.read("a_count", 0.0, 1e9)
    assert len(found) == 10 and all(s.value == [float(t) for t in range(300)] for s in found)


def test_more_series_than_memory_has_room_for_are_read_from_disk(tmp_path: Path) -> None:
    store = Embedded(tmp_path, settings=Telemetry(series=8))
    for t in range(50):
        store.write([sample(float(t), float(t), "a_count", x=str((t + x) % 40)) for x in range(10)])
    store.seal()
    store.settle()
    assert len(store.read("a_count", 0.0, 1e9)) == 40
    assert sum(len(s.at) for s in store.read("a_count", 0.0, 1e9)) == 500


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(TelemetryError, match="file"):
        Embedded(tmp_path / "file" / "telemetry")


@examples(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.tuples(st.integers(0, 50), st.floats(-1e6, 1e6)), st.just("seal"), st.just("restart"))))
def test_any_history_reads_as_the_last_writes(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, float] | str]
) -> None:
    """Any mix of writes, seals and restarts reads as one sorted list with the last value written per moment."""
    store = Embedded(tmp_path_factory.mktemp("t"))
    plain: dict[float, float] = {}
    for step in steps:
        if step == "seal":
            store.seal()
        elif step == "restart":
            store = reopened(store)
        else:
            at, value = step
            store.write([sample(float(at), value)])  # type: ignore[arg-type]
            plain[float(at)] = value  # type: ignore[assignment,index]
    store.settle()
    found = store.read(NAME, 0.0, 100.0)
    assert dict(zip(found[0].at, found[0].value, strict=True)) == plain if plain else found == []
    assert not found or found[0].at == sorted(found[0].at)


WRITER = """
import sys, time
from pathlib import Path
from leptonai.platforms.embedded import Embedded
from leptonai.settings import Telemetry
from leptonai.types import Signal
store = Embedded(Path(sys.argv[1]), settings=Telemetry(log_bytes=20000, sync=0.05))
n = int(sys.argv[2])
while True:
    store.write([Signal(name="n_count", labels={"x": str(x)}, at=float(n), value=float(n)) for x in range(5)])
    print(n, flush=True)
    n += 1
"""


def test_a_writer_killed_many_times_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    chance = random.Random(3)
    said = -1
    for _ in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(said + 1)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            first = writer.stdout.readline()
            time.sleep(chance.uniform(0.0, 0.25))  # when it dies is the random part of this test
            writer.send_signal(signal.SIGKILL)
            lines = [first, *writer.stdout.read().splitlines()]
        said = int([line for line in lines if line.strip()][-1])
    store = Embedded(tmp_path)
    store.settle()
    found = store.read("n_count", 0.0, 1e9)
    assert len(found) == 5
    for series in found:
        assert series.value[: said + 1] == [float(n) for n in range(said + 1)]
    assert said > 500 and list((tmp_path / "segments").glob("*.parquet")) and set(store.counts) <= {"log_torn"}


def test_columns_are_written_as_one(tmp_path: Path) -> None:
    store = Embedded(tmp_path)
    ids = np.array([store.series("a_count", {"x": str(x)}) for x in range(3)] * 2, np.int32)
    store.append(ids, np.repeat([1.0, 2.0], 3), np.arange(6.0))
    assert [s.value for s in store.read("a_count", 0.0, 3.0)] == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
