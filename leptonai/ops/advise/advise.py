"""The advice: which limit comes first, how sure that is, and the change that moves it. Pure.

Uncertainty is a bootstrap over windows (Efron 1979) and what a law leaves open, widened to what has come true of such
limits (``wide``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isfinite

import msgspec
import numpy as np

from leptonai.client.advice import Advice, Limit
from leptonai.ops.advise.limits import AHEAD, Below, Bound, Known, bounds
from leptonai.ops.advise.propose import propose
from leptonai.ops.advise.seen import CALLS, COLUMNS, LEAST, Seen, look
from leptonai.ops.advise.wide import deviation, within
from leptonai.protocols import Floats
from leptonai.types import Series, Service

SIGNALS = (*dict.fromkeys(signal for signal, _ in COLUMNS.values()), *CALLS)
LONGEST = 31 * 86400.0  # seconds of telemetry at most
DRAWS = 50  # of the bootstrap: its deviation is known to a tenth
LEAST_SHARE = 0.005


def advise(
    service: Service, ready: int, series: Mapping[str, Sequence[Series]], start: float, end: float, *,
    cores: float = 0.0, cost: tuple[float, float] | None = None, below: Mapping[str, Below] | None = None,
    theirs: bool = False,
) -> Advice:  # fmt: skip
    """What telemetry of ``[start, end)`` tells of the first limit of ``service``.

    ``series``: by signal name, those of SIGNALS. ``cores``: processors of the machine, 0: not known; ``cost``: seconds
    a sample and a batch take, as a replica has learnt; ``below``: what is known of called services of ours;
    ``theirs``: ``scale.owner`` sets the replicas in our place, so no proposal does.
    """
    seen = look(series, start, end)
    missing = _missing(seen, ready)
    peak, rate = (float(np.quantile(seen.rate, 0.99)), float(seen.rate.mean())) if len(seen) else (0.0, 0.0)
    blank = Advice(service=service.key, start=start, end=end, windows=len(seen), rate=rate, peak=peak)
    if missing:
        return msgspec.structs.replace(blank, cannot_tell=missing)
    known = known_of(service, ready, cores, cost, below or {}, theirs)
    limits = _with_chances(bounds(seen, known), seen, known, peak)
    told = [limit for limit in limits if limit.load is not None]
    cannot = tuple(f"{limit.what}: {limit.why}" for limit in limits if limit.load is None)
    if not told:
        return msgspec.structs.replace(blank, limits=limits, cannot_tell=cannot)
    first = min(told, key=lambda limit: inf if limit.load is None else limit.load)
    change, text = propose(service, seen, known, first, peak)
    return msgspec.structs.replace(
        blank, first=first, room=(first.load or 0.0) / max(peak, 1e-9), limits=limits, proposal=change, told=text,
        cannot_tell=cannot,
    )  # fmt: skip


def known_of(
    service: Service, ready: int, cores: float, cost: tuple[float, float] | None, below: Mapping[str, Below],
    theirs: bool = False,
) -> Known:  # fmt: skip
    """What the wish declares. A service whose replicas follow its load, by us or by ``scale.owner``, has the compute
    threads that it may get."""
    spec = service.spec
    first = spec.variants[0]
    auto = (theirs or spec.scale.auto is not None) and spec.scale.max > ready
    return Known(
        replicas=spec.scale.max if auto else ready,
        bound_by="scale.max" if auto else "",
        set_by=spec.scale.owner if theirs else "",
        latency=spec.slo.latency,
        tail=1.0 - spec.slo.latency_objective,
        size=first.batching.max_size,
        queue=first.batching.max_queue,
        cost=cost,
        cores=cores,
        share=first.resources.cpu,
        memory=first.resources.memory,
        requests=spec.limits.requests,
        rate=spec.rate_limit.rate if spec.rate_limit is not None else None,
        below=below,
    )


def _missing(seen: Seen, ready: int) -> tuple[str, ...]:
    """Why nothing can be told at all."""
    out = []
    if ready < 1:
        out.append("anything: no replica is ready")
    if len(seen) < LEAST:
        out.append(f"anything: {len(seen)} windows of telemetry with requests, {LEAST} are wanted")
    return tuple(out)


def _with_chances(found: Sequence[Bound], seen: Seen, known: Known, peak: float) -> tuple[Limit, ...]:
    """The bounds with intervals and the chance of each to be the first, the nearest first."""
    rng = np.random.default_rng(len(seen))
    names = [(b.name, b.what) for b in found]
    loads = np.full((DRAWS, len(found)), inf)
    for row in range(DRAWS):
        again = bounds(seen.take(rng.integers(0, len(seen), len(seen))), known)
        drawn = {(b.name, b.what): b.load for b in again}
        loads[row] = [drawn.get(name, inf) for name in names]
    far = np.array([b.load / peak if isfinite(b.load) else 1.0 for b in found])
    vague = [n for n, bound in enumerate(found) if isfinite(bound.maybe)]
    for n in vague:
        loads[:, n] = found[n].maybe * np.exp(found[n].spread * rng.normal(0.0, 1.0, DRAWS))
    spreads = [_spread(loads[:, n], bound.spread) for n, bound in enumerate(found)]
    reach = [float(np.log(max(times, 1.0))) for times in far]
    wide = [0.0 if n in vague else deviation(bound.spread, reach[n]) for n, bound in enumerate(found)]
    loads *= np.exp(rng.normal(0.0, 1.0, loads.shape) * wide)
    loads[:, far > AHEAD] = inf
    whole = np.isfinite(loads).any(axis=1)
    first = np.bincount(loads[whole].argmin(axis=1), minlength=len(found)) / max(int(whole.sum()), 1)
    # What cannot be told may still end first: where it is thought to, and at the least that is not refuted.
    least = float(np.quantile(loads.min(axis=1), 0.05)) if vague else inf
    least = min([least, *(within(b.name, b.least, 0.0, 0.0)[0] for b in found if isfinite(b.least))])
    nearest = min((bound.load for bound in found), default=inf)
    out = []
    for n, bound in enumerate(found):
        column = loads[:, n][np.isfinite(loads[:, n])]
        if not isfinite(bound.load) or far[n] > AHEAD or len(column) < DRAWS // 2:
            why = bound.why if not isfinite(bound.load) else f"more than {AHEAD:g} times what was seen: {bound.why}"
            out.append(Limit(name=bound.name, what=bound.what, why=why, first_share=_share(first[n])))
            continue
        low, high = within(bound.name, bound.load, spreads[n], reach[n])
        low = min(low, least) if bound.load == nearest else low
        out.append(
            Limit(
                name=bound.name, what=bound.what, load=bound.load, low=low, high=high, first_share=_share(first[n]),
                why=bound.why,
            )
        )  # fmt: skip
    return tuple(sorted(out, key=lambda limit: limit.load if limit.load is not None else inf))


def _spread(loads: Floats, law: float) -> float:
    """Deviation of the logarithm: of the draws, and what the law leaves open of each."""
    known = loads[np.isfinite(loads)]
    drawn = float(np.log(np.maximum(known, 1e-9)).std()) if len(known) else 0.0
    return float(np.hypot(drawn, law))


def _share(value: float) -> float:
    return round(float(value), 3) if value >= LEAST_SHARE else 0.0
