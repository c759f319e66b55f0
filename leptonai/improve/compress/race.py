"""Which candidates are followed further, by what is cheap to know: loss, size, the time of a row in this process.

Lessons, exports and replicas are what a search costs. So each is spent on those that could still be chosen only.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Hashable, Mapping
from math import inf, sqrt
from typing import Literal, NamedTuple, TypeVar

import numpy as np

from leptonai.improve.compress.front import Aim, Budget, Candidate, affordable, beats
from leptonai.improve.evaluate.rows import Array
from leptonai.protocols import Predictor

K = TypeVar("K", bound=Hashable)
FIRST = 4  # a quarter of the lessons comes first; who is good enough then, or clearly beaten, gets no more
ENOUGH = 0.25  # of the budget: who loses no more by then, with its standard error, is as good as the original
SLACK = 2.0  # times the budget that a shape may lose and still be combined, and tried in every precision
MEASURED = 6  # combinations that get a replica, beside the single steps within the budget
TURNS, LEAST, SECONDS = 40, 5, 10.0  # of ``paced``: turns, fewer once so many seconds are over, but at least so many

# What only repairs another step: tried where that one was not affordable, or where it is asked for by name.
REPAIRS = {
    "bf16 stored": "fp16 stored",  # as large, and less exact; but it holds numbers that overflow fp16
    "int8 static percentile": "int8 static",  # as large and as fast; but outliers stretch no scale
    "int8 static reduced": "int8 static",  # 7 bits, for processors that saturate sums of 8
}


class Standing(NamedTuple):
    """What is known of a candidate so far; what is smaller is better."""

    loss: float  # of quality, on the rows that choose
    size: float  # bytes, or numbers that are stored
    seconds: float = 0.0  # of one row, in this process
    error: float = 0.0  # standard error of the loss

    @property
    def costs(self) -> tuple[float, float, float]:
        """What looks better than the original counts as equal to it."""
        return max(self.loss, 0.0), self.size, self.seconds


def verdict(one: K, standings: Mapping[K, Standing], budget: Budget) -> Literal["enough", "beaten", "on"]:
    """After the first lessons: enough was learnt; or another is no larger and loses less by an error of it; or on."""
    mine = standings[one]
    if mine.costs[0] + mine.error <= ENOUGH * budget.loss + 1e-12:
        return "enough"
    others = (s for s in standings.values() if s != mine and s.size <= mine.size)
    return "beaten" if any(s.costs[0] + max(s.error, mine.error) <= mine.costs[0] for s in others) else "on"


def unbeaten(standings: Mapping[K, Standing]) -> set[K]:
    """Those that no other is nowhere worse than and somewhere better; of equal ones each stays."""
    return {k for k, s in standings.items() if not any(beats(o.costs, s.costs) for o in standings.values())}


def due(name: str, made: Mapping[str, Candidate], budget: Budget, only: Collection[str] | None) -> bool:
    """Whether a precision is to be tried on a shape, of which ``made`` are the precisions so far."""
    repaired = made.get(REPAIRS.get(name, ""))
    return only is not None or repaired is None or not affordable(repaired, budget)


def measured(able: Collection[Candidate], seconds: Mapping[tuple[str, ...], float], aim: Aim) -> set[tuple[str, ...]]:
    """Of those within the budget, whose latency is worth a replica: single steps, and the most promising others.

    Those are beaten by none in loss, size and ``seconds``, and MEASURED at most: by what they would gain. The plain
    export is always among them.
    """
    single = {c.steps for c in able if len(c.steps) == 1}
    known = {c.steps: Standing(c.loss, c.size, seconds.get(c.steps, inf)) for c in able}
    front = sorted(unbeaten(known) - single, key=lambda s: (_cost(known[s], aim), s))
    return {*single, *front[:MEASURED], ("onnx",)}


def _cost(s: Standing, aim: Aim) -> float:
    return {"size": s.size, "latency": s.seconds, "both": sqrt(s.size * s.seconds)}[aim]


def paced(models: Mapping[K, Predictor], row: dict[str, Array]) -> dict[K, float]:
    """Median seconds of one ``row`` here, the models asked in turn."""
    times: dict[K, list[float]] = {k: [] for k in models}
    end = time.perf_counter() + SECONDS
    for turn in range(TURNS + 1):  # the first is not counted
        if turn > LEAST and time.perf_counter() > end:
            break
        for key, model in models.items():
            began = time.perf_counter()
            model.predict(row)
            if turn:
                times[key].append(time.perf_counter() - began)
    return {k: float(np.median(t)) for k, t in times.items()}
