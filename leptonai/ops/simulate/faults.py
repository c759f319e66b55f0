"""One fault of each cause of the taxonomy: what it does to the world, from a whisper (severity 0) to a shout (1).

A fault acts on causes: it makes a computation longer, a try fail, memory grow, a process end. What of it is seen, by
whom and how late is up to the system. ``spin`` in [0, 1) is the fault's own dice: which replica, which kind of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from leptonai.ops.simulate.forces import both

if TYPE_CHECKING:
    from leptonai.ops.simulate.flow import Flow


class Fault(NamedTuple):
    """``service``: the index of the one whose incident this is. It acts from ``at`` up to ``until``, in seconds."""

    kind: str
    service: int
    at: float
    severity: float = 0.5
    until: float = float("inf")
    spin: float = 0.5


Act = Callable[["Flow", Fault, float], None]


def _between(fault: Fault, low: float, high: float) -> float:
    """From ``low`` to ``high`` with the severity, evenly in ratios."""
    return float(low * (high / low) ** fault.severity)


def _slots(flow: Flow, fault: Fault, share: float) -> list[int]:
    """Which replicas: at least one, ``share`` of all, beginning anywhere."""
    count = int(flow.system.replicas[fault.service])
    first = int(fault.spin * count)
    return [(first + i) % count for i in range(max(1, round(share * count)))]


def _killed(flow: Flow, fault: Fault, age: float) -> None:
    if age < 1.0:
        for r in _slots(flow, fault, fault.severity):
            flow.end(fault.service, r, "killed", "ended by SIGKILL")


def _crashed(flow: Flow, fault: Fault, age: float) -> None:
    if age < 1.0:
        how = "ended by SIGSEGV" if fault.spin < 0.3 else f"exit code {1 + int(fault.spin * 7)}"
        for r in _slots(flow, fault, 0.6 * fault.severity):
            flow.end(fault.service, r, "exited", how)


def _crash_loop(flow: Flow, fault: Fault, age: float) -> None:
    """Half of them come with a new revision, whose replicas end soon after they are ready."""
    s = fault.service
    if fault.spin < 0.5:
        number = _deployed(flow, fault, age)
        slots = [r for r in range(int(flow.system.replicas[s])) if flow.runs[s, r] == number]
    else:
        slots = _slots(flow, fault, 0.7 * fault.severity)
    lives = _between(fault, 6.0, 1.0)
    for r in slots:
        if flow.alive[s, r] and (flow.at - flow.ready_at[s, r] >= lives):
            flow.end(s, r, "exited", f"exit code {1 + int(fault.spin * 9) % 3}")


def _out_of_memory(flow: Flow, fault: Fault, age: float) -> None:
    """Some request needs more than there is: within seconds, on the replicas it reaches."""
    s = fault.service
    if age < 12.0:
        room = float(flow.system.limit[s] - flow.system.rss[s])
        for r in _slots(flow, fault, 0.7 * fault.severity):
            flow.forces.leak[s, r] += room / _between(fault, 9.0, 2.0)


def _hung(flow: Flow, fault: Fault, age: float) -> None:
    if age < 1.0:
        for r in _slots(flow, fault, 0.6 * fault.severity):
            flow.hung_at[fault.service, r] = flow.at


def _leak(flow: Flow, fault: Fault, age: float) -> None:
    """In one replica, or in all of them, then mostly after a new revision."""
    s = fault.service
    everywhere = fault.spin > 0.7
    slots = range(int(flow.system.replicas[s])) if everywhere else _slots(flow, fault, 0.0)
    for r in slots:
        flow.forces.leak[s, r] += _between(fault, 1.2e6, 9e6)


def _failing_replica(flow: Flow, fault: Fault, age: float) -> None:
    """One process gone bad, or the machine under it."""
    flow.forces.fail[fault.service, _slots(flow, fault, 0.0)] += _between(fault, 0.3, 0.95)


def _slow_replica(flow: Flow, fault: Fault, age: float) -> None:
    flow.forces.slow[fault.service, _slots(flow, fault, 0.0)] *= _between(fault, 3.0, 20.0)


def _runaway(flow: Flow, fault: Fault, age: float) -> None:
    """A thread of one replica turns in circles, as many of them as it is severe."""
    taken = max(1.0, float(flow.system.cores[flow.system.machine[fault.service]]) * _between(fault, 0.6, 3.0))
    flow.forces.idle[fault.service, _slots(flow, fault, 0.0)] += taken


def _deployed(flow: Flow, fault: Fault, age: float) -> int:
    """The number of the revision that came with the fault."""
    if age < 1.0:
        flow.deploy(fault.service, "a new version")
    return max(m.number for m in flow.made if m.service == fault.service and abs(m.at - fault.at) < 1.5)


def _wrong_answers(flow: Flow, fault: Fault, age: float) -> None:
    new = flow.runs[fault.service] == _deployed(flow, fault, age)
    flow.forces.wrong[fault.service] += new * _between(fault, 0.2, 0.9)
    flow.forces.odd[fault.service] += new * _between(fault, 0.1, 0.7) * fault.spin


def _slow_revision(flow: Flow, fault: Fault, age: float) -> None:
    new = flow.runs[fault.service] == _deployed(flow, fault, age)
    flow.forces.slow[fault.service] *= np.where(new, _between(fault, 2.0, 15.0), 1.0)


def _failing_revision(flow: Flow, fault: Fault, age: float) -> None:
    new = flow.runs[fault.service] == _deployed(flow, fault, age)
    flow.forces.fail[fault.service] += new * _between(fault, 0.04, 0.8)


def _bad_config(flow: Flow, fault: Fault, age: float) -> None:
    """Its replicas do not get ready; those of the version before go on."""
    s = fault.service
    number = _deployed(flow, fault, age)
    if flow.head[s] != number:
        return
    flow.forces.unloadable[s] = True
    tries = 1.0 + 0.4 * float(flow.system.start[s])
    due = int(age / (tries + 2.0)) > int((age - 1.0) / (tries + 2.0))
    if age >= tries and due:
        from leptonai.ops.simulate.flow import Ended

        n = int(age / (tries + 2.0))
        why = "load_failed" if fault.spin < 0.6 else "model"
        new = f"{flow.system.names[s]}-n-{n}"
        flow.ended.append(Ended(s, new, number, why, "exit code 8: the model cannot be loaded", n - 1))


def _nan(flow: Flow, fault: Fault, age: float) -> None:
    """Weights or inputs gone wrong, on one replica or on all."""
    slots = range(int(flow.system.replicas[fault.service])) if fault.spin > 0.4 else _slots(flow, fault, 0.5)
    for r in slots:
        flow.forces.nan[fault.service, r] = _between(fault, 0.15, 1.0)


def _poison(flow: Flow, fault: Fault, age: float) -> None:
    flow.forces.spoilt[fault.service] = both(flow.forces.spoilt[fault.service], _between(fault, 0.03, 0.35))


def _drift(flow: Flow, fault: Fault, age: float) -> None:
    grown = min(1.0, age / (5.0 + 30.0 * fault.spin))
    flow.forces.odd[fault.service] += grown * _between(fault, 0.25, 0.9)
    flow.forces.strange[fault.service] += grown * _between(fault, 0.25, 0.9)
    flow.forces.wrong[fault.service] += grown * _between(fault, 0.2, 0.7)


def _surge(flow: Flow, fault: Fault, age: float) -> None:
    s = fault.service
    room = 1.0 / max(float(flow.system.busy[s]), 0.05)
    flow.forces.surge[s] *= 1.0 + (room * _between(fault, 1.05, 2.5) - 1.0) * min(1.0, age / (1.0 + 10.0 * fault.spin))


def _retry_storm(flow: Flow, fault: Fault, age: float) -> None:
    """Tries that wait are given up and repeated. A network that fails for seconds is enough to begin it,
    its own load keeps it going."""
    s = fault.service
    flow.forces.hasty[s] = max(0.02, float(flow.system.slo[s]) * (1.0 - 0.7 * fault.severity))
    if age < 4.0 + 12.0 * fault.severity:
        flow.forces.cut[s] += 0.4 + 0.5 * fault.severity


def _cold_start(flow: Flow, fault: Fault, age: float) -> None:
    """Somebody asked for most replicas to be replaced at once, and starting takes its time."""
    s = fault.service
    flow.forces.start[s] = _between(fault, 2.0, 8.0)
    if age < 1.0:
        for r in _slots(flow, fault, 0.6 + 0.4 * fault.severity):
            flow.stop(s, r, again=flow.at + 0.1)


def _starved(flow: Flow, fault: Fault, age: float) -> None:
    m = int(flow.system.machine[fault.service])
    flow.forces.hog[m] += float(flow.system.cores[m]) * _between(fault, 1.0, 5.0)


def _neighbour(flow: Flow, fault: Fault, age: float) -> None:
    """Another service of the machine begins to need much more of it."""
    world = flow.system
    s = fault.service
    beside = [int(o) for o in np.flatnonzero(world.machine == world.machine[s]) if o != s and world.ours[o]]
    for o in beside[:1]:
        taken = float(world.cores[world.machine[s]]) * _between(fault, 1.0, 5.0)
        flow.forces.hog[world.machine[s]] += taken
        flow.extra[o] += taken


def _disk(flow: Flow, fault: Fault, age: float) -> None:
    s = fault.service
    m = flow.system.machine[s]
    flow.forces.full[m] = True
    for o in np.flatnonzero(flow.system.machine == m):
        flow.forces.fail[o] += _between(fault, 0.05, 0.7) if flow.system.writes[o] or o == s else 0.0


def _of(flow: Flow, fault: Fault) -> list[int]:
    """The calls of the service, one of them."""
    calls = np.flatnonzero(flow.system.caller == fault.service)
    return [int(calls[int(fault.spin * len(calls))])] if len(calls) else []


def _slow_dependency(flow: Flow, fault: Fault, age: float) -> None:
    for e in _of(flow, fault):
        callee = int(flow.system.callee[e])
        if flow.system.ours[callee]:
            flow.forces.slow[callee] *= _between(fault, 3.0, 20.0)
        else:
            flow.forces.late[e] += _between(fault, 0.5, 5.0) * float(flow.system.slo[fault.service])


def _dead_dependency(flow: Flow, fault: Fault, age: float) -> None:
    """It refuses, or does not answer until the caller gives up."""
    for e in _of(flow, fault):
        flow.forces.broken[e] = both(flow.forces.broken[e], _between(fault, 0.55, 1.0))
        flow.forces.late[e] += 2.5 if fault.spin > 0.6 else 0.0


def _expired(flow: Flow, fault: Fault, age: float) -> None:
    for e in _of(flow, fault):
        flow.forces.denied[e] = both(flow.forces.denied[e], _between(fault, 0.3, 1.0))


def _gpu_xid(flow: Flow, fault: Fault, age: float) -> None:
    """The driver reports it; a process that used the card ends, or some of what it computes fails."""
    s = fault.service
    m = int(flow.system.machine[s])
    if age < 1.0 or (fault.severity > 0.6 and int(age) % 7 == 0):
        flow.forces.xid[m] += 1.0
        if fault.spin < 0.5 and age < 1.0:
            for r in _slots(flow, fault, 0.4 * fault.severity):
                flow.end(s, r, "exited", "exit code 1")
    if fault.spin >= 0.5:
        flow.forces.fail[s, _slots(flow, fault, 0.5)] += _between(fault, 0.1, 0.8)


def _gpu_ecc(flow: Flow, fault: Fault, age: float) -> None:
    s = fault.service
    m = int(flow.system.machine[s])
    if int(age) % max(1, round(6 - 5 * fault.severity)) == 0:
        flow.forces.ecc[m] += 1.0
        flow.forces.xid[m] += 1.0 if fault.spin < 0.8 and age < 1.0 else 0.0  # Xid 48
    flow.forces.fail[s, _slots(flow, fault, 0.5)] += _between(fault, 0.05, 0.6)


def _gpu_hot(flow: Flow, fault: Fault, age: float) -> None:
    s = fault.service
    m = int(flow.system.machine[s])
    flow.forces.heat[m] = max(flow.forces.heat[m], _between(fault, 0.3, 1.0))
    flow.forces.slow[s] *= 1.0 + (_between(fault, 2.2, 5.0) - 1.0) * min(1.0, age / 5.0)


def _gpu_lost(flow: Flow, fault: Fault, age: float) -> None:
    s = fault.service
    m = int(flow.system.machine[s])
    flow.forces.lost[m] = 1.0
    if age < 1.0:
        flow.forces.xid[m] += 1.0 if fault.spin < 0.7 else 0.0  # Xid 79
        if fault.spin < 0.3:
            for r in _slots(flow, fault, 0.5):
                flow.end(s, r, "exited", "exit code 1")
    flow.forces.fail[s, _slots(flow, fault, max(0.3, fault.severity))] += 0.9


ACTS: Mapping[str, Act] = {
    "replica_killed": _killed,
    "replica_crashed": _crashed,
    "crash_loop": _crash_loop,
    "out_of_memory": _out_of_memory,
    "failing_replica": _failing_replica,
    "slow_replica": _slow_replica,
    "runaway_replica": _runaway,
    "hung_replica": _hung,
    "memory_leak": _leak,
    "bad_revision_wrong_answers": _wrong_answers,
    "bad_revision_latency": _slow_revision,
    "bad_revision_errors": _failing_revision,
    "bad_config": _bad_config,
    "nan_outputs": _nan,
    "poisoned_input": _poison,
    "data_drift": _drift,
    "traffic_surge": _surge,
    "retry_storm": _retry_storm,
    "cold_start_storm": _cold_start,
    "cpu_starvation": _starved,
    "noisy_neighbour": _neighbour,
    "disk_full": _disk,
    "slow_dependency": _slow_dependency,
    "dead_dependency": _dead_dependency,
    "credential_expired": _expired,
    "gpu_xid": _gpu_xid,
    "gpu_ecc": _gpu_ecc,
    "gpu_thermal": _gpu_hot,
    "gpu_lost": _gpu_lost,
}
KINDS = tuple(ACTS)
OF_GPU = frozenset({"gpu_xid", "gpu_ecc", "gpu_thermal", "gpu_lost"})  # only of a service that uses one
OF_MANY = frozenset({"cold_start_storm", "failing_replica", "slow_replica"})  # only of one with three replicas and more
