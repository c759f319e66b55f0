"""Labelled incidents: faults of every kind, severity and load on services drawn anew, seen and diagnosed as ops would.

Beside the fault there is what also happens in real life: harmless deployments, traffic that moves, a neighbour that
works, a nearly full disk, an Xid of yesterday. Some worlds have no fault at all: what opens an incident there is
labelled ``unknown``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import isfinite

import numpy as np

from leptonai.ops.simulate.faults import KINDS, OF_GPU, OF_MANY, Fault
from leptonai.ops.simulate.flow import Flow
from leptonai.ops.simulate.system import SHAPES, Shape, System, cells
from leptonai.ops.simulate.watch import Look, Watching
from leptonai.protocols import Floats

ONSET, WATCH, LAST = 120, 95, 75  # seconds: when faults begin, when ops begins to judge, how long it may take
LEVELS = {"low": (0.0, 0.3), "medium": (0.35, 0.65), "high": (0.7, 1.0)}
WORLDS = 60  # services at once
NONE = "unknown"


@dataclass(frozen=True)
class Case:
    """One incident. ``service``, ``shape`` and ``level`` are what is held out. ``seconds``: from fault to opening."""

    cause: str
    service: str
    shape: Shape
    level: str
    seconds: float
    looks: tuple[Look, ...]

    @property
    def last(self) -> Look:
        return self.looks[-1]


@dataclass(frozen=True)
class Drawn:
    """What came of a number of faults: ``cases`` were noticed, ``missed`` counts by kind those that were not."""

    cases: tuple[Case, ...]
    faults: dict[str, int]
    missed: dict[str, int]


def draw(seed: int, count: int, kinds: Sequence[str] = KINDS, controls: float = 0.08) -> Drawn:
    """``count`` worlds with one fault each, a share of ``controls`` without. Kinds, levels and shapes take turns, so
    that none follows from another; everything else is random."""
    cases: list[Case] = []
    faults: dict[str, int] = {}
    missed: dict[str, int] = {}
    for block, start in enumerate(range(0, count, WORLDS)):
        size = min(WORLDS, count - start)
        rng = np.random.default_rng([seed, block, 7])
        chosen = [NONE if rng.random() < controls else kinds[(start + i) % len(kinds)] for i in range(size)]
        levels = [list(LEVELS)[int(rng.integers(3))] for _ in range(size)]
        shapes: tuple[Shape, ...] = tuple(SHAPES[int(rng.integers(4))] for _ in range(size))
        for case in _block(seed * 100_003 + block, rng, chosen, levels, shapes):
            cases.append(case)
        for kind in chosen:
            faults[kind] = faults.get(kind, 0) + 1
    for kind, n in faults.items():
        missed[kind] = n - sum(c.cause == kind for c in cases)
    return Drawn(tuple(cases), faults, missed)


def _block(
    seed: int, rng: np.random.Generator, kinds: Sequence[str], levels: Sequence[str], shapes: tuple[Shape, ...]
) -> Iterator[Case]:
    world = _fitting(cells(seed, len(kinds), shapes), kinds)
    faults = []
    for i, (kind, level) in enumerate(zip(kinds, levels, strict=True)):
        if kind != NONE:
            low, high = LEVELS[level]
            faults.append(
                Fault(kind, 3 * i, ONSET + float(rng.uniform(0, 10)), rng.uniform(low, high), spin=rng.random())
            )
    flow = Flow(world, faults, ONSET + LAST + 15, seed)
    life = life_of(rng, flow, len(kinds), ONSET + 10)
    watching = Watching(flow, range(0, 3 * len(kinds), 3), lookouts_from=WATCH, once=ONSET - 1.0)
    for second in range(ONSET + LAST + 10):
        for s in life.get(second, ()):
            flow.deploy(s, "a new version")
        watching.step()
    begins = {f.service: f.at for f in faults}
    told: set[int] = set()
    for found in watching.found:
        s = found.service
        begun = begins.get(s, float(ONSET))
        late = found.incident.opened >= begun - 1.0
        if not found.looks or s in told or (s in begins and not late):
            continue  # an incident of before says nothing of the fault
        told.add(s)
        kind, level = kinds[s // 3], levels[s // 3]
        yield Case(kind, world.names[s], world.shape[s], level, found.incident.opened - begun, tuple(found.looks))


def _fitting(world: System, kinds: Sequence[str]) -> System:
    """The same worlds, with what the faults need: a GPU to break, several replicas to start at once."""
    gpu, replicas, rate = world.gpu.copy(), world.replicas.copy(), world.rate.copy()
    for i, kind in enumerate(kinds):
        if kind in OF_GPU:
            gpu[3 * i] = True
        if kind in OF_MANY and replicas[3 * i] < 3:
            rate[3 * i] *= 3 / replicas[3 * i]
            replicas[3 * i] = 3
    return replace(world, gpu=gpu, replicas=replicas, rate=rate)


def life_of(rng: np.random.Generator, flow: Flow, count: int, until: int) -> dict[int, list[int]]:
    """What happens anyway in ``count`` cells: second, before ``until`` -> services that get a new version, harmlessly;
    standing conditions of machines are set in ``flow``."""
    out: dict[int, list[int]] = {}
    for i in range(count):
        s, m = 3 * i, int(flow.system.machine[3 * i])
        if rng.random() < 0.3:
            out.setdefault(int(rng.integers(5, until)), []).append(s)
        if rng.random() < 0.12:
            flow.disk[m] = rng.uniform(0.9, 0.985)
        if rng.random() < 0.1:
            flow.xids[m] = rng.integers(1, 4)
            flow.ecc[m] = rng.integers(0, 2)
    return out


def table(cases: Sequence[Case], names: Sequence[str], every: bool = False) -> tuple[Floats, list[int]]:
    """(rows, features), nan where a feature was not seen; and the case of each row. ``every``: a row for each look,
    not only the last."""
    rows, whose = [], []
    for n, case in enumerate(cases):
        for look in case.looks if every else case.looks[-1:]:
            rows.append([look.features.get(name, float("nan")) for name in names])
            whose.append(n)
    out: Floats = np.array(rows, dtype=np.float64).reshape(-1, len(names))
    assert not np.isinf(out).any() and all(isfinite(c.seconds) for c in cases)
    return out, whose
