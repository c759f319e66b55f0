"""The platform itself: what runs beside the replicas, its signals, its tokens, its console."""

from __future__ import annotations

from typing import Any

import msgspec

from leptonai import __version__
from leptonai.admit import issue
from leptonai.admit.door import MACHINES
from leptonai.api.route import Asked, Query, Route
from leptonai.api.sessions import TICKET_TTL
from leptonai.api.world import World
from leptonai.client.wire import Health, SessionView, TokenCreated, TokenRequest, TokenView
from leptonai.errors import Conflict, LeptonError, NotFound, SpecError
from leptonai.types import DEFAULT_WORKSPACE, NAME, Token


def healthz(asked: Asked[Query, None]) -> Health:
    """Answered whenever control runs; says nothing about services. ``read_only``: the store has no room."""
    return Health(status="read_only" if asked.world.store.full else "ok", version=__version__)


def platform(asked: Asked[Query, None]) -> dict[str, Any]:
    """What runs beside the replicas: the gateway, the isolation, whether ops gave a sign of life, and the store."""
    world = asked.world
    now, seen = world.clock(), world.callers.ops_seen
    alive = seen is not None and now - seen <= world.settings.api.ops_deadman
    trouble = ""
    try:
        world.store.held()
    except LeptonError as e:
        trouble = e.message
    return {
        **world.platform.describe(),
        "version": __version__,
        "started": world.started,
        "ops": {"alive": alive, "seen": seen, "broken": {} if trouble else _broken(world)},
        "store": {
            "place": world.store.place,
            "trouble": trouble,
            "full": f"{full.message}; {full.hint}" if (full := world.store.full) else "",
        },
        "frozen": world.switch.said(),
    }


def _broken(world: World) -> dict[str, str]:
    """The rule and runbook files that ops cannot use as they are: path -> what is wrong with it."""
    out: dict[str, str] = {}
    for kind in ("rules.read", "runbooks.read"):
        for event in world.store.events(kind=kind, newest=True, limit=1):
            found = event.detail.get("broken")
            out |= {str(path): str(said) for path, said in found.items()} if isinstance(found, dict) else {}
    return out


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
    Route("GET", "/tokens", "admin", tokens, list[TokenView]),
    Route("POST", "/tokens", "admin", create_token, TokenCreated, body=TokenRequest),
    Route("DELETE", "/tokens/{name}", "admin", revoke_token, TokenView),
    Route("POST", "/sessions", "viewer", session, SessionView),
]
