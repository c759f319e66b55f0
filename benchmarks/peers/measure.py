"""One server under wrk: requests a second, latency, CPU and proportional memory of its whole process tree."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import statistics
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from rich.console import Console
from rich.table import Table

MARK = "BENCH_RUN"  # in the environment of everything a run starts: that is how its processes are found again
PATIENCE = 90.0  # seconds until a server must answer


@dataclass(frozen=True)
class Run:
    scenario: str
    server: str
    rate: float  # requests a second
    p50: float  # ms
    p99: float  # ms
    errors: int  # answers other than 2xx or 3xx, and socket errors
    memory: float  # MiB, proportional set size of every process
    path_memory: float  # MiB, of those between client and model only
    start: float  # seconds from nothing (ours: from deploy) to the first 200

    def line(self) -> str:
        return f"{self.server:9} {self.rate:8.0f}/s p50 {self.p50:7.2f} ms p99 {self.p99:7.2f} ms errors {self.errors}"


@dataclass
class Server:
    url: str
    body: bytes
    headers: Mapping[str, str]
    mark: str
    start: float
    folder: Path
    path_only: tuple[str, ...] = ()  # words of the command lines on the serving path; (): all of them

    def measure(self, scenario: str, name: str, connections: int, seconds: int) -> Run:
        script = self.folder / "wrk.lua"
        data = self.folder / "body.bin"
        data.write_bytes(self.body)
        heads = "".join(f'wrk.headers["{k}"] = "{v}"\n' for k, v in self.headers.items())
        script.write_text(f'local f = io.open("{data}", "rb")\nwrk.method = "POST"\nwrk.body = f:read("*a")\n{heads}')
        wrk(self.url, script, connections, 1)  # caches, branch predictors and cost models are warm
        text = wrk(self.url, script, connections, seconds)
        errors = sum(int(n) for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", text))
        errors += sum(int(n) for line in re.findall(r"Socket errors: (.*)", text) for n in re.findall(r"\d+", line))
        tree = of_run(self.mark, self.folder)
        return Run(
            scenario,
            name,
            float(found(r"Requests/sec:\s+([\d.]+)", text)),
            milliseconds(r"50%\s+([\d.]+)(us|ms|s)", text),
            milliseconds(r"99%\s+([\d.]+)(us|ms|s)", text),
            errors,
            sum(pss(p) for p in tree),
            sum(pss(p) for p in tree if not self.path_only or on_path(p, self.path_only)),
            self.start,
        )


def wrk(url: str, script: Path, connections: int, seconds: int) -> str:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), url]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise SystemExit(f"wrk said something unexpected:\n{text}")
    return match[1]


def milliseconds(pattern: str, text: str) -> float:
    match = re.search(pattern, text)
    if match is None:
        raise SystemExit(f"wrk said something unexpected:\n{text}")
    return float(match[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[match[2]]


def of_run(mark: str, folder: Path) -> list[psutil.Process]:
    """Every process that inherited the mark or was told of the folder, however it was re-parented."""
    here = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark or any(str(folder) in word for word in process.cmdline()):
                here.append(process)
    return here


def on_path(process: psutil.Process, words: tuple[str, ...]) -> bool:
    with contextlib.suppress(psutil.Error):
        line = " ".join(process.cmdline())
        return any(word in line for word in words)
    return False


def pss(process: psutil.Process) -> float:
    """MiB of memory with shared pages divided among those who share them (/proc/PID/smaps_rollup)."""
    with contextlib.suppress(OSError):
        return int(found(r"Pss:\s+(\d+) kB", Path(f"/proc/{process.pid}/smaps_rollup").read_text())) / 1024
    return 0.0


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def until_answered(url: str, body: bytes, headers: Mapping[str, str], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    with httpx.Client(trust_env=False, timeout=5) as client:
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError):
                if client.post(url, content=body, headers=dict(headers)).status_code == 200:
                    return
            time.sleep(0.02)
    raise SystemExit(f"{what} did not answer 200 at {url} within {PATIENCE:.0f} s")


@contextlib.contextmanager
def processes(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A mark and an environment that carries it; whatever carries it at the end is killed."""
    mark = uuid.uuid4().hex
    try:
        yield mark, os.environ | {MARK: mark, "BENCH_FOLDER": str(folder)}
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in of_run(mark, folder):
                with contextlib.suppress(psutil.Error):
                    process.send_signal(number)
            psutil.wait_procs(of_run(mark, folder), timeout=3)


def table(scenario: str, runs: list[Run]) -> None:
    """Medians over the rounds, and each figure of ours against the best peer's."""
    columns = ("rate", "p50", "p99", "memory", "path_memory", "start")
    medians = {
        s: {c: statistics.median(getattr(r, c) for r in runs if r.server == s) for c in columns}
        for s in dict.fromkeys(r.server for r in runs)
    }
    peers = [m for s, m in medians.items() if s not in ("leptonai", "lean")]
    shown = Table("server", "req/s", "p50 ms", "p99 ms", "PSS MiB", "of the path", "start s", title=scenario)
    for server, m in medians.items():
        cells = [f"{m[c]:.2f}" for c in columns[1:3]] + [f"{m[c]:.0f}" for c in columns[3:5]]
        shown.add_row(server, f"{m['rate']:,.0f}", *cells, f"{m['start']:.1f}")
    if peers and "leptonai" in medians:
        best = max(p["rate"] for p in peers)
        low = {c: min(p[c] for p in peers) for c in columns[1:]}
        mine = medians["leptonai"]
        ratios = [f"{mine[c] / low[c]:.2f}x" for c in columns[1:]]
        shown.add_row("ours / best peer", f"{mine['rate'] / best:.2f}x", *ratios)
    Console(width=110).print(shown)
