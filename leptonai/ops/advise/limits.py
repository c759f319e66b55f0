"""Each resource's own limit: the load at which it is used up, or why that cannot be told. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import inf, isfinite, log
from typing import NamedTuple

import numpy as np
from scipy.special import pdtrc

from leptonai.client.advice import Name
from leptonai.ops.advise.fits import each as each_of
from leptonai.ops.advise.fits import line
from leptonai.ops.advise.queues import STEPS, busiest, crowded, refused
from leptonai.ops.advise.seen import Seen, weighted
from leptonai.ops.advise.stations import Stations, stations
from leptonai.ops.advise.threads import PAYS, USUAL_SPREAD, Threads, threads
from leptonai.protocols import Floats

REFUSED = 0.01  # share of requests over a declared limit, from which it bites
DIES = 2e-4  # chance that a request finds the memory of its replica full, from which it bites: all inside are lost
FULL = 0.9  # of the processors, in the mean: a machine on which who computes waits
MOST_BUSY = 0.97  # of a processor, a thread or a dependency: queues in balance go no further
BLOCKED = 0.5  # of a thread's time that it waits for others, from which they are its limit
FITS = 1.25  # how much longer calls may take than a thread is idle, to be what it is idle for
SAME = 0.98  # of the load at which the threads end, from which it is they that do
VAGUE = 0.7  # deviation of the logarithm of a limit, from which it is not told
AHEAD = 30.0  # times the load seen, beyond which a line through what was seen says nothing


class Below(NamedTuple):
    """What is known of a called service of ours: where it ends, and what it carries now, in its own requests."""

    load: float
    rate: float
    name: Name


class Known(NamedTuple):
    """What is declared or observed besides telemetry. ``replicas``: each with a compute thread; ``bound_by``: what
    decides how many, when that is a bound of the spec; ``set_by``: who else than us sets them. ``cores`` 0: not known.
    ``below``: called services of ours."""

    replicas: int
    latency: float
    tail: float
    bound_by: str = ""
    set_by: str = ""
    size: int = 1
    queue: int = 1024
    cost: tuple[float, float] | None = None
    cores: float = 0.0
    share: float | None = None  # processors of a replica
    memory: float | None = None  # bytes of a replica
    requests: int | None = None
    rate: float | None = None
    below: Mapping[str, Below] = {}


class Bound(NamedTuple):
    """``load`` inf: not within reach, or it cannot be told; ``why`` says which. ``spread``: deviation of its logarithm
    that the telemetry leaves open; where that is too much to tell it, ``maybe`` is where it is thought, and ``least``
    the nearest that it can be."""

    name: Name
    what: str
    load: float
    why: str
    spread: float = 0.0
    maybe: float = inf
    least: float = inf


def bounds(seen: Seen, known: Known) -> list[Bound]:
    """One for each resource that could end first, in no order. What would end below a load that was carried in time is
    refuted by that, be it known or only thought: somebody else has made room, and how much more they would is not
    known. What is hardly known is told all the same where it more likely than not ends first."""
    carried = seen.carried(known.tail)
    found = [b if min(b.load, b.maybe) >= carried else _refuted(b, carried) for b in _bounds(seen, known)]
    found = [b._replace(least=max(b.least, carried)) for b in found]
    nearest = min((b.load for b in found), default=inf)
    return [b._replace(load=b.maybe, maybe=inf) if b.maybe < nearest else b for b in found]


def _refuted(found: Bound, carried: float) -> Bound:
    if found.name == "queue":  # nobody can make room in it: it is there, and further than was thought
        return found._replace(load=carried)
    end = min(found.load, found.maybe)
    why = f"it should end at {end:.3g} requests/s, and {carried:.3g} were carried in time: {found.why}"
    return found._replace(load=inf, why=why, maybe=inf)


def _bounds(seen: Seen, known: Known) -> list[Bound]:
    slower = shared(seen, known)
    found = threads(seen, known.replicas, known.latency, known.tail, known.size, known.queue, known.cost, slower)
    out = [*_threads(seen, known, found), *_processors(seen, known, found), *_dependencies(seen, known, found)]
    if found is not None:
        out += [*_memory(seen, known, found), *_requests(known, found)]
    if known.rate is not None:
        why = f"rate_limit.rate is {known.rate:g} requests/s of one token; how requests spread over tokens is not known"
        out.append(Bound("declared", "rate_limit", known.rate, why))
    return out


def shared(seen: Seen, known: Known) -> float:
    """How much longer a request takes of a thread when all threads are busy, on a machine that is full already: who
    computes gets a fair share. Now each waits for a processor (f - 1) times as long as it runs, so f times the
    processors want to run; then those of our threads that idle now want to, too. 1 where the machine has room."""
    each, host = seen.mean("service"), float(np.nanmean(seen.host)) if np.isfinite(seen.host).any() else 0.0
    if known.cores <= 0 or known.size > 1 or host < FULL or not isfinite(each) or each <= 0:
        return 1.0
    busy = float((seen.rate * seen.service)[np.isfinite(seen.service)].mean()) / known.replicas
    runs = min(each_of(seen.rate, seen.cpu), each)
    called = sum(seen.fan(name) * weighted(at, seen.rate) for name, at in seen.calls.items())
    computes = each - (called if isfinite(called) and called <= FITS * (each - runs) else 0.0)
    if not isfinite(runs) or runs <= 0 or computes <= runs:
        return 1.0
    wanted = computes / runs * known.cores
    more = max(1.0 - busy, 0.0) * known.replicas * computes / each
    return (each - computes + computes * (wanted + more) / wanted) / each


def _threads(seen: Seen, known: Known, found: Threads | None) -> Iterator[Bound]:
    if found is None:
        yield Bound("compute", "the compute threads", inf, "no compute time was measured")
        return
    what = f"the compute {'thread' if found.replicas == 1 else 'threads'} of {found.replicas} " + (
        "replica" if found.replicas == 1 else "replicas"
    )
    blocked = sum(seconds for _, seconds in _inside(seen, found))
    base = f"{what}, {found.each * 1e3:.3g} ms of one for a request"
    if (slower := shared(seen, known)) > 1.01:
        base += f", {slower:.2g} times what it takes now, for the machine is full and shared"
    if found.strained:
        why = f"{known.tail:.1%} of the requests are later than {known.latency:g} s while the threads have room: {base}"
        yield Bound("queue", "waiting before the compute threads", found.held, why)
    name: Name = "compute"
    if known.bound_by:
        name, what = "declared", f"{known.bound_by}: {what}"
    elif blocked >= BLOCKED * found.each:
        name, base = "dependency", f"{base}, {min(blocked / found.each, 1.0):.0%} of it waiting for what it calls"
    elif found.batches is not None and found.batches.growth > PAYS:
        b = found.batches
        name = "batch"
        base += f", {b.full:.0f} in a batch of {b.each * 1e3:.3g} ms each and {b.fixed * 1e3:.3g} ms together"
        if not b.known:
            base += " (assumed: too few sizes were seen)"
    load = found.capacity if found.strained else min(found.held, MOST_BUSY * found.capacity)
    yield Bound(name, what, load, base)


def _inside(seen: Seen, found: Threads) -> list[tuple[str, float]]:
    """The calls made inside the compute thread, with the seconds of one request: where they fit into what the thread
    does not compute."""
    calls = [(name, seen.fan(name) * weighted(at, seen.rate)) for name, at in seen.calls.items()]
    calls = [(name, seconds) for name, seconds in calls if isfinite(seconds)]
    used = seen.mean("cpu") / max(weighted(seen.rate, seen.rate), 1e-9)
    idle = found.each - (min(used, found.each) if isfinite(used) else 0.0)
    whole = sum(seconds for _, seconds in calls)
    return calls if whole <= FITS * idle and whole > 0 else []


def _processors(seen: Seen, known: Known, found: Threads | None) -> Iterator[Bound]:
    each = each_of(seen.rate, seen.cpu)
    if not isfinite(each) or each <= 0:
        yield Bound("cpu", "the processors", inf, "no processor time was measured")
        return
    text = f"{each * 1e3:.3g} ms of a processor for a request"
    if known.share is not None:
        load = MOST_BUSY * known.replicas * known.share / each
        yield Bound("cpu", "resources.cpu", load, f"{text}, {known.replicas} replicas may use {known.share:g} each")
    if known.cores <= 0 or not np.isfinite(seen.host).any():
        yield Bound("cpu", "the processors of the machine", inf, "the use of the machine was not measured")
        return
    others = seen.host * known.cores - seen.cpu
    others = np.maximum(others[np.isfinite(others)], 0.0)
    free = max(known.cores - float(others.mean()), 0.0)
    idle = max(float(np.nanmean(seen.cpu - each * seen.rate)), 0.0)
    room = max(free - idle, 0.0)
    load = MOST_BUSY * room / each
    if found is not None and found.batches is None and each > 0:
        at_once = min(room * found.each / each, float(found.replicas))  # threads that compute at full speed together
        if at_once < found.replicas:
            # Waits that were measured are those for a thread, and say nothing of the queue for processors.
            busy = busiest(max(round(at_once), 1), found.each, USUAL_SPREAD, found.slack, known.tail)
            load = min(load, busy * at_once / found.each)
    why = f"{text}, others use {float(others.mean()):.2g} of {known.cores:g} processors"
    yield Bound("cpu", "the processors of the machine", load, why)


def _dependencies(seen: Seen, known: Known, found: Threads | None) -> Iterator[Bound]:
    inside = dict(_inside(seen, found)) if found is not None else {}
    for name, at in seen.calls.items():
        fan = max(seen.fan(name), 1e-6)
        below = known.below.get(name)
        if below is not None:
            load = float(seen.rate.mean()) + max(below.load - below.rate, 0.0) / fan
            why = f"{name} ends at {below.load:.3g} requests/s of its own ({below.name}), {fan:.2g} calls for a request"
            yield Bound("dependency", name, load, why)
            continue
        calls = seen.rate * fan if not np.isfinite(seen.asked[name]).any() else seen.asked[name]
        made = stations(calls, at)
        if made is None:
            yield Bound("dependency", name, inf, f"{name} was hardly called")
            continue
        spent = fan * weighted(at, seen.rate)
        within, own = 0, 0.0
        if found is not None and name in inside:
            within, own = found.replicas, max(found.each - spent, 0.0)
        elif found is not None:
            own = found.each + max(found.rest - spent, 0.0)
        load, spread, least = made.until(_kept(made, fan, own, within, known), AHEAD * float(np.nanmax(calls)))
        load, least = load / fan, least / fan
        if found is not None and within and load >= SAME * MOST_BUSY * found.capacity:
            yield Bound("dependency", name, inf, f"{name} does not end before the threads that wait for it")
            continue
        if spread > VAGUE:
            why = f"{name} hardly gets slower with the load that was seen, which only tells that it carries {least:.3g}"
            yield Bound("dependency", name, inf, why, spread, load, least)
            continue
        servers = float((made.weight * made.servers).sum())
        why = f"{name} gets slower with load, as about {servers:.2g} servers would; {fan:.2g} calls for a request"
        yield Bound("dependency", name, load, why, spread)


def _kept(made: Stations, fan: float, own: float, within: int, known: Known) -> Callable[[Floats], Floats]:
    """Whether calls leave time, at so many a second: to ``within`` compute threads that wait for them, or, where none
    does (0), within the promised latency, the answers' times being exponential."""
    late = -log(max(known.tail, 1e-6)) * min(fan, 1.0)

    def holds(calls: Floats) -> Floats:
        took, room = made.seconds(calls), calls + made.others <= MOST_BUSY * made.capacity
        if within:
            return np.asarray(room & (calls / fan * (own + fan * took) <= MOST_BUSY * within), dtype=np.float64)
        return np.asarray(room & (late * took + own <= known.latency), dtype=np.float64)

    return holds


def _memory(seen: Seen, known: Known, found: Threads) -> Iterator[Bound]:
    if known.memory is None:
        yield Bound("memory", "memory of a replica", inf, "no memory limit is set")
        return
    held = seen.inside / np.maximum(seen.ready, 1.0)
    fit = line(held, seen.rss)
    if fit is None or not fit.rises:
        why = "memory does not grow with the requests inside, as far as they varied"
        yield Bound("memory", "memory of a replica", inf, why)
        return
    room = (known.memory - fit.base) / fit.slope

    places = max(int(room), 0)

    def fits(load: float) -> bool:
        if found.batches is None:
            return crowded(load * found.each / found.replicas, found.varies, found.replicas, places) <= DIES
        # What a batch collects while another is computed is Poisson.
        return places > 0 and float(pdtrc(places - 1, found.inside(load) / found.replicas)) <= DIES

    load = _until(fits, MOST_BUSY * found.capacity)
    why = f"{fit.slope / 1e6:.3g} MB for a request inside, {known.memory / 1e6:.4g} MB may be used"
    if load >= MOST_BUSY * found.capacity * 0.999:
        yield Bound("memory", "memory of a replica", inf, f"{why}: it lasts until the compute threads are used up")
        return
    yield Bound("memory", "memory of a replica", load, why)


def _requests(known: Known, found: Threads) -> Iterator[Bound]:
    if known.requests is None:
        return
    most = known.requests

    def fits(load: float) -> bool:
        return refused(found.inside(load), most) <= REFUSED

    load = _until(fits, MOST_BUSY * found.capacity)
    why = f"limits.requests is {most}; at {load:.3g} requests/s so many are inside at times (Little's law)"
    if load >= MOST_BUSY * found.capacity * 0.999:
        load, why = inf, f"limits.requests is {most}: more than are ever inside before the compute threads are used up"
    yield Bound("declared", "limits.requests", load, why)


def _until(holds: Callable[[float], bool], most: float) -> float:
    """The largest load up to ``most`` at which it holds, for what holds below a point only."""
    if holds(most):
        return most
    low, high = 0.0, most
    for _ in range(STEPS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
