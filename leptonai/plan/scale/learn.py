"""From arrivals to an outlook: what the policy `ours` knows of the time when a replica started now will be ready."""

from __future__ import annotations

from leptonai.plan.scale.policy import Outlook


class Learner:
    """Online. ``step`` is told how much demand each interval brought and answers with the outlook of this moment."""

    def __init__(self, startup: float) -> None:
        self.startup = startup
        self.weight = self.mean = self.square = 0.0

    def step(self, now: float, seconds: float, demand: float) -> Outlook | None:
        """``demand``: mean over the ``seconds`` until ``now``. None until one start-up has been seen."""
        self.weight += seconds
        self.mean += (demand - self.mean) * seconds / self.weight
        if self.weight < self.startup:
            return None
        expected = self.mean
        share = seconds / self.weight
        self.square += ((demand - expected) ** 2 - self.square) * share
        return Outlook(self.mean, self.square, "mean of all that was seen")
