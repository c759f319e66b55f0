"""Nouns as stored text and back, and what is refused on the way."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from leptonai.errors import LeptonError, SpecError
from leptonai.types import Noun, canonical

N = TypeVar("N", bound=Noun)


def spell(value: N) -> tuple[str, N]:
    """The stored text of a noun, and the noun as read back: what could not be is refused before it is written.

    The two can differ where a caller gave an int for a float, and hashes are taken of what is stored.
    """
    try:
        text = canonical(value)
        return text.decode(), msgspec.json.decode(text, type=type(value))
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as e:
        raise SpecError(
            f"this {type(value).__name__.lower()} cannot be stored: {e}",
            hint="use finite numbers and plain JSON values",
        ) from e


def read(body: str, kind: type[N]) -> N:
    try:
        return msgspec.json.decode(body, type=kind)
    except (ValueError, msgspec.MsgspecError) as e:
        raise LeptonError(
            f"a stored {kind.__name__.lower()} cannot be read: {e}",
            hint="the store was damaged or written by another version: restore it from a backup",
            code="store_corrupt",
        ) from e


def limit_of(limit: int) -> int:
    if limit < 0:
        raise SpecError(f"limit is {limit}; it must be 0 or more", hint="leave it out for the default")
    return limit
