"""Who sits where is told by the kernel: a seat is free the moment its process dies, however it dies."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from leptonai.client.home import Home
from leptonai.daemon.parent import FIRST, MOST, delay
from leptonai.daemon.seats import NAMES, Seats
from leptonai.errors import PlatformError

SITTER = """
import sys
from pathlib import Path
from leptonai.client.home import Home
from leptonai.daemon.seats import Seats
seats = Seats(Home(Path(sys.argv[1])))
print([seats.take(name) for name in sys.argv[2:]], flush=True)
sys.stdin.read()
"""


def sitter(home: Home, *names: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SITTER, str(home.path), *names],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
    process.send_signal(number)
    process.communicate()


def test_a_seat_is_held_by_one_process_named_and_freed_by_kill_9(tmp_path: Path) -> None:
    home = Home(tmp_path)
    seats = Seats(home)
    first = sitter(home, "control", "ops")
    assert first.stdout is not None
    assert first.stdout.readline() == "[True, True]\n"
    assert [seats.holder(n) for n in NAMES] == [None, first.pid, first.pid]
    assert not seats.take("control")
    assert seats.take("parent")
    second = sitter(home, "control", "parent")
    assert second.stdout is not None
    assert second.stdout.readline() == "[False, False]\n"
    end(second)
    pidfd = seats.open_holder("control")
    assert pidfd is not None
    end(first)
    assert select.select([pidfd], [], [], 10)[0]
    os.close(pidfd)
    assert seats.holder("control") is None
    assert seats.open_holder("control") is None
    assert seats.take("control")


def test_who_sits_is_ended_and_waited_for(tmp_path: Path) -> None:
    seats = Seats(Home(tmp_path))
    assert not seats.end_holder("ops", signal.SIGKILL, 60.0), "nobody sits there"
    process = sitter(Home(tmp_path), "ops")
    assert process.stdout is not None and process.stdout.readline() == "[True]\n"
    assert seats.end_holder("ops", signal.SIGCONT, 0.0), "it was told, and is not waited for any longer"
    assert seats.holder("ops") == process.pid
    assert seats.end_holder("ops", signal.SIGTERM, 60.0)
    assert seats.holder("ops") is None
    end(process)
    assert process.returncode == -signal.SIGTERM


def test_a_home_that_cannot_be_locked_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="cannot be opened"):
        Seats(Home(tmp_path / "missing"))


def test_the_first_death_is_repaired_at_once_and_later_ones_ever_slower() -> None:
    assert delay(1) == 0.0
    assert delay(2) == FIRST
    assert [delay(n + 1) / delay(n) for n in range(2, 7)] == [2.0] * 5
    assert delay(50) == MOST
