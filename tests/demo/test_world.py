"""The demo as a newcomer runs it, cut to one fault, and cut short; nothing of it may be left."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.world, pytest.mark.timeout(240)]
LEPTONAI = str(Path(sys.executable).parent / "leptonai")


@contextlib.contextmanager
def demo(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # of a shell's background job, and inherited by the demo
        signal.signal(signal.SIGINT, signal.default_int_handler)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LEPTONAI_")} | {"TMPDIR": str(folder)}
    with subprocess.Popen(
        [LEPTONAI, "demo", *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
                process.communicate(timeout=90)


def left_behind(folder: Path) -> list[str]:
    """Processes that were told of the folder, and files in it."""
    found = [str(p) for p in folder.iterdir()]
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            told = " ".join([*process.cmdline(), process.environ().get("LEPTONAI_HOME", "")])
            if str(folder) in told and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {told}")
    return found


def nothing_left(folder: Path) -> bool:
    deadline = time.monotonic() + 30
    while left_behind(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left_behind(folder) == []


def test_a_killed_replica_is_replaced_and_explained_and_nothing_is_left(tmp_path: Path) -> None:
    with demo(tmp_path, "--only", "kill", "--json", "--seed", "3") as process:
        out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err + out
    report = json.loads(out)
    assert report["repaired"] and report["false_alarms"] == [] and report["accuracy"] > 0.95
    (kill,) = report["outcomes"]
    assert (kill["cause"], kill["remedy"], kill["harm"]) == ("replica_killed", "none: reconciled", [])
    assert 0 < kill["detect"] <= kill["diagnose"] <= kill["recover"]
    assert kill["sent"] > 0 and kill["failed"] == 0
    assert nothing_left(tmp_path), left_behind(tmp_path)


def test_interrupted_in_the_middle_everything_is_taken_down(tmp_path: Path) -> None:
    with demo(tmp_path, "--only", "stop", "--json") as process:
        assert process.stderr
        for line in process.stderr:
            if line.startswith("serving:"):
                break
        assert left_behind(tmp_path)  # or the check below would prove nothing
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=90)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert nothing_left(tmp_path), left_behind(tmp_path)
