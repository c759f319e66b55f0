"""One service under rising load, request by request: its queues, batches, processors, memory, what it calls, what is
declared. Event by event, so that where it ends follows from no formula; what ops would have seen comes as series.

Beside ``flow``, which lets hundreds of services live through faults, this one knows a single service to its limits.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from math import ceil
from typing import Literal

import numpy as np

from leptonai.client.advice import Name
from leptonai.ops.simulate.system import Shape
from leptonai.protocols import Floats
from leptonai.types import Series

NETWORK = 0.001  # seconds
WARM = 0.2  # of a course that is not counted
REQUESTS = 8000  # of one course that looks for the limit
RESTART = 3.0  # seconds until a replica that ran out of memory is back
HELD_UP = 0.95  # of the processors: used up
STRETCHED = 0.1  # more thread-seconds than computing takes, from which processors are short
TIRED = 0.85  # of the compute threads' time: it is they that end, not waiting alone
FULL = 0.8  # of a full batch
LATENCY = 0.01  # share of requests that may be bad

Family = Literal["small", "solver", "card", "caller", "waiter", "hoarder", "capped", "pool", "stuffed"]
FAMILIES: tuple[Family, ...] = (
    "small", "solver", "card", "caller", "waiter", "hoarder", "capped", "pool", "stuffed",
)  # fmt: skip


@dataclass(frozen=True)
class Ramp:
    """Seconds, bytes, requests a second. A batch of k takes ``each * k + fixed``, while it uses ``processors``.

    ``inside``: what it calls is called within the compute thread, once a batch; else before, for each request.
    """

    family: Family
    replicas: int
    each: float
    fixed: float
    noise: float  # coefficient of variation of a batch's time
    size: int
    queue: int
    processors: float
    cores: float
    others: float  # processors that others use
    fan: float  # calls
    inside: bool
    called: float  # seconds of a call, on average
    servers: int  # of what is called
    called_by_others: float  # calls a second
    base: float
    held: float  # bytes for each request inside
    memory: float | None
    requests: int | None
    rate: float | None
    slo: float


@dataclass
class Course:
    """What came of a stretch. ``sent`` and the rest count requests after the warm-up."""

    seconds: float
    sent: int = 0
    slow: int = 0
    refused: dict[str, int] = field(default_factory=dict)  # by what
    lost: int = 0  # with a replica that ran out of memory
    busy: float = 0.0  # thread-seconds
    blocked: float = 0.0  # of these, waiting for calls
    used: float = 0.0  # processor-seconds of the service
    pure: float = 0.0  # thread-seconds of computing, had there always been a processor
    stretched: float = 0.0  # thread-seconds more than that
    batches: int = 0
    batched: int = 0
    calling: float = 0.0  # server-seconds of what is called
    rows: dict[str, Floats] = field(default_factory=dict)

    @property
    def bad(self) -> float:
        return (self.slow + self.lost + sum(self.refused.values())) / max(self.sent, 1)


def drive(world: Ramp, load: Callable[[float], float], most: float, seconds: float, seed: int) -> Course:
    """``load(at)``: requests a second, at most ``most``, arriving as a Poisson process thinned to it."""
    rng = np.random.default_rng([seed, 5])
    w, bins = world, ceil(seconds) + 1
    row = {
        name: np.zeros(bins)
        for name in ("count", "service", "compute", "queued", "cpu", "residence", "dep", "deps", "late", "slow")
    }
    top = np.zeros(bins)
    out = Course(seconds=seconds * (1.0 - WARM))
    begin, tick = seconds * WARM, count()
    queues: list[deque[tuple[float, float]]] = [deque() for _ in range(w.replicas)]  # (came, queued since)
    taken: list[list[tuple[float, float]]] = [[] for _ in range(w.replicas)]
    began, pure = [(0.0, 0.0)] * w.replicas, [0.0] * w.replicas  # of the batch: taken, and its calls answered
    inside, down, lives = [0] * w.replicas, [0.0] * w.replicas, [0] * w.replicas
    free = [0.0] * w.servers  # when each server of what is called is
    heapq.heapify(free)
    flying = 0  # requests inside, everywhere
    tokens, told = (w.rate or 0.0), 0.0
    events: list[tuple[float, int, str, int, int]] = []
    came: dict[int, float] = {}
    heapq.heappush(events, (float(rng.exponential(1.0 / most)), next(tick), "arrive", 0, 0))
    if w.called_by_others > 0:
        heapq.heappush(events, (float(rng.exponential(1.0 / w.called_by_others)), next(tick), "other", 0, 0))
    work: list[list[float]] = [[0.0, 0.0, 0.0] for _ in range(w.replicas)]  # left, since, speed
    computing: set[int] = set()
    sigma = float(np.sqrt(np.log1p(w.noise**2)))

    def call(at: float) -> float:
        """When a call made now is answered."""
        took = float(rng.exponential(w.called))
        start = max(at, heapq.heappop(free))
        heapq.heappush(free, start + took)
        if start >= begin:
            out.calling += took
        return start + took

    def calls(at: float) -> tuple[float, int]:
        n = int(w.fan) + (rng.random() < w.fan - int(w.fan))
        ends = at
        for _ in range(n):
            before = ends
            ends = call(ends)
            slot = min(int(ends), bins - 1)
            row["dep"][slot] += ends - before
            row["deps"][slot] += 1
        return ends, n

    def share_out(at: float) -> None:
        """Who computes shares the processors evenly from now on; what was done until now is done."""
        for r in computing:
            left, since, speed = work[r]
            work[r][:2] = max(left - (at - since) * speed, 0.0), at
        crowd = max(1.0, (len(computing) * w.processors + w.others) / w.cores)
        part = min(w.processors, 1.0)
        for r in computing:
            work[r][2] = 1.0 / (1.0 - part + part * crowd)
            lives[r] += 1
            heapq.heappush(events, (at + work[r][0] / work[r][2], next(tick), "done", r, lives[r]))

    def start(r: int, at: float) -> None:
        batch = [queues[r].popleft() for _ in range(min(w.size, len(queues[r])))]
        taken[r], ends = batch, at
        if w.inside:
            ends, _ = calls(at)
        began[r] = at, ends
        pure[r] = (w.each * len(batch) + w.fixed) * float(np.exp(rng.normal(-0.5 * sigma**2, sigma)))
        lives[r] += 1
        heapq.heappush(events, (ends, next(tick), "compute", r, lives[r]))

    def finish(r: int, at: float) -> None:
        nonlocal flying
        took, waited, batch = at - began[r][0], began[r][1] - began[r][0], taken[r]
        slot = min(int(at), bins - 1)
        row["cpu"][slot] += pure[r] * w.processors
        row["service"][slot] += took
        if began[r][0] >= begin:
            out.busy += took
            out.blocked += waited
            out.used += pure[r] * w.processors
            out.pure += pure[r]
            out.stretched += took - waited - pure[r]
            out.batches += 1
            out.batched += len(batch)
        for arrived, since in batch:
            whole = at - arrived + NETWORK
            flying -= 1
            inside[r] -= 1
            row["compute"][slot] += took
            row["queued"][slot] += began[r][0] - since
            row["count"][slot] += 1
            row["residence"][slot] += at - since
            row["late"][slot] += whole
            row["slow"][slot] += whole > w.slo
            if arrived >= begin and whole > w.slo:
                out.slow += 1
        taken[r] = []

    def refuse(what: str, at: float) -> None:
        if at >= begin:
            out.refused[what] = out.refused.get(what, 0) + 1

    def put(at: float, arrived: float) -> None:
        nonlocal flying
        up = [r for r in range(w.replicas) if down[r] <= at]
        if not up:
            flying -= 1
            refuse("gone", at)
            return
        some = [up[int(rng.integers(len(up)))] for _ in range(2)]
        r = min(some, key=inside.__getitem__)
        if len(queues[r]) >= w.queue:
            flying -= 1
            refuse("queue", at)
            return
        queues[r].append((arrived, at))
        inside[r] += 1
        bytes_now = w.base + w.held * inside[r]
        slot = min(int(at), bins - 1)
        top[slot] = max(top[slot], inside[r])
        if w.memory is not None and bytes_now > w.memory:
            perish(r, at)
        elif not taken[r]:
            start(r, at)

    def perish(r: int, at: float) -> None:
        nonlocal flying
        gone = len(queues[r]) + len(taken[r])
        flying -= gone
        if at >= begin:
            out.lost += gone
        queues[r].clear()
        taken[r] = []
        inside[r] = 0
        lives[r] += 1
        down[r] = at + RESTART
        if r in computing:
            computing.discard(r)
            share_out(at)

    number = count()
    while events:
        at, _, what, r, life = heapq.heappop(events)
        if at >= seconds:
            break
        if what == "arrive":
            heapq.heappush(events, (at + float(rng.exponential(1.0 / most)), next(tick), "arrive", 0, 0))
            if rng.random() * most >= load(at):
                continue
            out.sent += at >= begin
            if w.rate is not None:
                tokens = min(tokens + (at - told) * w.rate, w.rate)
                told = at
                if tokens < 1.0:
                    refuse("rate_limit", at)
                    continue
                tokens -= 1.0
            if w.requests is not None and flying >= w.requests:
                refuse("limits.requests", at)
                continue
            flying += 1
            if w.inside or w.fan <= 0:
                put(at, at)
                continue
            ends, n = calls(at)
            if not n:
                put(at, at)
                continue
            id = next(number)
            came[id] = at
            heapq.heappush(events, (ends, next(tick), "back", 0, id))
        elif what == "back":
            put(at, came.pop(life))
        elif what == "other":
            call(at)
            heapq.heappush(events, (at + float(rng.exponential(1.0 / w.called_by_others)), next(tick), "other", 0, 0))
        elif what == "compute" and life == lives[r]:
            work[r][:2] = pure[r], at
            computing.add(r)
            share_out(at)
        elif what == "done" and life == lives[r]:
            computing.discard(r)
            finish(r, at)
            share_out(at)
            if queues[r]:
                start(r, at)
    out.rows = row | {"top": top}
    return out


def limit(world: Ramp, seed: int, requests: int = REQUESTS) -> tuple[float, Name]:
    """The load at which more than LATENCY of the requests are bad, found by driving it there; and what was used up."""
    near = world.replicas / (world.each + world.fixed)
    low, high, n = 0.0, near, 0
    while _at(world, high, seed, requests).bad <= LATENCY and n < 12:
        low, high, n = high, 1.5 * high, n + 1
    while n == 0 and _at(world, high / 1.5, seed, requests).bad > LATENCY and high > 1e-3:
        high /= 1.5
    low = max(low, high / 1.5)
    for step in range(7):
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if _at(world, middle, seed + step, requests).bad > LATENCY else (middle, high)
    load = float(np.sqrt(low * high))
    return load, _used_up(world, _at(world, 1.03 * load, seed + 9, requests))


def _at(world: Ramp, load: float, seed: int, requests: int) -> Course:
    return drive(world, lambda at: load, load, max(20.0, requests / load), seed)


def _used_up(world: Ramp, course: Course) -> Name:
    """What was at its end in this course: bad requests are looked at first, then who had nothing left."""
    whole = course.slow + course.lost + sum(course.refused.values())
    declared = sum(n for what, n in course.refused.items() if what in ("rate_limit", "limits.requests"))
    if course.lost + course.refused.get("gone", 0) > 0.5 * whole:
        return "memory"
    if declared > 0.5 * whole:
        return "declared"
    demand = course.used / course.seconds + world.others
    if demand >= HELD_UP * world.cores or course.stretched > STRETCHED * course.pure:
        return "cpu"
    if world.fan > 0 and course.calling / course.seconds / world.servers >= TIRED:
        return "dependency"
    if course.busy / course.seconds / world.replicas >= TIRED:
        if course.blocked >= 0.5 * course.busy:
            return "dependency"
        full = course.batched / max(course.batches, 1)
        growth = 2 * (world.each * full + world.fixed) / (2 * world.each * full + world.fixed) - 1.0
        return "batch" if world.size > 1 and full >= FULL * world.size and growth > 0.05 else "compute"
    return "queue"


def observe(world: Ramp, shape: Shape, mean: float, seconds: float, seed: int) -> dict[str, tuple[Series, ...]]:
    """What ops would have kept of ``seconds`` at a load of this shape around ``mean``, by signal name."""
    factors = course_of(shape, int(seconds) + 2, np.random.default_rng([seed, 6]))
    most = mean * float(factors.max())
    course = drive(world, lambda at: mean * float(factors[int(at)]), most, seconds, seed)
    row, at = course.rows, np.arange(int(seconds), dtype=np.float64)
    n = len(at)
    rng = np.random.default_rng([seed, 8])

    def per(top: str, below: str) -> Floats:
        out: Floats = np.divide(row[top][:n], row[below][:n], out=np.full(n, np.nan), where=row[below][:n] > 0)
        return out

    compute = per("compute", "count")
    batches = row["service"][:n] / np.maximum(row["count"][:n], 1)  # thread-seconds over requests
    host = (row["cpu"][:n] + world.others * np.exp(rng.normal(0.0, 0.05, n))) / world.cores
    mine = {"service": "s"}
    replica = {"service": "s", "replica": "s-1"}
    columns: Mapping[str, tuple[dict[str, str], Floats]] = {
        "request_rate_per_second": (mine, row["count"][:n]),
        "ready_count": (mine, np.full(n, float(world.replicas))),
        "replica_service_seconds": (replica, np.where(row["count"][:n] > 0, batches, np.nan)),
        "replica_compute_seconds": (replica, compute),
        "replica_queue_seconds": (replica, per("queued", "count")),
        "replica_cpu_ratio": (replica, row["cpu"][:n] + rng.uniform(0.002, 0.01, n) * world.replicas),
        "replica_rss_bytes": (replica, world.base + world.held * row["residence"][:n] / world.replicas
                              + rng.normal(0.0, 0.002 * world.base, n)),
        "replica_concurrency_count": (replica, row["residence"][:n]),
        "latency_p50_seconds": (mine, per("late", "count")),
        "slow_ratio": (mine, per("slow", "count")),
        "host_cpu_ratio": ({}, np.minimum(host + rng.normal(0.0, 0.005, n), 1.0)),
    }  # fmt: skip
    if world.fan > 0:
        called = {**mine, "dependency": "below"}
        columns = {
            **columns,
            "dependency_seconds": (called, per("dep", "deps")),
            "dependency_rate_per_second": (called, row["deps"][:n]),
        }
    return {
        name: (Series(name=name, labels=labels, at=at.tolist(), value=value.tolist()),)
        for name, (labels, value) in columns.items()
    }


def course_of(shape: Shape, seconds: int, rng: np.random.Generator) -> Floats:
    """Factors of the mean, second by second: an hour's worth of a day, bursts, or a crowd, as in ``shapes``."""
    at = np.arange(seconds, dtype=np.float64)
    out = np.exp(np.cumsum(rng.normal(0.0, 0.004, seconds)))
    out /= out.mean()
    if shape == "daily":
        out = out * (1.0 + 0.35 * np.sin(2 * np.pi * (at / seconds + rng.random())))
    if shape == "bursts":
        begin = rng.uniform(0.0, 40.0)
        while begin < seconds:
            length = rng.uniform(3.0, 12.0)
            out[int(begin) : int(begin + length)] *= rng.uniform(1.2, 1.6)
            begin += length + rng.exponential(60.0)
    if shape == "flash":
        begin, length = rng.uniform(0.2, 0.6) * seconds, rng.uniform(0.1, 0.25) * seconds
        out = out * (1.0 + 0.6 * ((at >= begin) & (at < begin + length)))
    return np.asarray(out, dtype=np.float64)


def draw(family: Family, rng: np.random.Generator) -> Ramp:
    """A service of this kind. What is meant to end first is tight, the rest has room; what does is found by driving."""
    replicas = int(rng.integers(1, 5))
    each = float(rng.lognormal(np.log(0.02), 0.5))
    capacity = replicas / each
    common = {
        "family": family, "replicas": replicas, "each": each, "fixed": 0.0, "noise": float(rng.uniform(0.1, 0.8)),
        "size": 1, "queue": int(rng.choice([128, 512, 1024])), "processors": float(rng.uniform(0.75, 1.0)),
        "cores": float(replicas + rng.integers(2, 8)), "others": float(rng.uniform(0.1, 1.0)), "fan": 0.0,
        "inside": False, "called": 0.01, "servers": 8, "called_by_others": 0.0, "base": float(rng.uniform(2e8, 1e9)),
        "held": 0.0, "memory": None, "requests": None, "rate": None, "slo": each * float(rng.uniform(8, 25)),
    }  # fmt: skip
    match family:
        case "small" if rng.random() < 0.4:
            common |= {"slo": each * float(rng.uniform(2.2, 4.0))}  # a promise that waiting breaks
        case "solver":
            threads = float(rng.uniform(1.5, 4.0))
            common |= {"processors": threads, "cores": float(max(2, round(replicas * threads * rng.uniform(0.4, 0.8))))}
            common |= {"others": float(rng.uniform(0.05, 0.25)) * float(common["cores"])}  # type: ignore[arg-type]
        case "card":
            size = int(rng.choice([4, 8, 16]))
            fixed = each * float(rng.uniform(0.5, 4.0))
            common |= {"fixed": fixed, "each": each * 0.4, "size": size, "processors": float(rng.uniform(0.1, 0.3))}
            common |= {"slo": (0.4 * each * size + fixed) * float(rng.uniform(2.5, 6.0)), "noise": 0.1}
        case "caller":  # within the compute thread
            called = each * float(rng.uniform(1.5, 5.0))
            common |= {"fan": 1.0, "inside": True, "called": called, "servers": 4 * replicas}
            common |= {"slo": (each + called) * float(rng.uniform(10, 25))}
        case "waiter":  # before it, and what is called ends first
            servers, fan = int(rng.integers(1, 4)), float(rng.uniform(0.5, 1.5))
            called = servers / (capacity * float(rng.uniform(0.35, 0.7)) * fan)
            common |= {"fan": fan, "called": called, "servers": servers, "slo": (each + fan * called) * 20.0}
            common |= {"called_by_others": float(rng.uniform(0.0, 0.2)) * servers / called}
        case "hoarder":
            held = float(rng.uniform(2e7, 2e8))
            room = float(rng.uniform(4, 9))
            common |= {"held": held, "memory": float(common["base"]) + held * room}  # type: ignore[arg-type]
        case "pool":  # as waiter, of many servers
            servers, fan = int(rng.integers(4, 11)), float(rng.uniform(0.5, 1.5))
            called = servers / (capacity * float(rng.uniform(0.35, 0.7)) * fan)
            common |= {"fan": fan, "called": called, "servers": servers}
            common |= {"slo": (each + fan * called) * float(rng.uniform(6, 20))}
            common |= {"called_by_others": float(rng.uniform(0.0, 0.2)) * servers / called}
        case "stuffed":  # memory by the request, of batches
            size, held = int(rng.choice([4, 8])), float(rng.uniform(2e7, 1e8))
            fixed = each * float(rng.uniform(0.5, 3.0))
            common |= {"fixed": fixed, "each": each * 0.4, "size": size, "processors": 0.2, "noise": 0.1}
            common |= {"slo": (0.4 * each * size + fixed) * float(rng.uniform(3, 8)), "held": held}
            common |= {"memory": float(common["base"]) + held * size * float(rng.uniform(1.5, 3.0))}  # type: ignore[arg-type]
        case "capped" if rng.random() < 0.5:
            common |= {"rate": capacity * float(rng.uniform(0.35, 0.75))}
        case "capped":
            common |= {"requests": max(2, round(replicas * rng.uniform(1.2, 2.5)))}
    return Ramp(**common)  # type: ignore[arg-type]
