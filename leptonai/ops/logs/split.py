"""Which lines are one event: a set of patterns of equal length, split into groups. Pure and deterministic.

Own design from three known ideas: equal length first (Drain, IPLoM), splitting where fewest values are (IPLoM), and
telling values from words by how many there are (Brain, "child direction"). A position is part of the event's name when
few different words stand there, a variable when many do or when what differs are values. A group most of whose
positions vary is more than one event and is split further.
"""

from __future__ import annotations

from collections.abc import Sequence

from leptonai.ops.logs.words import Words, is_value

# One configuration for every system. Chosen on halves of the systems given, checked on the others: see docs/logs.md.
FEW = 5  # different words at a position that still are names of events
COHERENT = 0.7  # share of positions that must be the same in one event


def split(keys: Sequence[Words]) -> list[list[int]]:
    """Groups of indices into ``keys``, all of equal length; each index is in one group, in ascending order."""
    done: list[list[int]] = []
    rest = [list(range(len(keys)))]
    while rest:
        group = rest.pop()
        position = _where(keys, group)
        if position is None:
            done.append(group)
            continue
        parts: dict[str, list[int]] = {}
        for i in group:
            parts.setdefault(keys[i][position], []).append(i)
        rest.extend(parts.values())
    return sorted(done)


def _where(keys: Sequence[Words], group: list[int]) -> int | None:
    """The position to split at: fewest values first, leftmost of equals. None: the group is one event."""
    if len(group) == 1:
        return None
    columns = [set(column) for column in zip(*(keys[i] for i in group), strict=True)]
    varying = [(len(values), p) for p, values in enumerate(columns) if len(values) > 1]
    if not varying:
        return None
    named = [(n, p) for n, p in varying if n <= FEW and not all(map(is_value, columns[p]))]
    if not named and len(columns) - len(varying) < COHERENT * len(columns):
        named = varying
    return min(named)[1] if named else None
