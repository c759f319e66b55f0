"""Answers that come in pieces: generators stepped in turn in the compute thread, and how pieces become a body.

Each step is one ``next`` of one generator, so that streams share the model fairly and none waits for another's end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from time import monotonic
from typing import Any, Protocol

from msgspec import Struct

from leptonai.errors import LeptonError, NotFound
from leptonai.runtime.batching import Job
from leptonai.runtime.http import Parts

MAX_OPEN = 256  # streams computed at once; more wait in the queue


class Wire(Protocol):
    """How one protocol writes what a generator yields. Called in the thread that runs the generator."""

    def piece(self, item: Any) -> bytes:
        """One yielded item as server-sent events."""

    def last(self) -> bytes:
        """What ends the events; may be empty."""

    def failed(self, error: LeptonError) -> bytes:
        """The event of an error after the first piece was sent."""

    def whole(self, items: list[Any]) -> bytes | Parts:
        """All items as one body, for a client that wants no events."""


class Flow(Struct, eq=False):
    """An answer made by stepping: ``begin`` gives an iterator, an async iterator, or an awaitable of one value."""

    begin: Callable[[], Any]
    wire: Wire
    events: bool  # each item is sent as it comes
    asynchronous: bool = False  # runs on the loop of user code, not in the compute thread


class Step(Struct, eq=False):
    """What a step made. ``body`` is a piece while ``more``, else the end of the answer."""

    job: Job
    body: bytes | Parts = b""
    error: LeptonError | None = None
    begun: bool = False  # pieces were sent before, or this is one
    more: bool = False
    seconds: float = 0.0  # computed so far
    started: float = 0.0
    output: Any = None  # the first item, for the prediction log


class Open(Struct, eq=False):
    """A stream under way."""

    job: Job
    items: Iterator[Any]
    started: float
    kept: list[Any]  # items of an answer that is sent whole
    first: Any = None
    begun: bool = False
    seconds: float = 0.0

    def took(self, item: Any) -> Step | None:
        """The generator gave an item."""
        if self.first is None:
            self.first = item
        flow = self.job.flow
        if not flow.events:
            self.kept.append(item)
            return None
        self.begun = True
        return self._step(flow.wire.piece(item), more=True)

    def ended(self) -> Step:
        flow = self.job.flow
        if flow.events:
            self.begun = True
            return self._step(flow.wire.last())
        return self._step(flow.wire.whole(self.kept))

    def failed(self, error: LeptonError) -> Step:
        return self._step(self.job.flow.wire.failed(error) if self.begun else b"", error)

    def left(self) -> Step:
        """The client went away."""
        return self._step(b"")

    def _step(self, body: bytes | Parts, error: LeptonError | None = None, more: bool = False) -> Step:
        return Step(self.job, body, error, self.begun, more, self.seconds, self.started, self.first)


class Streams:
    """The generators that run in the compute thread. ``wrap`` turns what a model raises into an error of ours."""

    def __init__(self, wrap: Callable[[BaseException], LeptonError]) -> None:
        self._wrap = wrap
        self._open: deque[Open] = deque()

    def __len__(self) -> int:
        return len(self._open)

    @property
    def stuck(self) -> bool:
        """Whether every stream waits for its client to read."""
        return all(s.job.request.full and not s.job.request.gone for s in self._open)

    def open(self, job: Job, now: float) -> Step | None:
        """Begin a job; its end comes from ``step``, or at once when it fails."""
        stream = Open(job, iter(()), now, [])
        try:
            stream.items = iterator(job.flow.begin())
        except BaseException as e:  # noqa: BLE001 - whatever a model raises fails its request only
            return stream.failed(self._wrap(e))
        self._open.append(stream)
        return None

    def step(self) -> Step | None:
        """One step of the stream whose turn it is; None when there is nothing to send."""
        stream = self._open.popleft()
        request = stream.job.request
        if request.gone:
            close(stream.items)
            return stream.left()
        if request.full:
            self._open.append(stream)
            return None
        began = monotonic()
        try:
            item = next(stream.items)
            stream.seconds += monotonic() - began
            step = stream.took(item)
        except StopIteration:
            stream.seconds += monotonic() - began
            return self._end(stream)
        except BaseException as e:  # noqa: BLE001 - see open
            close(stream.items)
            return stream.failed(self._wrap(e))
        self._open.append(stream)
        return step

    def _end(self, stream: Open) -> Step:
        try:
            return stream.ended()
        except BaseException as e:  # noqa: BLE001 - the items may be nothing that JSON can carry
            return stream.failed(self._wrap(e))


def iterator(value: Any) -> Iterator[Any]:
    """A generator as it is; any other value as the only item."""
    return value if isinstance(value, Generator | Iterator) else iter((value,))


def close(items: Any) -> None:
    """End a generator early: its ``finally`` blocks run."""
    try:
        getattr(items, "close", lambda: None)()
    except BaseException:  # noqa: BLE001, S110 - it is being thrown away
        pass


def event(data: bytes, kind: bytes = b"") -> bytes:
    """One server-sent event of one line of data."""
    return b"event: %b\ndata: %b\n\n" % (kind, data) if kind else b"data: %b\n\n" % data


def missing(method: str, path: str) -> NotFound:
    """The model does not declare what ``path`` needs."""
    return NotFound(f"this model has no {path}", hint=f"a Python class declares it by a method named {method}")
