"""The first process of a container takes in what others leave behind, and waits for its own children itself."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import ctypes, os, subprocess, time
from leptonai.daemon.parent import reap

assert ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER: as process 1 is
out = subprocess.run(["sh", "-c", "sleep 0 & echo $!"], capture_output=True, text=True).stdout
orphan = int(out)
own = subprocess.Popen(["true"])
os.waitid(os.P_PID, own.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is ours to wait for
deadline = time.monotonic() + 60
while os.path.exists(f"/proc/{orphan}"):
    reap({own.pid} if time.monotonic() % 2 < 1 else set())
    assert time.monotonic() < deadline
    time.sleep(0.01)
fresh = subprocess.Popen(["true"])
os.waitid(os.P_PID, fresh.pid, os.WEXITED | os.WNOWAIT)
reap({fresh.pid})
assert fresh.wait() == 0 and fresh.returncode == 0
reap(set())
print("none is left")
"""


def test_no_zombie_is_left_and_no_child_s_end_is_taken_from_who_waits_for_it() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=100)
    assert done.stdout == "none is left\n", done.stderr
