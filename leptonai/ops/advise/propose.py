"""The change that moves the first limit, and what it is expected to gain: the same laws, asked of the changed wish."""

from __future__ import annotations

from math import ceil, isfinite
from typing import NamedTuple

import msgspec

from leptonai.client.advice import Dial, Limit, Proposed
from leptonai.ops.advise.limits import REFUSED, Bound, Known, bounds, shared
from leptonai.ops.advise.queues import refused
from leptonai.ops.advise.seen import Seen
from leptonai.ops.advise.threads import threads
from leptonai.types import Change, DialChange, Service, Spec, SpecChange

NEEDED = 0.7  # of the first limit, from which a peak is close to it: what ``scale.auto`` aims at
MORE = 1.5  # times as much of what a proposal asks for, at least
WORTH = 0.03  # of more load, below which nothing is proposed
LARGEST = 512  # samples of a batch that are proposed


class Move(NamedTuple):
    """``known``: what would be known after ``change``, which sets ``dial`` to ``to``."""

    known: Known
    change: Change
    dial: Dial
    to: float
    text: str


def propose(service: Service, seen: Seen, known: Known, first: Limit, peak: float) -> tuple[Proposed | None, str]:
    """The proposal, or None; and in words what would help."""
    spec, before = service.spec, first.load or 0.0
    made: list[Move] = []
    if first.name in ("compute", "queue", "dependency") and _by_threads(seen, known):
        made += _replicas(service, known, peak, before)
    if first.name == "batch":
        made += [*_batch(service, known), *_replicas(service, known, peak, before)]
    if first.name == "declared":
        made += _declared(service, seen, known, first)
    if first.name == "memory" and known.memory is not None:
        more = ceil(known.memory * MORE / (1 << 20)) << 20
        variants = tuple(
            msgspec.structs.replace(v, resources=msgspec.structs.replace(v.resources, memory=more))
            for v in spec.variants
        )
        text = f"give each replica {more >> 20} MiB of memory"
        made.append(Move(known._replace(memory=float(more)), _spec(service, variants=variants), "memory", more, text))
    best: tuple[float, Proposed] | None = None
    for move in made:
        after, then = _first(seen, move.known)
        if after < before * (1.0 + WORTH) or not isfinite(after):
            continue
        found = Proposed(
            change=move.change, dial=move.dial, to=float(move.to), text=move.text, before=before, after=after,
            then=then.name, needed=peak > NEEDED * before,
        )  # fmt: skip
        if best is None or after > best[0] * (1.0 + WORTH):
            best = after, found
    if best is None:
        return None, _advice(first)
    return best[1], best[1].text


def _first(seen: Seen, known: Known) -> tuple[float, Bound]:
    found = min(bounds(seen, known), key=lambda b: b.load)
    return found.load, found


def _by_threads(seen: Seen, known: Known) -> bool:
    """Whether more compute threads would carry more."""
    more = known._replace(replicas=known.replicas + max(1, ceil((MORE - 1.0) * known.replicas)))
    return _first(seen, more)[0] > _first(seen, known)[0] * (1.0 + WORTH)


def _replicas(service: Service, known: Known, peak: float, before: float) -> list[Move]:
    """As many as put the peak at NEEDED of what they carry, and half as many again at least."""
    spec = service.spec
    if len(spec.variants) != 1 or known.bound_by:
        return []
    each = before / known.replicas
    count = max(ceil(MORE * known.replicas), ceil(peak / NEEDED / max(each, 1e-9)))
    other = known._replace(replicas=count)
    if known.set_by:
        return [_most(service, other)]
    name = spec.variants[0].name
    if count <= spec.scale.max:
        change = DialChange(service=spec.key, set={f"{name}.replicas": float(count)})
        return [Move(other, change, "replicas", count, f"{count} replicas")]
    scale = msgspec.structs.replace(spec.scale, max=count, replicas=count)
    return [Move(other, _spec(service, scale=scale), "replicas", count, f"{count} replicas, and scale.max {count}")]


def _batch(service: Service, known: Known) -> list[Move]:
    spec, size = service.spec, known.size * 2
    if size > LARGEST:
        return []
    variants = tuple(
        msgspec.structs.replace(v, batching=msgspec.structs.replace(v.batching, max_size=size)) for v in spec.variants
    )
    return [
        Move(known._replace(size=size), _spec(service, variants=variants), "batch", size, f"batches of up to {size}")
    ]


def _declared(service: Service, seen: Seen, known: Known, first: Limit) -> list[Move]:
    """The declared number that is reached where the next limit is."""
    spec = service.spec
    if first.what == "rate_limit" and spec.rate_limit is not None:
        rate = round(min(_first(seen, known._replace(rate=None))[0] * NEEDED, 1e6), 1)
        limit = msgspec.structs.replace(spec.rate_limit, rate=rate)
        if not isfinite(rate) or rate <= spec.rate_limit.rate:
            return []
        text = f"rate_limit.rate {rate:g}, so that a token reaches {NEEDED:.0%} of the next limit"
        return [Move(known._replace(rate=rate), _spec(service, rate_limit=limit), "rate", rate, text)]
    if first.what == "limits.requests" and known.requests is not None:
        after, _ = _first(seen, known._replace(requests=None))
        slower = shared(seen, known)
        found = threads(seen, known.replicas, known.latency, known.tail, known.size, known.queue, known.cost, slower)
        inside = found.inside(min(after, 0.95 * found.capacity)) if found is not None else 0.0
        most = ceil(MORE * known.requests)
        while refused(inside, most) > REFUSED:
            most += 1
        limits = msgspec.structs.replace(spec.limits, requests=most)
        change = _spec(service, limits=limits)
        return [Move(known._replace(requests=most), change, "requests", most, f"limits.requests {most}")]
    if known.bound_by:
        return [_most(service, known._replace(replicas=ceil(MORE * known.replicas)))]
    return []


def _most(service: Service, after: Known) -> Move:
    """As many replicas are let be, by whoever sets them."""
    count = after.replicas
    text = f"scale.max {count}" + (f", up to which {after.set_by} sets the replicas" if after.set_by else "")
    scale = msgspec.structs.replace(service.spec.scale, max=count)
    return Move(after, _spec(service, scale=scale), "most", count, text)


def _spec(service: Service, **changes: object) -> SpecChange:
    spec: Spec = msgspec.structs.replace(service.spec, **changes)
    return SpecChange(spec=spec, base=service.revision)


def _advice(first: Limit) -> str:
    """Where no wish of ours helps."""
    return {
        "cpu": "a machine with more processors, or less beside it; more replicas on this one carry nothing more",
        "dependency": f"more of {first.what}, fewer calls of it, or answers of it that are kept",
        "memory": "more memory, or less of it for a request",
    }.get(first.name, "a faster model: no change of the wish that is known here would carry more")
