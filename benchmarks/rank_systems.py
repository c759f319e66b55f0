"""Systems of many services with known faults: call graphs, queues, noise, traffic with a daily cycle. Pure, seeded.

The world is not made to fit the ranking: services queue (so a surge or lost capacity shows as latency somewhere
below), failures are partly absorbed, callers time out, calls are sampled, some edges do not wait, some services are
hubs, some only forward, and some are seen twice, under a second name, by a part of the calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from leptonai.errors import SpecError
from leptonai.ops.rank.frame import Frame, Graph, Key
from leptonai.protocols import Floats

Kind = Literal["latency", "errors", "surge", "dead", "capacity", "timeout"]
KINDS: tuple[Kind, ...] = ("latency", "errors", "surge", "dead", "capacity", "timeout")
PAIRS = tuple(  # of kinds that can show in one metric: slowness does not fail calls, failures do not slow them
    (a, b) for a in KINDS for b in KINDS if not {a, b} >= {"latency", "errors"} and not {a, b} >= {"latency", "dead"}
)
ROW = 300.0  # seconds
DAY = 86400.0
ATTEMPTS = 2000
SEEN = 3.0  # robust sigmas
SLOWER, FAILED = 0.2, 0.01  # what an entry must visibly suffer: latency grown by, or calls failed
TIMEOUT = 2.0  # seconds a caller waits


@dataclass(frozen=True)
class Fault:
    kind: Kind
    node: int
    size: float


@dataclass(frozen=True)
class System:
    """Services 0 to n - 1, callers before callees; the first ``entries`` get the traffic from outside.

    Per edge: calls made per call received (at most 1), share of failures passed on, whether the caller waits.
    ``twin``: per service, -1 or the service of which it is a second name; then ``seen`` is the share of calls known
    by that name.
    """

    graph: Graph
    ratio: Floats
    passes: Floats
    waits: NDArray[np.bool_]
    seconds: Floats
    capacity: Floats
    noise: Floats
    failing: Floats
    arriving: Floats
    twin: NDArray[np.intp]
    seen: Floats


@dataclass(frozen=True)
class Case:
    """One trouble: what is seen, and the services that truly caused it."""

    window: Frame
    normal: Frame
    graph: Graph
    target: Key
    causes: tuple[str, ...]
    kinds: tuple[Kind, ...]


def system(seed: int, n: int = 200, entries: int = 4) -> System:
    """Six layers: a service is called by 1 to 3 of the layer before, hubs by 8 of all before; calls skip no service."""
    rng = np.random.default_rng(seed)
    edges: dict[tuple[int, int], None] = {}
    twin = np.full(n, -1)
    forwards = np.zeros(n, dtype=np.bool_)
    layer = np.concatenate((np.zeros(entries, dtype=int), np.sort(rng.integers(1, 6, n - entries))))
    layer[entries : 2 * entries] = 1
    for v in range(entries, n):
        kind = rng.random()
        if kind < 0.06 and v > n // 4:  # a second name: the same callers know an earlier service by it
            of = int(rng.integers(entries, v))
            callers = [a for a, b in edges if b == of]
            if callers and twin[of] < 0:
                twin[v] = of
                edges[(int(rng.choice(callers)), v)] = None
                continue
        count = 8 if kind > 0.92 else int(rng.integers(1, 4))
        above = np.flatnonzero(layer < layer[v]) if count == 8 else np.flatnonzero(layer == layer[v] - 1)
        for a in sorted({int(a) for a in rng.choice(above, size=count)}):
            if twin[a] < 0 and not (forwards[a] and any(x == a for x, _ in edges)):
                edges[(a, v)] = None
        if not any(b == v for _, b in edges):
            edges[(int(rng.integers(0, entries)), v)] = None
        forwards[v] = 0.06 <= kind < 0.14
    pairs = np.array(list(edges), dtype=np.intp)
    names = tuple(f"{x:08x}" for x in rng.choice(2**32, size=n, replace=False).tolist())  # names say nothing
    m = len(pairs)
    ratio = rng.choice([0.2, 0.4, 0.6, 1.0, 1.0], size=m)
    ratio[forwards[pairs[:, 0]]] = 1.0
    graph = Graph(names, pairs[:, 0], pairs[:, 1])
    made = System(
        graph,
        ratio,
        np.where(forwards[pairs[:, 0]], 1.0, rng.choice([0.0, 0.5, 1.0, 1.0], size=m)),
        rng.random(m) > 0.08,
        np.where(forwards, 5e-4, rng.lognormal(-6.0, 0.8, n)),
        np.ones(n),
        np.where(forwards, 0.02, rng.uniform(0.03, 0.2, n)),
        rng.choice([0.0, 0.0, 0.0, 1e-4, 5e-4], size=n),
        np.where(np.arange(n) < entries, rng.uniform(300, 1500, n), 0.0),
        twin,
        rng.uniform(0.05, 0.35, n),
    )
    calls = calls_of(made, made.arriving[None, :])[0]
    busy = rng.uniform(0.2, 0.6, n)  # share of its capacity a service uses at the mean of the day
    return replace(made, capacity=np.maximum(calls, 1.0) / ROW * made.seconds / busy)


def observe(world: System, rng: np.random.Generator, times: Floats, faults: Sequence[Fault], onset: int) -> Frame:
    """What is measured at ``times`` when ``faults`` act from row ``onset`` on."""
    latency, failing, calls = _run(world, rng, times, faults, onset)
    n = len(world.graph.nodes)
    seen = rng.poisson(np.where(world.twin >= 0, calls * world.seen, calls)).astype(np.float64)
    real = np.where(world.twin >= 0, world.twin, np.arange(n))
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.where(seen > 0, 0.8 / np.sqrt(seen), np.nan)  # latencies of single calls have a deviation near 0.8
    measured = latency[:, real] * np.exp(spread * rng.normal(size=seen.shape))
    failed = rng.binomial(seen.astype(np.int64), np.clip(failing[:, real], 0.0, 1.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        available = np.where(seen > 0, 100.0 * (1.0 - failed / seen), np.nan)
    keys, columns = [], []
    for i, node in enumerate(world.graph.nodes):
        keys += [Key(node, "latency", "Average"), Key(node, "availability", "Average"), Key(node, "requests", "Sum")]
        columns += [measured[:, i], available[:, i], seen[:, i]]
    return Frame(times, tuple(keys), np.column_stack(columns))


def case(seed: int, world: System, kinds: Sequence[Kind], rows: int = 12, normal_rows: int = 288) -> Case:
    """Faults of these kinds, redrawn until an entry visibly suffers from each of them.

    Visibly: its true latency grows by SLOWER, or FAILED of its calls fail, in either case by at least SEEN
    times the noise of that entry (else nobody would ask); and no fault does less than a
    quarter of what the strongest does there.
    """
    rng = np.random.default_rng(seed)
    past: Floats = np.arange(normal_rows, dtype=np.float64) * ROW
    normal = observe(world, rng, past, (), normal_rows)
    usual = _noise(normal, world)
    begin = float(rng.integers(normal_rows, 2 * normal_rows)) * ROW
    times: Floats = begin + np.arange(rows, dtype=np.float64) * ROW
    onset = int(rng.integers(2, rows - 2))
    drawn: list[list[tuple[Fault, Floats]]] = [[] for _ in kinds]  # visible ones of each kind, with their effects
    for attempt in range(ATTEMPTS):
        turn = attempt % len(kinds)
        fault = _fault(rng, world, kinds[turn])
        effect = _effect(world, times, (fault,), onset) / usual
        if effect.max() < 1.0:
            continue
        drawn[turn].append((fault, effect))
        together = [pool[-1] for pool in drawn if pool]
        if len({fault.node for fault, _ in together}) < len(kinds):
            continue
        effects = np.array([effect for _, effect in together])  # fault, metric, entry
        weakest = effects.min(axis=0)
        weakest = np.where(weakest >= 0.25 * effects.max(axis=0), weakest, 0.0)
        metric, entry = np.unravel_index(int(np.argmax(weakest)), weakest.shape)
        if weakest[metric, entry] >= 1.0:
            faults = [fault for fault, _ in together]
            break
    else:
        raise SpecError(
            f"no fault of {', '.join(kinds)} showed at an entry in {ATTEMPTS} attempts", hint="another seed"
        )
    target = Key(world.graph.nodes[int(entry)], ("latency", "availability")[int(metric)], "Average")
    window = observe(world, rng, times, faults, onset)
    causes = tuple(world.graph.nodes[fault.node] for fault in faults)
    return Case(window, normal, world.graph, target, causes, tuple(kinds))


def _noise(normal: Frame, world: System) -> Floats:
    """(metric, entry): SEEN robust sigmas in units of the visible minimum; at least 1."""
    nodes = [world.graph.nodes[i] for i in np.flatnonzero(world.arriving > 0).tolist()]
    out = []
    for metric, least in (("latency", SLOWER), ("availability", FAILED)):
        x = normal.take([Key(node, metric, "Average") for node in nodes])
        middle = np.nanmedian(x, axis=0)
        sigma = 1.4826 * np.nanmedian(np.abs(x - middle), axis=0)
        out.append(SEEN * sigma / middle / least)
    worst: Floats = np.maximum(np.stack(out), 1.0)
    return worst


def _fault(rng: np.random.Generator, world: System, kind: Kind) -> Fault:
    n = len(world.graph.nodes)
    entries = int((world.arriving > 0).sum())
    if kind == "surge":
        return Fault(kind, int(rng.integers(0, entries)), rng.uniform(1.0, 4.0))
    node = int(rng.choice(np.flatnonzero((world.twin < 0) & (np.arange(n) >= (entries if kind == "dead" else 0)))))
    low, high = {
        "latency": (0.05, 1.0),
        "errors": (0.03, 0.6),
        "dead": (1, 1),
        "capacity": (0.3, 0.8),
        "timeout": (3, 9),
    }[kind]
    return Fault(kind, node, float(rng.uniform(low, high)))


def _effect(world: System, times: Floats, faults: Sequence[Fault], onset: int) -> Floats:
    """(metric, entry): how many times the visible minimum these faults truly do at each entry."""
    quiet = replace(world, noise=np.zeros_like(world.noise))
    rng = np.random.default_rng(0)
    latency, failing, _ = _run(quiet, rng, times, faults, onset)
    usual, usually, _ = _run(quiet, rng, times, (), onset)
    entries = world.arriving > 0
    slower = (latency[onset:] / usual[onset:] - 1).mean(axis=0)[entries] / SLOWER
    failed = (failing[onset:] - usually[onset:]).mean(axis=0)[entries] / FAILED
    return np.stack((slower, failed))


def calls_of(world: System, arriving: Floats, dead: NDArray[np.bool_] | None = None) -> Floats:
    calls = arriving.copy()
    order = np.argsort(world.graph.callee, kind="stable")
    for e in order.tolist():  # callers come before callees, so a service's calls are known when it makes some
        a, b = world.graph.caller[e], world.graph.callee[e]
        if world.twin[b] >= 0:
            continue
        calls[:, b] += calls[:, a] * world.ratio[e] * (1.0 if dead is None else 1.0 - dead[:, a])
    twins = np.flatnonzero(world.twin >= 0)
    calls[:, twins] = calls[:, world.twin[twins]]
    return calls


def _run(
    world: System, rng: np.random.Generator, times: Floats, faults: Sequence[Fault], onset: int
) -> tuple[Floats, Floats, Floats]:
    """True latency (seconds), share failing, and calls; each (rows, services)."""
    rows, n = len(times), len(world.graph.nodes)
    active = np.arange(rows) >= onset
    season = 1.0 + 0.3 * np.sin(2 * np.pi * times / DAY)
    loud = bool(world.noise.any())
    arriving = world.arriving * season[:, None] * (1 + 0.05 * rng.normal(size=(rows, 1)) * loud)
    seconds = world.seconds * np.exp(world.noise * rng.normal(size=(rows, n)))
    capacity = np.broadcast_to(world.capacity, (rows, n)).copy()
    failing = np.broadcast_to(world.failing, (rows, n)).copy()
    added = np.zeros((rows, n))
    dead = np.zeros((rows, n), dtype=np.bool_)
    for fault in faults:
        where = (active, fault.node)
        if fault.kind in ("latency", "timeout"):
            added[where] += fault.size
        elif fault.kind == "errors":
            failing[where] = 1 - (1 - failing[where]) * (1 - fault.size)
        elif fault.kind == "surge":
            arriving[where] *= 1 + fault.size
        elif fault.kind == "capacity":
            capacity[where] *= 1 - fault.size
        else:
            dead[where] = True
    calls = calls_of(world, np.maximum(arriving, 0.0), dead)
    busy = calls / ROW * seconds / capacity
    own = seconds / (1.0 - np.minimum(busy, 0.97)) + added
    failing = 1 - (1 - failing) * np.minimum(1.0, 1.0 / np.maximum(busy, 1e-9))  # what exceeds the capacity is refused
    latency = own
    by_caller: list[list[int]] = [[] for _ in range(n)]
    for e, a in enumerate(world.graph.caller.tolist()):
        by_caller[a].append(e)
    for a in range(n - 1, -1, -1):
        for e in by_caller[a]:
            b, ratio = int(world.graph.callee[e]), world.ratio[e]
            if world.twin[b] >= 0:
                continue
            waited = np.where(dead[:, b], 0.0, np.minimum(latency[:, b], TIMEOUT))
            lost = np.where(dead[:, b], 1.0, np.where(latency[:, b] > TIMEOUT, 1.0, failing[:, b]))
            if world.waits[e]:
                latency[:, a] += ratio * waited
                failing[:, a] = 1 - (1 - failing[:, a]) * (1 - world.passes[e] * lost * ratio)
    calls = np.where(dead, 0.0, calls)
    return latency, np.clip(failing, 0.0, 1.0), calls
