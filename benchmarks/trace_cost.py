"""What traces cost a request: the gateway's CPU with and without its lines, and the replica's line with its phases.

    python benchmarks/trace_cost.py [--rounds 5] [--seconds 3] [--connections 32]

One replica (a class that returns its argument) behind three Envoys that differ in their access log alone: none, the
default (failed, slow, 1 % of the others), and a line for every request (the most it can cost). wrk asks them in turn;
CPU a request of each Envoy is read from /proc, medians over the rounds. Then the replica's prediction line is encoded
with and without a traceparent and three phases. Wanted: the default costs <= 5 %.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from gateway_cost import WRK, answers, configure, free_port, measure, prepare_replica, process, reachable, until

from leptonai.runtime.predictions import Prediction


def gateways(rounds: int, seconds: int, connections: int) -> None:
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        path, script = folder / "replica.sock", folder / "post.lua"
        script.write_text(WRK)
        stack.enter_context(process(prepare_replica(folder, path), folder / "replica.log"))
        until(lambda: answers(path, "/predict"), "the replica")
        asked = {}
        for kind in ("none", "default", "every"):
            port = free_port()
            command = configure(folder / kind, port, {"replica": path})
            listeners = folder / kind / "lds.json"
            made = json.loads(listeners.read_bytes())
            manager = made["resources"][0]["filter_chains"][0]["filters"][0]["typed_config"]
            if kind == "none":
                del manager["access_log"]
            elif kind == "every":
                del manager["access_log"][0]["filter"]
            listeners.write_bytes(json.dumps(made).encode())
            pid = stack.enter_context(process(command, folder / f"{kind}.log")).pid
            asked[kind] = (f"http://127.0.0.1:{port}/services/replica/predict", pid)
            until(lambda url=asked[kind][0]: reachable(url), kind)  # type: ignore[misc]
        for url, pid in asked.values():
            measure(url, pid, script, 2, connections)
        found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in asked}
        for _ in range(rounds):
            for kind, (url, pid) in asked.items():
                sample = measure(url, pid, script, seconds, connections)
                found[kind].append((sample.rate, sample.cpu))
    base = statistics.median(cpu for _, cpu in found["none"])
    for kind, got in found.items():
        rate, cpu = (statistics.median(v) for v in zip(*got, strict=True))
        print(f"gateway, lines: {kind:8} {rate:8.0f} req/s  {cpu:6.1f} us CPU of Envoy a request  {cpu / base:.3f}")


def lines(many: int = 100_000) -> None:
    encoder = msgspec.json.Encoder()
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    plain = [Prediction("0b7c9b6e-41d3-4b1e-9d4e-9a0c2f3e4d5a", 1.7e9, "d" * 16, 0.00123, 200, [1.0])] * many
    full = [msgspec.structs.replace(plain[0], trace=trace, queue=1.1e-4, wait=1.2e-5, compute=9.3e-4)] * many
    for what, batch in (("without", plain), ("with", full)):
        best = min(_time(encoder, batch) for _ in range(5))
        print(f"prediction line {what:8} phases: {best / many * 1e6:.2f} us, in the thread that writes it")


def _time(encoder: msgspec.json.Encoder, batch: list[Prediction]) -> float:
    began = time.thread_time()
    encoder.encode_lines(batch)
    return time.thread_time() - began


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=32)
    given = parser.parse_args()
    lines()
    sys.stdout.flush()
    gateways(given.rounds, given.seconds, given.connections)
