"""What is looked for among kept lines."""

from __future__ import annotations

from math import inf

from leptonai.errors import SpecError
from leptonai.types import Noun

LEVELS = {"trace": 1, "debug": 5, "info": 9, "warn": 13, "error": 17, "fatal": 21}  # OpenTelemetry's first of each


class Query(Noun, frozen=True, kw_only=True):
    """All that is given must hold. ``text``: part of the line, upper and lower case alike; ``level``: this or worse;
    ``workspaces`` None: all."""

    text: str = ""
    service: str = ""
    template: int = 0
    level: int = 0
    since: float = -inf
    until: float = inf
    workspaces: frozenset[str] | None = None


def level_number(name: str) -> int:
    """OpenTelemetry's number of a level by name or number; 0 for "". Raises SpecError for another."""
    text = name.strip().lower()
    if text.isdigit() and int(text) <= 24:
        return int(text)
    known = LEVELS | {"": 0, "warning": 13, "err": 17, "critical": 18}
    if text not in known:
        raise SpecError(f"level is {name!r}", hint=f"it is one of {', '.join(LEVELS)}, or OpenTelemetry's number")
    return known[text]


def level_name(severity: int) -> str:
    """The name of the band that a number is in; "" for 0."""
    return next((name for name, number in reversed(LEVELS.items()) if severity >= number), "")
