"""Where a service ends: asked of ops' telemetry, of what its replicas have learnt, and of what the wish declares."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from statistics import median
from typing import Any

from starlette.concurrency import run_in_threadpool

from leptonai.api.availability import series
from leptonai.api.route import Asked, Query, Route
from leptonai.client.advice import Advice
from leptonai.errors import SpecError
from leptonai.ops.advise import LONGEST, SIGNALS, Below, advise
from leptonai.types import Key, Series, parse_key

POINTS = 2000  # of one series: windows are coarser by far


class AdviceQuery(Query, frozen=True, kw_only=True, forbid_unknown_fields=True):
    seconds: float = 3600.0  # the stretch that ends now


async def service_advice(asked: Asked[AdviceQuery, None]) -> Advice:
    """The first limit of a service, the load at which it bites, with intervals; and what would move it."""
    return await measured(asked, asked.key(), asked.query.seconds)


async def measured(asked: Asked[Any, None], key: Key, seconds: float, deep: bool = True) -> Advice:
    """Of one service over the ``seconds`` that end now. ``deep``: called services of ours are looked at, too.

    TelemetryError when ops cannot be asked.
    """
    world = asked.world
    now = world.clock()
    if not 60.0 <= seconds <= LONGEST:
        raise SpecError(f"seconds is {seconds:g}, wanted 60 to {LONGEST:.0f}", hint="an hour is 3600")
    service = world.wishes.get(key, now).service
    ready = [r for r in world.platform.observe() if r.service == key and r.state == "ready"]
    seen = await _series(asked, key, now - seconds, now)
    below = await _below(asked, seen, seconds) if deep else {}
    costs = [r.cost for r in ready if r.cost is not None]
    cost = (median(c[0] for c in costs), median(c[1] for c in costs)) if costs else None
    return await run_in_threadpool(
        advise, service, len(ready), seen, now - seconds, now, cores=float(os.cpu_count() or 0), cost=cost, below=below,
        theirs=bool(world.platform.scaled(service)),
    )  # fmt: skip


async def _series(asked: Asked[Any, None], key: Key, start: float, end: float) -> dict[str, list[Series]]:
    step = max(1.0, math.ceil((end - start) / POINTS))
    out = {}
    for name in SIGNALS:
        about = {"name": name, "start": start, "end": end, "step": step}
        machine = name.startswith("host_")
        found = await series(asked, about if machine else {**about, "service": key})
        out[name] = [s for s in found if not machine or not s.labels]  # those of other machines are labelled
    return out


async def _below(asked: Asked[Any, None], seen: Mapping[str, list[Series]], seconds: float) -> dict[str, Below]:
    """What is known of the called services that are ours and that the token covers."""
    now = asked.world.clock()
    ours = {wish.service.key for wish in asked.world.wishes.all(now)}
    out = {}
    for name in sorted({s.labels.get("dependency", "") for s in seen["dependency_seconds"]} & ours):
        if not asked.caller.covers(parse_key(name)[0]):
            continue
        found = await measured(asked, name, seconds, deep=False)
        if found.first is not None and found.first.load is not None:
            out[name] = Below(load=found.first.load, rate=found.rate, name=found.first.name)
    return out


ROUTES = [
    Route("GET", "/services/{name}/advice", "viewer", service_advice, Advice, query=AdviceQuery),
]
