"""Each resource's own limit: the load at which it is used up, or why that cannot be told. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import inf, isfinite, log, sqrt
from typing import NamedTuple

import numpy as np

from leptonai.client.advice import Name
from leptonai.ops.advise.fits import Line, line
from leptonai.ops.advise.fits import each as each_of
from leptonai.ops.advise.queues import STEPS, busiest, refused
from leptonai.ops.advise.seen import Seen, weighted
from leptonai.ops.advise.threads import PAYS, USUAL_SPREAD, Threads, threads

REFUSED = 0.01  # share of requests over a declared limit, from which it bites
FULLEST = 3.0  # deviations of what is in flight at a replica, when its memory is fullest: one process dies of one peak
MOST_BUSY = 0.97  # of a processor, a thread or a dependency: queues in balance go no further
BLOCKED = 0.5  # of a thread's time that it waits for others, from which they are its limit
FITS = 1.25  # how much longer calls may take than a thread is idle, to be what it is idle for
AHEAD = 30.0  # times the load seen, beyond which a line through what was seen says nothing


class Below(NamedTuple):
    """What is known of a called service of ours: where it ends, and what it carries now, in its own requests."""

    load: float
    rate: float
    name: Name


class Known(NamedTuple):
    """What is declared or observed besides telemetry. ``replicas``: each with a compute thread; ``bound_by``: what
    decides how many, when that is a bound of the spec. ``cores`` 0: not known. ``below``: called services of ours."""

    replicas: int
    latency: float
    tail: float
    bound_by: str = ""
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
    """``load`` inf: not within reach, or it cannot be told; ``why`` says which."""

    name: Name
    what: str
    load: float
    why: str


def bounds(seen: Seen, known: Known) -> list[Bound]:
    """One for each resource that could end first, in no order. What would end below a load that was carried in time is
    refuted by that: somebody else has made room, and how much more they would is not known."""
    carried = seen.carried(known.tail)
    return [b if b.load >= carried else _refuted(b, carried) for b in _bounds(seen, known)]


def _refuted(found: Bound, carried: float) -> Bound:
    why = f"it should end at {found.load:.3g} requests/s, and {carried:.3g} were carried in time: {found.why}"
    return found._replace(load=inf, why=why)


def _bounds(seen: Seen, known: Known) -> list[Bound]:
    found = threads(seen, known.replicas, known.latency, known.tail, known.size, known.queue, known.cost)
    out = [*_threads(seen, known, found), *_processors(seen, known, found), *_dependencies(seen, known, found)]
    if found is not None:
        out += [*_memory(seen, known, found), *_requests(known, found)]
    if known.rate is not None:
        why = f"rate_limit.rate is {known.rate:g} requests/s of one token; how requests spread over tokens is not known"
        out.append(Bound("declared", "rate_limit", known.rate, why))
    return out


def _threads(seen: Seen, known: Known, found: Threads | None) -> Iterator[Bound]:
    if found is None:
        yield Bound("compute", "the compute threads", inf, "no compute time was measured")
        return
    what = f"the compute {'thread' if found.replicas == 1 else 'threads'} of {found.replicas} " + (
        "replica" if found.replicas == 1 else "replicas"
    )
    blocked = sum(seconds for _, seconds in _inside(seen, found))
    base = f"{what}, {found.each * 1e3:.3g} ms of one for a request"
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
        speed = line(calls, 1.0 / at)  # of a queue M/M/1, 1 / R = mu - lambda: a line that ends at its capacity
        if speed is None or not speed.falls:
            why = f"{name} does not get slower with the load that was seen, which tells no limit of it"
            yield Bound("dependency", name, inf, why)
            continue
        ends = -speed.base / speed.slope
        if not speed.span[1] < ends < AHEAD * speed.span[1]:
            yield Bound("dependency", name, inf, f"{name} gets slower with load; where it ends is too far to tell")
            continue

        load = MOST_BUSY * ends / fan
        if found is not None:
            spent = fan * weighted(at, seen.rate)
            own = max(found.each - spent, 0.0) if name in inside else found.each + max(found.rest - spent, 0.0)
            load = min(load, _kept(speed, fan, own, found.replicas if name in inside else 0, known, load))
        why = f"{name} gets slower with load, as a queue that ends at {ends:.3g} calls/s; {fan:.2g} calls for a request"
        yield Bound("dependency", name, load, why)


def _kept(speed: Line, fan: float, own: float, within: int, known: Known, most: float) -> float:
    """The load up to which calls that answer as ``speed`` says leave time: to ``within`` compute threads that wait for
    them, or, where none does (0), within the promised latency, the answers' times being exponential."""

    def holds(load: float) -> bool:
        rate = speed.base + speed.slope * load * fan
        if rate <= 0:
            return False
        if within:
            return load * (own + fan / rate) <= MOST_BUSY * within
        return -log(max(known.tail, 1e-6)) * min(fan, 1.0) / rate + own <= known.latency

    return _until(holds, most)


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

    def fits(load: float) -> bool:
        n = found.inside(load) / found.replicas
        return n + FULLEST * sqrt(n) <= room

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
