"""The last good answers, kept for the edge to fetch: while it asks for them, and at next to no cost for a request."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from msgspec import Struct

from leptonai.errors import SpecError
from leptonai.types import Answered

KEPT_FOR = 5.0  # seconds after the edge last asked; then nobody wants them
MAX_BYTES = 8 << 20  # of answers that wait to be fetched
MAX_NEW = 200  # between two fetches: a flood of different questions must cost neither us nor the edge much
MAX_SEEN = 20_000


class Terms(Struct, forbid_unknown_fields=True):
    """What the edge asks for: an answer again after ``every`` seconds at the earliest, ``max_bytes`` at most."""

    every: float
    max_bytes: int


_TERMS = msgspec.json.Decoder(Terms)


class LastAnswers:
    """Used on the I/O loop. ``on`` is false unless the edge has asked within KEPT_FOR seconds."""

    def __init__(self) -> None:
        self.on = False
        self._until = 0.0
        self._every = 0.0
        self._room = 0
        self._new: list[Answered] = []
        self._seen: dict[int, float] = {}  # the hash of a question -> when its answer may be kept again

    def add(self, now: float, asked: tuple[bytes, bytes, bytes, bytes], answer: Any, content_type: bytes) -> None:
        """A good answer. ``asked``: target, authorization, Inference-Header-Content-Length, body. ``now`` monotonic.

        Most questions of a busy service were seen lately: for them this is a hash of the body and a look.
        """
        seen = hash(asked)
        if self._seen.get(seen, 0.0) > now or len(self._new) >= MAX_NEW:
            return
        target, authorization, json_size, body = asked
        if target != b"/predict" and not target.endswith(b"/infer"):
            return
        size = None
        if not isinstance(answer, bytes):
            size, answer = answer.json_size, b"".join(answer.buffers)
        if len(answer) + len(body) > self._room:
            return
        self._room -= len(answer) + len(body)
        if len(self._seen) >= MAX_SEEN:
            self._seen.clear()
        self._seen[seen] = now + self._every
        self._new.append(
            Answered(
                at=time.time(),
                target=target,
                authorization=authorization,
                json_size=json_size,
                body=body,
                content_type=content_type,
                answer=answer,
                answer_json_size=size,
            )
        )

    def take(self, terms: bytes, now: float) -> bytes:
        """What is new since the last call, as MessagePack, oldest first; from now on answers are kept."""
        try:
            asked = _TERMS.decode(terms)
        except msgspec.DecodeError as e:
            raise SpecError(f"not what /-/answers takes: {e}", hint='{"every": seconds, "max_bytes": n}') from e
        new, self._new = self._new, []
        self.on, self._until = True, now + KEPT_FOR
        self._every, self._room = asked.every, min(asked.max_bytes, MAX_BYTES)
        return msgspec.msgpack.encode(new)

    def tick(self, now: float) -> None:
        """Once a second: forget everything when nobody has asked for long."""
        if self.on and now > self._until:
            self.on = False
            self._new.clear()
            self._seen.clear()
