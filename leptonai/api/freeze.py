"""The kill switch over HTTP: from the answer on, no automatic proposal is admitted."""

from __future__ import annotations

from leptonai.api.proposals import check_why
from leptonai.api.route import Asked, Query, Route
from leptonai.client.wire import FreezeRequest, FreezeView


def freeze(asked: Asked[Query, None]) -> FreezeView:
    """How it stands."""
    return FreezeView(said=asked.world.switch.said())


def turn(asked: Asked[Query, FreezeRequest]) -> FreezeView:
    """It binds all services, so it takes a token that covers all workspaces. Recorded in the audit log."""
    body, world = asked.body, asked.world
    asked.caller.require_workspace("*")
    check_why(body.why)
    if body.on:
        world.switch.on(f"{asked.caller.by}: {body.why or 'no reason given'}")
    else:
        world.switch.off()
    world.record(
        "automation.frozen" if body.on else "automation.thawed", "platform", {"why": body.why}, asked.caller.by
    )
    return FreezeView(said=world.switch.said())


ROUTES = [
    Route("GET", "/freeze", "viewer", freeze, FreezeView),
    Route("PUT", "/freeze", "operator", turn, FreezeView, body=FreezeRequest),
]
