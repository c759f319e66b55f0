"""Is a service's first limit named, and the load at which it bites, from telemetry below it?

    python benchmarks/advisor.py simulated [--worlds 10] [--part development|held-out]
    python benchmarks/advisor.py calibrate [--worlds 10]     # the widths of leptonai/ops/advise/wide.py
    python benchmarks/advisor.py live [--seconds 30]

simulated: services drawn at random (leptonai/ops/simulate/ramp.py), each driven request by request until its promise
breaks: that is the truth. The advisor sees ten minutes of telemetry well below. Development: six kinds of service
under two shapes of load; held out: three kinds never looked at, and all kinds under the two other shapes. Peer: linear
extrapolation of processor use (of the busiest of replica and machine), which names the processors.

live: a service that computes and one that waits for what it calls, one after the other on a platform of its own,
remedies frozen. Users ask at four loads below half of what one request's time suggests; then the advice is asked for;
then they ask ever more until more than 5 % of the answers of a step are late or fail, twice in a row. Each step tells
what the machine gave the replicas, since others may use it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from leptonai.ops.advise import advise
from leptonai.ops.advise.wide import ALL, KINDS
from leptonai.ops.simulate.ramp import FAMILIES, Family, Ramp, draw, limit, observe
from leptonai.ops.simulate.system import SHAPES, Shape
from leptonai.types import (
    Batching,
    Dials,
    Limits,
    RateLimit,
    Resources,
    Scale,
    Series,
    Service,
    Slo,
    Spec,
    Variant,
    VariantDials,
)

HELD_FAMILIES: tuple[Family, ...] = ("caller", "pool", "stuffed")
HELD_SHAPES: tuple[Shape, ...] = ("bursts", "flash")
PEAK = {"steady": 1.05, "daily": 1.4, "bursts": 1.65, "flash": 1.65}  # of the mean, at most
SECONDS = 600.0


def service_of(world: Ramp) -> Service:
    variant = Variant(
        model="sha256:" + "0" * 64,
        batching=Batching(max_size=world.size, max_queue=world.queue),
        resources=Resources(memory=None if world.memory is None else int(world.memory)),
    )
    spec = Spec(
        name="s",
        variants=(variant,),
        slo=Slo(latency=world.slo, latency_objective=0.99),
        scale=Scale(replicas=world.replicas),
        limits=Limits(requests=world.requests),
        rate_limit=None if world.rate is None else RateLimit(rate=world.rate),
    )
    dials = Dials(variants={"main": VariantDials(replicas=world.replicas)})
    return Service(spec=spec, dials=dials, revision=1)


def naive(world: Ramp, series: Mapping[str, Sequence[Series]]) -> float:
    """Processor use, extrapolated linearly to one processor a replica or the whole machine."""
    rate = float(np.nanmean(series["request_rate_per_second"][0].value))
    replica = float(np.nanmean(series["replica_cpu_ratio"][0].value)) / world.replicas
    host = float(np.nanmean(series["host_cpu_ratio"][0].value))
    return rate / max(replica, host, 1e-9)


def one(task: tuple[int, Family, Shape]) -> dict[str, Any]:
    seed, family, shape = task
    rng = np.random.default_rng([seed, FAMILIES.index(family), SHAPES.index(shape), 17])
    world = draw(family, rng)
    load, name = limit(world, seed)
    mean = load * float(rng.uniform(0.3, 0.8)) / PEAK[shape]
    seen = observe(world, shape, mean, SECONDS, seed + 100)
    cost = (world.each, world.fixed) if world.size > 1 else None
    found = advise(service_of(world), world.replicas, seen, 0.0, SECONDS, cores=world.cores, cost=cost)
    first = found.first
    return {
        "seed": seed, "family": family, "shape": shape, "true": load, "limit": name, "mean": mean,
        "told": first.load if first else None, "name": first.name if first else None,
        "low": first.low if first else None, "high": first.high if first else None,
        "share": first.first_share if first else 0.0, "naive": naive(world, seen), "what": first.what if first else "",
    }  # fmt: skip


def tasks(part: str, worlds: int, seed: int) -> list[tuple[int, Family, Shape]]:
    out: list[tuple[int, Family, Shape]] = []
    for n in range(worlds):
        for family in FAMILIES:
            for shape in SHAPES:
                held = family in HELD_FAMILIES or shape in HELD_SHAPES
                if held == (part == "held-out"):
                    out.append((seed + n, family, shape))
    return out


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    known = [r for r in rows if r["told"] is not None]
    error = np.array([abs(r["told"] / r["true"] - 1.0) for r in known])
    line = np.array([abs(r["naive"] / r["true"] - 1.0) for r in rows])
    processors = ("cpu", "compute")
    return {
        "worlds": len(rows),
        "told": len(known) / max(len(rows), 1),
        "error": float(np.median(error)) if len(error) else None,
        "error_90": float(np.quantile(error, 0.9)) if len(error) else None,
        "first": sum(r["name"] == r["limit"] for r in rows) / max(len(rows), 1),
        "width": float(np.median([r["high"] / r["low"] for r in known])) if known else None,
        "covered": sum(r["low"] <= r["true"] <= r["high"] for r in known) / max(len(known), 1),
        "naive_error": float(np.median(line)),
        "naive_error_90": float(np.quantile(line, 0.9)),
        "naive_first": sum(r["limit"] in processors for r in rows) / max(len(rows), 1),
    }


def show(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        return
    s = summary(rows)
    print(
        f"{title:28s} {s['worlds']:5d} {s['told']:6.0%} {s['error'] or 0:8.1%} {s['error_90'] or 0:8.1%}"
        f" {s['first']:7.0%} {s['covered']:8.0%} {s['width'] or 0:6.2f} |"
        f" {s['naive_error']:8.1%} {s['naive_error_90']:8.1%} {s['naive_first']:7.0%}"
    )


def simulated(arguments: argparse.Namespace) -> None:
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for row in pool.map(one, tasks(arguments.part, arguments.worlds, arguments.seed), chunksize=1):
            rows.append(row)
            if arguments.verbose:
                print(json.dumps(row), flush=True)
    print(f"{'':28s} {'n':>5s} {'told':>6s} {'error':>8s} {'90 %':>8s} {'first':>7s} {'in 90 %':>8s} {'width':>6s} | "
          f"{'linear':>8s} {'90 %':>8s} {'first':>7s}")  # fmt: skip
    show(arguments.part, rows)
    for family in FAMILIES:
        show(f"  {family}", [r for r in rows if r["family"] == family])
    for shape in SHAPES:
        show(f"  {shape}", [r for r in rows if r["shape"] == shape])
    confusion = Counter((r["limit"], r["name"] or "cannot tell") for r in rows)
    for (true, named), count in sorted(confusion.items()):
        print(f"  {true:12s} named {named:12s} {count}")


class Machine:
    """What the machine gave a service since the last look: seconds that its replicas ran, and could have run and had
    no processor (schedstat); the share of time in which somebody waited for one (pressure stall information)."""

    def __init__(self, pids: Sequence[int]) -> None:
        self.pids = pids
        self.last = self._now()

    def _now(self) -> tuple[float, float, float, float]:
        ran = waited = 0.0
        for pid in self.pids:
            for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                parts = task.read_text().split()
                ran, waited = ran + int(parts[0]) / 1e9, waited + int(parts[1]) / 1e9
        stalled = 0.0
        with contextlib.suppress(OSError):  # a kernel without it
            stalled = float(Path("/proc/pressure/cpu").read_text().split("total=")[1].split()[0]) / 1e6
        return time.monotonic(), ran, waited, stalled

    def look(self) -> str:
        before, self.last = self.last, self._now()
        took, ran, waited, stalled = (b - a for a, b in zip(before, self.last, strict=True))
        return (
            f"replicas ran {ran / took:.2f} processors and waited for {waited / took:.2f} more; "
            f"pressure {stalled / took:.0%}, load {os.getloadavg()[0]:.0f}"
        )


def calibrate(arguments: argparse.Namespace) -> None:
    """The multiples of ``ops/advise/wide.py``: what nine of ten development worlds are off, in deviations."""
    with ProcessPoolExecutor(arguments.jobs) as pool:
        rows = [r for r in pool.map(one, tasks("development", arguments.worlds, arguments.seed)) if r["told"]]
    off: dict[str, list[float]] = {"all": []}
    for r in rows:
        stated = np.log(r["high"] / r["low"]) / 2.0 / KINDS.get(r["name"], ALL)
        for kind in (r["name"], "all"):
            off.setdefault(kind, []).append(abs(float(np.log(r["true"] / r["told"]))) / stated)
    for kind, found in sorted(off.items()):
        place = min(ceil(0.9 * (len(found) + 1)), len(found)) - 1
        print(f"{kind:12s} {len(found):4d} worlds: {sorted(found)[place]:.2f}")


def live(arguments: argparse.Namespace) -> None:
    import msgspec
    from rich.console import Console

    from leptonai.client import calls
    from leptonai.drill.screen import Plain
    from leptonai.drill.stage import SERVICE, stage
    from leptonai.drill.traffic import Mood
    from leptonai.errors import PlatformError

    base, seconds = 2.0, arguments.seconds
    with stage(None, arguments.seed, base, Plain(Console(stderr=True)), whole=True) as where:
        client = where.client
        client.send(calls.turn(True, "the benchmark looks for the limit"))
        waits = where.good
        options = {**waits.variants[0].options, "features": "", "work": 0.03}
        computes = msgspec.structs.replace(
            waits, variants=(msgspec.structs.replace(waits.variants[0], options=options),)
        )
        for name, spec in (("waits for what it calls", waits), ("computes", computes)):
            if arguments.only not in name:
                continue
            client.deploy(spec, why=name)
            began = time.time()

            def ask(load: float, length: float) -> list[Any]:
                """The answers to what was asked at this load, the first seconds left out."""
                where.props.ask(Mood(rate=load / base))
                time.sleep(length)
                now = time.time()
                time.sleep(1.0)  # the last ones come home
                return [a for a in where.answers.read() if now - length + 2.0 <= a.due < now]

            alone = float(np.median([a.seconds for a in ask(base, 12.0)]))
            machine = Machine([r.pid for r in client.replicas(SERVICE) if r.pid and r.state == "ready"])
            guess = spec.scale.replicas / alone
            for part in (0.15, 0.25, 0.35, 0.45):
                ask(part * guess, seconds)
            advice, until = None, time.time()
            while advice is None:  # a starved machine may need several tries
                with contextlib.suppress(PlatformError):
                    advice = client.advice(SERVICE, max(60.0, until - began))
            seen = machine.look()
            cpu = client.signals("replica_cpu_ratio", time.time() - seconds, time.time(), {"service": SERVICE})
            line = 0.45 * guess / max(np.mean([np.nanmean(s.value) for s in cpu]), 1e-9)
            load, tries = 0.6 * guess, 0
            while tries < 2 and load < 4.0 * guess:  # twice in a row: what others do for a moment does not end it
                load *= 1.12 if not tries else 1.0
                answers = ask(load, arguments.step)
                late = [a for a in answers if a.seconds > spec.slo.latency or a.result == "failed"]
                bad = len(late) / max(len(answers), 1)
                tries = tries + 1 if bad > 0.05 else 0
                print(f"  {name}: {load:.1f} requests/s, {bad:.1%} late or failed; {machine.look()}", file=sys.stderr)
            where.props.ask(Mood())
            time.sleep(8.0)
            first = advice.first
            told = f"{first.name} at {first.load:.1f} ({first.low:.1f} to {first.high:.1f})" if first else "cannot tell"
            print(
                f"{name}: broke between {load / 1.12:.1f} and {load:.1f} requests/s; told: {told}; linear: {line:.1f}"
            )
            print(f"  while it was seen: {seen}")
            print(json.dumps(msgspec.to_builtins(advice)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=("simulated", "calibrate", "live"))
    parser.add_argument("--worlds", type=int, default=10, help="of each kind of service and shape of load")
    parser.add_argument("--part", choices=("development", "held-out"), default="held-out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=30.0, help="live: of each load that is seen beforehand")
    parser.add_argument("--step", type=float, default=9.0, help="live: seconds of each load of the ramp")
    parser.add_argument("--only", default="", help="live: the service whose name holds this")
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    {"live": live, "calibrate": calibrate, "simulated": simulated}[arguments.mode](arguments)


if __name__ == "__main__":
    main()
