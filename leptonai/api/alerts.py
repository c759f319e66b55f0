"""Alerts, and what people say about them: silences and acknowledgements."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from starlette.responses import Response

from leptonai.api.incidents import subject_key, workspace_of
from leptonai.api.route import Asked, Query, Route
from leptonai.client.wire import AckRequest, Desk, SilenceRequest
from leptonai.errors import Conflict, NotFound, SpecError
from leptonai.ops.alert import match
from leptonai.ops.alert.rules import rules
from leptonai.ops.alert.sources import foreign
from leptonai.types import DEFAULT_WORKSPACE, Ack, Alert, Matcher, Silence, parse_key

LONGEST = 366 * 86400.0  # seconds of one silence: past a year it is a change of the route
MOST_MATCHERS = 20
MOST_TEXT = 1000  # characters of a comment
MOST_SILENCES = 1000  # in force or to come; each is looked at for each alert, each second


class Which(Query, frozen=True, kw_only=True):
    over: bool = False


class RulesQuery(Query, frozen=True, kw_only=True):
    service: str | None = None
    scrape: float = 15.0  # seconds between two scrapes


async def alerts(asked: Asked[Query, None]) -> list[Alert] | Response:
    """All alerts the token covers: firing, pending, and those that resolved lately."""
    status, body = await asked.world.signals.get("/alerts", {})
    if status != 200:
        return Response(body, status, media_type="application/json")
    found = msgspec.json.decode(body, type=list[Alert])
    return [a for a in found if asked.covers(a.labels.get("workspace", DEFAULT_WORKSPACE))]


def desk(asked: Asked[Query, None]) -> Desk:
    """What ops must know to decide who is told: silences, acknowledgements, incidents of others."""
    store, now = asked.world.store, asked.world.clock()
    opened = [i for i in store.incidents(open=True, limit=1000) if asked.covers(workspace_of(i.subject))]
    return Desk(
        silences=tuple(s for s in store.silences(after=now) if _sees(asked, s)),
        acks=tuple(store.acks(i.id for i in opened)),
        external=tuple(i for i in opened if foreign(i)),
    )


def silences(asked: Asked[Which, None]) -> list[Silence]:
    """Silences in force or to come, newest first; with ``over`` those that are over, too."""
    after = 0.0 if asked.query.over else asked.world.clock()
    return [s for s in asked.world.store.silences(after=after) if _sees(asked, s)]


def silence(asked: Asked[Query, SilenceRequest]) -> Silence:
    """Nobody is told of alerts that agree with all matchers; a token of some workspaces silences only theirs."""
    body, world = asked.body, asked.world
    now = world.clock()
    if not 0 < len(body.matchers) <= MOST_MATCHERS:
        raise SpecError(f"{len(body.matchers)} matchers, 1 to {MOST_MATCHERS} are allowed", hint=match.HINT)
    matchers = tuple(match.parse(text) for text in body.matchers)
    if match.agrees({}, matchers):
        raise SpecError("these matchers agree with every alert", hint="name a service, an alertname, a host ...")
    if not (math.isfinite(body.seconds) and 0 < body.seconds <= LONGEST):
        raise SpecError(f"seconds is {body.seconds:g}, wanted more than 0 and at most {LONGEST:g}")
    if not body.comment.strip() or len(body.comment) > MOST_TEXT:
        raise SpecError(f"a silence has a comment of 1 to {MOST_TEXT} characters", hint="say why nobody is to be told")
    starts = now if body.starts is None else body.starts
    if not (math.isfinite(starts) and now - 60.0 <= starts <= now + LONGEST):
        raise SpecError(f"starts is {starts:g}, wanted unix seconds from now on, within a year")
    if not asked.caller.covers("*"):
        workspace = _workspace(matchers) or asked.query.workspace or DEFAULT_WORKSPACE
        asked.caller.require_workspace(workspace)
        matchers = (*(m for m in matchers if m.label != "workspace"), Matcher(label="workspace", value=workspace))
    with world.store.transaction():
        if len(world.store.silences(after=now)) >= MOST_SILENCES:
            raise Conflict(f"{MOST_SILENCES} silences are in force", hint="end some: leptonai silence end NUMBER")
        made = world.store.put_silence(
            Silence(
                id=0, matchers=matchers, starts=starts, ends=starts + body.seconds, by=asked.caller.by,
                comment=body.comment, made=now, until_resolved=body.until_resolved,
            )
        )  # fmt: skip
        world.record("silence.made", "alerts", _brief(made), asked.caller.by)
    return made


def end_silence(asked: Asked[Query, None]) -> Silence:
    """The silence ends now; one that is over stays as it was."""
    world = asked.world
    now = world.clock()
    with world.store.transaction():
        found = world.store.silence(asked.path["id"])
        if not _sees(asked, found):
            raise NotFound(f"no silence {found.id}", hint="leptonai silence ls lists them")
        if found.ends > now:
            found = world.store.put_silence(msgspec.structs.replace(found, ends=now, starts=min(found.starts, now)))
            world.record("silence.ended", "alerts", _brief(found), asked.caller.by)
    return found


def ack(asked: Asked[Query, AckRequest]) -> Ack:
    """Somebody has taken the incident; it is not escalated any further. 409 when it is closed."""
    world, id = asked.world, asked.path["id"]
    found = world.store.incident(id)
    if not asked.caller.covers(workspace_of(found.subject)):
        raise NotFound(f"no incident {id}", hint="leptonai incidents lists them")
    if found.closed is not None:
        raise Conflict(f"incident {id} is closed", hint="there is nothing left to take")
    if len(asked.body.comment) > MOST_TEXT:
        raise SpecError(f"the comment has {len(asked.body.comment)} characters, the limit is {MOST_TEXT}")
    with world.store.transaction():
        made = world.store.append_ack(
            Ack(incident=id, by=asked.caller.by, at=world.clock(), comment=asked.body.comment)
        )
        detail = {"incident": id, "comment": made.comment}
        world.record("incident.acknowledged", subject_key(found.subject), detail, asked.caller.by)
    return made


def _workspace(matchers: tuple[Matcher, ...]) -> str:
    return next((m.value for m in matchers if m.label == "workspace" and m.op == "="), "")


def _sees(asked: Asked[Any, None], silence: Silence) -> bool:
    return asked.caller.covers("*") or asked.caller.covers(_workspace(silence.matchers) or "*")


def _brief(silence: Silence) -> dict[str, object]:
    matchers = [match.spell(m) for m in silence.matchers]
    return {"silence": silence.id, "matchers": matchers, "ends": silence.ends, "comment": silence.comment}


def alert_rules(asked: Asked[RulesQuery, None]) -> str:
    """Prometheus alert rules (YAML) for the promises of one service, or of all the token covers."""
    world, q = asked.world, asked.query
    if not 0.1 <= q.scrape <= 3600.0:
        raise SpecError(f"scrape is {q.scrape:g}, wanted 0.1 to 3600 seconds between two scrapes", hint="15 is usual")
    if q.service is not None:
        asked.caller.require_workspace(parse_key(q.service)[0])
        world.known_service(q.service)
    found = [s for s in world.store.services(world.clock()) if q.service in (None, s.key)]
    return rules([s for s in found if asked.covers(s.spec.workspace)], world.settings.alerts, q.scrape)


ROUTES = [
    Route("GET", "/alerts/rules", "viewer", alert_rules, str, query=RulesQuery),
    Route("GET", "/alerts", "viewer", alerts, list[Alert]),
    Route("GET", "/alerts/desk", "operator", desk, Desk),
    Route("GET", "/silences", "viewer", silences, list[Silence], query=Which),
    Route("POST", "/silences", "operator", silence, Silence, body=SilenceRequest),
    Route("DELETE", "/silences/{id:int}", "operator", end_silence, Silence),
    Route("POST", "/incidents/{id:int}/ack", "operator", ack, Ack, body=AckRequest),
]
