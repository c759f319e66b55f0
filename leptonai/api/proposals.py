"""The one door, over HTTP: every change is a proposal, also a person's; and the models that proposals name."""

from __future__ import annotations

import errno
import tempfile
from typing import Any

import anyio.to_thread

from leptonai.admit.door import MACHINES
from leptonai.api.route import Asked, Limit, Query, Route
from leptonai.api.world import World
from leptonai.client.wire import ApproveRequest, ArtifactView, ProposalRequest, ProposalView, UndoRequest, viewed
from leptonai.errors import Conflict, Denied, NotFound, PlatformError, SpecError
from leptonai.types import DialChange, SpecChange, parse_key

MOST_WHY = 2000  # characters


class Status(Query, frozen=True, kw_only=True):
    status: str | None = None
    service: str | None = None
    limit: Limit = 100


def propose(asked: Asked[Query, ProposalRequest]) -> ProposalView:
    """The proposal and what became of it: admitted, denied with its reasons, or pending until it is approved."""
    body, world = asked.body, asked.world
    key = body.change.spec.key if isinstance(body.change, SpecChange) else body.change.service
    asked.caller.require_workspace(parse_key(key)[0])
    check_why(body.why)
    if isinstance(body.change, DialChange):
        _ours_to_set(world, body.change)
    if body.by is not None and asked.caller.name not in MACHINES:
        raise Denied(
            f"token {asked.caller.name!r} may not sign as {body.by!r}", hint="leave `by` out: the token says who asks"
        )
    made = world.door.propose(
        body.change,
        asked.caller.token,
        body.why,
        dry_run=body.dry_run,
        expires_in=body.expires_in,
        by=body.by,
        ask=body.ask,
    )
    return viewed(made)


def _ours_to_set(world: World, change: DialChange) -> None:
    """Conflict ``scaled_elsewhere`` for replicas that somebody else sets: nothing would come of it."""
    paths = [path for path in change.set if path.endswith(".replicas")]
    services = [w.service for w in world.wishes.all(world.clock()) if paths and w.service.key == change.service]
    for service in services:
        if {path.removesuffix(".replicas") for path in paths} & world.platform.scaled(service).keys():
            raise Conflict(
                f"the replicas of {service.key} are set by {service.spec.scale.owner}, not by us",
                hint="its bounds are scale.min and scale.max; scale.owner: leptonai takes them back",
                code="scaled_elsewhere",
            )


def undo(asked: Asked[Query, UndoRequest]) -> ProposalView:
    """The proposal that takes back the newest change of a person, spec or dials, and what became of it."""
    check_why(asked.body.why)
    return viewed(asked.world.door.undo(asked.key(), asked.caller.token, asked.body.why))


def check_why(why: str) -> None:
    if len(why) > MOST_WHY:
        raise SpecError(f"why has {len(why)} characters, the limit is {MOST_WHY}", hint="say it shorter")


def proposals(asked: Asked[Status, None]) -> list[ProposalView]:
    """The proposals that the token covers, newest first."""
    query = asked.query
    found = asked.world.store.proposals(query.status, query.service, min(query.limit, 1000))
    return [viewed(p) for p in found if asked.covers(parse_key(p.service)[0])]


def proposal(asked: Asked[Query, Any]) -> ProposalView:
    """One proposal as it stands now."""
    found = asked.world.store.proposal(asked.path["id"])
    if not asked.caller.covers(parse_key(found.service)[0]):
        raise NotFound(f"no proposal {found.id!r}", hint="`leptonai proposals` lists them")
    return viewed(found)


def approve(asked: Asked[Query, ApproveRequest]) -> ProposalView:
    """The proposal as admitted; the hash must be that of the change as it was read."""
    return viewed(asked.world.door.approve(proposal(asked).id, asked.body.hash, asked.caller.token))


async def upload(asked: Asked[Query, None]) -> ArtifactView:
    """The digest of the uploaded tree. The body is a tar; the same files give the same digest."""
    world = asked.world
    try:
        with tempfile.TemporaryFile(dir=world.artifacts.folder) as spool:
            async for piece in asked.stream(world.settings.api.max_body):
                spool.write(piece)
            spool.seek(0)
            digest = await anyio.to_thread.run_sync(world.artifacts.put_tar, spool)
    except OSError as e:
        full = e.errno in (errno.ENOSPC, errno.EDQUOT)
        raise PlatformError(
            f"the model cannot be stored in {world.artifacts.folder}: {e.strerror}",
            hint="free space on its disk, then try again" if full else "see control.log",
            code="disk_full" if full else "artifact_store",
            retry=full,
        ) from e
    return ArtifactView(digest=digest)


ROUTES = [
    Route("POST", "/proposals", "operator", propose, ProposalView, body=ProposalRequest),
    Route("POST", "/services/{name}/undo", "operator", undo, ProposalView, body=UndoRequest),
    Route("GET", "/proposals", "viewer", proposals, list[ProposalView], query=Status),
    Route("GET", "/proposals/{id}", "viewer", proposal, ProposalView),
    Route("POST", "/proposals/{id}/approve", "admin", approve, ProposalView, body=ApproveRequest),
    Route("POST", "/artifacts", "operator", upload, ArtifactView, stream=True),
]
