"""Kept log lines and mined templates, asked of ops. What is secret in them is masked, whoever asks."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from leptonai.api.route import Asked, Limit, Query, Route
from leptonai.client.wire import TemplateView
from leptonai.types import DEFAULT_WORKSPACE, LogPage, parse_key

JSON = "application/json"


class LogsQuery(Query, frozen=True, kw_only=True, forbid_unknown_fields=True):
    search: str = ""  # part of the line, upper and lower case alike
    service: str = ""
    template: Limit = 0  # an id of the service's templates
    level: str = ""  # this or worse: trace, debug, info, warn, error, fatal
    since: float = 0.0  # unix seconds
    until: float = 1e11
    before: Limit = 0  # the `next` of the page before
    limit: Limit = 100  # 1,000 at most


class TemplatesQuery(Query, frozen=True, kw_only=True, forbid_unknown_fields=True):
    service: str


async def search(asked: Asked[LogsQuery, None]) -> Response:
    """One page of kept lines, newest first; `next` is the `before` of the page after it, null at the end."""
    q = asked.query
    given = {n: str(getattr(q, n)) for n in ("search", "template", "level", "since", "until", "before", "limit")}
    params = {**given, "service": _key(asked, q.service) if q.service else ""}
    if q.workspace is not None:
        asked.caller.require_workspace(q.workspace)
        params["covers"] = q.workspace
    elif not asked.caller.covers("*"):
        params["covers"] = ",".join(asked.caller.token.workspaces)
    status, body = await asked.world.signals.get("/logs", params)
    return Response(body, status, media_type=JSON)


async def templates(asked: Asked[TemplatesQuery, None]) -> Response:
    """What the log of one service consists of, most frequent first, each with its newest line."""
    key = _key(asked, asked.query.service)
    asked.caller.require_workspace("*" if key.startswith("leptonai.") else parse_key(key)[0])
    status, body = await asked.world.signals.get("/logs/templates", {"service": key})
    return Response(body, status, media_type=JSON)


def _key(asked: Asked[Any, None], name: str) -> str:
    workspace = asked.query.workspace or DEFAULT_WORKSPACE
    return name if "/" in name or workspace == DEFAULT_WORKSPACE else f"{workspace}/{name}"


ROUTES = [
    Route("GET", "/logs", "viewer", search, LogPage, query=LogsQuery),
    Route("GET", "/logs/templates", "viewer", templates, list[TemplateView], query=TemplatesQuery),
]
