"""The advice: which limit comes first, how sure that is, and the change that moves it. Pure.

Uncertainty is a bootstrap over windows (Efron 1979), widened by what the laws themselves get wrong the further they are
taken beyond the load that was seen (``MODEL``, from the development worlds of benchmarks/advisor.py).
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
from leptonai.types import Series, Service

SIGNALS = (*dict.fromkeys(signal for signal, _ in COLUMNS.values()), *CALLS)
LONGEST = 31 * 86400.0  # seconds of telemetry at most
DRAWS = 100  # of the bootstrap: the ends of a 90 % interval are known to a few percent of its width
MODEL = (0.1, 0.06)  # deviation of the laws, in logarithms: at the load that was seen, and for each e-fold beyond it
NINETY = 1.645
LEAST_SHARE = 0.005


def advise(
    service: Service, ready: int, series: Mapping[str, Sequence[Series]], start: float, end: float, *,
    cores: float = 0.0, cost: tuple[float, float] | None = None, below: Mapping[str, Below] | None = None,
) -> Advice:  # fmt: skip
    """What telemetry of ``[start, end)`` tells of the first limit of ``service``.

    ``series``: by signal name, those of SIGNALS. ``cores``: processors of the machine, 0: not known; ``cost``: seconds
    a sample and a batch take, as a replica has learnt; ``below``: what is known of called services of ours.
    """
    seen = look(series, start, end)
    missing = _missing(seen, ready)
    peak, rate = (float(np.quantile(seen.rate, 0.99)), float(seen.rate.mean())) if len(seen) else (0.0, 0.0)
    blank = Advice(service=service.key, start=start, end=end, windows=len(seen), rate=rate, peak=peak)
    if missing:
        return msgspec.structs.replace(blank, cannot_tell=missing)
    known = known_of(service, ready, cores, cost, below or {})
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
    service: Service, ready: int, cores: float, cost: tuple[float, float] | None, below: Mapping[str, Below]
) -> Known:
    """What the wish declares. A service that scales by itself has the compute threads that it may get."""
    spec = service.spec
    first = spec.variants[0]
    auto = spec.scale.auto is not None and spec.scale.max > ready
    return Known(
        replicas=spec.scale.max if auto else ready,
        bound_by="scale.max" if auto else "",
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
    wide = MODEL[0] + MODEL[1] * np.log(np.maximum(far, 1.0))
    loads *= np.exp(rng.normal(0.0, 1.0, loads.shape) * wide)
    loads[:, far > AHEAD] = inf
    whole = np.isfinite(loads).any(axis=1)
    first = np.bincount(loads[whole].argmin(axis=1), minlength=len(found)) / max(int(whole.sum()), 1)
    out = []
    for n, bound in enumerate(found):
        column = loads[:, n][np.isfinite(loads[:, n])]
        if not isfinite(bound.load) or far[n] > AHEAD or len(column) < DRAWS // 2:
            why = bound.why if not isfinite(bound.load) else f"more than {AHEAD:g} times what was seen: {bound.why}"
            out.append(Limit(name=bound.name, what=bound.what, why=why, first_share=_share(first[n])))
            continue
        spread = max(float(np.log(np.maximum(column, 1e-9)).std()), float(wide[n]))
        low, high = (bound.load * float(np.exp(side * NINETY * spread)) for side in (-1.0, 1.0))
        out.append(
            Limit(
                name=bound.name, what=bound.what, load=bound.load, low=low, high=high, first_share=_share(first[n]),
                why=bound.why,
            )
        )  # fmt: skip
    return tuple(sorted(out, key=lambda limit: limit.load if limit.load is not None else inf))


def _share(value: float) -> float:
    return round(float(value), 3) if value >= LEAST_SHARE else 0.0
