"""The search: shapes of the network and their combinations in every precision; judged here, the best in replicas."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Collection, Sequence
from functools import partial
from math import inf, nan
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from leptonai.errors import LeptonError, SpecError, needs
from leptonai.improve.compress import race
from leptonai.improve.compress import replica as replicas
from leptonai.improve.compress.front import Aim, Budget, Candidate, Report, chosen, outcome, pick, slug, timed
from leptonai.improve.compress.precision import PRECISIONS
from leptonai.improve.evaluate.answers import Answers, answers, ask, opened
from leptonai.improve.evaluate.rows import Array, Rows
from leptonai.protocols import Predictor

CHOOSES, CONFIRMS = 0.3, 0.3  # shares of the rows, where no others are given; the rest teaches and calibrates
LEAST = 30  # rows that must be there
TRIES = 3  # replicas of a candidate that are started, while they are late
Say = Callable[[str], None]


class Parts(NamedTuple):
    """Rows that teach and calibrate, rows that choose, rows that only confirm."""

    teach: Rows
    choose: Rows
    confirm: Rows


def parts(rows: Rows, test: Rows | None = None, seed: int = 0, teach: Rows | None = None) -> Parts:
    """A seeded split; with ``test`` these rows confirm, with ``teach`` these teach. SpecError when there are too few.

    What is given leaves its share to the others: with ``teach``, half of the rows choose and half confirm.
    """
    if len(rows) < LEAST:
        raise SpecError(
            f"the data have {len(rows)} rows; at least {LEAST} are needed to teach, choose and confirm",
            hint="rows that taught the original may teach again: --teach",
        )
    if teach is not None and len(teach) < 2:
        raise SpecError(f"{len(teach)} row cannot teach", hint="the rows that the original learnt from")
    order = np.random.default_rng(seed).permutation(len(rows))
    whole = CHOOSES + (CONFIRMS if test is None else 0.0) if teach is not None else 1.0
    first = int(CHOOSES / whole * len(rows))
    second = len(rows) if teach is not None else first + (0 if test is not None else int(CONFIRMS * len(rows)))
    choose, confirm, rest = (rows.take(np.sort(part)) for part in (order[:first], order[first:second], order[second:]))
    return Parts(teach or rest, choose, test or confirm)


def goodness(said: Answers, rows: Rows, budget: Budget, original: Answers) -> Array:
    """Of each row, higher is better: right or wrong, the original's answer or not, minus the squared error."""
    if budget.quality == "agreement":
        return np.asarray(said.predicted == original.predicted, np.float64)
    labels = rows.labelled()
    if budget.quality == "rmse":
        return np.asarray(-((said.predicted - labels) ** 2))
    return np.asarray(said.predicted.astype(str) == labels.astype(str), np.float64)


def quality(good: Array, budget: Budget) -> float:
    """The share of good answers, or minus the rmse."""
    return -float(np.sqrt(-good.mean())) if budget.quality == "rmse" else float(good.mean())


def lost(original: Array, now: Array, budget: Budget) -> tuple[float, float]:
    """Of rmse its relative growth, of a share the difference; and the standard error of it, as the rows are paired."""
    error = float((original - now).std() / np.sqrt(len(now)))
    before, after = quality(original, budget), quality(now, budget)
    if budget.quality != "rmse":
        return before - after, error
    size = max(-before, 1e-12)
    return (before - after) / size, error / (2 * size * size)


class Search:
    """One model, its rows and a budget. ``run`` leaves models and report in ``folder``."""

    def __init__(
        self,
        model: Path,
        rows: Rows,
        budget: Budget,
        folder: Path,
        *,
        test: Rows | None = None,
        teach: Rows | None = None,
        options: dict[str, Any] | None = None,
        trust: str = "none",
        aim: Aim = "both",
        seed: int = 0,
        steps: int | None = None,
        made: dict[str, Path] | None = None,
        only: Collection[str] | None = None,
        say: Say = lambda text: None,
    ) -> None:
        self.model, self.budget, self.folder, self.aim = model, budget, folder, aim
        self._options, self._trust, self._seed, self._steps, self._say = options or {}, trust, seed, steps, say
        self._only = only
        self._ready = made or {}  # candidates that were made elsewhere, by name
        if budget.quality != "agreement":
            rows.labelled()
        self.parts = parts(rows, test, seed, teach)
        self.predictor = opened(model, options, trust)
        self._possible()
        self._original = {id(p): answers(ask(self.predictor, p.inputs), p) for p in self.parts}
        self._base = self._good(self._original[id(self.parts.choose)], self.parts.choose)

    def _possible(self) -> None:
        """SpecError, NotInstalled: said before the first lesson."""
        platform = self.predictor.platform
        if self._ready:
            return
        if not platform.startswith(("onnx", "sklearn", "pytorch")):
            raise SpecError(
                f"models of kind {platform} cannot be compressed",
                hint="give an .onnx, .skops or .pt2 file, or model.py with a Module and its weights",
            )
        if platform.startswith("pytorch"):
            needs("compressing a PyTorch model", "onnxscript")
        if platform.startswith("sklearn"):
            needs("compressing a scikit-learn model", "skl2onnx")
        needs("compressing", "onnxruntime", "onnx")

    def _good(self, said: Answers, rows: Rows) -> Array:
        return goodness(said, rows, self.budget, self._original[id(rows)])

    def run(self) -> Report:
        """Every candidate was made and judged, the promising ones measured beside the original, and one is chosen.

        ``folder`` then holds ``report.json``, and the chosen model in ``chosen/`` unless the original stays. A step
        that fails is a candidate with an error, never the end of the search.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise SpecError(f"{self.folder} cannot be made: {e.strerror or e}", hint="choose another folder") from e
        with tempfile.TemporaryDirectory(prefix="leptonai-") as work:
            found = self._made(Path(work))
            done = self._measured(found, Path(work))
            taken = pick(done, self.budget, self.aim)
            report = self._report(done, taken, Path(work))
            shutil.rmtree(self.folder / "chosen", ignore_errors=True)
            if not report.kept:
                self._keep(Path(work) / taken.file)
        (self.folder / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
        return report

    # -- making ----------------------------------------------------------------------------------------------------

    def _made(self, work: Path) -> list[Candidate]:
        original = Candidate(size=size_of(self.model), quality=quality(self._base, self.budget), loss=0.0)
        shapes = self._shapes(work)
        if self._ready:
            return [original, *shapes]
        able = [s for s in shapes if s.file and s.loss <= race.SLACK * self.budget.loss + 1e-12]
        seconds = self._paced(able, work)
        worth = race.unbeaten({s.steps: race.Standing(s.loss, s.size, seconds.get(s.steps, 0.0)) for s in able})
        found = [original]
        for base in shapes:
            found.append(base)
            if base.steps in worth or (base.steps == ("onnx",) and base.file):
                found += self._precisions(work, base)
        return found

    def _precisions(self, work: Path, base: Candidate) -> list[Candidate]:
        self._say(f"precisions of {base.name}")
        made: dict[str, Candidate] = {}
        for name, apply in chosen(PRECISIONS, self._only).items():
            if race.due(name, made, self.budget, self._only):
                made[name] = self._precision(work, base, name, apply)
        return list(made.values())

    def _paced(self, candidates: Sequence[Candidate], work: Path) -> dict[tuple[str, ...], float]:
        """Seconds of one row in this process; none where the clock has no say in the choice."""
        if not timed(self.aim, self.budget):
            return {}
        row = {k: v[:1] for k, v in self.parts.choose.inputs.items()}
        return race.paced({c.steps: partial(opened, work / c.file) for c in candidates}, self.predictor, row)

    def _precision(self, work: Path, base: Candidate, name: str, apply: Any) -> Candidate:
        steps = (*(s for s in base.steps if s != "onnx"), name)
        target = work / f"{slug(steps)}.onnx"
        try:
            apply(work / base.file, target, self.parts.teach.inputs)
        except LeptonError as e:
            return Candidate(steps=steps, error=e.message)
        except Exception as e:  # noqa: BLE001 - the quantiser's own: it must not end the search
            return Candidate(steps=steps, error=f"{type(e).__name__}: {' '.join(str(e).split())[:200]}")
        return self._judged(steps, target)

    def _judged(self, steps: Sequence[str], path: Path) -> Candidate:
        try:
            found = self._heard(steps, opened(path))
        except LeptonError as e:
            return Candidate(steps=tuple(steps), error=e.message)
        return msgspec.structs.replace(found, file=path.name, size=path.stat().st_size)

    def _heard(self, steps: Sequence[str], model: Predictor) -> Candidate:
        """What its answers to the rows that choose are worth; it has no file."""
        rows = self.parts.choose
        try:
            good = self._good(answers(ask(model, rows.inputs), rows), rows)
        except LeptonError as e:
            return Candidate(steps=tuple(steps), error=e.message)
        loss, error = lost(self._base, good, self.budget)
        return Candidate(
            steps=tuple(steps), quality=quality(good, self.budget), loss=loss, error_of_loss=error
        )  # fmt: skip

    def _shapes(self, work: Path) -> list[Candidate]:
        """Whole ONNX models: as it is, and for a PyTorch model in every other shape."""
        platform = self.predictor.platform
        if self._ready:
            return [self._elsewhere(work, name, path) for name, path in self._ready.items()]
        if platform == "onnx_onnxv1":
            path = work / "onnx.onnx"
            shutil.copy(self.model if self.model.is_file() else next(self.model.glob("*.onnx")), path)
            return [self._judged(("onnx",), path)]
        if platform.startswith("sklearn"):
            from leptonai.improve.compress.sklearn import to_onnx

            to_onnx(self.predictor, self.parts.teach.inputs["X"], work / "onnx.onnx")
            return [self._judged(("onnx",), work / "onnx.onnx")]
        from leptonai.improve.compress.networks import Networks

        networks = Networks(
            self.predictor, self.parts.teach, self._labels(), self._seed, self._steps, self._say, self._only,
            self.aim,
        )  # fmt: skip
        return networks.shapes(work, self._judged, self._heard, self.budget)

    def _elsewhere(self, work: Path, name: str, path: Path) -> Candidate:
        target = work / f"{slug((name,))}{path.suffix}"
        shutil.copy(path, target)
        return self._judged((name,), target)

    def _labels(self) -> Array:
        """What teaches: labels where there are some, as numbers of classes; else what the original says."""
        teach = self.parts.teach
        said = self._original[id(teach)]
        if teach.labels is None:
            return said.predicted
        if said.classes is None:
            return teach.labels
        code = {str(c): i for i, c in enumerate(said.classes.tolist())}
        known = ", ".join(list(code)[:8])
        if unknown := sorted({str(v) for v in teach.labels.tolist()} - code.keys()):
            raise SpecError(f"label {unknown[0]!r} is none of the model's {len(code)} classes", hint=f"known: {known}")
        return np.array([code[str(v)] for v in teach.labels.tolist()])

    # -- measuring -------------------------------------------------------------------------------------------------

    def _measured(self, found: list[Candidate], work: Path) -> list[Candidate]:
        """Latency of those that could be chosen, and of the single steps among them, beside the original.

        Where the original's own replica is late and the clock has no say in the choice, they are ``late``, all of them
        that are not known to be broken by then.
        """
        original, *others = found
        able = [c for c in others if race.fits(c, self.budget)]
        wanted = race.measured(able, self._paced(able, work), self.aim, self.budget)
        asked = [c for c in others if c.steps in wanted and c.file]
        done: dict[tuple[str, ...], Candidate] = {}
        try:
            original = self._beside(original, asked, work, done)
        except LeptonError as e:
            if timed(self.aim, self.budget) or not e.retry:
                raise
            broken = {steps: c for steps, c in done.items() if c.error}
            done = {c.steps: msgspec.structs.replace(c, late=e.message) for c in asked} | broken
        return [original, *(done.get(c.steps, c) for c in others)]

    def _beside(
        self,
        original: Candidate,
        asked: Sequence[Candidate],
        work: Path,
        done: dict[tuple[str, ...], Candidate],
    ) -> Candidate:
        """The original with its cost; ``done`` tells of each of ``asked`` as soon as that is known."""
        requests = replicas.bodies(self.parts.choose.inputs)
        with replicas.replica(self.model, self._options, self._trust) as served:
            for c in asked:
                self._say(f"measuring {c.name}")
                done[c.steps] = self._against(served, c, work / c.file, requests)
            times = [t for _ in range(replicas.ROUNDS) for t in served.ask(requests, replicas.BLOCK, 1.0)]
            compute = served.stop()
        return msgspec.structs.replace(
            original, median=float(np.median(times)), p99=float(np.quantile(times, 0.99)), compute=compute,
            speedup=1.0, speedup_low=1.0, speedup_high=1.0,
        )  # fmt: skip

    def _against(self, served: Any, c: Candidate, path: Path, requests: list[bytes]) -> Candidate:
        """With its cost; with ``error`` when it cannot be served, ``late`` when TRIES replicas were not in time."""
        late = ""
        for _ in range(TRIES):
            try:
                with replicas.replica(path) as other:
                    cost = replicas.compare(served, other, requests)
                    compute = other.stop()
                return msgspec.structs.replace(c, **{**cost._asdict(), "compute": compute})
            except LeptonError as e:
                if not served.alive():
                    raise  # it says nothing of the candidate
                if not e.retry:
                    return msgspec.structs.replace(c, error=e.message)
                late = e.message
        return msgspec.structs.replace(c, late=late)

    # -- telling ---------------------------------------------------------------------------------------------------

    def _report(self, done: list[Candidate], chosen: Candidate, work: Path) -> Report:
        rows = self.parts.confirm
        original = self._good(self._original[id(rows)], rows)
        base = quality(original, self.budget)
        now, confirmed, said = base, nan, ""
        if chosen.steps:
            good = self._good(answers(ask(opened(work / chosen.file), rows.inputs), rows), rows)
            now, confirmed = quality(good, self.budget), lost(original, good, self.budget)[0]
            if confirmed > self.budget.loss + 1e-12:
                said = (
                    f"{chosen.name} lost {100 * confirmed:.2f} % on the {len(rows)} rows that had no part in choosing "
                    f"it (on those that had, {100 * chosen.loss:.2f} %): the original is kept"
                )
                chosen, now = done[0], base
        others = done[1:]
        if others and all(c.error for c in others):
            said = f"nothing could be made of {self.model.name}: {others[0].error}; the original is kept"
        elif (late := [c for c in others if c.late]) and timed(self.aim, self.budget) and not chosen.steps:
            said = said or f"{len(late)} could not be measured ({late[0].late}): the original is kept"
        least = min((c.loss + c.error_of_loss for c in others if not c.error), default=inf)
        return Report(
            budget=self.budget, aim=self.aim, candidates=tuple(done), chosen=chosen,
            rows={k: len(v) for k, v in self.parts._asdict().items()}, quality=now, original=base, confirmed=confirmed,
            said=said or outcome(chosen, done[0], self.budget, confirmed, least if least < inf else nan),
        )  # fmt: skip

    def _keep(self, path: Path) -> None:
        """The chosen model with examples of its own answers, which a replica checks before it is ready."""
        folder = self.folder / "chosen"
        folder.mkdir(parents=True)
        kept = folder / f"model{path.suffix}"
        shutil.copy(path, kept)
        predictor = opened(kept)
        some = {k: v[:1] for k, v in self.parts.choose.inputs.items()}
        examples = [
            {
                "inputs": {k: v.tolist() for k, v in some.items()},
                "outputs": {k: v.tolist() for k, v in predictor.predict(some).items()},
                "tolerance": 0.05,  # int8 kernels of other processors round differently
            }
        ]
        (folder / "golden.json").write_bytes(msgspec.json.encode(examples))


def size_of(model: Path) -> int:
    files = [f for f in model.rglob("*") if f.is_file() and "__pycache__" not in f.parts] if model.is_dir() else [model]
    return sum(f.stat().st_size for f in files)
