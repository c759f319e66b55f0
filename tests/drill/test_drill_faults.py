"""The one who breaks things hits the process that computes, not one in front of it."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from leptonai.drill.faults import computing, signal_replica
from leptonai.errors import PlatformError
from leptonai.types import Replica

FRONT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1], sys.argv[2]])"
LISTEN = """
import socket, sys, time
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print("listening", flush=True); time.sleep(600)
"""


@pytest.fixture
def fronted(tmp_path: Path) -> Iterator[tuple[Replica, psutil.Process]]:
    """A replica whose recorded pid is only a parent of the process that listens on its socket."""
    socket = tmp_path / "r.sock"
    front = subprocess.Popen([sys.executable, "-c", FRONT, LISTEN, str(socket)], stdout=subprocess.PIPE, text=True)
    assert front.stdout and front.stdout.readline() == "listening\n"
    child = psutil.Process(front.pid).children()[0]
    yield (
        Replica(
            id="r1",
            service="digits",
            variant="main",
            digest="0" * 16,
            state="ready",
            since=0.0,
            address=f"unix:{socket}",
            pid=front.pid,
        ),
        child,
    )
    child.kill()
    front.wait(30)
    front.stdout.close()


def test_the_listening_child_is_stopped_and_its_parent_is_not(fronted: tuple[Replica, psutil.Process]) -> None:
    replica, child = fronted
    assert computing(replica) == child.pid
    injection = signal_replica("stop", replica, signal.SIGSTOP)
    assert (injection.kind, injection.replica, injection.pid) == ("stop", "r1", child.pid)
    deadline = time.monotonic() + 30  # a signal is taken up when its process is next scheduled
    while child.status() != psutil.STATUS_STOPPED and time.monotonic() < deadline:
        time.sleep(0.01)
    assert child.status() == psutil.STATUS_STOPPED
    assert psutil.Process(replica.pid).status() != psutil.STATUS_STOPPED


def test_a_replica_that_nothing_listens_for_is_an_error_not_a_signal_to_anyone() -> None:
    nobody = Replica(
        id="r2", service="digits", variant="main", digest="0" * 16, state="ready", since=0.0, address="unix:/nowhere"
    )
    with pytest.raises(PlatformError, match="r2 has no one process"):
        signal_replica("kill", nobody, signal.SIGKILL)
