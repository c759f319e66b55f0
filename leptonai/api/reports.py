"""Incidents and periods told in plain language: text, Markdown, HTML or JSON, in the languages we speak."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from leptonai.api import advice
from leptonai.api.availability import measured, series
from leptonai.api.classifier import in_force
from leptonai.api.incidents import incident as read_incident
from leptonai.api.incidents import workspace_of
from leptonai.api.route import Asked, Query, Route
from leptonai.errors import LeptonError, SpecError
from leptonai.ops.incidents import service_of
from leptonai.ops.report import Member, Story, digest, questions, seen_of, tell, write
from leptonai.ops.report.digest import SIGNALS
from leptonai.types import Series

DAY = 86400.0
SHORTEST, MOST_DAYS = 0.01, 31
POINTS = 1000  # of one series of a digest
KINDS = {"text": "text/plain", "markdown": "text/markdown", "html": "text/html", "json": "application/json"}
# The page is opened by a browser from our own origin: what it is made of may run nothing and fetch nothing.
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; sandbox",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
Format = Literal["text", "markdown", "html", "json"]


class Spelling(Query, frozen=True, kw_only=True):
    lang: str = "en"
    format: Format = "markdown"


class Period(Spelling, frozen=True, kw_only=True):
    days: float = 1.0


async def incident_report(asked: Asked[Spelling, None]) -> Response:
    """The post-mortem of one incident as a page of its own; what was not measured is said to be unknown."""
    found = read_incident(asked)
    now = asked.world.clock()
    answers: dict[str, list[Series]] = {}
    slo = None
    with suppress(LeptonError):
        for q in questions(found, now):
            answers[q.name] = await series(
                asked, {**q.labels, "name": q.name, "start": q.start, "end": q.end, "step": q.step}
            )
    with suppress(LeptonError):
        if key := service_of(found):
            slo = asked.world.wishes.get(key, now).service.spec.slo
    story = await run_in_threadpool(tell, found, asked.query.lang, seen_of(answers, slo))
    return _spelt(story, asked.query.format)


async def period_report(asked: Asked[Period, None]) -> Response:
    """The last ``days`` of the platform and of each service that the token covers."""
    query, world = asked.query, asked.world
    if not SHORTEST <= query.days <= MOST_DAYS:
        raise SpecError(f"days is {query.days:g}, wanted {SHORTEST:g} to {MOST_DAYS}", hint="a week is 7")
    now, seconds = world.clock(), query.days * DAY
    replicas = world.platform.observe()
    members = []
    for wish in world.wishes.all(now):
        service, seen, known = wish.service, dict[str, tuple[Series, ...]](), None
        if not asked.covers(service.spec.workspace):
            continue
        with suppress(LeptonError):
            known = await measured(asked, service.key, seconds)
        with suppress(LeptonError):
            about = {"service": service.key, "start": now - seconds, "end": now, "step": seconds / POINTS}
            for name in SIGNALS:
                seen[name] = tuple(await series(asked, {**about, "name": name}))
        ends = None
        with suppress(LeptonError):
            ends = await advice.measured(asked, service.key, seconds)
        ready = sum(r.service == service.key and r.state == "ready" for r in replicas)
        members.append(Member(service=service, ready=ready, availability=known, series=seen, advice=ends))
    incidents = [i for i in world.store.incidents(limit=1000) if asked.covers(workspace_of(i.subject))]
    judges = await run_in_threadpool(in_force, world)
    story = await run_in_threadpool(digest, members, incidents, now - seconds, now, query.lang, judges)
    return _spelt(story, query.format)


def _spelt(story: Story, format: Format) -> Response:
    return Response(write(story, format), headers=HEADERS, media_type=KINDS[format])


ROUTES = [
    Route("GET", "/incidents/{id:int}/report", "viewer", incident_report, None, query=Spelling),
    Route("GET", "/report", "viewer", period_report, None, query=Period),
]
