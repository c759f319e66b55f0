"""Incidents as ops keeps them: whole documents, every version recorded."""

from __future__ import annotations

from typing import Any

import msgspec

from leptonai.api.route import Asked, Limit, Query, Route
from leptonai.errors import NotFound, SpecError
from leptonai.types import DEFAULT_WORKSPACE, Incident


class Which(Query, frozen=True, kw_only=True):
    open: bool | None = None
    limit: Limit = 100


def workspace_of(subject: str) -> str:
    """The workspace of ``workspace/kind/name``."""
    workspace, _, rest = subject.partition("/")
    return workspace if rest else DEFAULT_WORKSPACE


def incidents(asked: Asked[Which, None]) -> list[Incident]:
    """The newest incidents that the token covers, highest number first."""
    found = asked.world.store.incidents(asked.query.open, limit=min(asked.query.limit, 1000))
    return [i for i in found if asked.covers(workspace_of(i.subject))]


def incident(asked: Asked[Any, Any]) -> Incident:
    """One incident: what was seen, what caused it, what was done, how that went."""
    found = asked.world.store.incident(asked.path["id"])
    if not asked.caller.covers(workspace_of(found.subject)):
        raise NotFound(f"no incident {found.id}", hint="leptonai incidents lists them")
    return found


def create_incident(asked: Asked[Query, Incident]) -> Incident:
    """The incident with the number it was given; it is sent with id 0."""
    if asked.body.id != 0:
        raise SpecError(f"a new incident has id 0, not {asked.body.id}", hint="PUT /incidents/{id} changes one")
    asked.caller.require_workspace(workspace_of(asked.body.subject))
    made = asked.world.store.put_incident(asked.body)
    asked.world.record("incident.opened", subject_key(made.subject), brief(made), asked.caller.by)
    return made


def replace_incident(asked: Asked[Query, Incident]) -> Incident:
    """The incident is as sent; the version before stays in the record."""
    id, body = asked.path["id"], asked.body
    if body.id not in (0, id):
        raise SpecError(f"the incident says id {body.id}, the path {id}", hint="send the same number in both")
    before = asked.world.store.incident(id)
    for subject in (before.subject, body.subject):
        asked.caller.require_workspace(workspace_of(subject))
    kept = asked.world.store.put_incident(msgspec.structs.replace(body, id=id))
    for kind in ("diagnosed", "mitigated", "escalated", "closed"):
        if getattr(before, kind) is None and getattr(kept, kind) is not None:
            asked.world.record(f"incident.{kind}", subject_key(kept.subject), brief(kept), asked.caller.by)
    return kept


def subject_key(subject: str) -> str:
    """The key of the service an incident is about, so that ``why`` tells of it; else the subject itself."""
    workspace, _, rest = subject.partition("/")
    kind, _, name = rest.partition("/")
    if kind != "service" or not name:
        return subject
    return name if workspace == DEFAULT_WORKSPACE else f"{workspace}/{name}"


def brief(incident: Incident) -> dict[str, object]:
    cause = incident.causes[0] if incident.causes else None
    action = incident.actions[-1] if incident.actions else None
    return {
        "incident": incident.id,
        "title": incident.title,
        "severity": incident.severity,
        "cause": cause.name if cause else None,
        "confidence": cause.confidence if cause else None,
        "remedy": action.remedy if action else None,
        "verdict": action.verdict if action else None,
    }


ROUTES = [
    Route("GET", "/incidents", "viewer", incidents, list[Incident], query=Which),
    Route("POST", "/incidents", "operator", create_incident, Incident, body=Incident),
    Route("GET", "/incidents/{id:int}", "viewer", incident, Incident),
    Route("PUT", "/incidents/{id:int}", "operator", replace_incident, Incident, body=Incident),
]
