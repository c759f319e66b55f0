"""The Open Inference Protocol's model repository: which models there are; load and unload are dials of a service.

A model is loaded while its service wishes for replicas. Unloading scales it to zero: its processes end and give all
their memory back. Loading scales it to as many replicas as it last wished for. Both go through the door, as any change.
"""

from __future__ import annotations

from typing import Any

import msgspec

from leptonai.api.route import JSON_BODY, Asked, Query, Route
from leptonai.errors import Denied, LeptonError, SpecError
from leptonai.types import DialChange, Noun, Replica, Service, parse_key

HISTORY = 200  # changes looked back at for how many replicas there were; older ones count as one replica


class Listed(Noun, frozen=True, kw_only=True):
    """One model. ``state``: READY, LOADING or UNAVAILABLE; ``reason`` says why it is not ready."""

    name: str
    version: str
    state: str
    reason: str


class IndexRequest(Noun, frozen=True, kw_only=True):
    ready: bool = False


class Parameters(Noun, frozen=True, kw_only=True):
    """Of Triton's load and unload: ``config`` and files would be another model, which is deployed, not loaded."""

    config: str | None = None
    unload_dependents: bool = False


class LoadRequest(Noun, frozen=True, kw_only=True):
    parameters: Parameters = Parameters()


async def index(asked: Asked[Query, None]) -> list[Listed]:
    """The models that the token covers, as they stand now; ``{"ready": true}`` lists the ready ones only."""
    only_ready = (await _body(asked, IndexRequest)).ready
    world = asked.world
    replicas = world.platform.observe()
    listed = [
        _listed(wish.service, replicas)
        for wish in world.wishes.all(world.clock())
        if asked.covers(parse_key(wish.service.key)[0])
    ]
    return [one for one in listed if one.state == "READY" or not only_ready]


async def load(asked: Asked[Query, None]) -> dict[str, Any]:
    """Scale a service that is at zero to the replicas it last wished for. Nothing happens to one that is loaded."""
    request = await _body(asked, LoadRequest)
    if request.parameters.config is not None:
        raise SpecError("a model is not loaded with another config", hint="deploy a new revision: leptonai deploy")
    service = asked.world.wishes.get(asked.key(), asked.world.clock()).service
    wished = {name: dials.replicas for name, dials in service.dials.variants.items()}
    if any(wished.values()):
        return {}
    before: dict[str, float] = {}  # the newest wish above zero
    for proposal in asked.world.store.proposals("admitted", service.key, HISTORY):  # newest first
        if isinstance(proposal.change, DialChange):
            for path, value in proposal.change.set.items():
                if value > 0:
                    before.setdefault(path, value)
    paths = [f"{v.name}.replicas" for v in service.spec.variants]
    dials = {path: before[path] for path in paths if path in before} or {paths[0]: 1.0}
    return _turn(asked, dials, "load by the repository protocol")


async def unload(asked: Asked[Query, None]) -> dict[str, Any]:
    """Scale every variant of a service to zero: requests in flight are answered, then its processes end."""
    await _body(asked, LoadRequest)
    service = asked.world.wishes.get(asked.key(), asked.world.clock()).service
    dials = {f"{v.name}.replicas": 0.0 for v in service.spec.variants}
    return _turn(asked, dials, "unload by the repository protocol")


def _turn(asked: Asked[Query, None], dials: dict[str, float], why: str) -> dict[str, Any]:
    proposal = asked.world.door.propose(DialChange(service=asked.key(), set=dials), asked.caller.token, why)
    if proposal.status == "pending":
        raise LeptonError(
            f"{why}: proposal {proposal.id} waits for approval",
            hint="; ".join(proposal.reasons),
            code="pending",
            status=409,
        )
    if proposal.status != "admitted":
        raise Denied(f"{why}: {'; '.join(proposal.reasons)}", hint="see leptonai status NAME")
    return {}


def _listed(service: Service, replicas: list[Replica]) -> Listed:
    mine = [r for r in replicas if r.service == service.key]
    state, reason = "UNAVAILABLE", "scaled to zero"
    if any(r.state == "ready" for r in mine):
        state, reason = "READY", ""
    elif any(d.replicas for d in service.dials.variants.values()):
        state, reason = "LOADING", next((r.reason for r in mine if r.reason), "starting")
    workspace, name = parse_key(service.key)
    shown = name if workspace == "default" else service.key
    return Listed(name=shown, version=str(service.revision), state=state, reason=reason)


async def _body(asked: Asked[Query, None], kind: Any) -> Any:
    """Clients send an object or nothing at all."""
    content = b"".join([piece async for piece in asked.stream(JSON_BODY)])
    try:
        return msgspec.json.decode(content, type=kind) if content.strip() else kind()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise SpecError(f"not a repository request: {e}", hint="send a JSON object, or nothing") from e


ROUTES = [
    Route("POST", "/repository/index", "viewer", index, list[Listed]),
    Route("POST", "/repository/models/{name}/load", "operator", load, dict[str, Any]),
    Route("POST", "/repository/models/{name}/unload", "operator", unload, dict[str, Any]),
]
