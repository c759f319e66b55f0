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
from leptonai.types import Series

POINTS = 10_000  # of one series
LONGEST = 366 * 86400.0


class AvailabilityQuery(Query, frozen=True, kw_only=True, forbid_unknown_fields=True):
    seconds: float = 7 * 86400.0  # the stretch that ends now


async def of_service(asked: Asked[AvailabilityQuery, None]) -> Any:
    """Availability, error budget, MTTD, MTTR, MTBF, expected downtime and false pages, with their intervals."""
    key, seconds, world = asked.key(), asked.query.seconds, asked.world
    if not 1.0 <= seconds <= LONGEST:
        raise SpecError(f"seconds is {seconds:g}, wanted 1 to {LONGEST:.0f}", hint="a week is 604800")
    now = world.clock()
    spec = world.wishes.get(key, now).service.spec
    start = now - seconds
    step = 1.0 if seconds <= POINTS else math.ceil(seconds / POINTS)
    rate, errors = [
        await _series(asked, {"name": name, "service": key, "start": start, "end": now, "step": step})
        for name in ("request_rate_per_second", "error_ratio")
    ]
    mine = [i for i in world.store.incidents(None, limit=1000) if service_of(i) == key]
    period = world.settings.ops.period
    return await run_in_threadpool(availability, key, spec.slo, mine, rate, errors, start, now, period)


async def _series(asked: Asked[Any, None], params: dict[str, Any]) -> Series | None:
    status, content = await asked.world.signals.get("/signals", {k: str(v) for k, v in params.items()})
    try:
        if status >= 400:
            raise from_body(status, msgspec.json.decode(content, type=dict[str, Any]))
        found = msgspec.json.decode(content, type=list[SeriesView])
    except msgspec.DecodeError as e:
        raise TelemetryError(f"what ops answered cannot be read: {e}", hint="see logs/ops.log") from e
    return found[0].series() if found else None


ROUTES = [
    Route("GET", "/services/{name}/availability", "viewer", of_service, Availability, query=AvailabilityQuery),
]
