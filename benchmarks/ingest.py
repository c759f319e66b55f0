"""What telemetry costs to take in and to read back.

    python benchmarks/ingest.py [--read-series 100000] [--read-seconds 3600]

1. Remote-write, the whole way in one thread: unpack, decode, append to the log, put into memory. One sample a series,
   eight labels, snappy, 2,000 a request. The wall clock of the thread and, apart, the CPU of the process (which also
   turns logs into segments in another thread).
2. Reading back: so many series once a second for so long, written as segments by the store itself, then all of one
   name (1,000 series) over the whole time from an opened store whose memory holds none of it.
"""

from __future__ import annotations

import argparse
import resource
import struct
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from leptonai.ops.receive import Receiver
from leptonai.platforms.embedded import Embedded
from leptonai.settings import Telemetry

SERIES, BATCH = 20_000, 2_000
START = 1_700_000_000


def varint(n: int) -> bytes:
    out = b""
    while n > 0x7F:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def field(tag: int, content: bytes) -> bytes:
    return bytes([tag]) + varint(len(content)) + content


def labels(i: int) -> bytes:
    pairs = {"__name__": f"metric_{i % 20}_count", "instance": f"10.0.{i % 50}.7:9100", "job": "node", "line": str(i)}
    pairs |= {"zone": "eu-1a", "cluster": "plant-3", "tenant": "press", "unit": f"u{i % 7}"}
    return b"".join(field(0x0A, field(0x0A, k.encode()) + field(0x12, v.encode())) for k, v in pairs.items())


def taking(rounds: int) -> None:
    known = [labels(i) for i in range(SERIES)]
    bodies = []
    for r in range(rounds):
        moment = varint((START + r) * 1000)
        for b in range(0, SERIES, BATCH):
            sent = b"".join(
                field(0x0A, known[i] + field(0x12, b"\x09" + struct.pack("<d", i + r / 7) + b"\x10" + moment))
                for i in range(b, b + BATCH)
            )
            bodies.append(pa.Codec("snappy").compress(sent, asbytes=True))
    with tempfile.TemporaryDirectory() as folder:
        settings = Telemetry()
        store = Embedded(Path(folder), settings=settings, clock=lambda: float(START + rounds))
        receiver = Receiver(store, settings, lambda: float(START + rounds))
        per_round = SERIES // BATCH
        for body in bodies[:per_round]:  # first sight of every series: labels are decoded once
            receiver.remote_write(body)
        wall, thread, cpu = time.perf_counter(), time.thread_time(), time.process_time()
        for body in bodies[per_round:]:
            receiver.remote_write(body)
        wall, thread = time.perf_counter() - wall, time.thread_time() - thread
        store.seal()
        store.settle()
        cpu = time.process_time() - cpu
        n = SERIES * (rounds - 1)
        assert receiver.counts["default", "taken"] == n + SERIES and not store.counts
        print(f"remote-write: {n} samples: {n / thread:,.0f} a second of CPU of the receiving thread")
        print(
            f"              {n / wall:,.0f} a second of wall clock, {n / cpu:,.0f} a second of CPU, segments included"
        )
        store.close()


def reading(series: int, seconds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        clock = [float(START)]
        store = Embedded(Path(folder), settings=Telemetry(retain_bytes=1 << 40), clock=lambda: clock[0])
        names = [f"metric_{i // 1000}_count" for i in range(series)]
        ids = np.array([store.series(n, {"line": str(i), "job": "node"}) for i, n in enumerate(names)], np.int32)
        chance = np.random.default_rng(0)
        level = chance.normal(100.0, 10.0, series)
        began = time.perf_counter()
        for s in range(seconds):
            level += chance.normal(0.0, 0.1, series)
            clock[0] = START + s
            store.append(ids, np.full(series, clock[0]), np.round(level, 3))
            if s % 30 == 29:
                store.settle()
        store.seal()
        store.close()
        wrote = time.perf_counter() - began
        size = sum(p.stat().st_size for p in Path(folder).glob("segments/*"))
        store = Embedded(Path(folder), settings=Telemetry(retain_bytes=1 << 40))
        for turn in ("first", "second"):
            began = time.perf_counter()
            found = store.read("metric_0_count", START, START + seconds)
            took = time.perf_counter() - began
            points = sum(len(f.at) for f in found)
            assert points == min(series, 1000) * seconds and not store.counts
            print(
                f"read back: {len(found)} of {series} series x {seconds} s, {turn} time: {took:.2f} s ({points} points)"
            )
        began = time.perf_counter()
        store.read("metric_0_count", START, START + seconds, step=60.0)
        print(f"           the same as means per minute: {time.perf_counter() - began:.2f} s")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        files = len(list(Path(folder).glob("segments/*")))
        print(f"           {series * seconds} samples in {files} segments, {size / (series * seconds):.1f} bytes each,")
        print(f"           written in {wrote:.0f} s; peak RSS {peak >> 10} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--read-series", type=int, default=100_000)
    parser.add_argument("--read-seconds", type=int, default=3600)
    given = parser.parse_args()
    taking(given.rounds)
    sys.stdout.flush()
    reading(given.read_series, given.read_seconds)
