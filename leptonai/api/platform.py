"""The platform itself: what runs beside the replicas, its signals, its tokens, its console."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

from leptonai import __version__
from leptonai.admit import issue
from leptonai.admit.door import MACHINES
from leptonai.api.route import Asked, Labels, Query, Route
from leptonai.api.sessions import TICKET_TTL
from leptonai.client.wire import Health, SeriesView, SessionView, TokenCreated, TokenRequest, TokenView
from leptonai.errors import Conflict, Denied, NotFound, SpecError
from leptonai.types import DEFAULT_WORKSPACE, NAME, Token, parse_key


def healthz(asked: Asked[Query, None]) -> Health:
    """Answered whenever control runs; says nothing about services."""
    return Health(status="ok", version=__version__)


def platform(asked: Asked[Query, None]) -> dict[str, Any]:
    """What runs beside the replicas: the gateway, the isolation, and whether ops gave a sign of life."""
    world = asked.world
    now, seen = world.clock(), world.callers.ops_seen
    alive = seen is not None and now - seen <= world.settings.api.ops_deadman
    return {
        **world.platform.describe(),
        "version": __version__,
        "started": world.started,
        "ops": {"alive": alive, "seen": seen},
    }


async def signals(asked: Asked[Any, None]) -> Response:
    """The series of one signal over a stretch of time, by labels; what was not seen is null."""
    params = dict(asked.query)
    params.pop("workspace", None)
    if "name" not in params:
        raise SpecError("which signal? `name` is missing", hint="GET /api/v1/signals/names lists them")
    if not asked.caller.covers("*"):
        service = params.get("service")
        if service is None:
            raise Denied(
                f"token {asked.caller.name!r} covers some workspaces only, so it must name a service",
                hint="add service=NAME",
                code="workspace",
            )
        asked.caller.require_workspace(parse_key(service)[0])
    return await _ops(asked, "/signals", params)


async def signal_names(asked: Asked[Query, None]) -> Response:
    """The names of all signals that are kept."""
    return await _ops(asked, "/signals/names", {})


async def write(asked: Asked[Query, None]) -> Response:
    """Takes Prometheus remote-write 1.0 into the workspace; 400 names what was refused, all else is kept then."""
    workspace = asked.query.workspace or DEFAULT_WORKSPACE
    asked.caller.require_workspace(workspace)
    if "io.prometheus.write.v2" in asked.request.headers.get("content-type", ""):
        raise SpecError("remote-write 2.0 is not spoken here", hint="send 1.0, the default of Prometheus", status=415)
    body = b"".join([piece async for piece in asked.stream(asked.world.settings.telemetry.request_bytes)])
    status, answer = await asked.world.signals.post("/write", {"workspace": workspace}, body)
    return Response(answer, status, media_type="application/json" if answer else None)


async def telemetry(asked: Asked[Query, None]) -> Response:
    """What became of telemetry that was sent, by workspace, and what the store had to give up."""
    return await _ops(asked, "/telemetry", {})


async def _ops(asked: Asked[Any, None], path: str, params: dict[str, str]) -> Response:
    status, body = await asked.world.signals.get(path, params)
    return Response(body, status, media_type="application/json")


def tokens(asked: Asked[Query, None]) -> list[TokenView]:
    """All tokens by name, revoked ones too. Nothing in the answer can be used in a token's place."""
    return [_shown(token) for token in asked.world.store.tokens()]


def create_token(asked: Asked[Query, TokenRequest]) -> TokenCreated:
    """The new token with its secret, which is shown this once."""
    body, world = asked.body, asked.world
    now = world.clock()
    for workspace in body.workspaces:
        if workspace != "*" and not NAME.fullmatch(workspace):
            raise SpecError(f"{workspace!r} is no workspace", hint=f"like {DEFAULT_WORKSPACE!r}, or '*' for all")
        asked.caller.require_workspace(workspace)
    secret, token = issue(body.name, body.role, body.workspaces, body.ttl, now=now)
    with world.store.transaction():
        same = next((t for t in world.store.tokens() if t.name == body.name), None)
        if body.name in MACHINES or (same and not same.revoked):
            raise Conflict(f"there is a token {body.name!r}", hint="choose another name, or revoke it first")
        world.store.put_token(token)
        detail = {"role": token.role, "workspaces": token.workspaces, "expires": token.expires}
        world.record("token.issued", f"token:{token.name}", detail, asked.caller.by)
    world.callers.forget()
    return TokenCreated(token=_shown(token), secret=secret)


def revoke_token(asked: Asked[Query, None]) -> TokenView:
    """The token is refused from now on, and so are the console sessions it opened."""
    world, name = asked.world, asked.path["name"]
    with world.store.transaction():
        token = next((t for t in world.store.tokens() if t.name == name), None)
        if token is None:
            raise NotFound(f"no token {name!r}", hint="`leptonai token ls` lists them")
        if name in MACHINES or name == asked.caller.name:
            why = "ops calls with it" if name in MACHINES else "this call is made with it"
            raise Conflict(f"token {name!r} cannot be revoked: {why}", hint="use another admin's token")
        if not token.revoked:
            token = msgspec.structs.replace(token, revoked=True)
            world.store.put_token(token)
            world.record("token.revoked", f"token:{name}", {}, asked.caller.by)
    world.callers.forget()
    return _shown(token)


def _shown(token: Token) -> TokenView:
    return TokenView(
        name=token.name,
        role=token.role,
        workspaces=token.workspaces,
        created=token.created,
        expires=token.expires,
        revoked=token.revoked,
    )


def session(asked: Asked[Query, None]) -> SessionView:
    """A URL that opens the console once, as this caller; an admin acts as an operator there."""
    ticket = asked.world.sessions.ticket(asked.caller.name, asked.world.clock())
    url = f"{str(asked.request.base_url).rstrip('/')}/login?ticket={ticket}"
    return SessionView(url=url, expires_in=TICKET_TTL)


ROUTES = [
    Route("GET", "/healthz", None, healthz, Health),
    Route("GET", "/platform", "viewer", platform, dict[str, Any]),
    Route("GET", "/signals", "viewer", signals, list[SeriesView], query=Labels),
    Route("GET", "/signals/names", "viewer", signal_names, list[str]),
    Route("GET", "/telemetry", "viewer", telemetry, dict[str, Any]),
    Route("POST", "/write", "operator", write, None, stream=True),
    Route("GET", "/tokens", "admin", tokens, list[TokenView]),
    Route("POST", "/tokens", "admin", create_token, TokenCreated, body=TokenRequest),
    Route("DELETE", "/tokens/{name}", "admin", revoke_token, TokenView),
    Route("POST", "/sessions", "viewer", session, SessionView),
]
