"""Real processes: adoption by pid and start time, exits of strangers, logs that lose no line."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest
from waiting import until

from leptonai.errors import StartError
from leptonai.platforms.local.logs import Log, rotate
from leptonai.platforms.local.process import Ending, Process, boot_id, session_members, start_ticks
from leptonai.platforms.local.rundir import write_atomically

PYTHON = [sys.executable, "-I", "-S", "-c"]
ENV = {"PATH": "/usr/bin:/bin"}


def test_output_goes_to_the_log_and_the_exit_is_seen(tmp_path: Path) -> None:
    async def story() -> None:
        process = Process.spawn([*PYTHON, "print('hello'); raise SystemExit(3)"], ENV, tmp_path / "log")
        seen: list[Ending] = []
        process.watch(seen.append)
        assert await process.wait(30.0)
        assert seen == [Ending(code=3)] and not process.alive
        assert (tmp_path / "log").read_text() == "hello\n"
        process.release()

    asyncio.run(story())


def test_it_lives_in_a_session_of_its_own_and_its_children_end_with_it(tmp_path: Path) -> None:
    code = "import os, time\nprint(os.getsid(0) == os.getpid(), flush=True)\nos.fork()\ntime.sleep(600)"

    async def story() -> None:
        process = Process.spawn([*PYTHON, code], ENV, tmp_path / "log")
        process.watch()
        await until(lambda: len([p for p in psutil.pids() if sid(p) == process.pid]) == 2)
        assert (tmp_path / "log").read_text() == "True\n"
        process.kill()
        assert await process.wait(30.0)
        assert process.ending == Ending(signal=signal.SIGKILL)
        await until(lambda: not [p for p in session_members(process.pid) if alive(p)])
        process.release()

    asyncio.run(story())


def sid(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False


def test_a_pid_that_is_a_thread_by_now_is_nobody(tmp_path: Path) -> None:
    """In a fresh container small numbers are given again, also to threads: the kernel then has no such process."""
    held = threading.Event()
    thread = threading.Thread(target=held.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        assert Process.adopt(thread.native_id, 1, boot_id()) is None
    finally:
        held.set()
        thread.join()


def test_a_stranger_is_adopted_by_start_time_and_its_end_is_seen(tmp_path: Path) -> None:
    """A grandchild, whose parent is gone: as a replica is to a fresh control process."""
    code = "import os, sys, time\nif os.fork():\n    os._exit(0)\nprint(os.getpid(), flush=True)\ntime.sleep(600)"

    async def story() -> None:
        log = tmp_path / "pid"
        with log.open("w") as out:
            subprocess.run([*PYTHON, code], stdout=out, check=True)  # noqa: ASYNC221
        await until(log.read_text)
        pid = int(log.read_text())
        ticks = start_ticks(pid)
        assert ticks is not None
        assert Process.adopt(pid, ticks - 1, boot_id()) is None, "another start time: the pid was used again"
        assert Process.adopt(pid, ticks, "another boot") is None
        process = Process.adopt(pid, ticks, boot_id())
        assert process is not None
        process.watch()
        os.kill(pid, signal.SIGKILL)
        assert await process.wait(30.0)
        assert process.ending == Ending(signal=signal.SIGKILL)
        assert Process.adopt(pid, ticks, boot_id()) is None
        process.release()

    asyncio.run(story())


def test_what_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    code = (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(600)"
    )

    async def story() -> None:
        process = Process.spawn([*PYTHON, code], ENV, tmp_path / "log")
        process.watch()
        await until((tmp_path / "log").read_text)
        await process.stop(grace=0.2)
        assert process.ending == Ending(signal=signal.SIGKILL)
        process.release()

    asyncio.run(story())


def test_what_cannot_be_started_is_a_start_error_naming_it(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="/no/such/python"):
        Process.spawn(["/no/such/python"], ENV, tmp_path / "log")


def can_cut_heads(folder: Path) -> bool:
    path = folder / "probe"
    path.write_bytes(b"x" * (1 << 17))
    rotate(path, 1 << 16, 1)
    left = path.stat().st_size
    path.unlink()
    return left == 1 << 16


def test_rotation_loses_no_line_of_a_writer_that_never_stops(tmp_path: Path) -> None:
    """Numbers written one per line while the log is cut again and again: each is found once, in order."""
    if not can_cut_heads(tmp_path):
        pytest.skip("this file system cannot cut a file at its head")
    path, written = tmp_path / "log", 0
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write() -> None:
        nonlocal written
        while written < 60_000 or len(kept) < 3:
            os.write(fd, b"%06d a line of ordinary length, as a model would print\n" % written)
            written += 1

    kept: list[bytes] = []
    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        if rotate(path, 200_000, 2):
            kept.append((tmp_path / "log.1").read_bytes())
        time.sleep(0.001)
    os.close(fd)
    if rotate(path, 200_000, 2):  # on a busy machine the last cut may be long ago
        kept.append((tmp_path / "log.1").read_bytes())
    kept.append(path.read_bytes())
    numbers = [int(line[:6]) for line in b"".join(kept).splitlines()]
    assert numbers == list(range(written))
    assert path.stat().st_size < 400_000


def test_where_a_head_cannot_be_cut_all_that_was_written_is_moved_out() -> None:
    """A file system in memory, as a home in a container may be on."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        if can_cut_heads(Path(folder)):
            pytest.skip("NOT TESTED: this machine has no file system that cannot cut a file at its head")
        path, lines = Path(folder) / "log", [f"line {n} {'x' * 60}" for n in range(4000)]
        path.write_text("\n".join(lines))
        assert rotate(path, 100_000, 3) == len("\n".join(lines)) and path.stat().st_size == 0
        assert path.with_name("log.1").read_text().splitlines() == lines
        path.write_text("short")
        assert rotate(path, 3, 1) == 5 and path.stat().st_size == 0


def test_only_so_many_old_files_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for n in range(6):
        with path.open("ab") as out:
            out.write(bytes([65 + n]) * 300_000)
        rotate(path, 100_000, 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "log.1", "log.2"]


def test_lines_carry_the_time_of_the_tick_that_saw_them(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = Log(path, started=100.0)
    for at in (101.0, 102.0, 103.0):
        with path.open("a") as out:
            out.write(f"at {at:g}\nmore\n")
        log.tick(at, limit=1000, files=3)
    assert [(line.at, line.text) for line in log.lines("r", 102.0, 3)] == [
        (102, "more"),
        (103, "at 103"),
        (103, "more"),
    ]
    assert [line.text for line in log.lines("r", 0.0, 1)] == ["more"]
    assert log.lines("r", 104.0, 10) == []


def test_an_atomic_write_that_fails_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(OSError):
        write_atomically(path / "below-a-file", b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
