"""The log of a simulated service, as counts of templates: what every service writes, and what failing ones add."""

from __future__ import annotations

from collections import deque

import numpy as np

from leptonai.ops.simulate.flow import Flow

KEEP = 320  # seconds
INFO, WARNING, ERROR = 9, 13, 17
TEXTS = {
    1: (INFO, "answered <*> in <*> ms"),
    2: (INFO, "cache: <*> entries"),
    3: (WARNING, "slow answer: <*> ms"),
    4: (ERROR, "request <*> failed"),
    5: (ERROR, "call to <*> failed"),
    6: (INFO, "loaded the model in <*> s"),
    7: (ERROR, "timeout after <*> s"),
    8: (WARNING, "cannot write <*>"),
    9: (INFO, "settings read again"),
    10: (WARNING, "deprecated option <*>"),
    11: (ERROR, "call to <*> refused: 401 Unauthorized"),
}


class Log:
    """``known``: template -> (first seen, severity, text); ``steps``: (time, template -> lines), by time."""

    def __init__(self, rng: np.random.Generator, began: float) -> None:
        self.began, self._rng = began, rng
        self.known: dict[int, tuple[float, int, str]] = {}
        self.steps: deque[tuple[float, dict[int, int]]] = deque(maxlen=KEEP)
        self._chatty = float(rng.choice([0.0, 0.2, 1.0]))  # lines per answer
        self._says = float(rng.uniform(0.3, 1.0))  # share of failures that are written down
        self._odd = float(rng.uniform(0.0, 3000.0))  # when it writes, for no reason, what it never wrote

    def step(self, flow: Flow, s: int) -> None:
        rng, at = self._rng, flow.at
        full = bool(flow.forces.full[flow.system.machine[s]])
        errors = float(flow.done_errors[s].sum())
        mine = flow.system.caller == s
        below = float((flow.calls[mine] * flow.call_errors[mine]).sum())
        denied = min(float((flow.calls[mine] * flow.forces.denied[mine]).sum()), below)
        slow = float(flow.slow[s])
        started = int((flow.alive[s] & (flow.at - flow.ready_at[s] < 1.0) & (flow.at >= flow.ready_at[s])).sum())
        means = {
            1: self._chatty * float(flow.answered[s]),
            2: 0.05,
            3: 0.01 + 0.3 * slow,
            4: self._says * errors,
            5: self._says * (below - denied),
            6: float(started),
            7: self._says * max(float(flow.errors[s]) - errors, 0.0) * 0.5,
            8: 2.0 if full else 0.0,
            9: 1.0 if 0.0 <= at - self.began - self._odd < 2.0 else 0.0,
            11: self._says * denied,
            10: 1.0 if 0.0 <= at - self.began - 2.0 * self._odd < 3.0 else 0.0,
        }
        counts = {id: int(rng.poisson(mean)) for id, mean in means.items() if mean > 0}
        if full:
            counts = {id: n for id, n in counts.items() if id == 8 and rng.random() < 0.3}  # there is no room for lines
        counts = {id: n for id, n in counts.items() if n}
        for id in counts:
            self.known.setdefault(id, (at, *TEXTS[id]))
        self.steps.append((at, counts))
