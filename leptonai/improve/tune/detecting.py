"""Parameters of detectors on labelled series, with an honest estimate: nested cross-validation by whole series.

Each outer fold's series are judged by a choice made on the others, and so is each inner fold's alarm level (Varma &
Simon 2006). Beside the choices stand the defaults on the same series, and they are kept unless the gain holds there.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
import numpy as np

from leptonai.errors import SpecError
from leptonai.improve.tune.study import Best, Objective, Pruned, Range, Study, Told, Value, whole, work
from leptonai.types import Noun

Profile = Literal["standard", "reward_low_FP_rate", "reward_low_FN_rate"]


class Detect(Noun, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``data``: a folder of CSV files. ``augment``: changed copies of each series that the alarm is chosen on."""

    data: str
    windows: str | None = None
    label: str | None = None
    value: str | None = None
    time: str | None = None
    profile: Profile = "standard"
    outer: int = 5
    inner: int = 3
    augment: int = 0


class Cases(Protocol):
    """Series that can be judged with any parameters; ``ops.detect.bench.Bench`` is one."""

    @property
    def defaults(self) -> Mapping[str, Any]: ...
    @property
    def usual(self) -> float: ...
    @property
    def labelled(self) -> Sequence[bool]: ...
    def check(self, params: Mapping[str, Any]) -> None: ...
    def alarm(self, params: Mapping[str, Any], train: Sequence[int]) -> float: ...
    def worth(self, choices: Sequence[tuple[Mapping[str, Any], float, Sequence[int]]]) -> dict[str, float]: ...


class Fold(Noun, frozen=True, kw_only=True):
    """``series``: those that had no part in choosing ``params`` and ``alarm``, by number."""

    series: tuple[int, ...]
    params: dict[str, Value]
    alarm: float
    tuned: dict[str, float]
    default: dict[str, float]


class Chosen(Noun, frozen=True, kw_only=True):
    """``tuned`` and ``default``: of all outer folds together. ``holds``: the mean gain of the folds is more than one
    standard error above 0; else ``params`` and ``alarm`` are the defaults. ``best``: of the search over all series."""

    folds: tuple[Fold, ...]
    tuned: dict[str, float]
    default: dict[str, float]
    holds: bool
    params: dict[str, Any]
    alarm: float
    best: Best


def check(task: Detect, study: Study, cases: Cases) -> None:
    """SpecError for a space that is not of the detectors, and for fewer labelled series than the folds need."""
    for name, d in study.space.items():
        inside = (d.low, d.low + (d.high - d.low) / math.pi, d.high) if isinstance(d, Range) else ()
        for value in [whole(d, x) for x in inside] if isinstance(d, Range) else d:
            cases.check({name: value})
    if task.outer < 2 or task.inner < 2 or not 0 <= task.augment <= 100:
        raise SpecError(
            f"outer is {task.outer}, inner {task.inner}, augment {task.augment}",
            hint="two folds at least; augment is 0 to 100 copies of each series",
        )
    marked = sum(cases.labelled)
    least = marked - -(-marked // task.outer)
    if marked < task.outer or least < task.inner:
        raise SpecError(
            f"{marked} series have an incident after their first 15 %; {task.outer} outer folds leave {max(least, 0)} "
            f"of them to choose on, {task.inner} inner folds need as many",
            hint="label more series, or give fewer folds: outer: 3, inner: 2 need 3",
        )


def folds(series: Sequence[int], labelled: Sequence[bool], count: int, seed: int) -> list[tuple[list[int], list[int]]]:
    """(the others, those held out) of each fold: series dealt by chance, first those with incidents."""
    rng = np.random.default_rng(seed)
    order = sorted((series[i] for i in rng.permutation(len(series))), key=lambda i: not labelled[i])
    return [(sorted(set(series) - set(order[k::count])), sorted(order[k::count])) for k in range(count)]


def objective(cases: Cases, series: Sequence[int], count: int, seed: int) -> Objective:
    """NAB's score of the inner folds together, each at an alarm chosen on the others; told after each fold."""
    parts = folds(series, cases.labelled, count, seed)

    def value(params: dict[str, Value], told: Told) -> float:
        choices, score = [], math.nan
        for number, (train, held) in enumerate(parts):
            choices.append((params, cases.alarm(params, train), held))
            score = cases.worth(choices)["nab"]
            if not told(number, score):
                raise Pruned
        return score

    return value


def nested(cases: Cases, study: Study, task: Detect, file: Path | None = None, worker: int = 0) -> Chosen:
    """The choice and its honest estimate. Each fold's study is in ``file``: a later run, or another worker, goes on."""
    check(task, study, cases)
    every = list(range(len(cases.labelled)))
    found = []
    for number, (train, held) in enumerate(folds(every, cases.labelled, task.outer, study.seed)):
        small = msgspec.structs.replace(study, name=f"{study.name}, fold {number}", seed=study.seed + 1 + number)
        best = work(small, objective(cases, train, task.inner, small.seed), file, worker)
        alarm = cases.alarm(best.params, train)
        found.append(
            Fold(
                series=tuple(held), params=best.params, alarm=alarm, tuned=cases.worth([(best.params, alarm, held)]),
                default=cases.worth([(cases.defaults, cases.usual, held)]),
            )
        )  # fmt: skip
    gains = [fold.tuned["nab"] - fold.default["nab"] for fold in found]
    holds = float(np.mean(gains)) > float(np.std(gains, ddof=1)) / math.sqrt(len(gains))
    best = work(study, objective(cases, every, task.inner, study.seed), file, worker)
    alarm = cases.alarm(best.params, every) if holds else cases.usual
    return Chosen(
        folds=tuple(found), tuned=cases.worth([(f.params, f.alarm, f.series) for f in found]),
        default=cases.worth([(cases.defaults, cases.usual, every)]), holds=holds,
        params={**cases.defaults, **best.params} if holds else dict(cases.defaults), alarm=alarm, best=best,
    )  # fmt: skip


def settings(chosen: Chosen, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What belongs into settings.yaml; {} where the defaults are kept."""
    own = {name: value for name, value in chosen.params.items() if value != defaults[name]}
    if not chosen.holds:
        return {}
    return {"ops": {"anomaly_score": chosen.alarm}, **({"watch": {"detector": own}} if own else {})}


def of(study: Study, task: Detect, data: Sequence[bytes]) -> Study:
    """The study under a name that says of which series and folds it is: of others, values are another study's."""
    crc = zlib.crc32(msgspec.json.encode(task))
    for part in data:
        crc = zlib.crc32(part, crc)
    return msgspec.structs.replace(study, name=f"{study.name}, {crc:08x}", direction="maximize")
