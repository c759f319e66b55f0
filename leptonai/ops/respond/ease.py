"""Less and less is refused as it is carried again: a refusal ends with what it was for, not by its time alone. Pure.

What is refused never rises here, each step takes off a tenth of all requests at least, and one that follows another
waits twice as long: whatever the traffic does, refusals do not swing (tested on random courses).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt
from typing import NamedTuple

from leptonai.ops.load import ROOM, Load

HOLD, MOST_HOLD = 5.0, 60.0  # seconds for which it must have fitted, at first and at most
STEP = 0.1  # of the requests: less is no change


class Moment(NamedTuple):
    """``load``: of what was let in."""

    at: float
    load: Load


def eased(seen: Sequence[Moment], share: float, now: float, hold: float) -> float | None:
    """The share to refuse from now on, less than ``share``, 0 for nothing; None: as it is.

    ``seen``: all moments since ``share`` is in force, oldest first; over the newest ``hold`` seconds what waited was
    less than a second's work, and what would come without a refusal fits ROOM of what the replicas carry: its two-sigma
    upper bound, as few are counted where most are refused.
    """
    late = [m for m in seen if m.at > now - hold]
    if not late or seen[0].at > now - hold or not 0.0 < share < 1.0:
        return None
    if any(m.load.waiting > max(m.load.carried, 1.0) for m in late):
        return None
    count = hold * sum(m.load.arrivals for m in late) / len(late)
    coming = (count + 2.0 * sqrt(count + 1.0)) / hold / (1.0 - share)
    needed = ceil(100.0 * (1.0 - ROOM * min(m.load.carried for m in late) / coming)) / 100.0
    needed = 0.0 if needed < STEP else needed
    return needed if needed <= share - STEP + 1e-9 else None


def hold_after(earlier: int) -> float:
    """Seconds that must fit where ``earlier`` refusals of late ended before their time."""
    return min(HOLD * 2.0 ** min(earlier, 10), MOST_HOLD)
