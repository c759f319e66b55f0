"""A study: a space, a sampler, trials in a file that any number of workers share and any later run goes on with."""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from leptonai.errors import ModelError, NotInstalled, SpecError, needs
from leptonai.types import Noun

Sampler = Literal["tpe", "gp", "grid", "random"]
Value = float | int | str | bool
Told = Callable[[int, float], bool]  # (step, value so far): whether to go on; False: the trial is pruned
Objective = Callable[[dict[str, Value], Told], float]
HEARTBEAT = 5  # seconds; a trial whose worker has been silent for four of them is given to another
RETRIES = 60  # draws for a setting that was not tried, the first half of them beside the best
MOST_TRIALS = 1_000_000
MOST_WORKERS = 256  # processes
STARTUP = 5  # random trials before tpe and gp learn from what they saw


class Range(Noun, frozen=True, kw_only=True, forbid_unknown_fields=True):
    low: float
    high: float
    log: bool = False
    step: float | None = None  # 1: whole numbers


Dimension = Range | tuple[Value, ...]


class Study(Noun, frozen=True, kw_only=True):
    """``space``: for each parameter a Range or its choices."""

    name: str
    space: dict[str, Dimension]
    direction: Literal["maximize", "minimize"] = "maximize"
    trials: int = 40
    workers: int = 1
    sampler: Sampler = "tpe"
    prune: bool = True  # end trials that are below the median of the others at the same step
    seed: int = 0


class Best(Noun, frozen=True, kw_only=True):
    """``history``: the best value after each finished trial, in order of finishing."""

    params: dict[str, Value]
    value: float
    trials: int
    pruned: int
    failed: int
    history: tuple[float, ...]


def check(study: Study) -> None:
    """SpecError names the parameter or field that cannot be."""
    if not study.space:
        raise SpecError("the space is empty", hint="space: {rate: {low: 1e-4, high: 0.1, log: true}}")
    if study.trials < 1 or study.workers < 1:
        raise SpecError(f"trials is {study.trials}, workers {study.workers}; both must be at least 1")
    if study.trials > MOST_TRIALS or study.workers > MOST_WORKERS:
        raise SpecError(
            f"trials is {study.trials}, workers {study.workers}; the limits are {MOST_TRIALS} and {MOST_WORKERS}"
        )
    for name, d in study.space.items():
        if isinstance(d, tuple):
            if len(set(map(str, d))) != len(d) or not d:
                raise SpecError(f"{name}: choices must differ, and there must be one: {list(d)}")
        elif not d.low < d.high or (d.log and (d.low <= 0 or d.step is not None)) or (d.step or 1) <= 0:
            raise SpecError(f"{name}: low {d.low:g}, high {d.high:g} is no range (a log range is positive, no step)")
        elif study.sampler == "grid" and d.step is None:
            raise SpecError(f"{name}: a grid needs a step or choices", hint="give step, or choose tpe")
        elif d.step is not None and (d.high - d.low) / d.step > MOST_TRIALS:
            raise SpecError(f"{name}: step {d.step:g} makes more than {MOST_TRIALS} values of {d.low:g} to {d.high:g}")


def optuna() -> Any:
    """The module, quiet. NotInstalled says how to get it."""
    try:
        import optuna as module
    except ModuleNotFoundError as e:
        raise NotInstalled("tuning", e.name) from e
    module.logging.set_verbosity(module.logging.ERROR)
    return module


def sampler(study: Study, seed: int) -> Any:
    s = optuna().samplers
    match study.sampler:
        case "random":
            return s.RandomSampler(seed=seed)
        case "grid":
            return s.GridSampler({n: _grid(d) for n, d in study.space.items()}, seed=study.seed)
        case "gp":
            needs("the sampler gp", "torch")
            return s.GPSampler(seed=seed, n_startup_trials=STARTUP, deterministic_objective=True)
        case "tpe":
            return _unseen(seed, study.workers > 1)


def _unseen(seed: int, shared: bool) -> Any:
    """Multivariate TPE that asks for no setting twice while there is another: of choices and steps it soon would."""

    parent = optuna().samplers.TPESampler

    class Unseen(parent):  # type: ignore[misc, valid-type]
        def sample_relative(self, study: Any, trial: Any, space: dict[str, Any]) -> dict[str, Any]:
            found: dict[str, Any] = super().sample_relative(study, trial, space)
            if not found:
                return found  # the first trials, drawn by chance
            made = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
            seen = {tuple(t.params.get(n) for n in space) for t in made}
            best = study.best_params if any(t.state.name == "COMPLETE" for t in made) else {}
            for attempt in range(RETRIES):
                if tuple(found.get(n) for n in space) not in seen:
                    break
                drawn = {n: self._random_sampler.sample_independent(study, trial, n, d) for n, d in space.items()}
                near = list(space)[attempt % len(space)]  # one step from the best, later anything
                found = {**drawn, **best, near: drawn[near]} if attempt < RETRIES // 2 else drawn
                found = {n: found[n] for n in space}
            return found

    return Unseen(seed=seed, n_startup_trials=STARTUP, multivariate=True, constant_liar=shared)


def _grid(d: Dimension) -> list[Value]:
    if isinstance(d, tuple):
        return list(d)
    assert d.step is not None
    return [whole(d, d.low + i * d.step) for i in range(int((d.high - d.low) / d.step + 1e-9) + 1)]


def whole(d: Range, x: float) -> float | int:
    """``x`` as the range gives it: an int where its steps are."""
    return round(x) if d.step is not None and d.step == int(d.step) and d.low == int(d.low) else x


def suggest(trial: Any, space: Mapping[str, Dimension]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for name, d in space.items():
        if isinstance(d, tuple):
            found[name] = trial.suggest_categorical(name, list(d))
        elif d.step is not None and d.step == int(d.step) and d.low == int(d.low):
            found[name] = trial.suggest_int(name, int(d.low), int(d.high), step=int(d.step))
        else:
            found[name] = trial.suggest_float(name, d.low, d.high, log=d.log, step=d.step)
    return found


def opened(study: Study, file: Path | None, seed: int) -> Any:
    """The study in ``file`` (an SQLite database; None: in memory), begun or gone on with.

    ModelError when the file is damaged or holds a study of this name in the other direction.
    """
    check(study)
    o = optuna()
    storage: Any = None
    try:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # heartbeats are called experimental
            if file is not None:
                storage = _storage(file)
            pruner = o.pruners.MedianPruner(n_startup_trials=STARTUP) if study.prune else o.pruners.NopPruner()
            made = o.create_study(
                storage=storage, sampler=sampler(study, seed), pruner=pruner, study_name=study.name,
                direction=study.direction, load_if_exists=True,
            )  # fmt: skip
    except NotInstalled:
        raise
    except Exception as e:
        raise ModelError(f"{file}: cannot be used as a study: {' '.join(str(e).split())[:200]}") from e
    if made.direction.name.lower() != study.direction:
        raise ModelError(f"{file}: study {study.name!r} was begun to {made.direction.name.lower()}")
    return made


def work(study: Study, objective: Objective, file: Path | None = None, worker: int = 0) -> Best:
    """Trials until ``study.trials`` are finished in all, whoever ran them. A trial whose objective raises is failed.

    One worker with the same seed makes the same trials. Raises ModelError when every trial failed, NotInstalled as
    the objective does.
    """
    o = optuna()
    made = opened(study, file, study.seed * 1000 + worker + len(_trials(file)))
    states = (o.trial.TrialState.COMPLETE, o.trial.TrialState.PRUNED)
    problems: list[str] = []
    missing: list[NotInstalled] = []

    def one(trial: Any) -> float:
        params = suggest(trial, study.space)

        def told(step: int, value: float) -> bool:
            trial.report(value, step)
            return not (study.prune and trial.should_prune())

        try:
            value = float(objective(params, told))
        except Pruned as e:
            raise o.TrialPruned() from e
        except NotInstalled as e:  # so will be every trial's
            missing.append(e)
            made.stop()
            raise
        except Exception as e:
            problems.append(f"{type(e).__name__}: {e}")
            raise
        if not math.isfinite(value):
            problems.append(f"the objective gave {value} for {params}")
        return value

    done = sum(t.state in states for t in made.get_trials(deepcopy=False))
    if done < study.trials:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            most = 3 * study.trials  # an objective that always fails must end
            made.optimize(
                one, n_trials=most, catch=(Exception,),
                callbacks=[o.study.MaxTrialsCallback(study.trials, states=states), _enough(problems)],
            )  # fmt: skip
    if missing:
        raise missing[0]
    return best(made, study, problems)


def _storage(file: Path) -> Any:
    file.parent.mkdir(parents=True, exist_ok=True)
    return optuna().storages.RDBStorage(
        f"sqlite:///{file}", {"connect_args": {"timeout": 60}}, heartbeat_interval=HEARTBEAT,
        grace_period=4 * HEARTBEAT,
    )  # fmt: skip


def _enough(problems: list[str]) -> Callable[[Any, Any], None]:
    def stop(study: Any, trial: Any) -> None:
        if len(problems) >= 10 and not any(t.state.name == "COMPLETE" for t in study.get_trials(deepcopy=False)):
            study.stop()

    return stop


def _trials(file: Path | None) -> list[Any]:
    """So that a resumed random search does not draw the same again: how many there were."""
    if file is None or not file.is_file():
        return []
    with contextlib.suppress(Exception):
        o = optuna()
        return [t for s in o.get_all_study_summaries(f"sqlite:///{file}") for t in range(s.n_trials)]
    return []


def best(made: Any, study: Study, problems: list[str]) -> Best:
    trials = sorted(
        (t for t in made.get_trials(deepcopy=False) if t.datetime_complete), key=lambda t: t.datetime_complete
    )
    complete = [t for t in trials if t.state.name == "COMPLETE" and math.isfinite(t.value)]
    if not complete:
        raise ModelError(
            f"no trial of {study.name} came to a value ({len(trials)} tried)", hint=problems[-1] if problems else ""
        )
    sign = 1 if study.direction == "maximize" else -1
    history: list[float] = []
    for t in complete:
        history.append(t.value if not history else sign * max(sign * t.value, sign * history[-1]))
    top = max(complete, key=lambda t: sign * t.value)
    kinds = [t.state.name for t in trials]
    return Best(
        params=dict(top.params), value=top.value, trials=len(trials), pruned=kinds.count("PRUNED"),
        failed=kinds.count("FAIL"), history=tuple(history),
    )  # fmt: skip


class Pruned(Exception):
    """Raised by an objective whose ``told`` said stop."""


def parallel(study: Study, text: Path, file: Path) -> None:
    """``study.workers`` processes work on what ``text`` describes, until it is done. ModelError when all fail."""
    opened(study, file, study.seed)  # workers that all find no file would all make its tables, and one would fail
    workers = study.workers
    command = [sys.executable, "-m", "leptonai.cli", "tune", str(text), "--storage", str(file), "--worker"]
    running = [subprocess.Popen([*command, str(i)], stdout=subprocess.DEVNULL) for i in range(workers)]
    try:
        codes = [p.wait() for p in running]
    finally:
        for p in running:
            if p.poll() is None:
                p.terminate()
                p.wait()
    if all(codes):
        raise ModelError(f"all {workers} workers ended with {codes}", hint="their messages are above")


def parse(fields: Any, source: str) -> tuple[Study, dict[str, Any]]:
    """The study, and what else the text says: its task. SpecError names the field."""
    own = {k: v for k, v in fields.items() if k in Study.__struct_fields__}
    try:
        study = msgspec.convert(own, Study)
    except msgspec.ValidationError as e:
        raise SpecError(f"{source}: {e}", hint=f"fields: {', '.join(Study.__struct_fields__)}") from e
    check(study)
    return study, {k: v for k, v in fields.items() if k not in own}
