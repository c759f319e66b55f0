"""The control API as one Starlette application: a table of routes, one way in, one error shape out."""

from __future__ import annotations

import inspect
import logging
import math
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path as FilePath
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route as Path

from leptonai.admit import Door
from leptonai.admit.switch import Switch
from leptonai.api import (
    advice,
    alertmanager,
    alerts,
    availability,
    classifier,
    freeze,
    incidents,
    issues,
    learnt,
    logs,
    platform,
    proposals,
    records,
    reports,
    repository,
    reviews,
    services,
    telemetry,
)
from leptonai.api.callers import Caller, Callers
from leptonai.api.mask import Mask
from leptonai.api.openapi import document
from leptonai.api.pace import Pace
from leptonai.api.route import PREFIX, Asked, Query, Route
from leptonai.api.sessions import Sessions, set_cookie
from leptonai.api.signals import Signals
from leptonai.api.survey import Surveys
from leptonai.api.wishes import Wishes
from leptonai.api.world import World
from leptonai.errors import LeptonError, NotFound, SpecError
from leptonai.protocols import Platform
from leptonai.settings import Settings
from leptonai.store import Artifacts, Store
from leptonai.types import Token

log = logging.getLogger("leptonai.api")
Endpoint = Callable[[Request], Awaitable[Response]]


def openapi(asked: Asked[Query, None]) -> dict[str, Any]:
    """This document."""
    return document(ROUTES)


JSON = "application/json"
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]  # all reach us, so that all are answered in our words
ANYONE = Caller(Token(name="", role="viewer", workspaces=(), secret_sha256="", created=0.0))
ROUTES: list[Route] = [
    *services.ROUTES,
    *availability.ROUTES,
    *advice.ROUTES,
    *proposals.ROUTES,
    *freeze.ROUTES,
    *incidents.ROUTES,
    *reviews.ROUTES,
    *learnt.ROUTES,
    *classifier.ROUTES,
    *reports.ROUTES,
    *issues.ROUTES,
    *alerts.ROUTES,
    *alertmanager.ROUTES,
    *records.ROUTES,
    *platform.ROUTES,
    *telemetry.ROUTES,
    *logs.ROUTES,
    *repository.ROUTES,
    Route("GET", "/openapi.json", None, openapi, dict[str, Any]),
]


def create_app(
    door: Door,
    store: Store,
    artifacts: Artifacts,
    platform: Platform,
    settings: Settings,
    *,
    wishes: Wishes,
    clock: Callable[[], float],
    secret: bytes,
    ops_socket: Callable[[], str | None] = lambda: None,
    vault: FilePath | None = None,
    switch: Switch | None = None,
    closed: Callable[[], LeptonError | None] = lambda: None,
) -> Starlette:
    """The API over ``platform``; ``app.state.world`` is what its handlers share.

    ``clock`` gives unix seconds. ``secret`` signs console sessions: the same one after a restart keeps them open.
    ``ops_socket`` names the Unix socket of the ops process, None while there is none. ``vault``: where masked values
    are turned back from, None: nowhere. The door's ``on_change`` must reach ``wishes.changed``, and it must ask the
    same ``switch`` (unless given, one beside the artifacts). ``closed``: why a copy that does not lead changes nothing,
    None while it does. Waking the reconcile loop is the business of whoever made
    the door.
    """
    sessions = Sessions(secret)
    world = World(
        door=door,
        store=store,
        artifacts=artifacts,
        platform=platform,
        settings=settings,
        clock=clock,
        wishes=wishes,
        callers=Callers(store.tokens, sessions, clock),
        sessions=sessions,
        signals=Signals(ops_socket),
        pace=Pace(settings.api.feedback_rate, settings.api.feedback_burst),
        mask=Mask(vault, settings.logs.mask),
        started=clock(),
        switch=switch or Switch(artifacts.folder.parent / "frozen"),
        closed=closed,
    )
    app = Starlette(
        routes=[*paths(world, ROUTES), Path("/login", login(world), methods=["GET"]), *Surveys(world, secret).routes()],
        exception_handlers={HTTPException: refuse_http, LeptonError: refuse, Exception: refuse_unexpected},
    )
    app.state.world = world
    return app


def paths(world: World, routes: Sequence[Route]) -> list[Path]:
    """One Starlette route per path; the gateway's ``/feedback`` is the API's."""
    table: dict[str, dict[str, Route]] = {}
    for route in routes:
        table.setdefault(PREFIX + route.path, {})[route.method] = route
    table["/feedback"] = {"POST": table[f"{PREFIX}/feedback"]["POST"]}
    for what in telemetry.OTLP:  # the paths every OTLP exporter appends to a bare address
        table[f"/v1/{what}"] = table[f"{PREFIX}/otlp/v1/{what}"]
    return [Path(path, endpoint(world, by_method), methods=METHODS) for path, by_method in table.items()]


def endpoint(world: World, by_method: dict[str, Route]) -> Endpoint:
    async def answer(request: Request) -> Response:
        try:
            route = by_method.get(request.method)
            if route is None:
                raise wrong_method(request, by_method)
            return await call(world, route, request)
        except LeptonError as e:
            return refuse(request, e)
        except Exception as e:  # noqa: BLE001 - the boundary: nothing unexpected may reach a caller as a traceback
            return refuse_unexpected(request, e)

    return answer


async def call(world: World, route: Route, request: Request) -> Response:
    """Who, then may they, then what: a caller without the role learns nothing about the request's faults."""
    caller = world.callers.identify(request) if route.role else ANYONE
    if route.role:
        caller.require(route.role, f"{route.method} {route.path}")
    if route.changes and (refusal := world.closed()) is not None:
        raise refusal
    asked: Asked[Any, Any] = Asked(
        world=world,
        caller=caller,
        path=request.path_params,
        query=route.decode_query(request),
        body=await route.decode_body(request),
        request=request,
    )
    result = route.run(asked)
    if inspect.isawaitable(result):
        result = await result
    return result if isinstance(result, Response) else json(result)


def login(world: World) -> Endpoint:
    async def answer(request: Request) -> Response:
        """A ticket becomes a session cookie, once."""
        try:
            value = world.sessions.open(request.query_params.get("ticket", ""), world.clock())
        except LeptonError as e:
            return refuse(request, e)
        response = RedirectResponse("/console", status_code=303)
        set_cookie(response, value)
        return response

    return answer


def json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    content = msgspec.json.encode(value)
    return Response(content, status, headers={"cache-control": "no-store"} | (headers or {}), media_type=JSON)


def refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, LeptonError)
    headers = {}
    if error.status == 401:
        headers["www-authenticate"] = 'Bearer realm="leptonai"'
    if error.retry_after is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after))
    if error.status == 405:
        headers["allow"] = str(error.detail.get("allow", ""))
    if error.status == 413:
        headers["connection"] = "close"  # what is left of the body is not worth reading
    return json(error.body(), error.status, headers)


def refuse_http(request: Request, error: Exception) -> Response:
    """What the router refuses: no such path."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        where = f"the API is under {PREFIX}, described at {PREFIX}/openapi.json"
        return refuse(request, NotFound(f"nothing is at {request.url.path}", hint=where))
    said = f"{request.method} {request.url.path}: {error.detail}"
    return refuse(request, LeptonError(said, status=error.status_code, code="http"))


def refuse_unexpected(request: Request, error: Exception) -> Response:
    """An error of ours: the log gets the traceback, the caller the number to find it by."""
    number = uuid.uuid4().hex[:8]
    log.error("%s %s failed (%s)", request.method, request.url.path, number, exc_info=error)
    said = f"{request.method} {request.url.path} failed inside the platform ({number})"
    return refuse(request, LeptonError(said, hint=f"control.log tells more; search it for {number}"))


def wrong_method(request: Request, by_method: dict[str, Route]) -> LeptonError:
    known = ", ".join(by_method)
    return SpecError(
        f"{request.url.path} does not take {request.method}",
        hint=f"it takes {known}",
        code="method",
        status=405,
        allow=known,
    )
