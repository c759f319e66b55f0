"""What became different in a log around the onset of a trouble: templates that are new, more frequent, silent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from leptonai.ops.logs.series import TAIL, tails
from leptonai.types import Noun

LEAD = 5.0  # seconds before the onset that belong to it: a log tells of a trouble before users feel it
BEFORE = 300.0  # seconds before that are compared with
KNOWN = 30.0  # seconds of a log that must be known, so that something in it can be new
RATIO = 3.0  # times more or less frequent, besides being beyond chance
MOST = 3  # shifts told


class Shift(Noun, frozen=True, kw_only=True):
    """``rate``: lines a second since the onset; ``usual``: before it. ``sample``: the newest line of it, masked."""

    kind: Literal["new", "more", "silent"]
    template: str
    sample: str
    severity: int
    count: int
    rate: float
    usual: float
    at: float  # when it was first seen since the onset; of a silent one, the onset


class Step(Noun, frozen=True, kw_only=True):
    """One step of a log: template -> lines."""

    at: float
    counts: Mapping[int, int]


class Seen(Noun, frozen=True, kw_only=True):
    """A template as it is remembered: when it came first, its words, its newest line, the level of that."""

    first: float
    sample: str
    severity: int
    text: str = ""


def shifts(
    history: Sequence[Step], known: Mapping[int, Seen], began: float, onset: float, now: float
) -> tuple[Shift, ...]:
    """At most MOST, errors first, then the least likely by chance. ``history``: by time; ``began``: of the log.

    A change of rate has a tail probability below TAIL by the negative binomial of ``series.tails``, and is at least
    RATIO-fold. Pure: samples are passed on as given.
    """
    edge = onset - LEAD
    start = max(began, edge - BEFORE)
    before, since, first = Counter[int](), Counter[int](), dict[int, float]()
    for step in history:
        if start <= step.at < edge:
            before.update(step.counts)
        elif edge <= step.at <= now:
            if step.at >= onset:
                since.update(step.counts)
            for id in step.counts:
                first.setdefault(id, step.at)
    past, span = edge - start, max(1.0, now - onset)
    if past < KNOWN:
        return ()
    found: list[tuple[tuple[bool, float], Shift]] = []
    for id in before.keys() | first.keys():
        seen = known.get(id)
        if seen is None:
            continue
        count, lines = since[id], before[id]
        rate, usual = count / span, lines / past
        at_most, at_least = (float(t) for t in tails(count, lines, past, span))
        kind: Literal["new", "more", "silent"]
        if seen.first >= edge and not lines:
            kind, chance = "new", at_least
        elif at_least < TAIL and rate >= RATIO * usual:
            kind, chance = "more", at_least
        elif at_most < TAIL and rate * RATIO <= usual:
            kind, chance = "silent", at_most
        else:
            continue
        shift = Shift(
            kind=kind,
            template=seen.text,
            sample=seen.sample,
            severity=seen.severity,
            count=count,
            rate=rate,
            usual=usual,
            at=first.get(id, onset),
        )
        bad = seen.severity >= 13 and kind != "silent"
        found.append(((not bad, chance), shift))
    return tuple(shift for _, shift in sorted(found, key=lambda f: (f[0], f[1].template))[:MOST])
