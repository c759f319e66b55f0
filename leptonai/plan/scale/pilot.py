"""One policy at the helm of one variant: readings in, decisions out. Replay and production alike."""

from __future__ import annotations

from math import inf
from typing import Any, NamedTuple

from leptonai.plan.scale.learn import Learner
from leptonai.plan.scale.policy import Decision, Outlook, Policy, Sight
from leptonai.plan.scale.window import Window


class Reading(NamedTuple):
    """What was measured over the ``seconds`` until ``at``; the counts are those of ``at``. Means are requests at once.

    ``demand`` is Little's law over arrivals, ``concurrency`` what is in the system with its queue (see ``Sight``).
    """

    at: float
    seconds: float
    demand: float
    concurrency: float
    waiting: float
    ready: int
    starting: int
    least: int
    most: int
    startup: float
    missing: int = 0


class Pilot:
    """Keeps the windows and memory of ``policy``. The same readings in the same order give the same decisions.

    ``learner``: what makes the outlook, for a policy that looks at one.
    """

    def __init__(
        self, policy: Policy, capacity: float, ready: int, began: float, learner: Learner | None = None
    ) -> None:
        self.policy, self.capacity, self.learner = policy, capacity, learner
        self.memory: Any = policy.begin(ready, began)
        self.concurrency, self.demand = Window(began), Window(began)
        self.outlook: Outlook | None = None
        self.sight: Sight | None = None  # of the newest decision
        self._decided = -inf

    def step(self, reading: Reading) -> Decision | None:
        """The decision of this moment; None while less than a period has passed since the one before."""
        self.concurrency.push(reading.at, reading.concurrency * reading.seconds)
        self.demand.push(reading.at, reading.demand * reading.seconds)
        if self.learner:
            self.learner.retime(reading.startup)
            self.outlook = self.learner.step(reading.at, reading.seconds, reading.demand)
        if reading.at - self._decided < 0.75 * self.policy.period:  # readings do not come on the tick
            return None
        self._decided = reading.at
        self.sight = Sight(
            now=reading.at,
            concurrency=self.concurrency,
            demand=self.demand,
            waiting=reading.waiting,
            ready=reading.ready,
            starting=reading.starting,
            least=reading.least,
            most=reading.most,
            capacity=self.capacity,
            startup=reading.startup,
            missing=reading.missing,
            outlook=self.outlook,
        )
        decision, self.memory = self.policy.decide(self.sight, self.memory)
        return decision
