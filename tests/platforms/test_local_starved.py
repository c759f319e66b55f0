"""A process that the machine keeps from running is told apart from one that hangs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from waiting import eventually

from leptonai.platforms.local import cgroup
from leptonai.platforms.local.process import Starved
from leptonai.types import Resources

BUSY = "import sys; print(flush=True)\nwhile True: pass"
IDLE = "import sys; print(flush=True); sys.stdin.read()"


@contextlib.contextmanager
def started(code: str) -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline()
            yield process.pid
        finally:
            process.kill()


@contextlib.contextmanager
def throttled(pid: int) -> Iterator[None]:
    """``pid`` may run for 2 % of the time."""
    try:
        [group] = cgroup.create(f"leptonai-starved-{os.getpid()}", Resources(cpu=0.02))
    except OSError as e:
        pytest.skip(f"control groups of this machine are not ours to make: {e}")
    try:
        cgroup.enter([group], pid)
        yield
    finally:
        cgroup.enter([str(Path(group).parent)], pid)
        cgroup.remove([group])


def waits(pid: int, seconds: float) -> bool:
    """Whether it is kept from running for so long within a minute."""
    held, end = Starved(pid), time.monotonic() + 60
    while held.seconds() < seconds and time.monotonic() < end:
        time.sleep(0.05)
    return held.seconds() >= seconds


def test_what_may_not_run_though_it_would_is_starved() -> None:
    with started(BUSY) as pid, throttled(pid):
        began = time.monotonic()
        assert waits(pid, 1.0)
        assert time.monotonic() - began >= 0.9, "no more than the time that went by"


def test_what_sleeps_or_is_gone_is_not_starved() -> None:
    with started(IDLE) as pid:
        eventually(lambda: psutil.Process(pid).status() == psutil.STATUS_SLEEPING, "it sleeps")
        idle = Starved(pid)
        time.sleep(0.3)
        assert idle.seconds() < 0.1
    assert Starved(pid).seconds() == 0.0
