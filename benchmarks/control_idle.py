"""What a platform costs when nothing happens, and what users notice when its own processes are killed.

    python benchmarks/control_idle.py               # about a minute and a half
    python benchmarks/control_idle.py --seconds 10 --json

Ten services with one replica each (plain Python models) run on a platform of their own, brought up as a person does.
CPU is the share of one core over the measured stretch, RSS what it ends with. Then 64 keep-alive connections from a
process of its own ask one service while control, ops and parent get ``kill -9``. The exit code says whether the goals,
which the project set itself, hold.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from leptonai.client import Client
from leptonai.client.home import Home
from leptonai.daemon.seats import NAMES, Seats
from leptonai.errors import PlatformError
from leptonai.serve import spec as texts

MODEL = """
class Double:
    def predict(self, x: float) -> float:
        return 2 * x
"""
SERVICES = 10
SETTLE = 5.0  # seconds for starting to be over
GOALS: dict[str, tuple[float, float]] = {"control": (0.03, 150e6), "ops": (0.05, float("inf"))}  # CPU share, bytes
IMPORT_GOAL = 0.3  # seconds


def cli(home: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "leptonai.cli", "--home", str(home), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def wait(true: Callable[[], Any], what: str, patience: float = 60.0) -> float:
    """Seconds until it was so."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > patience:
            raise TimeoutError(what)
        time.sleep(0.02)
    return time.monotonic() - began


def answers(client: Client) -> bool:
    try:
        return bool(client.services())
    except PlatformError:
        return False


def import_seconds() -> float:
    """Median of seven fresh interpreters, each timing ``import leptonai`` alone."""
    code = "import time; t = time.perf_counter(); import leptonai; print(time.perf_counter() - t)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(7)]
    return statistics.median(float(done.stdout) for done in runs)


def idle(seats: Seats, client: Client, seconds: float) -> dict[str, dict[str, float]]:
    """CPU share and RSS of each process of ours while nobody asks anything but ops."""
    processes = {name: psutil.Process(seats.holder(name) or 0) for name in NAMES}
    described = client.platform()
    processes |= {name: psutil.Process(described[name]["pid"]) for name in ("gateway", "edge")}
    before = {name: sum(p.cpu_times()[:2]) for name, p in processes.items()}
    began = time.monotonic()
    time.sleep(seconds)
    gone = time.monotonic() - began
    return {
        name: {"cpu": (sum(p.cpu_times()[:2]) - before[name]) / gone, "rss": float(p.memory_info().rss)}
        for name, p in processes.items()
    }


def kills(seats: Seats, client: Client, url: str) -> dict[str, Any]:
    """What one load generator saw while each process of ours was killed; seconds until each was back at work."""
    generator = [sys.executable, str(Path(__file__).with_name("availability.py")), "--generate", url]
    load = subprocess.Popen(generator, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    back: dict[str, float] = {}
    time.sleep(2.0)
    for name in ("control", "ops", "parent"):
        pid = seats.holder(name)
        os.kill(pid or 0, signal.SIGKILL)
        back[name] = wait(lambda n=name, old=pid: seats.holder(n) not in (None, old), f"{name} is back")
        if name == "control":
            back[name] += wait(lambda: answers(client), "control answers")
        time.sleep(2.0)
    out, _ = load.communicate("enough\n", timeout=60)
    return {**json.loads(out), "back": back}


def measure(seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="leptonai-bench-") as folder:
        home = Path(folder) / "home"
        model = Path(folder) / "double.py"
        model.write_text(MODEL)
        spec, _ = texts.load(model)
        cli(home, "up", "--api-port", "0", "--gateway-port", "0")
        try:
            seats = Seats(Home(home))
            with Client(home=home) as client:
                views = [
                    client.deploy(texts.parse({"name": f"double-{n}", "model": spec.variants[0].model}))
                    for n in range(SERVICES)
                ]
                time.sleep(SETTLE)
                found: dict[str, Any] = {"services": SERVICES, "seconds": seconds, "import": import_seconds()}
                found["idle"] = idle(seats, client, seconds)
                found["kills"] = kills(seats, client, views[0].url)
        finally:
            cli(home, "down")
        return found


def judge(found: dict[str, Any]) -> list[tuple[bool, str]]:
    lines = [(found["import"] < IMPORT_GOAL, f"import leptonai: {found['import'] * 1e3:.1f} ms (goal: < 300 ms)")]
    for name, seen in found["idle"].items():
        cpu, rss = GOALS.get(name, (float("inf"), float("inf")))
        goal = f" (goal: < {cpu:.0%} of a core" + (f", < {rss / 1e6:.0f} MB)" if rss < 1e12 else ")")
        text = f"{name}, idle, {found['services']} services: {seen['cpu']:.2%} of a core, {seen['rss'] / 1e6:.0f} MB"
        lines.append((seen["cpu"] < cpu and seen["rss"] < rss, text + (goal if name in GOALS else "")))
    seen = found["kills"]
    back = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in seen["back"].items())
    text = f"kill -9 of control, ops, parent: sent {seen['sent']:,}, failed {seen['failed']:,} (goal: 0); back: {back}"
    lines.append((seen["failed"] == 0, text))
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long idling is measured")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = measure(asked.seconds)
    lines = judge(found)
    if asked.json:
        print(json.dumps(found, indent=2))
    else:
        for held, text in lines:
            print("ok " if held else "NOT", text)
    return 0 if all(held for held, _ in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
