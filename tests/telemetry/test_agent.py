"""The agent: log files through rotation, a buffer that survives and is bounded, and no batch taken twice."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from leptonai.errors import Conflict, NotFound, SpecError
from leptonai.ops.agent.batch import Batch, decode, encode
from leptonai.ops.agent.buffer import Buffer
from leptonai.ops.agent.lines import LogFile, record
from leptonai.ops.agent.processes import Processes
from leptonai.ops.feeds import Feeds
from leptonai.ops.sheet import read_sheet
from leptonai.platforms.embedded import Embedded
from leptonai.settings import Settings
from leptonai.types import LogRecord, Signal

NOW = 1_700_000_000.0


@examples(max_examples=60)
@given(st.lists(st.sampled_from(["write", "half", "rename", "truncate", "look", "restart"]), max_size=25))
def test_every_line_is_read_once_and_in_order_whatever_happens_to_the_file(
    tmp_path_factory: pytest.TempPathFactory, acts: list[str]
) -> None:
    """Rotation by rename and restarts lose and repeat nothing; truncation loses only what was not read before it."""
    folder = tmp_path_factory.mktemp("log")
    path = folder / "app.log"
    path.write_bytes(b"before\n")
    file = LogFile(path, None)
    wrote: list[str] = []
    got: list[str] = []
    number = rotated = 0
    open_half = False
    for act in acts:
        if act in ("write", "half"):
            text = f"line {number}"
            number += 1
            with path.open("a") as out:
                out.write(text[:3] if act == "half" and not open_half else ("" if open_half else text) + "\n")
            if act == "half" and not open_half:
                open_half, half = True, text[:3]
            else:
                wrote.append(half if open_half else text)
                open_half = False
        elif act == "rename":
            if open_half:
                wrote.append(half)
                open_half = False
            got += file.lines()  # one rotation between two looks, as every rotator grants
            rotated += 1
            path.rename(folder / f"app.log.{rotated}")
            path.write_bytes(b"")
            got += file.lines()
        elif act == "truncate" and not open_half:
            got += file.lines()
            os.truncate(path, 0)
            got += file.lines()
        elif act == "look":
            got += file.lines()
        elif act == "restart":
            position = file.position
            file.close()
            file = LogFile(path, position)
    if open_half:
        with path.open("a") as out:
            out.write("\n")
        wrote.append(half)
    got += file.lines() + file.lines()
    file.close()
    assert got == wrote


def test_a_line_says_how_bad_it_is_and_a_binary_stays_in_pieces(tmp_path: Path) -> None:
    assert record("2026-01-01 12:00 ERROR oil low", NOW, tmp_path).severity == 17
    assert record("all is well", NOW, tmp_path).severity == 0
    path = tmp_path / "binary.log"
    path.write_bytes(b"")
    file = LogFile(path, None)
    path.write_bytes(os.urandom(1 << 20).replace(b"\n", b"x"))
    (cut,) = file.lines()
    assert len(cut) < 70_000 and "characters cut" in cut
    file.close()


def put(buffer: Buffer, value: float) -> None:
    signals = [Signal(name="x_count", labels={}, at=NOW + value, value=value)]
    buffer.put(signals, [LogRecord(at=NOW, source={"file": "a"}, body=str(value))], {"a": (7, int(value))})


def test_the_buffer_keeps_its_order_and_its_place_through_a_death(tmp_path: Path) -> None:
    buffer = Buffer(tmp_path, "till", 1_000_000)
    put(buffer, 1.0)
    before = (tmp_path / "state.json").read_bytes()
    put(buffer, 2.0)
    with pytest.raises(Conflict, match="another agent"):
        Buffer(tmp_path, "till", 1_000_000)
    buffer.close()
    (tmp_path / "state.json").write_bytes(before)  # died between the batch and its state
    (tmp_path / "000000000003.batch.new").write_bytes(b"torn")
    again = Buffer(tmp_path, "till", 1_000_000)
    assert again.state.number == 2 and again.state.positions == {"a": (7, 2)}
    put(again, 3.0)
    numbers = []
    while (found := again.oldest()) is not None:
        numbers.append(decode(gzip.decompress(found[1])).number)
        found[0].unlink()
    assert numbers == [1, 2, 3]
    again.close()


def test_a_full_buffer_drops_the_oldest_and_counts(tmp_path: Path) -> None:
    buffer = Buffer(tmp_path, "till", 1_000)
    for i in range(20):
        put(buffer, float(i))
    waiting = buffer.waiting()
    assert sum(p.stat().st_size for p in waiting) <= 1_000 and waiting[-1].name.startswith("000000000020")
    assert buffer.state.dropped == 20 - len(waiting) > 0
    buffer.close()


def test_a_batch_that_comes_again_is_not_taken_twice_even_after_a_restart(tmp_path: Path) -> None:
    store = Embedded(tmp_path / "telemetry", clock=lambda: NOW)
    batch = Batch(
        agent="till", run="r", number=1, signals=[Signal(name="x_count", labels={}, at=NOW, value=1.0)],
        logs=[LogRecord(at=NOW, source={"file": "a"}, body="hello")],
    )  # fmt: skip
    body = gzip.compress(encode(batch))
    for life in range(2):
        feeds = Feeds(tmp_path, Settings(), store, lambda: NOW)
        assert feeds.agent(body, "gzip", "shop") is (life == 0)
        records = feeds.logs.take(10)
        assert [r.source for r in records] == ([{"file": "a", "host": "till", "workspace": "shop"}] if not life else [])
        feeds.close()
    (series,) = store.read("x_count", 0.0, 2 * NOW)
    assert series.labels == {"host": "till", "workspace": "shop"}
    assert feeds.receiver.counts["shop", "agent_repeated"] == 1
    for bad in (b"", b"{}", b'{"agent":"Not A Name","run":"r","number":1}', b"\xff"):
        with pytest.raises(SpecError):
            feeds.agent(bad, "", "shop")
    store.close()


def test_processes_are_found_by_name_and_their_absence_is_a_zero() -> None:
    mine = Path(f"/proc/{os.getpid()}/comm").read_text().strip()
    processes = Processes([mine, "no-such-program"])
    processes.read(NOW)
    found = {(s.labels["process"], s.name): s.value for s in processes.read(NOW + 1.0)}
    assert found[mine, "process_running_count"] >= 1 and found[mine, "process_rss_bytes"] > 1e6
    assert found["no-such-program", "process_running_count"] == 0.0


def test_a_file_becomes_series_cleaned_by_policy(tmp_path: Path) -> None:
    path = tmp_path / "press.csv"
    rows = ["when,line,temp,note", "2026-01-01 00:00:00,3,20.5,a", "2026-01-01 00:00:02,3,21.5,b"]
    rows += ["2026-01-01 00:00:01,3,21.0,late", "2026-01-01 00:00:01,4,7,other", "nonsense,3,1,x"]
    path.write_text("\n".join(rows) + "\n")
    sheet = read_sheet(path, "when", ("line",), "press_")
    found = {labels["line"]: s.value.tolist() for _, labels, s in sheet.series}
    assert found == {"3": [20.5, 21.0, 21.5], "4": [7.0]} and {n for n, _, _ in sheet.series} == {"press_temp"}
    assert sheet.counts["out_of_order"] == 1 and sheet.counts["bad_time"] == 1
    with pytest.raises(SpecError, match="which column has the times"):
        read_sheet(path)
    with pytest.raises(SpecError, match="no column 'x'"):
        read_sheet(path, "x")
    with pytest.raises(NotFound):
        read_sheet(tmp_path / "none.csv")
    for content in (b"", b"\x00\x01\x02", b"time,a\n1,x\n"):
        path.write_bytes(content)
        with pytest.raises(SpecError):
            read_sheet(path)


def test_our_own_segments_are_read_as_such(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"name": ["a", "a", "b"], "labels": ['{"x":"1"}'] * 3, "at": [1.0, 2.0, 1.0], "value": [5.0, 6.0, 7.0]}
    pq.write_table(pa.table(columns), tmp_path / "s.parquet")
    found = read_sheet(tmp_path / "s.parquet").series
    assert [(n, labels, s.value.tolist()) for n, labels, s in found] == [
        ("a", {"x": "1"}, [5.0, 6.0]),
        ("b", {"x": "1"}, [7.0]),
    ]
