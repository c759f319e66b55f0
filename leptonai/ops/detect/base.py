"""The base tier: detectors that must agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leptonai.ops.detect.ar import Ar
from leptonai.ops.detect.ewma import Ewma
from leptonai.ops.detect.threshold import Threshold
from leptonai.protocols import Detector, Floats, Scored, Slots

ALONE = 3.0  # decades a detector must give when no other agrees


class Agreement:
    """One score from several: ``max(all agree at s, one alone at s + 3)``, and a stated limit needs no second.

    ``min`` over the voters is a tail probability no greater than either's; ``max - 3`` asks of a lone voter an event
    a thousand times rarer; so the result is still a (conservative) -log10 tail probability. Averaging is not: it
    lets two weak signs pass for one and halves a strong one. While only one voter is past its cold start, it speaks
    alone with its 3 decades taken off. ``expected`` and ``scale`` are those of the voter that was nearest to the value.
    """

    name = "agreement"

    def __init__(self, voters: Sequence[Detector], stated: Sequence[Detector] = ()) -> None:
        self.voters, self.stated = tuple(voters), tuple(stated)

    @property
    def members(self) -> tuple[Detector, ...]:
        return self.voters + self.stated

    def open(self, slots: int) -> None:
        for member in self.members:
            member.open(slots)

    def grow(self, slots: int) -> None:
        for member in self.members:
            member.grow(slots)

    def drop(self, slot: Slots) -> None:
        for member in self.members:
            member.drop(slot)

    def step(self, at: float, x: Floats, learn: NDArray[np.bool_]) -> Scored:
        votes = [voter.step(at, x, learn) for voter in self.voters]
        score, expected, scale = votes[0]
        least, most = score, score
        for vote in votes[1:]:
            nearer = np.isfinite(vote.score) & ~(vote.score > least)
            expected = np.where(nearer, vote.expected, expected)
            scale = np.where(nearer, vote.scale, scale)
            least = np.minimum(least, vote.score)  # nan as soon as one cannot tell: no agreement yet
            most = np.fmax(most, vote.score)
        alone = np.maximum(most - ALONE, 0.0)
        score = np.fmax(least, alone) if len(votes) > 1 else least
        for limit in self.stated:
            said = limit.step(at, x, learn)
            wins = np.isfinite(said.score) & ~(said.score < score)
            score = np.where(wins, said.score, score)
            expected = np.where(wins, said.expected, expected)
        return Scored(score, expected, scale)

    def dump(self) -> dict[str, Any]:
        return {member.name: member.dump() for member in self.members}

    def load(self, state: dict[str, Any]) -> None:
        for member in self.members:
            member.load(state.get(member.name, {}))


def base_tier(patience: int = 60) -> Agreement:
    """EWMA and AR must agree; limits, where set, speak alone. ``patience``: steps until a level shift is adopted."""
    return Agreement((Ewma(patience=patience), Ar(patience=patience)), stated=(Threshold(),))
