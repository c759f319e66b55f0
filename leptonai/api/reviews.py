"""What people who know say of incidents: the true cause, which hypotheses were right, what the remedies did."""

from __future__ import annotations

from typing import Any

from leptonai.api.incidents import incident as read_incident
from leptonai.api.incidents import subject_key, workspace_of
from leptonai.api.records import After
from leptonai.api.route import Asked, Query, Route
from leptonai.client.wire import ReviewPage, ReviewRequest
from leptonai.errors import Conflict, NotFound, SpecError
from leptonai.ops.diagnosis.files import RuleFiles
from leptonai.types import Incident, Review

MOST_NOTE = 10_000  # characters


def review(asked: Asked[Query, ReviewRequest]) -> Review:
    """The review is kept, in place of what the same reviewer said of the incident before. 409: the causes changed."""
    world, body, now = asked.world, asked.body, asked.world.clock()
    found = read_incident(asked)
    if body.analysis not in ("", found.analysis):
        raise Conflict(
            f"incident {found.id} has been explained anew since you read it",
            hint=f"read it again: leptonai incidents {found.id}",
            code="stale_analysis",
            analysis=found.analysis,
        )
    check(body, found, frozenset(_meanings(asked)))
    world.pace.take(asked.caller.name, 1, now)
    made = Review(
        incident=found.id, by=asked.caller.by, at=now, analysis=found.analysis, cause=body.cause,
        hypotheses=body.hypotheses, remedies=body.remedies, note=body.note, source=body.source,
    )  # fmt: skip
    with world.store.transaction():
        world.store.append_review(made)
        detail = {"incident": found.id, "cause": made.cause, "hypotheses": made.hypotheses, "remedies": made.remedies}
        world.record("incident.reviewed", subject_key(found.subject), detail | {"source": made.source}, made.by)
    return made


def causes(asked: Asked[Query, None]) -> dict[str, str]:
    """Every cause that diagnosis may name, with its meaning: the taxonomy, and what an operator's rule files add."""
    return _meanings(asked)


def _meanings(asked: Asked[Query, Any]) -> dict[str, str]:
    files = RuleFiles(asked.world.home / "rules")
    files.look()
    return dict(files.book.causes)


def check(body: ReviewRequest, incident: Incident, known: frozenset[str]) -> None:
    """SpecError when the review says nothing, contradicts itself, or speaks of what was not named or not tried."""
    where = f"the review of incident {incident.id}"
    if not (body.cause or body.hypotheses or body.remedies or body.note.strip()):
        raise SpecError(f"{where} says nothing", hint="give a cause, a hypothesis, a remedy or a note")
    if len(body.note) > MOST_NOTE:
        raise SpecError(f"{where}: the note has {len(body.note)} characters, the limit is {MOST_NOTE}")
    named = {cause.name for cause in incident.causes}
    if body.cause and body.cause not in known | named:
        raise SpecError(f"{where}: no such cause {body.cause!r}", hint=f"known: {', '.join(sorted(known))}")
    for cause in body.hypotheses:
        if cause not in named:
            hint = f"named: {', '.join(sorted(named)) or 'nothing'}"
            raise SpecError(f"{where}: {cause!r} was not named", hint=hint)
    if body.cause and body.hypotheses.get(body.cause) is False:
        raise SpecError(
            f"{where}: {body.cause!r} is told to be the cause and to be wrong", hint="it is one or the other"
        )
    tried = {action.remedy for action in incident.actions}
    for remedy in body.remedies:
        if remedy not in tried:
            raise SpecError(
                f"{where}: {remedy!r} was not tried", hint=f"tried: {', '.join(sorted(tried)) or 'nothing'}"
            )


def reviews_of(asked: Asked[Query, None]) -> list[Review]:
    """The newest review of each reviewer of one incident, oldest first."""
    return asked.world.store.reviews(read_incident(asked).id)


def reviews(asked: Asked[After, None]) -> ReviewPage:
    """The oldest reviews after a sequence number, and the number to go on from."""
    items, after = asked.world.store.reviews_after(asked.query.after, min(asked.query.limit, 10_000))
    return ReviewPage(items=[(seq, item) for seq, item in items if _seen(asked, item)], next=after)


def _seen(asked: Asked[After, None], item: Review) -> bool:
    try:
        return asked.covers(workspace_of(asked.world.store.incident(item.incident).subject))
    except NotFound:
        return asked.caller.covers("*")


ROUTES = [
    Route("GET", "/causes", "viewer", causes, dict[str, str]),
    Route("POST", "/incidents/{id:int}/review", "operator", review, Review, body=ReviewRequest),
    Route("GET", "/incidents/{id:int}/reviews", "viewer", reviews_of, list[Review]),
    Route("GET", "/reviews", "viewer", reviews, ReviewPage, query=After),
]
