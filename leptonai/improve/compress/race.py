"""Which candidates are followed further, by what is cheap to know: loss, size, the time of a row in this process.

Lessons, exports and replicas are what a search costs. So each is spent on those that could still be chosen only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Hashable, Mapping
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
TOGETHER = 4  # models that are open at once to be timed

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
    """After the first lessons: enough was learnt; or another loses less by an error of it, and is no larger and no
    slower; or on. Where speed is no aim, ``seconds`` are the same in all.
    """
    mine = standings[one]
    if mine.costs[0] + mine.error <= ENOUGH * budget.loss + 1e-12:
        return "enough"
    others = (s for s in standings.values() if s != mine and s.size <= mine.size and s.seconds <= mine.seconds)
    return "beaten" if any(s.costs[0] + max(s.error, mine.error) <= mine.costs[0] for s in others) else "on"


def unbeaten(standings: Mapping[K, Standing]) -> set[K]:
    """Those that no other is nowhere worse than and somewhere better; of equal ones each stays."""
    return {k for k, s in standings.items() if not any(beats(o.costs, s.costs) for o in standings.values())}


def due(name: str, made: Mapping[str, Candidate], budget: Budget, only: Collection[str] | None) -> bool:
    """Whether a precision is to be tried on a shape, of which ``made`` are the precisions so far."""
    repaired = made.get(REPAIRS.get(name, ""))
    return only is not None or repaired is None or not affordable(repaired, budget)


def measured(
    able: Collection[Candidate], seconds: Mapping[tuple[str, ...], float], aim: Aim, budget: Budget
) -> set[tuple[str, ...]]:
    """Of those within the budget, whose latency is worth a replica: single steps, and the most promising others.

    Those are beaten by none in loss, size and ``seconds``, and MEASURED at most: by what they would gain. Whose
    ``seconds`` are above the budget already is left: a request takes longer still. Where latency has a budget the
    fastest is among them whatever it gains. The plain export is always measured.
    """
    most = inf if budget.latency is None else budget.latency
    soon = [c for c in able if fits(c, budget) and not seconds.get(c.steps, 0.0) > most]
    single = {c.steps for c in soon if len(c.steps) == 1}
    known = {c.steps: Standing(c.loss, c.size, seconds.get(c.steps, inf)) for c in soon}
    front = sorted(unbeaten(known) - single, key=lambda s: (_cost(known[s], aim), s))
    if budget.latency is not None and front:
        fastest = min(front, key=lambda s: (known[s].seconds, s))
        front = [fastest, *(s for s in front if s != fastest)]
    return {*single, *front[:MEASURED], ("onnx",)}


def fits(c: Candidate, budget: Budget) -> bool:
    """Whether it could still be chosen, as far as is known without a replica."""
    return bool(c.file) and affordable(c, budget) and (budget.size is None or c.size <= budget.size)


def _cost(s: Standing, aim: Aim) -> float:
    return {"size": s.size, "latency": s.seconds, "both": sqrt(s.size * s.seconds)}[aim]


def paced(models: Mapping[K, Callable[[], Predictor]], common: Predictor, row: dict[str, Array]) -> dict[K, float]:
    """Median seconds of one ``row`` here, the models asked in turn.

    TOGETHER of them are open at once, beside ``common``: by its seconds those of all groups are made comparable, and
    told as of the first.
    """
    found: dict[K, float] = {}
    keys, scale = list(models), 1.0
    for at in range(0, len(keys), TOGETHER):
        some = keys[at : at + TOGETHER]
        first, *others = _in_turn([common, *(models[k]() for k in some)], row, SECONDS * len(some) / len(keys))
        scale = scale if at else first
        found |= {k: s * scale / first for k, s in zip(some, others, strict=True)}
    return found


def _in_turn(models: list[Predictor], row: dict[str, Array], seconds: float) -> list[float]:
    times: list[list[float]] = [[] for _ in models]
    end = time.perf_counter() + seconds
    for turn in range(TURNS + 1):  # the first is not counted
        if turn > LEAST and time.perf_counter() > end:
            break
        for mine, model in zip(times, models, strict=True):
            began = time.perf_counter()
            model.predict(row)
            if turn:
                mine.append(time.perf_counter() - began)
    return [float(np.median(t)) for t in times]
