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


def agree(scores: Sequence[Floats]) -> Floats:
    """One score from several: what all agree on, or what one says alone, less ALONE decades; whichever is greater.

    The least of the scores is a tail probability no smaller than any voter's; the greatest less 3 asks of a lone voter
    an event a thousand times rarer. So the result is still a (conservative) -log10 tail probability, which an average
    is not: it lets two weak signs pass for a strong one and halves a strong one. nan (cannot tell yet) is no
    agreement; while one voter is past its cold start it speaks alone. A single detector is just itself.
    """
    least, most = scores[0], scores[0]
    for score in scores[1:]:
        least, most = np.minimum(least, score), np.fmax(most, score)
    return np.fmax(least, np.maximum(most - ALONE, 0.0)) if len(scores) > 1 else least


class Agreement:
    """Several detectors that vote (``agree``), and stated ones whose word needs no second.

    ``expected`` and ``scale`` are those of the voter that was least surprised.
    """

    name = "agreement"

    def __init__(self, voters: Sequence[Detector], stated: Sequence[Detector] = ()) -> None:
        self.voters, self.stated = tuple(voters), tuple(stated)
        self.said: dict[str, Floats] = {}  # what each voter said at the newest step

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
        least, expected, scale = votes[0]
        for vote in votes[1:]:
            nearer = np.isfinite(vote.score) & ~(vote.score > least)
            expected = np.where(nearer, vote.expected, expected)
            scale = np.where(nearer, vote.scale, scale)
            least = np.fmin(least, vote.score)
        self.said = {voter.name: vote.score for voter, vote in zip(self.voters, votes, strict=True)}
        score = agree([vote.score for vote in votes])
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


def base_tier(patience: int = 60, alpha: float = 0.01, order: int = 3) -> Agreement:
    """EWMA and AR must agree; limits, where set, speak alone. ``patience``: steps until a level shift is adopted."""
    voters = Ewma(alpha=alpha, patience=patience), Ar(order=order, alpha=alpha, patience=patience)
    return Agreement(voters, stated=(Threshold(),))
