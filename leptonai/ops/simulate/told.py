"""What replicas tell beside their own numbers, as ops reads it from counters of errors and from prediction logs.

``ops.answers`` and ``ops.collect`` make these signals live; here they follow from the same course of things, with dice
of their own, so that a world goes on as it would without them.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from leptonai.ops.answers import FEWEST_ASKED, LATELY, WINDOW
from leptonai.ops.simulate.flow import Flow, Oddness
from leptonai.ops.simulate.show import digest
from leptonai.types import Signal

OF_NUMBERS = 0.7  # of the services: whose inputs have a mean and a range


class Told:
    """Of one service. ``step`` after each step of the flow."""

    def __init__(self, s: int) -> None:
        self._s, self._rng = s, np.random.default_rng([s, 17])
        self._numbers = self._rng.random() < OF_NUMBERS
        self._failed_at = float("-inf")  # when a request failed last
        self._good: deque[tuple[float, float, float]] = deque()  # (at, given, again)
        self._inputs: Oddness | None = None  # once some are strange

    def step(self, flow: Flow) -> list[Signal]:
        """The signals of this second."""
        found = {**self._failures(flow), **self._repeats(flow), **self._drift(flow)}
        labels = {"service": flow.system.names[self._s]}
        out = [Signal(name=name, labels=labels, at=flow.at, value=value) for name, value in found.items()]
        return out + self._replicas(flow)

    def _replicas(self, flow: Flow) -> list[Signal]:
        s, out = self._s, []
        full = bool(flow.forces.full[flow.system.machine[s]])
        for r in np.flatnonzero(flow.alive[s] & ~np.isfinite(flow.hung_at[s])).tolist():
            done = float(flow.done[s, r])
            values = {"replica_unwritten_per_second": done if full else 0.0}
            if done > 0:
                values["replica_model_failed_ratio"] = float(flow.done_errors[s, r]) / done
            number = int(flow.runs[s, r])
            labels = {"service": flow.system.names[s], "replica": flow.id(s, r), "digest": digest(flow, s, number)}
            out += [Signal(name=name, labels=labels, at=flow.at, value=value) for name, value in values.items()]
        return out

    def _failures(self, flow: Flow) -> dict[str, float]:
        """Nothing has failed on two replicas in WINDOW seconds: what a model answers is repeated by nobody here."""
        now, failed = flow.at, float(flow.done_errors[self._s].sum())
        self._failed_at = now if failed > 0 else self._failed_at
        return {"poisoned_ratio": 0.0, "poisoned_request_ratio": 0.0} if now - self._failed_at <= WINDOW else {}

    def _repeats(self, flow: Flow) -> dict[str, float]:
        """Of the good answers of the newest LATELY seconds: those that were given before, because nobody waited."""
        s, now = self._s, flow.at
        good = float((flow.done[s] - flow.done_errors[s]).sum())
        share = float(flow.given_up[s]) / (1.0 + float(flow.repeats[s]))
        self._good.append((now, good, float(self._rng.binomial(int(good), min(share, 1.0)))))
        while now - self._good[0][0] > LATELY:
            self._good.popleft()
        given, again = (sum(row[i] for row in self._good) for i in (1, 2))
        return {"repeated_ratio": again / given} if given >= FEWEST_ASKED else {}

    def _drift(self, flow: Flow) -> dict[str, float]:
        s = self._s
        count, strange = float(flow.answered[s] - flow.errors[s]), float(flow.forces.strange[s])
        if not self._numbers or count <= 0:
            return {}
        if strange > 0 and self._inputs is None:
            self._inputs = Oddness(float(flow.answers[s]) - count)
        apart = 0.0
        if self._inputs is not None:
            self._inputs.add(count, strange)
            apart = self._inputs.apart(flow.seconds) or 0.0
        return {"input_shift_ratio": min(max(abs(float(self._rng.normal(0.065, 0.015))), apart), 1.0)}
