"""What could be had by knowing the future: the yardstick of a replay, never a policy to run."""

from __future__ import annotations

import math

import numpy as np

from leptonai.plan.scale.policy import Decision, Sight, bounded
from leptonai.protocols import Floats


class Oracle:
    """Knows every arrival and every service time; starts and stops replicas exactly in time.

    Demand d(u) is the concurrency at u if nobody ever waited: the requests that arrived in (u - service time, u].
    At t it wishes ``max d(u) / target`` over u in [t, t + startup + period]. So a replica is started one startup (and
    at most one period) before it is needed, and one that will be needed again within a startup is kept, because
    stopping it would save less than starting another costs. With ``target`` equal to a replica's concurrency nobody
    waits (below the bound on replicas); above it less is paid and the peaks wait.
    """

    name = "oracle"

    def __init__(self, arrivals: Floats, times: Floats, startup: float, target: float, period: float = 1.0) -> None:
        self.target, self.period = target, period
        begin = np.asarray(arrivals, dtype=np.float64) - arrivals[0]
        at = np.concatenate((begin, begin + times))
        steps = np.concatenate((np.ones(len(begin)), -np.ones(len(begin))))
        order = np.lexsort((steps, at))  # at one moment, who leaves makes room for who comes
        level = np.cumsum(steps[order])
        index = (at[order] // period).astype(np.int64)
        count = int(index[-1]) + 1
        peak = np.zeros(count)
        np.maximum.at(peak, index, level)
        ends = np.searchsorted(index, np.arange(count), side="right") - 1  # the last step of each period, or before it
        peak[1:] = np.maximum(peak[1:], level[ends[:-1]])  # a period begins at the level where the last one ended
        width = math.ceil(startup / period) + 2
        padded = np.concatenate((peak, np.zeros(width)))
        self.ahead = np.lib.stride_tricks.sliding_window_view(padded, width).max(axis=1)

    def at(self, now: float) -> int:
        index = min(int(now // self.period), len(self.ahead) - 1)
        return math.ceil(float(self.ahead[index]) / self.target - 1e-9)

    def begin(self, ready: int, now: float) -> None:
        return None

    def decide(self, sight: Sight, memory: None) -> tuple[Decision, None]:
        need = self.at(sight.now)
        return Decision(bounded(need, sight), "future", {"need": need, "target": self.target}), None
