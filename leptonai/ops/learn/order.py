"""What reviews make of the order of remedies: what helped comes first. Pure.

P(a remedy helps | cause) is the mean of a Beta(2, 2) posterior. A remedy goes before the one declared just before it
when it helped at least LEAST times and is AHEAD better; each moves one place at most, none is added or left out. What
did harm goes last. An order that an operator wrote is never touched: the caller does not ask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from leptonai.ops.learn.judged import Judged

LEAST = 3  # times it helped until a remedy may go first
AHEAD = 0.25  # by how much more often it must help
HARM = 2  # times it did harm until it goes last


class Tried(NamedTuple):
    helped: int = 0
    failed: int = 0
    harmed: int = 0

    @property
    def share(self) -> float:
        return (self.helped + 2.0) / (self.helped + self.failed + self.harmed + 4.0)


Outcomes = Mapping[tuple[str, str], Tried]  # of (cause, remedy)


def outcomes(seen: Sequence[Judged]) -> dict[tuple[str, str], Tried]:
    """How often each remedy helped against each cause, in incidents whose cause somebody told."""
    found: dict[tuple[str, str], Tried] = {}
    for item in seen:
        for remedy, verdict in item.remedies:
            if item.truth and verdict != "inconclusive":
                was = found.get((item.truth, remedy), Tried())
                found[item.truth, remedy] = Tried(
                    was.helped + (verdict == "effective"),
                    was.failed + (verdict == "ineffective"),
                    was.harmed + (verdict == "harmful"),
                )
    return found


def order(cause: str, remedies: Sequence[str], known: Outcomes) -> tuple[str, ...]:
    """The same remedies, in the order in which they are to be tried."""
    row = list(remedies)
    place = 1
    while place < len(row):
        before, after = (known.get((cause, r), Tried()) for r in row[place - 1 : place + 1])
        if after.helped >= LEAST and after.share >= before.share + AHEAD:
            row[place - 1], row[place] = row[place], row[place - 1]
            place += 1  # neither moves again
        place += 1
    harmful = [r for r in row if known.get((cause, r), Tried()).harmed >= HARM]
    return tuple([r for r in row if r not in harmful] + harmful)
