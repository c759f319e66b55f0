"""Services as callers see them."""

from __future__ import annotations

from msgspec.structs import replace
from starlette.concurrency import run_in_threadpool

from leptonai.api.route import Asked, Limit, Query, Route
from leptonai.client.wire import Moved, ServiceView, VerifyRequest
from leptonai.errors import NotFound, SpecError
from leptonai.types import Event, LogLine, Replica, Revision, parse_key

MOST = 10_000  # items of one answer
DIALLED = ("replicas", "weight", "mirror")  # what moves with a service; an epoch is about processes that it leaves


class Page(Query, frozen=True, kw_only=True):
    """``after``: a sequence number; the oldest events after it are given. Without it, the newest ``limit``."""

    after: int | None = None
    limit: Limit = 200


class Lines(Query, frozen=True, kw_only=True):
    replica: str | None = None
    since: float = 0.0
    limit: Limit = 1000


def services(asked: Asked[Query, None]) -> list[ServiceView]:
    """All services that the token covers, ordered by key: wish, replicas, one line that says how each stands."""
    world = asked.world
    replicas = world.platform.observe()
    wishes = world.wishes.all(world.clock())
    return [world.view(w, replicas) for w in wishes if asked.covers(parse_key(w.service.key)[0])]


def service(asked: Asked[Query, None]) -> ServiceView:
    """One service: wish, replicas, one line that says how it stands."""
    world = asked.world
    return world.view(world.wishes.get(asked.key(), world.clock()), world.platform.observe())


def revisions(asked: Asked[Query, None]) -> list[Revision]:
    """The whole history of a service, oldest first; also of one that was deleted."""
    found = asked.world.store.revisions(asked.key())
    if not found:
        raise NotFound(f"no service {asked.key()!r} and no history of one", hint="`leptonai ls` shows the services")
    return found


def verify(asked: Asked[Query, VerifyRequest]) -> Revision:
    """The revision counts as verified-good from now on: undo and rollback return to it."""
    world, key, number = asked.world, asked.key(), asked.path["number"]
    now = world.clock()
    revision = world.store.verify(key, number, now)
    if revision.verified == now:
        world.record("revision.verified", key, {"revision": number, "detail": asked.body.detail}, asked.caller.by)
        world.wishes.changed(key)
    return revision


def adopt(asked: Asked[Query, Moved]) -> Revision:
    """The service with its history, as a bundle of another platform says it; its models were uploaded before."""
    world, key, moved = asked.world, asked.key(), asked.body
    if moved.service != key:
        raise SpecError(f"the bundle is of {moved.service}, not of {key}", hint="call it by the bundle's own name")
    workspace, name = parse_key(key)
    if any(i.closed is None or i.subject != f"{workspace}/service/{name}" for i in moved.incidents):
        raise SpecError(f"an incident of the bundle is open, or not of {key}", hint="export the service again")

    def beside() -> None:
        for incident in moved.incidents:
            world.store.put_incident(replace(incident, id=0))
        for item in moved.feedback:
            world.store.append_feedback(item)

    values = {f"{name}.{what}": float(getattr(d, what)) for name, d in moved.dials.items() for what in DIALLED}
    return world.door.adopt(key, moved.revisions, values, asked.caller.token, beside)


def replicas(asked: Asked[Query, None]) -> list[Replica]:
    """The processes of a service as observed now; also those still draining after it was deleted."""
    key = asked.key()
    found = [r for r in asked.world.platform.observe() if r.service == key]
    if not found:
        asked.world.known_service(key)
    return found


def service_events(asked: Asked[Page, None]) -> list[Event]:
    """What was decided about a service, with all the terms it was decided from, oldest first."""
    return asked.world.store.events(
        asked.query.after or 0,
        subject=asked.key(),
        limit=min(asked.query.limit, MOST),
        newest=asked.query.after is None,
    )


async def logs(asked: Asked[Lines, None]) -> list[LogLine]:
    """The newest lines of one replica or of all replicas of a service, oldest first, masked."""
    world, key, query = asked.world, asked.key(), asked.query
    limit = min(query.limit, MOST)
    if limit < 0:
        raise SpecError(f"limit is {limit}, it must be 0 or more", hint="leave it out for the default")
    ids = [r.id for r in world.platform.observe() if r.service == key]
    if query.replica is None:
        if not ids:
            world.known_service(key)
    elif query.replica in ids:
        ids = [query.replica]
    else:
        there = ", ".join(ids) or "none"
        raise NotFound(f"{key} has no replica {query.replica!r}", hint=f"there are: {there}")
    lines = [line for id in ids for line in world.platform.logs(id, query.since, limit)]
    newest = sorted(lines, key=lambda line: line.at)[-limit:] if limit else []
    masked = await run_in_threadpool(world.mask, [line.text for line in newest])
    return [replace(line, text=text) for line, text in zip(newest, masked, strict=True)]


ROUTES = [
    Route("GET", "/services", "viewer", services, list[ServiceView]),
    Route("GET", "/services/{name}", "viewer", service, ServiceView),
    Route("GET", "/services/{name}/revisions", "viewer", revisions, list[Revision]),
    Route("POST", "/services/{name}/revisions/{number:int}/verify", "operator", verify, Revision, body=VerifyRequest),
    Route("POST", "/services/{name}/adopt", "admin", adopt, Revision, body=Moved),
    Route("GET", "/services/{name}/replicas", "viewer", replicas, list[Replica]),
    Route("GET", "/services/{name}/events", "viewer", service_events, list[Event], query=Page),
    Route("GET", "/services/{name}/logs", "viewer", logs, list[LogLine], query=Lines),
]
