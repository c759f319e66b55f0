"""The nouns of autoscaling: what a policy sees, what it remembers, what it decides and from which terms."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from leptonai.plan.scale.window import Window


class Outlook(NamedTuple):
    """Demand at the moment a replica started now would be ready: its mean, and its variance around that mean."""

    mean: float
    variance: float
    rule: str  # what made it: the forecaster, or the simpler rule it fell back to, with the reason


class Sight(NamedTuple):
    """All that a policy may look at.

    Concurrency counts requests being served and requests waiting. Demand is what concurrency would be if nobody had
    to wait: arrivals a second x seconds of service each (Little's law), so it is not raised by our own queue.
    """

    now: float
    concurrency: Window
    demand: Window
    waiting: float  # work that waits for a replica, in replica-seconds
    ready: int  # replicas that can take a request
    starting: int  # replicas wished and not ready yet
    least: int  # bounds of the wish
    most: int
    capacity: float = 1.0  # requests that a replica serves at once
    startup: float = 30.0  # measured seconds from the wish until ready
    missing: int = 0  # ready replicas whose concurrency could not be read
    outlook: Outlook | None = None  # None: nothing is known yet

    @property
    def current(self) -> int:
        """The wish in force: replicas that are draining are not in it."""
        return self.ready + self.starting


class Decision(NamedTuple):
    """``desired`` replicas within the bounds; ``terms``: every number that took part; ``reason``: which one decided."""

    desired: int
    reason: str
    terms: dict[str, float]


class Policy(Protocol):
    """Decides purely: the same sight and memory always give the same decision.

    ``memory`` is whatever the policy must know of its own past; the caller keeps it and hands it back.
    """

    @property
    def name(self) -> str: ...

    @property
    def period(self) -> float:
        """Seconds between two decisions."""

    def begin(self, ready: int, now: float) -> Any:
        """The memory before the first decision, with ``ready`` replicas already there."""

    def decide(self, sight: Sight, memory: Any) -> tuple[Decision, Any]: ...


def bounded(wanted: float, sight: Sight) -> int:
    return int(min(max(wanted, sight.least), sight.most))


class Fixed:
    """``count`` replicas, always."""

    name = "fixed"
    period = 60.0  # nothing is decided, so the period is without effect

    def __init__(self, count: int) -> None:
        self.count = count

    def begin(self, ready: int, now: float) -> None:
        return None

    def decide(self, sight: Sight, memory: None) -> tuple[Decision, None]:
        return Decision(bounded(self.count, sight), "fixed", {"count": self.count}), None
