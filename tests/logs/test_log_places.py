"""Followed logs over the death of ops: each line is kept once, whatever moment it dies at."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import pyarrow.parquet  # noqa: F401 - loaded before the fork: a follower is up at once
import pytest

from leptonai.ops.logs.handoff import Handoff
from leptonai.ops.logs.pipeline import Pipeline
from leptonai.ops.logs.query import Query
from leptonai.settings import Logs, Settings
from leptonai.types import Replica

LIMITS = Logs(segment_lines=3_000, lines_per_second=1_000_000)


def made(home: Path) -> Pipeline:
    return Pipeline(home, Settings(logs=LIMITS), Handoff(100), time.time)


def replica(id: str) -> Replica:
    return Replica(id=id, service="digits", variant="main", digest="d", state="ready", since=0.0)


def kept(pipeline: Pipeline) -> list[str]:
    found: list[str] = []
    before = None
    while True:
        page = pipeline.search(Query(), before, 1000)
        found += [e.body for e in page.items]
        before = page.next
        if before is None:
            return found[::-1]


def write(home: Path, id: str, *lines: str) -> None:
    path = home / "run" / id / "log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))


def follow_for_ever(home: Path, steps: int | None, up: int) -> None:
    """A process that follows, mines and keeps as quickly as it can, until it is killed; at the worst moment, when lines
    are kept and their places are not, after ``steps``."""
    try:
        pipeline = made(home)
        pipeline.watch([replica("r1")])
        pipeline.step(time.time())
        os.write(up, b"x")
        commit = pipeline._commit

        def commit_or_die(now: float) -> None:
            nonlocal steps
            if steps is not None and pipeline.store.next > seen and (steps := steps - 1) < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            commit(now)

        pipeline._commit = commit_or_die  # type: ignore[method-assign]
        while True:
            seen = pipeline.store.next
            pipeline.step(time.time())
    except BaseException as e:
        os.write(2, f"the follower failed: {e!r}\n".encode())
    finally:
        os._exit(1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process is killed at random moments")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_no_line_is_lost_or_kept_twice_by_kill_9(tmp_path: Path) -> None:
    dice = random.Random()
    number = 0
    for life in range(4):
        sys.stderr.flush()
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            follow_for_ever(tmp_path, dice.randrange(20) if life % 2 else None, writing)
        os.close(writing)
        assert os.read(reading, 1), "the follower did not come up"
        os.close(reading)
        until = time.monotonic() + dice.uniform(0.05, 0.3)
        while time.monotonic() < until:
            write(tmp_path, "r1", *(f"line {number + i} of many" for i in range(40)))
            number += 40
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), "the follower ended by itself"
    last = made(tmp_path)
    last.watch([replica("r1")])
    last.step(time.time())
    assert kept(last) == [f"line {i} of many" for i in range(number)]
    assert last.counts["lost"] == 0
    last.close()


def test_what_was_written_while_nobody_followed_is_read_and_counted_in_its_time(tmp_path: Path) -> None:
    write(tmp_path, "r1", "before anything")
    write(tmp_path, "r2", "here")
    first = made(tmp_path)
    first.step(1000.0)
    assert kept(first) == []  # whose logs there are is not known yet
    first.watch([replica("r1"), replica("r2")])
    first.step(1001.0)
    first.close()
    write(tmp_path, "r1", *(f"meanwhile {i}" for i in range(60)))
    write(tmp_path, "r2", "its last words")
    gone = tmp_path / "logs" / "replicas" / "r2.log"
    gone.parent.mkdir(parents=True)
    (tmp_path / "run" / "r2" / "log").rename(gone)  # as the platform puts it away
    again = made(tmp_path)
    again.step(1061.0 - 1e-6)  # of nobody known yet: nothing is forgotten for it
    again.watch([replica("r1")])
    again._last = 1001.0
    signals = again.step(1061.0)
    assert kept(again) == ["before anything", "here", *(f"meanwhile {i}" for i in range(60)), "its last words"]
    (rate,) = (s.value for s in signals if s.name == "log_rate_per_second" and s.labels["service"] == "digits")
    assert rate == pytest.approx(61 / 60)
    assert again.step(1062.0) and kept(again)[-1] == "its last words"
    again.close()


def test_a_damaged_note_of_places_is_told_and_files_are_read_again(tmp_path: Path) -> None:
    write(tmp_path, "r1", "one")
    first = made(tmp_path)
    first.watch([replica("r1")])
    first.step(1000.0)
    first.close()
    (tmp_path / "logs-store" / "places.msgpack").write_bytes(b"\xff nonsense")
    again = made(tmp_path)
    again.watch([replica("r1")])
    again.step(1001.0)
    assert kept(again) == ["one", "one"]
    again.close()
