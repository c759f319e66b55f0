"""Which lines are one event: a set of patterns of equal length, split into groups. Pure and deterministic.

Own design from three known ideas: equal length first (Drain, IPLoM), splitting where fewest values are (IPLoM), and
telling values from words by how many there are (Brain, "child direction"). A position is part of the event's name when
few different words stand there, a variable when many do or when what differs are values. A group most of whose
positions vary is more than one event and is split further.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter

from leptonai.ops.logs.words import Words, is_value

# One configuration for every system. Chosen on halves of the systems given, checked on the others: see docs/logs.md.
FEW = 5  # different words at a position that still are names of events
COHERENT = 0.7  # share of positions that must be the same in one event


def split(keys: Sequence[Words]) -> list[list[int]]:
    """Groups of indices into ``keys``, all of equal length; each index is in one group, in ascending order."""
    done: list[list[int]] = []
    width = len(keys[0]) if keys else 0
    rest = [(list(range(len(keys))), list(range(width)))]  # a group, and the positions that may vary in it
    while rest:
        group, places = rest.pop()
        if len(group) == 1:
            done.append(group)
            continue
        members = [keys[i] for i in group]
        columns = [(len(told), p, told) for p, told in _values(members, places) if len(told) > 1]
        position = _where(columns, width)
        if position is None:
            done.append(group)
            continue
        parts: dict[str, list[int]] = {}
        for i in group:
            parts.setdefault(keys[i][position], []).append(i)
        rest.extend((part, [p for _, p, _ in columns if p != position]) for part in parts.values())
    return sorted(done)


def _values(members: Sequence[Words], places: list[int]) -> Iterator[tuple[int, set[str]]]:
    """The different words at each of these positions."""
    if len(places) == 1:
        yield places[0], {words[places[0]] for words in members}
    elif places:
        yield from zip(places, map(set, zip(*map(itemgetter(*places), members), strict=True)), strict=True)


def _where(varying: Sequence[tuple[int, int, set[str]]], width: int) -> int | None:
    """The position to split at: fewest values first, leftmost of equals. None: the group is one event.

    ``varying``: number of values, position and values of each position with more than one."""
    if not varying:
        return None
    named = [(n, p) for n, p, values in varying if n <= FEW and not all(map(is_value, values))]
    if not named and width - len(varying) < COHERENT * width:
        named = [(n, p) for n, p, _ in varying]
    return min(named)[1] if named else None
