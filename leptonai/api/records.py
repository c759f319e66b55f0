"""What is said about the platform's work: feedback, and the audit log."""

from __future__ import annotations

import math
from typing import Any

from leptonai.api.incidents import workspace_of
from leptonai.api.issues import take_up
from leptonai.api.route import Asked, Limit, Query, Route
from leptonai.client.wire import Accepted, EventRequest, FeedbackPage, FeedbackRequest
from leptonai.errors import NotFound, SpecError
from leptonai.types import NAME, Event, Feedback, parse_key

MOST_FEEDBACK = 1000  # items of one call; each is synced to disk before it is acknowledged
MOST_TEXT = 1000  # characters of an id, a verdict or a label; ten times that for a note


class After(Query, frozen=True, kw_only=True):
    after: int = 0
    limit: Limit = 1000


class Log(Query, frozen=True, kw_only=True):
    """As ``services.Page``. ``kind`` ending in a dot stands for all that begin so."""

    after: int | None = None
    subject: str | None = None
    kind: str | None = None
    limit: Limit = 200


def send_feedback(asked: Asked[Query, FeedbackRequest | list[FeedbackRequest]]) -> Accepted:
    """The feedback is kept: one item or a list, of predictions by request id, or of ``incident:N``."""
    world, now = asked.world, asked.world.clock()
    items = asked.body if isinstance(asked.body, list) else [asked.body]
    if len(items) > MOST_FEEDBACK:
        raise SpecError(f"{len(items)} items of feedback, the limit is {MOST_FEEDBACK}", hint="send them in parts")
    for place, item in enumerate(items):
        _check(asked, item, f"feedback[{place}]" if isinstance(asked.body, list) else "feedback")
    world.pace.take(asked.caller.name, len(items), now)
    with world.store.transaction():
        for item in items:
            made = Feedback(
                about=item.about, by=asked.caller.by, at=now, service=item.service, label=item.label,
                rating=item.rating, verdict=item.verdict, note=item.note,
            )  # fmt: skip
            world.store.append_feedback(made)
            if item.service:
                take_up(world.store, made, world.wishes.get(item.service, now).service)
    return Accepted(accepted=len(items))


def _check(asked: Asked[Query, Any], item: FeedbackRequest, where: str) -> None:
    hint = "about is the x-request-id of a prediction, or incident:N"
    if not item.about or len(item.about) > MOST_TEXT:
        raise SpecError(f"{where}.about has {len(item.about)} characters, 1 to {MOST_TEXT} are allowed", hint=hint)
    if item.rating is not None and not math.isfinite(item.rating):
        raise SpecError(f"{where}.rating is no finite number", hint="a rating is a number on your scale")
    if item.label is None and item.rating is None and not item.verdict and not item.note:
        raise SpecError(f"{where} says nothing", hint="give a label, a rating, a verdict or a note")
    for name, limit in (("verdict", MOST_TEXT), ("note", 10 * MOST_TEXT)):
        text = getattr(item, name) or ""
        if len(text) > limit:
            raise SpecError(f"{where}.{name} has {len(text)} characters, the limit is {limit}", hint="say it shorter")
    if len(str(item.label)) > MOST_TEXT:
        raise SpecError(f"{where}.label is longer than {MOST_TEXT} characters", hint="a label is a class or a number")
    if item.service:
        asked.caller.require_workspace(parse_key(item.service)[0])
        asked.world.known_service(item.service)
    kind, _, number = item.about.partition(":")
    if kind == "incident":
        if not number.isdigit():
            raise SpecError(f"{where}.about {item.about!r} names no incident", hint=hint)
        found = asked.world.store.incident(int(number))
        if not asked.caller.covers(workspace_of(found.subject)):
            raise NotFound(f"no incident {number}", hint="leptonai incidents lists them")


def feedback(asked: Asked[After, None]) -> FeedbackPage:
    """The oldest feedback after a sequence number, and the number to go on from."""
    items, after = asked.world.store.feedback(asked.query.after, min(asked.query.limit, 10_000))
    seen = [(seq, item) for seq, item in items if _seen(asked, item)]
    return FeedbackPage(items=seen, next=after)


def _seen(asked: Asked[After, None], item: Feedback) -> bool:
    if item.service:
        return asked.covers(parse_key(item.service)[0])
    return asked.caller.covers("*")


def record_event(asked: Asked[Query, EventRequest]) -> Event:
    """The event as it now stands in the audit log, signed with the caller."""
    workspace = subject_workspace(asked.body.subject)
    asked.caller.require_workspace(workspace or "*")
    if not asked.body.kind or len(asked.body.kind) > 100:
        raise SpecError("the kind of an event has 1 to 100 characters", hint="like `drill.started`")
    if asked.body.kind.startswith("proposal."):
        raise SpecError(f"events of kind {asked.body.kind!r} are written by the door alone", hint="name it otherwise")
    return asked.world.record(asked.body.kind, asked.body.subject, asked.body.detail, asked.caller.by)


def events(asked: Asked[Log, None]) -> list[Event]:
    """The audit log, oldest first: every decision with all its terms."""
    query = asked.query
    found = asked.world.store.events(
        query.after or 0, query.subject, query.kind, min(query.limit, 10_000), newest=query.after is None
    )
    return [e for e in found if _covers(asked, e)]


def _covers(asked: Asked[Log, None], event: Event) -> bool:
    workspace = subject_workspace(event.subject)
    return asked.covers(workspace) if workspace else asked.query.workspace is None and asked.caller.covers("*")


def subject_workspace(subject: str) -> str | None:
    """The workspace of a service key; None for what belongs to the whole platform."""
    workspace, name = parse_key(subject)
    return workspace if NAME.fullmatch(name) and NAME.fullmatch(workspace) else None


ROUTES = [
    Route("POST", "/feedback", "operator", send_feedback, Accepted, body=FeedbackRequest | list[FeedbackRequest]),
    Route("GET", "/feedback", "viewer", feedback, FeedbackPage, query=After),
    Route("POST", "/events", "operator", record_event, Event, body=EventRequest),
    Route("GET", "/events", "viewer", events, list[Event], query=Log),
]
