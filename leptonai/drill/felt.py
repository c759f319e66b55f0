"""Whether somebody could have noticed a fault, by what truly was: what the platform saw of it does not count. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from leptonai.drill.traffic import Answer
from leptonai.ops.detect.watcher import MATERIAL
from leptonai.types import Slo

FELT, NEAR_FULL, FEWEST, TENTH = 5, 0.9, 3, 0.1  # seconds, share of a replica's capacity, requests, share of the time
BEFORE = 60  # seconds that tell what is usual


def felt(seen: Mapping[str, np.ndarray], at: int, lasts: int) -> bool:
    """Whether somebody could notice what began ``at``, by what truly was, a number a second: the answers (``answered``,
    ``errors``, ``slow``), the median ``latency``, the ``use`` of the busiest replica's capacity.

    For a TENTH of its time, or as much more than in the minute before, over FELT seconds: the promise of latency or
    availability is broken, or answers take half as long again and 10 ms more than usual (what a departure has to be
    anywhere: ``detect.watcher.MATERIAL``), or a replica is near its limit.
    """
    usual = float(np.median(seen["latency"][max(at - BEFORE, 0) : at]))
    before, since = (_beyond(seen, part, usual) for part in (slice(max(at - BEFORE, 0), at), slice(at, at + lasts)))
    return since >= before + TENTH


def by_users(answers: Sequence[Answer], at: float, until: float, promise: float) -> bool:
    """The same by the answers that users had: ``promise`` is the latency, in seconds, that a slow one exceeds.

    True where nobody asked for long enough to tell: then the platform has to answer for what it said.
    """
    begin = at - BEFORE
    size = int(until - begin)
    of: list[list[Answer]] = [[] for _ in range(size)]
    for answer in answers:
        if 0 <= (second := int(answer.due - begin)) < size and answer.due >= begin:
            of[second].append(answer)
    if size < BEFORE + FELT or sum(map(bool, of[:BEFORE])) < BEFORE // 2 or not any(of[BEFORE:]):
        return True
    latency, last = np.zeros(size), 0.0
    for second, mine in enumerate(of):
        if mine:
            last = float(np.median([a.seconds for a in mine]))
        latency[second] = last
    seen = {
        "answered": np.array([float(len(mine)) for mine in of]),
        "errors": np.array([float(sum(a.result == "failed" for a in mine)) for mine in of]),
        "slow": np.array([float(sum(a.seconds > promise for a in mine)) for mine in of]),
        "latency": latency,
        "use": np.zeros(size),
    }
    return felt(seen, BEFORE, size - BEFORE)


def _beyond(seen: Mapping[str, np.ndarray], part: slice, usual: float) -> float:
    """The share of the windows of a stretch in which something is."""

    def over(name: str) -> np.ndarray:
        return np.convolve(seen[name][part], np.ones(FELT), "valid")

    answered, waits = np.maximum(over("answered"), 1.0), over("latency") / FELT
    late = (over("slow") / answered > 1.0 - Slo().latency_objective) & (over("slow") >= FEWEST)
    lost = (over("errors") / answered > 1.0 - Slo().availability) & (over("errors") >= FEWEST)
    least, share = MATERIAL["_seconds"]
    slower = (waits > (1.0 + share) * usual) & (waits > usual + least)
    return float((late | lost | slower | (over("use") / FELT > NEAR_FULL)).mean())
