"""The gateway's routes of answers that come in pieces: server-sent events, and OpenAI's paths. Pure."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

# OpenAI's clients ask for events in the body, which no route can see: their paths are taken as a whole.
_EVENTS = {"name": "accept", "string_match": {"contains": "text/event-stream", "ignore_case": True}}
_GENERATE = {"name": ":path", "string_match": {"suffix": "/generate_stream"}}


def before(own: str, action: Json) -> list[Json]:
    """What comes before the route of a service's own paths."""
    slow = _patient(action)
    return [
        {"match": {"prefix": f"{own}/", "headers": [_EVENTS]}, "route": slow | {"prefix_rewrite": "/"}},
        {"match": {"prefix": f"{own}/", "headers": [_GENERATE]}, "route": slow | {"prefix_rewrite": "/"}},
        {"match": {"prefix": f"{own}/v1/"}, "route": slow | {"prefix_rewrite": "/v1/"}},
    ]


def generate(models: str, action: Json) -> Json:
    """What comes before the route of a service's protocol paths."""
    return {"match": {"path_separated_prefix": models, "headers": [_GENERATE]}, "route": _patient(action)}


def _patient(action: Json) -> Json:
    """The service's timeout is the longest silence, not the longest answer; none is asked for twice for being long."""
    slow = {k: v for k, v in action.items() if k != "hedge_policy"} | {"timeout": "0s"}
    slow["retry_policy"] = {k: v for k, v in action["retry_policy"].items() if k != "per_try_timeout"}
    return slow
