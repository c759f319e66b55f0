"""What faults do to the causes at one second; everything else follows from it."""

from __future__ import annotations

import numpy as np

from leptonai.ops.simulate.system import Flags, System
from leptonai.protocols import Floats


class Forces:
    """Neutral after ``clear``. Chances are of one request or try; several faults that act on one thing add up."""

    def __init__(self, system: System, slots: int) -> None:
        self._shape = len(system.names), slots
        self._edges, self._machines = len(system.caller), len(system.cores)
        self.clear()

    def clear(self) -> None:
        n, e, m = self._shape[0], self._edges, self._machines
        self.slow: Floats = np.ones(self._shape)  # times the seconds of compute
        self.fail: Floats = np.zeros(self._shape)  # a try on this replica is answered with an error
        self.cut: Floats = np.zeros(self._shape)  # ... ends without an answer
        self.nan: Floats = np.zeros(self._shape)  # an answer holds numbers that are none
        self.wrong: Floats = np.zeros(self._shape)  # an answer is wrong
        self.odd: Floats = np.zeros(self._shape)  # distance of its answers from those of before
        self.strange: Floats = np.zeros(self._shape[0])  # distance of its inputs from those of before
        self.idle: Floats = np.zeros(self._shape)  # processors taken without a request
        self.leak: Floats = np.zeros(self._shape)  # bytes a second
        self.spoilt: Floats = np.zeros(n)  # a request fails wherever it goes
        self.surge: Floats = np.ones(n)  # times the traffic from outside
        self.hasty: Floats = np.zeros(n)  # seconds after which a waiting try is given up and repeated; 0: never
        self.start: Floats = np.ones(n)  # times the seconds until a replica is ready
        self.unloadable: Flags = np.zeros(n, dtype=np.bool_)  # the head cannot be loaded
        self.late: Floats = np.zeros(e)  # seconds more of a call
        self.broken: Floats = np.zeros(e)  # a call fails
        self.denied: Floats = np.zeros(e)  # a call is refused for its credential
        self.hog: Floats = np.zeros(m)  # threads that want a processor
        self.full: Flags = np.zeros(m, dtype=np.bool_)  # the disk is
        self.memory: Floats = np.zeros(m)  # share taken by something else
        self.heat: Floats = np.zeros(m)  # share of the second the GPU is held back
        self.lost: Floats = np.zeros(m)  # 1: the GPU has fallen off the bus
        self.xid: Floats = np.zeros(m)  # Xid events of this second
        self.ecc: Floats = np.zeros(m)  # uncorrected errors of this second


def both(a: float, b: float) -> float:
    """The chance of either of two independent events."""
    return 1.0 - (1.0 - a) * (1.0 - b)
