"""How available a service was: asked of ops' telemetry and of the recorded incidents."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool

from leptonai.api.route import Asked, Query, Route
from leptonai.client.availability import Availability
from leptonai.client.wire import SeriesView
from leptonai.errors import SpecError, TelemetryError, from_body
from leptonai.ops.availability import availability
from leptonai.ops.incidents import service_of
from leptonai.types import Key, Series

POINTS = 10_000  # of one series
LONGEST = 366 * 86400.0


class AvailabilityQuery(Query, frozen=True, kw_only=True, forbid_unknown_fields=True):
    seconds: float = 7 * 86400.0  # the stretch that ends now


async def of_service(asked: Asked[AvailabilityQuery, None]) -> Any:
    """Availability, error budget, MTTD, MTTR, MTBF, expected downtime and false pages, with their intervals."""
    return await measured(asked, asked.key(), asked.query.seconds)


async def measured(asked: Asked[Any, None], key: Key, seconds: float) -> Availability:
    """Of one service over the ``seconds`` that end now. TelemetryError when ops cannot be asked."""
    world = asked.world
    now = world.clock()
    if not 1.0 <= seconds <= LONGEST:
        raise SpecError(f"seconds is {seconds:g}, wanted 1 to {LONGEST:.0f}", hint="a week is 604800")
    spec = world.wishes.get(key, now).service.spec
    start = now - seconds
    step = 1.0 if seconds <= POINTS else math.ceil(seconds / POINTS)
    about = {"service": key, "start": start, "end": now, "step": step}
    rate, errors, slow = [
        next(iter(await series(asked, {**about, "name": name})), None)
        for name in ("request_rate_per_second", "error_ratio", "slow_ratio")
    ]
    mine = [i for i in world.store.incidents(None, limit=1000) if service_of(i) == key]
    period = world.settings.ops.period
    return await run_in_threadpool(availability, key, spec.slo, mine, rate, errors, slow, start, now, period)


async def series(asked: Asked[Any, None], params: dict[str, Any]) -> list[Series]:
    """What ops answers to a question for signals. Raises what it refuses with, TelemetryError when it is away."""
    status, content = await asked.world.signals.get("/signals", {k: str(v) for k, v in params.items()})
    try:
        if status >= 400:
            raise from_body(status, msgspec.json.decode(content, type=dict[str, Any]))
        found = msgspec.json.decode(content, type=list[SeriesView])
    except msgspec.DecodeError as e:
        raise TelemetryError(f"what ops answered cannot be read: {e}", hint="see logs/ops.log") from e
    return [view.series() for view in found]


ROUTES = [
    Route("GET", "/services/{name}/availability", "viewer", of_service, Availability, query=AvailabilityQuery),
]
