"""What OTLP metrics cost to take in, and what an agent costs the machine it watches.

    python benchmarks/otlp.py [--rounds 20] [--seconds 20]

1. 2,000 data points a request, 8 attributes each, one point a series, protobuf and JSON, plain: decoded, named, kept in
   log and memory, in one thread; beside it the same samples by remote-write in the same run.
2. ``leptonai agent`` as a process against a receiver that takes everything: its CPU and memory from /proc, with one log
   file of 100 lines a second and two process names.
"""

from __future__ import annotations

import argparse
import http.server
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from leptonai.ops.feeds import Feeds
from leptonai.platforms.embedded import Embedded
from leptonai.platforms.prometheus.encode import encode, label_bytes
from leptonai.settings import Settings

SERIES, BATCH, START = 20_000, 2_000, 1_700_000_000


def labels(i: int) -> dict[str, str]:
    pairs = {"instance": f"10.0.{i % 50}.7:9100", "line": str(i), "zone": "eu-1a", "cluster": "plant-3"}
    return pairs | {"tenant": "press", "unit": f"u{i % 7}", "room": f"r{i % 11}", "rack": f"k{i % 13}"}


def bodies(rounds: int) -> tuple[list[Any], list[bytes]]:
    otlp, remote = [], []
    known = [label_bytes(f"metric_{i % 20}_count", labels(i)) for i in range(SERIES)]
    for r in range(rounds):
        for b in range(0, SERIES, BATCH):
            sent = ExportMetricsServiceRequest()
            metrics = sent.resource_metrics.add().scope_metrics.add().metrics
            for kind in range(20):
                metric = metrics.add()
                metric.name = f"metric.{kind}.count"
                for i in range(b + kind, b + BATCH, 20):
                    point = metric.gauge.data_points.add()
                    point.time_unix_nano, point.as_double = (START + r) * 1_000_000_000, i + r / 7
                    for key, value in labels(i).items():
                        pair = point.attributes.add()
                        pair.key, pair.value.string_value = key, value
            otlp.append(sent)
            remote.append(encode((known[i], [(START + r, i + r / 7)]) for i in range(b, b + BATCH)))
    return otlp, remote


def taking(rounds: int) -> None:
    messages, remote = bodies(rounds)
    now = float(START + rounds)
    for what in ("remote-write", "OTLP protobuf", "OTLP JSON"):
        few = messages if what == "OTLP protobuf" else messages[: 3 * SERIES // BATCH]
        if what == "remote-write":
            sent, kind = remote, ""
        elif what == "OTLP protobuf":
            sent, kind = [m.SerializeToString() for m in few], "application/x-protobuf"
        else:
            sent, kind = [json_format.MessageToJson(m, indent=None).encode() for m in few], "application/json"
        with tempfile.TemporaryDirectory() as folder:
            store = Embedded(Path(folder), settings=Settings().telemetry, clock=lambda: now)
            feeds = Feeds(None, Settings(), store, lambda: now)

            def take(body: bytes, kind: str = kind, feeds: Feeds = feeds) -> None:
                if kind:
                    feeds.otlp("metrics", body, kind, "", "default")
                else:
                    feeds.receiver.remote_write(body)

            first = SERIES // BATCH
            for body in sent[:first]:
                take(body)
            began = time.thread_time()
            for body in sent[first:]:
                take(body)
            spent = time.thread_time() - began
            n = (len(sent) - first) * BATCH
            assert feeds.receiver.counts["default", "taken"] == n + SERIES
            print(f"{what:14}: {n:,} samples, {n / spent:,.0f} a second of CPU of the receiving thread", flush=True)
            store.close()


class Taker(http.server.BaseHTTPRequestHandler):
    taken = 0

    def do_POST(self) -> None:
        Taker.taken += len(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None: ...


def agent(seconds: float) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Taker)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "a.log"
        log.write_text("")
        command = [sys.executable, "-m", "leptonai.cli", "agent", "--to", f"http://127.0.0.1:{server.server_port}"]
        command += ["--token", "x", "--buffer", f"{folder}/b", "--log", str(log), "--process", "python"]
        process = subprocess.Popen([*command, "--process", "bash"], stderr=subprocess.DEVNULL)
        try:
            time.sleep(5.0)  # its start is not its cost
            seen = psutil.Process(process.pid)
            before, bytes_before, began = seen.cpu_times(), Taker.taken, time.monotonic()
            while time.monotonic() - began < seconds:
                with log.open("a") as out:
                    out.write("2026-01-01 12:00:00 INFO a stroke of the press, 20.5 degrees\n" * 100)
                time.sleep(1.0)
            after, took = seen.cpu_times(), time.monotonic() - began
            cpu = (after.user + after.system - before.user - before.system) / took
            sent = (Taker.taken - bytes_before) / took
            print(f"agent: {100 * cpu:.2f} % of a core, {seen.memory_info().rss >> 20} MB, {sent:,.0f} bytes/s sent")
        finally:
            process.terminate()
            process.wait(20)
            server.shutdown()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20.0)
    given = parser.parse_args()
    taking(given.rounds)
    agent(given.seconds)
