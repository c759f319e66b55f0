"""What exists: services with replicas on machines, and who calls whom. Drawn from a seed, as arrays over services."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from leptonai.errors import SpecError
from leptonai.protocols import Floats

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Shape = Literal["steady", "daily", "bursts", "flash"]
BELOW = 1.6  # seconds that a call takes, per second of compute of what is called
FULL = 0.5  # of its capacity that a service uses at most at its mean rate
SHAPES: tuple[Shape, ...] = ("steady", "daily", "bursts", "flash")


@dataclass(frozen=True)
class System:
    """Per service S, per call E (``caller`` calls ``callee``), per machine M. Seconds, bytes, requests a second.

    ``ours``: served by us, so that ops sees its replicas; of the others only its callers' spans tell. ``blocking``: it
    waits for what it calls inside its compute thread. ``passes``: the share of failed calls that fail the caller.
    """

    names: tuple[str, ...]
    ours: Flags
    machine: Ints
    shape: tuple[Shape, ...]
    phase: Floats
    rate: Floats  # from outside
    replicas: Ints
    compute: Floats  # seconds of a request
    spread: Floats  # coefficient of variation of that
    cpu: Floats  # seconds of processor per second of compute; little where a GPU computes
    gpu: Flags
    blocking: Flags
    idempotent: Flags
    traced: Flags
    labelled: Floats  # share of answers that get a label
    wrong: Floats  # share of these that are wrong in normal times
    slo: Floats
    timeout: Floats
    queue: Floats  # requests that may wait at one replica
    start: Floats  # seconds until a new replica is ready
    rss: Floats
    limit: Floats  # memory of a replica
    failing: Floats  # share of answers that are errors in normal times
    refused: Floats  # share of answers that blame the request in normal times
    writes: Flags  # it needs the disk to answer
    caller: Ints
    callee: Ints
    fan: Floats  # calls made per request
    passes: Floats
    cores: Floats
    memory: Floats
    disk: Floats  # share used

    @property
    def busy(self) -> Floats:
        """Share of its capacity that each service uses at its mean rate."""
        waits = np.bincount(self.caller, self.fan * BELOW * self.compute[self.callee], len(self.names))
        out: Floats = self.total / self.replicas * (self.compute + np.where(self.blocking, waits, 0.0))
        return out

    @property
    def total(self) -> Floats:
        """Requests a second of each service at the mean rates from outside, with the calls of its callers."""
        total = self.rate.copy()
        for _ in range(len(self.names)):
            fresh = self.rate + np.bincount(self.callee, self.fan * total[self.caller], len(total))
            if np.allclose(fresh, total):
                break
            total = fresh
        return total


def cells(seed: int, count: int, shapes: tuple[Shape, ...] = SHAPES) -> System:
    """``count`` small worlds side by side that know nothing of one another, three services each: one that is watched
    (3 i), its neighbour on the same machine (3 i + 1), and what it calls (3 i + 2, not ours). ``shapes`` in turn."""
    rng = np.random.default_rng([seed, 1])
    n = 3 * count
    first = np.arange(0, n, 3)
    system = _draw(
        rng, n, machine=np.repeat(np.arange(count), 3), shapes=[shapes[i // 3 % len(shapes)] for i in range(n)]
    )
    ours = np.ones(n, dtype=np.bool_)
    ours[2::3] = False
    fan = rng.uniform(0.5, 1.0, count)
    rate = system.rate.copy()
    rate[2::3] = 0.0
    replicas = system.replicas.copy()
    replicas[1::3] = np.minimum(replicas[1::3], 2)
    compute = system.compute.copy()
    replicas[2::3] = 4
    roomy = rng.uniform(0.2, 0.5, count) * 4 / np.maximum(rate[first] * fan, 0.1)
    beside = np.where(system.blocking[first], 0.4, 4.0) * system.compute[first]
    compute[2::3] = np.minimum(np.minimum(roomy, beside), 0.05)
    made = _with(
        system, ours=ours, rate=rate, replicas=replicas, compute=compute, gpu=system.gpu & ours,
        blocking=system.blocking & ours, caller=first, callee=first + 2, fan=fan, passes=rng.uniform(0.7, 1.0, count),
    )  # fmt: skip
    made = _with(made, rate=made.rate * np.minimum(1.0, FULL / np.maximum(made.busy, 1e-6)))
    return _with(made, slo=_promise(made, rng))


def mesh(seed: int, n: int = 200, entries: int = 4) -> System:
    """One world of ``n`` services in up to six layers; the first ``entries`` get the traffic from outside."""
    if n < 2 * entries:
        raise SpecError(f"a mesh of {n} services with {entries} entries", hint="at least twice as many services")
    rng = np.random.default_rng([seed, 2])
    layer = np.concatenate((np.zeros(entries, dtype=np.int64), np.sort(rng.integers(1, 6, n - entries))))
    layer[entries : 2 * entries] = 1
    pairs: set[tuple[int, int]] = set()
    for v in range(entries, n):
        above = np.flatnonzero(layer == layer[v] - 1)
        if not len(above):
            above = np.arange(entries)
        if rng.random() < 0.06:
            above = np.flatnonzero(layer < layer[v])  # a hub: called from everywhere
            count = min(8, len(above))
        else:
            count = int(rng.integers(1, 4))
        pairs |= {(int(a), v) for a in rng.choice(above, size=count)}
    caller, callee = (np.array(side, dtype=np.int64) for side in zip(*sorted(pairs), strict=True))
    system = _draw(rng, n, machine=np.arange(n) // 2, shapes=["daily"] * n)
    rate = np.where(np.arange(n) < entries, rng.uniform(60.0, 200.0, n), 0.0)
    made = _with(
        system, rate=rate, caller=caller, callee=callee, traced=np.ones(n, dtype=np.bool_),
        fan=rng.choice([0.2, 0.4, 0.6, 1.0], size=len(caller)),
        passes=rng.choice([0.0, 0.5, 1.0, 1.0], size=len(caller)), blocking=np.zeros(n, dtype=np.bool_),
    )  # fmt: skip
    total = np.maximum(made.total, 1.0)
    replicas = rng.integers(2, 5, n)
    made = _with(made, replicas=replicas, compute=rng.uniform(0.2, 0.6, n) * replicas / total)
    demand = np.bincount(made.machine, total * made.compute * made.cpu)
    made = _with(made, cores=np.maximum(np.ceil(demand / 0.55), 2.0))
    return _with(made, slo=_promise(made, rng))


def _draw(rng: np.random.Generator, n: int, machine: Ints, shapes: list[Shape]) -> System:
    m = int(machine.max()) + 1
    replicas = rng.integers(1, 5, n)
    gpu = rng.random(n) < 0.45
    compute = np.where(gpu, rng.uniform(0.01, 0.06, n), rng.lognormal(np.log(0.012), 0.6, n))
    rate = np.minimum(rng.uniform(0.15, 0.6, n) * replicas / compute, 150.0)
    cpu = np.where(gpu, rng.uniform(0.1, 0.3, n), rng.uniform(0.8, 1.0, n))
    demand = np.bincount(machine, rate * compute * cpu)
    names = tuple(f"s{x:07x}" for x in rng.choice(2**28, size=n, replace=False).tolist())
    rss = rng.lognormal(np.log(300e6), 0.7, n)
    none = np.zeros(0, dtype=np.int64)
    return System(
        names=names,
        ours=np.ones(n, dtype=np.bool_),
        machine=machine,
        shape=tuple(shapes),
        phase=rng.uniform(0.0, 1.0, n),
        rate=rate,
        replicas=replicas,
        compute=compute,
        spread=rng.uniform(0.2, 0.6, n),
        cpu=cpu,
        gpu=gpu,
        blocking=rng.random(n) < 0.5,
        idempotent=rng.random(n) < 0.7,
        traced=rng.random(n) < 0.92,
        labelled=rng.uniform(0.02, 0.3, n),
        wrong=rng.uniform(0.0, 0.05, n),
        slo=np.full(n, 0.25),
        timeout=rng.choice([5.0, 10.0, 30.0], size=n),
        queue=rng.choice([128.0, 512.0, 1024.0], size=n),
        start=rng.uniform(1.5, 8.0, n),
        rss=rss,
        limit=rss * rng.uniform(1.5, 3.0, n),
        failing=rng.choice([0.0, 0.0, 1e-4, 5e-4], size=n),
        refused=rng.choice([0.0, 1e-3, 1e-2], size=n),
        writes=rng.random(n) < 0.8,
        caller=none,
        callee=none,
        fan=np.zeros(0),
        passes=np.zeros(0),
        cores=np.maximum(np.ceil(demand / rng.uniform(0.25, 0.5, m)), 2.0),
        memory=np.full(m, 64e9),
        disk=rng.uniform(0.2, 0.9, m),
    )


def _promise(system: System, rng: np.random.Generator) -> Floats:
    """Latencies promised with a margin that a healthy service keeps."""
    calls = np.bincount(system.caller, system.fan * 2.0 * system.compute[system.callee], len(system.names))
    for _ in range(6):
        below = np.bincount(system.caller, system.fan * calls[system.callee], len(system.names))
        calls = np.bincount(system.caller, system.fan * 2.0 * system.compute[system.callee], len(system.names)) + below
    out: Floats = np.maximum(0.05, rng.uniform(12.0, 25.0, len(system.names)) * system.compute + 5.0 * calls)
    return out


def _with(system: System, **changes: object) -> System:
    from dataclasses import replace

    return replace(system, **changes)  # type: ignore[arg-type]
