"""What an agent sends at once. Numbers rise by one, so a batch that comes again is known."""

from __future__ import annotations

from typing import Any

import msgspec

from leptonai.errors import SpecError
from leptonai.types import NAME, LogRecord, Noun, Signal


class Batch(Noun, frozen=True, kw_only=True):
    """``agent`` names the machine; ``run`` is made anew when its buffer was lost, and numbers begin again then."""

    agent: str
    run: str
    number: int
    signals: list[Signal] = []
    logs: list[LogRecord] = []
    dropped: int = 0  # batches that its full buffer had to give up so far
    positions: dict[str, tuple[int, int]] = {}  # log file -> (inode, bytes read): the agent's own memory


def encode(batch: Batch) -> bytes:
    return msgspec.json.encode(batch)


def decode(body: bytes) -> Batch:
    """SpecError says where ``body`` is none."""
    try:
        batch = msgspec.json.decode(body, type=Batch)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise SpecError(f"agent: the body is no batch: {e}", hint="is the agent of the platform's version?") from e
    if not NAME.fullmatch(batch.agent) or not batch.run or batch.number < 1:
        raise SpecError(
            f"agent: name {batch.agent[:60]!r}, run {batch.run[:60]!r}, number {batch.number}",
            hint="a name is lower case letters, digits and dashes; numbers begin at 1",
        )
    return batch


def finite(signals: list[Any]) -> list[Signal]:
    """JSON has no NaN: what is not a number is not sent."""
    return [s for s in signals if s.value == s.value and abs(s.value) != float("inf")]
