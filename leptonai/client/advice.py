"""Where a service ends, as the API answers it; the arithmetic is in ``leptonai.ops.advise``."""

from __future__ import annotations

from typing import Literal

from leptonai.types import Change, Key, Noun

# What can be used up first. ``compute``: the compute threads, one request or batch each; ``batch``: the same, where
# larger batches would carry more; ``cpu``: the processors of the machine, or a replica's share of them; ``queue``:
# waiting breaks the promised latency while the threads have room; ``declared``: a limit that somebody wrote down.
Name = Literal["cpu", "memory", "compute", "batch", "queue", "dependency", "declared"]
Dial = Literal["replicas", "batch", "memory", "requests", "rate", "most"]  # what a proposal changes; most: scale.max


class Limit(Noun, frozen=True, kw_only=True):
    """One resource. ``load``: requests a second at which it is used up or the promise breaks for it, with its 90 %
    interval; None: it cannot be told, ``why`` says so. ``first_share``: chance that it is the first of all."""

    name: Name
    what: str
    load: float | None = None
    low: float | None = None
    high: float | None = None
    first_share: float = 0.0
    why: str


class Proposed(Noun, frozen=True, kw_only=True):
    """A change that moves the first limit. ``before`` and ``after``: the load at which the service ends, in requests a
    second; ``then``: what is the first limit afterwards. ``needed``: the peak is close to ``before``. ``dial``: what is
    changed, ``to``: the number it gets."""

    change: Change
    dial: Dial
    to: float
    text: str
    before: float
    after: float
    then: Name
    needed: bool

    @property
    def gain(self) -> float:
        """How much more load is carried, as a share of what is carried now."""
        return self.after / self.before - 1.0


class Advice(Noun, frozen=True, kw_only=True):
    """What ``[start, end)`` tells about where ``service`` ends. Loads in requests a second.

    ``first`` None: there was not enough evidence for any limit, ``cannot_tell`` says what is missing. ``room``: the
    first limit over the peak, 1 at the limit. ``proposal`` None: no change of the wish would help, ``told`` says what
    would.
    """

    service: Key
    start: float
    end: float
    windows: int  # of telemetry, with at least one request
    rate: float  # mean over the windows
    peak: float  # 99th percentile of the windows
    first: Limit | None = None
    room: float | None = None
    limits: tuple[Limit, ...] = ()
    proposal: Proposed | None = None
    told: str = ""
    cannot_tell: tuple[str, ...] = ()
