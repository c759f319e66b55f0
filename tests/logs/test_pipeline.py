"""Logs of what runs: followed, counted exactly, sampled in a flood, kept, searched, masked, and made evidence of."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leptonai.errors import NotFound
from leptonai.ops.logs.handoff import Handoff
from leptonai.ops.logs.pipeline import OTHERS, Pipeline
from leptonai.ops.logs.query import Query
from leptonai.settings import Logs, Settings
from leptonai.types import LogRecord, Replica, Signal

NOW = 1_700_000_000.0
STEERS = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]").search


def made(home: Path, **limits: Any) -> tuple[Pipeline, Handoff]:
    sink = Handoff(20_000)
    return Pipeline(home, Settings(logs=Logs(**limits)), sink, lambda: NOW), sink


def replica(home: Path, id: str, service: str = "digits") -> Replica:
    (home / "run" / id).mkdir(parents=True, exist_ok=True)
    return Replica(id=id, service=service, variant="main", digest="d", state="ready", since=NOW)


def write(home: Path, id: str, *lines: str) -> None:
    with (home / "run" / id / "log").open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))


def value(signals: list[Signal], name: str, service: str = "digits") -> float:
    return sum(s.value for s in signals if s.name == name and s.labels["service"] == service)


def test_lines_of_replicas_own_processes_and_others_are_kept_as_records(tmp_path: Path) -> None:
    pipeline, sink = made(tmp_path)
    pipeline.watch([replica(tmp_path, "r1"), replica(tmp_path, "r2", "shop/till")])
    pipeline.step(NOW)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "ops.log").write_text("2023-11-14T22:13:20.250Z ERROR leptonai.ops: it broke\n")
    write(tmp_path, "r1", "loaded model 7 in 3 ms", json.dumps({"msg": "slow", "level": "warn", "user": 7}))
    write(tmp_path, "r2", "WARNING: drawer open")
    sink.put([LogRecord(at=NOW - 5, source={"service": "press", "host": "hall-1"}, body="hot", severity=17)])
    sink.put(
        [LogRecord(at=NOW, source={"host": "shop-3", "file": "/var/log/x", "workspace": "shop"}, body="a\x1b[2J\x07b")]
    )
    signals = pipeline.step(NOW + 1)
    found = {e.service: e for e in pipeline.search(Query(), None, 100).items if "model" not in e.body}
    assert found["digits"].body == "slow user=7" and found["digits"].severity == 13
    assert found["digits"].source == {"replica": "r1", "digest": "d"}
    assert (found["leptonai.ops"].at, found["leptonai.ops"].severity) == (NOW + 0.25, 17)
    assert found["leptonai.ops"].body == "ERROR leptonai.ops: it broke"
    assert found["shop/till"].workspace == "shop"
    assert (found["press"].at, found["press"].source) == (NOW - 5, {"host": "hall-1"})
    assert found["shop/shop-3:.var.log.x"].body == "a\\x1b[2J\\x07b"
    assert value(signals, "log_rate_per_second") == 2.0
    assert value(signals, "log_error_rate_per_second", "leptonai.ops") == 1.0
    pages = pipeline.search(Query(workspaces=frozenset(("shop",))), None, 100)
    assert {e.service for e in pages.items} == {"shop/till", "shop/shop-3:.var.log.x"}
    assert [t["template"] for t in pipeline.templates("digits")] == ["loaded model <*> in <*> ms", "slow user=<*>"]
    with pytest.raises(NotFound, match="nobody"):
        pipeline.templates("nobody")
    pipeline.close()


def test_a_flood_is_counted_exactly_read_in_part_and_holds_nobody_up(tmp_path: Path) -> None:
    pipeline, _ = made(tmp_path, lines_per_second=1000)
    pipeline.watch([replica(tmp_path, "r1")])
    pipeline.step(NOW)
    write(
        tmp_path,
        "r1",
        *(f"request {i} took {i % 97} ms" if i % 10 else f"ERROR request {i} failed" for i in range(100_000)),
    )
    begun = time.process_time()
    signals = pipeline.step(NOW + 1)
    assert time.process_time() - begun < 1.0  # of one core, for 100,000 lines
    assert value(signals, "log_rate_per_second") == 100_000.0
    assert value(signals, "log_template_count") == pytest.approx(100_000, rel=0.01)
    assert value(signals, "log_error_rate_per_second") == pytest.approx(10_000, rel=0.25)
    assert pipeline.counts["lines"] == 100_000 and pipeline.counts["read"] <= 1000
    pipeline.close()


def test_the_last_words_of_a_replica_that_is_gone_are_read(tmp_path: Path) -> None:
    pipeline, _ = made(tmp_path)
    pipeline.step(NOW)
    pipeline.watch([replica(tmp_path, "r1")])
    write(tmp_path, "r1", "ready")
    pipeline.step(NOW + 1)
    write(tmp_path, "r1", "Segmentation fault")
    old = tmp_path / "logs" / "replicas"
    old.mkdir(parents=True)
    (tmp_path / "run" / "r1" / "log").rename(old / "r1.log")  # as the platform puts it away
    pipeline.watch([])
    pipeline.step(NOW + 2)
    assert [e.body for e in pipeline.search(Query(), None, 10).items] == ["Segmentation fault", "ready"]
    pipeline.close()


def test_segments_outlive_us_are_searched_in_pages_and_read_by_a_notebook(tmp_path: Path) -> None:
    pipeline, _ = made(tmp_path, segment_lines=100)
    pipeline.watch([replica(tmp_path, "r1")])
    pipeline.step(NOW)
    for n in range(10):
        write(tmp_path, "r1", *(f"step {n} of {i}" for i in range(50)), f"mail of Ana@example.org {n}")
        pipeline.step(NOW + n)
    marked = pipeline.search(Query(text="MAIL OF ANA@"), None, 100).items
    assert len(marked) == 10 and all("example" not in e.body + e.template for e in marked)
    pipeline.close()
    segments = sorted((tmp_path / "logs-store").glob("*.parquet"))
    assert len(segments) > 2
    table = pq.read_table(segments[0])
    assert table.num_rows >= 100 and {"at", "service", "template_id", "template", "body"} <= set(table.column_names)
    again, _ = made(tmp_path)
    seen, before = [], None
    while True:
        page = again.search(Query(text="step", service="digits"), before, 70)
        seen += page.items
        before = page.next
        if before is None:
            break
    assert [e.body for e in seen] == [f"step {n} of {i}" for n in reversed(range(10)) for i in reversed(range(50))]
    assert again.masker.unmask(marked[0].body).startswith("mail of Ana@example.org")
    template = seen[0].template_id
    assert {e.template_id for e in again.search(Query(template=template), None, 10).items} == {template}
    assert len(again.search(Query(since=NOW + 8), None, 1000).items) == 102
    again.close()


def test_what_a_killed_process_kept_is_found_and_a_torn_line_is_counted(tmp_path: Path) -> None:
    pipeline, _ = made(tmp_path)
    pipeline.watch([replica(tmp_path, "r1")])
    pipeline.step(NOW)
    write(tmp_path, "r1", "one", "two")
    pipeline.step(NOW + 1)
    with (tmp_path / "logs-store" / "hot.jsonl").open("a") as file:
        file.write('{"seq": 3, "at"')  # as SIGKILL leaves it
    again, _ = made(tmp_path)
    assert [e.body for e in again.search(Query(), None, 10).items] == ["two", "one"]
    assert again.store.counts["hot_torn"] == 1
    again.close()


def test_age_and_size_bound_the_store(tmp_path: Path) -> None:
    pipeline, _ = made(tmp_path, segment_lines=10, retain=100.0)
    pipeline.watch([replica(tmp_path, "r1")])
    pipeline.step(NOW)
    for n in range(30):
        write(tmp_path, "r1", *(f"step {n} of {i}" for i in range(10)))
        pipeline.step(NOW + 10 * n)
    kept = pipeline.search(Query(), None, 1000).items
    assert min(e.at for e in kept) >= NOW + 290 - 110
    assert pipeline.store.counts["segments_expired"] >= 15
    assert len(list((tmp_path / "logs-store").glob("*.parquet"))) <= 12
    pipeline.close()


def test_a_damaged_segment_is_put_aside_loudly(tmp_path: Path) -> None:
    pipeline, _ = made(tmp_path, segment_lines=1)
    pipeline.watch([replica(tmp_path, "r1")])
    pipeline.step(NOW)
    for n in range(2):
        write(tmp_path, "r1", f"line {n}")
        pipeline.step(NOW + n)
    pipeline.close()
    first = min((tmp_path / "logs-store").glob("*.parquet"))
    os.truncate(first, first.stat().st_size // 2)
    again, _ = made(tmp_path)
    assert [e.body for e in again.search(Query(), None, 10).items] == ["line 1"]
    assert again.store.counts["segments_damaged"] == 1
    again.close()


def test_more_services_than_the_limit_share_one_stream_and_are_searched_alone(tmp_path: Path) -> None:
    pipeline, sink = made(tmp_path, services=5)
    pipeline.step(NOW)
    for n in range(20):
        sink.put([LogRecord(at=NOW, source={"service": f"s{n}"}, body=f"hello from {n}")])
    signals = pipeline.step(NOW + 1)
    assert len({s.labels["service"] for s in signals}) <= 5 + 6
    assert value(signals, "log_rate_per_second", OTHERS) >= 15
    (one,) = pipeline.search(Query(service="s17"), None, 10).items
    assert one.body == "hello from 17"
    pipeline.close()


def test_a_full_disk_costs_no_signal_and_is_counted(tmp_path: Path) -> None:
    pipeline, _ = made(tmp_path, segment_lines=1)
    pipeline.watch([replica(tmp_path, "r1")])
    pipeline.step(NOW)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, pipeline.store._file)  # every write now says ENOSPC
    os.close(full)
    write(tmp_path, "r1", "one")
    assert value(pipeline.step(NOW + 1), "log_rate_per_second") == 1.0
    assert pipeline.store.counts["write_failed"] >= 1
    assert [e.body for e in pipeline.search(Query(), None, 10).items] == ["one"]
    pipeline.close()


@given(st.lists(st.binary(max_size=60) | st.text(max_size=60).map(str.encode), max_size=12), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_whatever_bytes_a_replica_writes_are_lines_that_can_be_shown_and_searched(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], huge: int
) -> None:
    """Binary, broken UTF-8, steering and huge lines: each is counted, kept printable and bounded, and found again."""
    home = tmp_path_factory.mktemp("bytes")
    pipeline, _ = made(home)
    pipeline.watch([replica(home, "r1")])
    pipeline.step(NOW)
    wrote = [line.replace(b"\n", b"") for line in lines] + [b"h" * 200_000] * huge + [b"the end"]
    (home / "run" / "r1" / "log").write_bytes(b"".join(line + b"\n" for line in wrote))
    signals = pipeline.step(NOW + 1)
    assert value(signals, "log_rate_per_second") == len(wrote)
    pipeline.store.seal()  # through a segment, too
    found = pipeline.search(Query(), None, 1000).items
    assert found[0].body == "the end" and len(found) <= len(wrote)
    assert all(0 < len(e.body) < 65_000 and not STEERS(e.body) for e in found)
    assert sum("bytes cut" in e.body for e in found) == huge
    pipeline.close()
    again, _ = made(home)
    assert len(again.search(Query(), None, 1000).items) == len(found)
    again.close()


@pytest.mark.parametrize("at", [float("nan"), float("inf"), 1e300, -1e300, 0.0, NOW + 1e7, NOW - 1e7])
def test_a_time_that_cannot_be_ages_no_other_line(tmp_path: Path, at: float) -> None:
    pipeline, sink = made(tmp_path)
    pipeline.watch([])
    sink.put([LogRecord(at=at, source={"service": "press"}, body="oil low"), LogRecord(at=NOW, source={}, body="fine")])
    pipeline.step(NOW)
    pipeline.store.seal()
    assert [e.at for e in pipeline.search(Query(service="press"), None, 10).items] == [NOW]
    assert pipeline.counts["odd_time"] == 1
    pipeline.close()
