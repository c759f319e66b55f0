"""The webhook of somebody else's Alertmanager: its alerts become incidents."""

from __future__ import annotations

from typing import Any

from leptonai.api.incidents import brief
from leptonai.api.route import Asked, Query, Route
from leptonai.ops.alert import intake
from leptonai.types import DEFAULT_WORKSPACE


def take(asked: Asked[Query, intake.Webhook]) -> dict[str, Any]:
    """Takes Alertmanager's webhook payload, version 4: one incident of the workspace per service, job or alertname."""
    world, workspace = asked.world, asked.query.workspace or DEFAULT_WORKSPACE
    asked.caller.require_workspace(workspace)
    alerts = intake.check(asked.body)
    now = world.clock()
    numbers: list[int] = []
    with world.store.transaction():
        for subject, told in intake.by_subject(alerts, workspace).items():
            found = [i for i in world.store.incidents(open=True, subject=subject, limit=10) if intake.foreign(i)]
            before = found[0] if found else None
            after = intake.merge(before, subject, told, now)
            if after is None or after == before:
                continue
            kept = world.store.put_incident(after)
            numbers.append(kept.id)
            if before is None:
                world.record("incident.opened", subject, brief(kept), asked.caller.by)
            if kept.closed is not None:
                world.record("incident.closed", subject, brief(kept), asked.caller.by)
    return {"incidents": numbers, "ours": len(asked.body.alerts) - len(alerts)}


ROUTES = [Route("POST", "/alertmanager", "operator", take, dict[str, Any], body=intake.Webhook)]
