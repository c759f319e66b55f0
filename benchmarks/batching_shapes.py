"""Batching policies on simulated models: what adaptive gains and costs against eager and a fixed window.

    python benchmarks/batching_shapes.py [--seconds 30] [--seed 0]

A discrete-event simulation of one replica: the policies are the production code, only the model's time t(n) and the
clients are made up. Closed: each client sends its next request 1 ms (exponential) after its answer. Open: Poisson
arrivals. Adaptive learns t(n) from noisy runs (5 %, and one in a hundred takes 5 times as long) as it goes; nothing is
told to it. Printed per shape and load: requests a second, mean and 99th percentile of latency, and the share answered
within the SLO of 0.25 s. Wanted: adaptive at >= 0.95 of eager's throughput everywhere, and never a smaller share.
"""

from __future__ import annotations

import argparse
import heapq
import random
from collections.abc import Callable
from typing import NamedTuple

from leptonai.runtime.batching import Adaptive, Batcher, Eager, Job, Queue, enqueue
from leptonai.runtime.cost import Cost
from leptonai.types import Batching, Tuning

SLO = 0.25
SHAPES: dict[str, Callable[[int], float]] = {
    "small: 60 us + 25 us n": lambda n: 60e-6 + 25e-6 * n,
    "line: 5 ms + 1 ms n": lambda n: 5e-3 + 1e-3 * n,
    "fixed: 20 ms": lambda n: 20e-3,
    "no gain: 4 ms n": lambda n: 4e-3 * n,
    "steps: 5 ms a power of two": lambda n: 5e-3 * (1 << (n - 1).bit_length()) ** 0.5,
    "bends up: 2 ms n^1.3": lambda n: 2e-3 * n**1.3,
    "slow: 50 ms + 8 ms n": lambda n: 50e-3 + 8e-3 * n,
}
LOADS = {"1 client": 1, "16 clients": 16, "64 clients": 64, "open, 0.7 of full batches": 0.7, "open, 0.95": 0.95}
POLICIES: dict[str, Callable[[Cost], Batcher]] = {
    "adaptive": lambda cost: Adaptive(Tuning(batching=Batching(), latency=SLO), cost),
    "eager": lambda cost: Eager(Batching(policy="eager")),
    "window 5 ms": lambda cost: Eager(Batching(policy="eager", max_wait=5e-3)),
}


class _Alive:
    gone = False


class Outcome(NamedTuple):
    rate: float  # answers a second
    mean: float  # seconds
    p99: float
    kept: float  # share within the SLO
    batch: float  # mean samples


def simulate(
    make: Callable[[Cost], Batcher], shape: Callable[[int], float], load: float, seconds: float, seed: int
) -> Outcome:
    """One replica for so many simulated seconds; the first fifth is for learning and not counted."""
    r, luck = random.Random(seed), random.Random(seed + 1)  # of the clients, of the runs
    cost = Cost()
    policy = make(cost)
    now, queue, alive = 0.0, Queue(), _Alive()
    coming: list[float] = []
    full = 32 / shape(32)
    if load >= 1:
        coming = [r.expovariate(1000.0) for _ in range(int(load))]
        heapq.heapify(coming)
    else:
        coming = [r.expovariate(load * full)]
    waits: list[float] = []
    batches = 0
    while now < seconds:
        while coming and coming[0] <= now:
            at = heapq.heappop(coming)
            enqueue(queue, [Job({}, 1, "k", arrived=at, deadline=at + 30.0, request=alive)])
            if load < 1:
                heapq.heappush(coming, at + r.expovariate(load * full))
        if not queue:
            now = coming[0]
            continue
        got = policy.next_batch(queue, now)
        if isinstance(got, float):
            now = min([now + max(got, 1e-6), *coming[:1]])
            continue
        took = shape(len(got)) * max(0.5, luck.gauss(1.0, 0.05)) * (5.0 if luck.random() < 0.01 else 1.0)
        now += took
        cost.saw(len(got), took, now)
        if now > seconds / 5:
            batches += 1
            waits += [now - job.arrived for job in got]
        if load >= 1:
            for _ in got:
                heapq.heappush(coming, now + r.expovariate(1000.0))
    waits.sort()
    count = len(waits)
    kept = sum(w <= SLO for w in waits) / count
    return Outcome(
        count / (seconds * 0.8), sum(waits) / count, waits[int(count * 0.99) - 1], kept, count / max(1, batches)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    worst, lost = 9.0, 0.0
    for name, shape in SHAPES.items():
        print(name)
        for load, value in LOADS.items():
            got = {p: simulate(make, shape, value, asked.seconds, asked.seed) for p, make in POLICIES.items()}
            for policy, o in got.items():
                print(
                    f"  {load:26} {policy:12} {o.rate:9.1f}/s  mean {o.mean * 1e3:8.2f}  p99 {o.p99 * 1e3:8.2f} ms"
                    f"  within the SLO {o.kept:6.1%}  batch {o.batch:5.1f}"
                )
            ours, theirs = got["adaptive"], got["eager"]
            worst, lost = min(worst, ours.rate / theirs.rate), max(lost, theirs.kept - ours.kept)
    print(f"adaptive / eager, the worst throughput {worst:.2f} (wanted >= 0.95), SLO share lost at most {lost:.1%}")


if __name__ == "__main__":
    main()
