"""Drills in the simulator: their kinds on simulated causes, seen, named and answered by the code that runs live.

Each seed draws a world of small platforms side by side, one a drill, beside the things that happen anyway: harmless
deploys before, a nearly full disk, an Xid of yesterday. A fault that a fresh process is free of is cured by replacing
the process, one of a revision by rolling it back; no remedy knows of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import msgspec
import numpy as np
from scipy.special import rel_entr

from leptonai.drill.felt import felt
from leptonai.drill.kinds import CONTROLS, FAULTS, KINDS, Fault
from leptonai.drill.outcome import Injection, Outcome, judge, settled, told
from leptonai.drill.traffic import Counts
from leptonai.errors import SpecError
from leptonai.ops.answers import RECENT
from leptonai.ops.convict import TOLERABLE, WRONG_ALPHA
from leptonai.ops.simulate.act import Acting
from leptonai.ops.simulate.cases import life_of
from leptonai.ops.simulate.faults import ACTS, OF_GPU, Act
from leptonai.ops.simulate.faults import Fault as Cause
from leptonai.ops.simulate.flow import Flow
from leptonai.ops.simulate.system import SHAPES, Shape, System, cells
from leptonai.settings import Ops, Settings
from leptonai.types import Incident, Proposal

WARM = 95  # seconds of ordinary life until ops begins to judge
ONSET = 130.0  # when faults begin, give or take SPREAD
SPREAD = 10.0
LIFE = 60  # seconds in which harmless deploys fall: long before the fault
AFTER = 25.0  # seconds that are followed after the longest fault
TOLD = ("answered", "errors", "slow", "latency", "too_much", "anyway")  # of a service, a number a second
ROOM = 0.6  # of its capacity that half as much traffic again may use: a control is no fault
MOST = 6  # replicas that a service may be scaled to
THREE = frozenset({"sick", "sluggish", "cold-start", "stop", "leak", "hog"})  # a sick one is told apart from siblings
ONCE = frozenset({"sick", "errors", "disk"})  # the model itself answers an error, which the gateway does not repeat
HIDDEN = frozenset({"retries"})  # the gateway's own repetitions may carry all of it
NOT_HERE = frozenset({"flash", "latency", "loss"})  # a surge, and a network, which the simulator does not know
ALONE, ONE = frozenset({"kill", "stop", "oom"}), 0.1  # one replica is hit, as in a live drill
LASTS = {
    "wrong": 110.0,
    "drift": 70.0,
    "cold-start": 90.0,
}  # seconds: what shows or starts late is repaired all the same
UP = 10.0  # seconds after its replicas are up in which a service is whole
APART, LOOKED = 0.3, 5.0  # what opens an incident of drift (``diagnosis/shipped/data.yaml``); seconds that it must hold
SETTINGS = Settings(ops=Ops(reopen=3.0))  # as on the stage of live drills
REVISIONS = frozenset(f.kind for f in FAULTS if f.breaks == "revision")


def simulated_kinds() -> tuple[str, ...]:
    """The kinds that have a cause in the simulator, controls last."""
    return tuple(f.kind for f in (*FAULTS, *CONTROLS) if f.kind not in NOT_HERE)


def check(drills: Sequence[str]) -> None:
    """SpecError for what cannot be drilled there."""
    for drill in drills:
        if "+" in drill:
            raise SpecError(f"{drill}: the simulator drills one fault at a time", hint="run it on a copy")
        if drill in NOT_HERE:
            raise SpecError(f"{drill} has no cause in the simulator", hint=f"known: {', '.join(simulated_kinds())}")


def cured(act: Act) -> Act:
    """The act as long as the process it began in lives: what it does to a successor is taken back."""
    born: dict[Cause, np.ndarray] = {}

    def acts(flow: Flow, fault: Cause, age: float) -> None:
        s, forces = fault.service, flow.forces
        first = born.setdefault(fault, flow.born[s].copy())
        before = {name: getattr(forces, name)[s].copy() for name in ("slow", "fail", "idle", "leak")}
        act(flow, fault, age)
        fresh = flow.born[s] != first
        for name, was in before.items():
            getattr(forces, name)[s][fresh] = was[fresh]

    return acts


def of_revision(act: Act) -> Act:
    """The act comes with a new revision, on the replicas that run it."""

    def acts(flow: Flow, fault: Cause, age: float) -> None:
        if age < 1.0:
            flow.deploy(fault.service, "a new version")
        made = (m for m in reversed(flow.made) if m.service == fault.service and abs(m.at - fault.at) < 1.5)
        number = next(made).number
        before = flow.forces.nan[fault.service].copy()
        act(flow, fault, age)
        old = flow.runs[fault.service] != number
        flow.forces.nan[fault.service][old] = before[old]

    return acts


def _busy(flow: Flow, fault: Cause, age: float) -> None:
    flow.forces.surge[fault.service] *= 1.5


def acts_of() -> dict[str, Act]:
    """What causes do in drills; memories of one run are not those of another."""
    own = ("failing_replica", "slow_replica", "runaway_replica", "memory_leak", "out_of_memory")
    changed: dict[str, Act] = {name: cured(ACTS[name]) for name in own}
    return {**ACTS, **changed, "nan_outputs": of_revision(ACTS["nan_outputs"]), "busy": _busy}


SPINS: dict[str, Callable[[float], float]] = {  # the dice of a cause, where the drill is about one side of it
    "crash": lambda x: 0.49 * x,  # with a revision
    "leak": lambda x: 0.69 * x,  # in one replica
    "nan": lambda x: 0.41 + 0.5 * x,  # in all that run it
}


def shows(flow: Flow, fault: Fault, s: int) -> float:
    """What this second adds to what a test needs that convicts the innocent once in 10,000 times, 1 in all; 0 of kinds
    that no sample is needed for.

    Wrong answers: twice as many labels as Wald's bound of a sequential test has in the mean, log(1 / alpha) over the
    relative entropy of the true share to the tolerable one. Drift: RECENT answers since the data are so far apart that
    an incident is opened of them alone.
    """
    forces = flow.forces
    match fault.kind:
        case "wrong":
            share = 1.0 - (1.0 - flow.system.wrong[s]) * (1.0 - forces.wrong[s])
            each = np.where(forces.wrong[s] > 0, rel_entr(share, TOLERABLE) + rel_entr(1 - share, 1 - TOLERABLE), 0.0)
            return float((flow.labels[s] * each).sum() / (2.0 * -np.log(WRONG_ALPHA)))
        case "drift":
            return float(flow.answered[s]) / RECENT if forces.strange[s] >= APART else 0.0
    return 0.0


def allowed(fault: Fault, injection: Injection, shown: float | None, up: float) -> Fault:
    """The kind with its bounds moved, where what a test needs was there so late (``shown``) that they could not hold,
    or where the replicas that start were ``up`` so late, which nobody can hasten."""
    late = 0.0 if shown is None else max(0.0, shown + LOOKED - injection.at - fault.detect)
    recover = fault.recover + late
    if fault.kind == "cold-start":
        recover = max(recover, up + UP - injection.at)
    return msgspec.structs.replace(fault, detect=fault.detect + late, recover=recover)


def drill_seed(seed: int, drills: Sequence[str]) -> Iterator[Outcome]:
    """One outcome a drill, in their order. The same arguments give the same outcomes."""
    rng = np.random.default_rng([seed, 41])
    faults = [msgspec.structs.replace(KINDS[d], lasts=LASTS.get(d, KINDS[d].lasts)) for d in drills]
    shapes: tuple[Shape, ...] = tuple(
        "steady" if f.kind in ("busy", "calm") else SHAPES[int(rng.integers(4))] for f in faults
    )
    world = _fitting(cells(90_001 + seed, len(faults), shapes), faults)
    onsets = [float(np.floor(ONSET + rng.uniform(0, SPREAD))) for _ in faults]
    causes = [
        Cause(
            kind="busy" if f.kind == "busy" else f.causes[0], service=3 * i, at=onsets[i],
            severity=ONE if f.kind in ALONE else float(rng.uniform(0.3, 1.0)), until=onsets[i] + f.lasts,
            spin=_spin(f.kind, float(rng.random())),
        )
        for i, f in enumerate(faults)
        if f.causes or f.kind == "busy"
    ]  # fmt: skip
    seconds = int(ONSET + SPREAD + max(f.lasts for f in faults) + AFTER)
    flow = Flow(world, causes, seconds + 5, seed, acts=acts_of(), most=MOST)
    life = life_of(rng, flow, len(faults), LIFE)
    watched = range(0, 3 * len(faults), 3)
    injections: dict[int, Injection] = {}
    done: dict[int, float] = {}
    shown, enough, up = [0.0] * len(faults), dict[int, float](), [0.0] * len(faults)
    ends = {i: onsets[i] + f.lasts + AFTER for i, f in enumerate(faults)}
    seen = {name: np.zeros((seconds, len(faults))) for name in (*TOLD, "use")}
    with Acting(flow, watched, SETTINGS, WARM, MOST) as acting:
        for second in range(seconds):
            for s in life.get(second, ()):
                flow.deploy(s, "a new version")
            before = {i: [flow.id(3 * i, r) for r in range(int(flow.wanted[3 * i]))] for i in range(len(faults))}
            for i, fault in enumerate(faults):
                if second == int(onsets[i]) - 1:
                    _by_hand(fault, flow, 3 * i, acting)
            acting.step()
            for name in TOLD:
                seen[name][second] = getattr(flow, name)[0::3]
            seen["use"][second] = np.where(flow.ready, flow.use, 0.0).max(axis=1)[0::3]
            for i, fault in enumerate(faults):
                shown[i] += shows(flow, fault, 3 * i)
                if shown[i] >= 1.0:
                    enough.setdefault(i, flow.at)
                if i not in done and not flow.ready[3 * i].sum() >= flow.wanted[3 * i]:
                    up[i] = flow.at + 1.0
                if i not in injections and flow.at >= onsets[i]:
                    injections[i] = _injection(fault, flow, 3 * i, onsets[i], before[i], causes)
                if flow.at < ends[i]:
                    _answered(acting, i, fault, injections.get(i), flow.at, done)
                    if i in done:  # as live: what is over is not drilled on, but for what comes after
                        ends[i] = min(ends[i], done[i] + AFTER)
                elif i in injections:
                    acting.leave(3 * i)
            if flow.at >= max(ends.values()):
                break
        for i, fault in enumerate(faults):
            mine = {name: column[: second + 1, i] for name, column in seen.items()}
            fault = allowed(fault, injections[i], enough.get(i), up[i])
            yield _outcome(acting, flow, i, fault, injections[i], done.get(i), mine, ends[i], seed)


def _outcome(
    acting: Acting, flow: Flow, i: int, fault: Fault, injection: Injection, recovered: float | None,
    seen: Mapping[str, np.ndarray], until: float, seed: int,
) -> Outcome:  # fmt: skip
    s = 3 * i
    incidents = [x for x in acting.incidents(s) if injection.at - 1.0 <= x.opened < until]
    door = acting.platforms[s].door
    proposals: list[Proposal] = [p for p in door.proposals.values() if p.at >= injection.at]
    end = until if fault.control or recovered is None else recovered
    window = slice(int(injection.at) - 1, int(end))
    sent, failed, refused, anyway = (
        round(float(seen[name][window].sum())) for name in ("answered", "errors", "too_much", "anyway")
    )
    counts = Counts(sent=sent, failed=failed + refused - anyway)
    good = next(
        (r.spec for r in reversed(door.revisions_()) if r.spec is not None and r.at < injection.at - 1.5), door.spec(1)
    )
    found = judge(fault, injection, incidents, proposals, counts, good, recovered, until, seed)
    noticed = not (fault.only_late or fault.kind in HIDDEN) or felt(seen, int(injection.at), int(fault.lasts))
    return msgspec.structs.replace(found, felt=noticed)


def _answered(
    acting: Acting, i: int, fault: Fault, injection: Injection | None, now: float, done: dict[int, float]
) -> None:
    """Note when the service was whole again after ops had found its first incident repaired, or a person was called."""
    if injection is None or i in done or fault.control or now > injection.at + fault.lasts:
        return
    mine: list[Incident] = [x for x in acting.incidents(3 * i) if x.opened >= injection.at - 1.0]
    if not mine:
        return
    called = told(fault, mine[0])
    over, whole = settled(mine[0]), acting.platforms[3 * i].whole_since
    if called is not None:
        done[i] = called
    elif over is not None and whole is not None:
        done[i] = max(over, whole)


def _injection(
    fault: Fault, flow: Flow, s: int, at: float, before: Sequence[str], causes: Sequence[Cause]
) -> Injection:
    """What was broken, as an operator would know it afterwards."""
    if fault.breaks == "revision":
        return Injection(kind=fault.kind, at=at, revision=int(flow.head[s]))
    if fault.breaks == "replica":
        mine = next(c for c in causes if c.service == s)
        first = int(mine.spin * int(flow.system.replicas[s]))
        return Injection(kind=fault.kind, at=at, replica=before[first])
    return Injection(kind=fault.kind, at=at, text=fault.breaks)


def _by_hand(fault: Fault, flow: Flow, s: int, acting: Acting) -> None:
    """What a person does in a control."""
    match fault.kind:
        case "deploy":
            flow.deploy(s, "the release of the week")
        case "restart":
            acting.platforms[s].door.by_hand("epoch", float(flow.epoch[s] + 1))
        case "scale":
            acting.platforms[s].door.by_hand("replicas", float(flow.wanted[s] + 1))


def _spin(kind: str, dice: float) -> float:
    return SPINS[kind](dice) if kind in SPINS else dice


def _fitting(world: System, faults: Sequence[Fault]) -> System:
    """The same worlds with what the faults need; what is called runs on a machine of its own, so that who takes the
    processors takes none of its."""
    gpu, replicas, rate, compute = world.gpu.copy(), world.replicas.copy(), world.rate.copy(), world.compute.copy()
    machine, idempotent, count = world.machine.copy(), world.idempotent.copy(), len(world.cores)
    machine[2::3] = count + np.arange(count)
    idempotent[[3 * i for i, f in enumerate(faults) if f.kind in ONCE]] = False
    # A storm needs who repeats, and what may not be lost is what may be repeated.
    idempotent[[3 * i for i, f in enumerate(faults) if f.kind == "retries" or f.lossless]] = True
    for i, fault in enumerate(faults):
        s = 3 * i
        gpu[s] = gpu[s] or bool(set(fault.causes) & OF_GPU)
        if fault.kind == "busy":
            rate[s] *= min(1.0, ROOM / (1.5 * float(world.busy[s])))
        least = 3 if fault.kind in THREE else 2
        if replicas[s] < least:
            rate[s] *= least / replicas[s]
            compute[s + 2] *= replicas[s] / least  # what it calls carries that as well as before
            replicas[s] = least
    cores, memory, disk = (np.tile(column, 2) for column in (world.cores, world.memory, world.disk))
    return replace(
        world, gpu=gpu, replicas=replicas, rate=rate, compute=compute, machine=machine, idempotent=idempotent,
        cores=cores, memory=memory, disk=disk,
    )  # fmt: skip
