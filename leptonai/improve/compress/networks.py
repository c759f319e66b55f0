"""The shapes of a PyTorch network that the search tries: alone first, then those that were good together.

A shape learns a quarter of its lessons, and is judged in this process, without a file. Those that are good enough then
have learnt enough, those that another beats wait until that one has a file and are left then, the others learn the rest
(successive halving: Jamieson & Talwalkar 2016, with the budget in place of a fixed share). Only what stays near the
budget is exported.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import torch

from leptonai.errors import LeptonError
from leptonai.improve.compress import shapes
from leptonai.improve.compress.front import Aim, Budget, Candidate, chosen, slug
from leptonai.improve.compress.network import capture, forward, to_onnx
from leptonai.improve.compress.race import FIRST, SLACK, Standing, paced, verdict
from leptonai.improve.compress.teach import STEPS, lesson, said, teach
from leptonai.improve.evaluate.rows import Array, Rows
from leptonai.protocols import Predictor

Change = Callable[["Networks", Any], tuple[Any, dict[str, Any]]]
Judge = Callable[[Sequence[str], Path], Candidate]  # of a file
Hear = Callable[[Sequence[str], Predictor], Candidate]  # of a model in this process

SINGLE: dict[str, Change] = {
    "prune 50%": lambda n, g: (shapes.prune(g, 0.5, n.gradients), {}),
    "prune 75%": lambda n, g: (shapes.prune(g, 0.75, n.gradients), {}),
    "prune 88%": lambda n, g: (shapes.prune(g, 0.875, n.gradients), {}),
    "low rank 50%": lambda n, g: (shapes.low_rank(g, 0.5, n.some), {}),
    "low rank 25%": lambda n, g: (shapes.low_rank(g, 0.25, n.some), {}),
    "split in 2": lambda n, g: (shapes.split(g, 2), {}),
    "zeros 80%": lambda n, g: shapes.magnitude(g, 0.8),
}
ON_TOP = ("low rank 50%", "low rank 25%", "split in 2")  # of a pruned network
SAMPLE = 512  # rows for gradients and moments


@dataclass
class Student:
    """A changed copy while it learns."""

    steps: tuple[str, ...]
    graph: Any
    masks: dict[str, Any] = field(default_factory=dict)
    stands: Candidate = field(default_factory=Candidate)


class Networks:
    """One captured network and what teaches its changed copies."""

    def __init__(
        self,
        predictor: Predictor,
        rows: Rows,
        labels: Array,
        seed: int,
        steps: int | None,
        say: Callable[[str], None],
        only: Collection[str] | None = None,
        aim: Aim = "both",
    ) -> None:
        self._single, self._named, self._aim = chosen(SINGLE, only), only is not None, aim
        self._predictor, self._rows, self._seed, self._say = predictor, rows, seed, say
        self._steps = STEPS if steps is None else steps
        self._inputs = [torch.from_numpy(rows.inputs[t["name"]].copy()) for t in predictor.inputs]
        self._labels = torch.from_numpy(labels.copy())
        if self._labels.is_floating_point():
            self._labels = self._labels.float()
        else:
            self._labels = self._labels.long()
        self.some: list[Any] = [x[:SAMPLE] for x in self._inputs]
        self.original = capture(predictor, rows.inputs)
        self._targets = said(self.original, self._inputs)

    def gradients(self, graph: Any) -> None:
        """One backward pass over a sample, of the loss against the labels."""
        lesson(forward(graph, self.some), self._targets[:SAMPLE], self._labels[:SAMPLE], soft=0.0).backward()

    def shapes(self, work: Path, judge: Judge, hear: Hear, budget: Budget) -> list[Candidate]:
        """The network in ONNX as it is, in each single shape, and in combinations of the good ones, all judged."""
        whole = self._export(("onnx",), self.original, work, judge)
        if whole.error:
            return [whole]
        found: dict[tuple[str, ...], Candidate] = {whole.steps: whole}
        students = [s for name in self._single if (s := self._changed((name,), self.original, name, found)) is not None]
        found |= self._taught(students, found, work, judge, hear, budget)
        near = {s.steps[0]: s for s in students if _near(s.stands, budget)}
        pruned = [n for n in near if n.startswith("prune")]
        on_top = [
            s
            for name in (ON_TOP if pruned else ())
            if name in near
            and (s := self._changed((pruned[-1], name), near[pruned[-1]].graph, name, found)) is not None
        ]
        found |= self._taught(on_top, found, work, judge, hear, budget, students)
        return list(found.values())

    def _changed(
        self, steps: tuple[str, ...], graph: Any, name: str, found: dict[tuple[str, ...], Candidate]
    ) -> Student | None:
        """A copy of ``graph`` in another shape, untaught; None: it has none, and ``found`` says why."""
        try:
            return Student(steps, *SINGLE[name](self, graph))
        except LeptonError as e:
            found[steps] = Candidate(steps=steps, error=e.message)
            return None

    def _taught(
        self,
        students: list[Student],
        known: dict[tuple[str, ...], Candidate],
        work: Path,
        judge: Judge,
        hear: Hear,
        budget: Budget,
        others: Sequence[Student] = (),
    ) -> dict[tuple[str, ...], Candidate]:
        """What became of ``students``, in their order; ``known``, of ``others``.

        Whoever is beaten waits: when all that beat it came to no file, it goes on after all. None that was asked for by
        name is left half way.
        """
        first = max(1, self._steps // FIRST)
        for s in students:
            self._learn(s, first, self._seed, hear)
        standings = self._standings([*others, *students])
        ended: dict[tuple[str, ...], Candidate] = {}
        waiting = students
        while waiting:
            failed = {steps for steps, c in {**known, **ended}.items() if not c.file}
            rivals = {steps: stands for steps, stands in standings.items() if steps not in failed}
            verdicts = {s.steps: verdict(s.steps, rivals, budget) for s in waiting}
            going = [s for s in waiting if self._named or verdicts[s.steps] != "beaten"]
            for s in going:
                if verdicts[s.steps] != "enough" and self._steps > first:
                    self._learn(s, self._steps - first, self._seed + 1, hear)
                ended[s.steps] = self._ended(s, work, judge, budget)
            waiting = [s for s in waiting if s.steps not in ended]
            if not going:
                break
        slower = "" if self._aim == "size" else " and no slower"
        for s in waiting:
            left = f"after {first} of {self._steps} lessons one that is no larger{slower} loses less"
            ended[s.steps] = s.stands = msgspec.structs.replace(s.stands, left=left)
        return {s.steps: ended[s.steps] for s in students}

    def _standings(self, students: Sequence[Student]) -> dict[tuple[str, ...], Standing]:
        """After so many lessons; timed in this process, unless size alone is the aim."""
        timed = [s for s in students if self._aim != "size" and not s.stands.error]
        row = {t["name"]: self._rows.inputs[t["name"]][:1] for t in self._predictor.inputs}
        seconds = paced({s.steps: partial(self._predicts, s) for s in timed}, self._predictor, row)
        return {
            s.steps: Standing(s.stands.loss, stored(s.graph), seconds.get(s.steps, 0.0), s.stands.error_of_loss)
            for s in students
        }

    def _learn(self, s: Student, steps: int, seed: int, hear: Hear) -> None:
        self._say(f"{' + '.join(s.steps)}: {steps} lessons")
        teach(s.graph, self._targets, self._inputs, self._labels, steps=steps, seed=seed, masks=s.masks)
        s.stands = hear(s.steps, self._predicts(s))

    def _predicts(self, s: Student) -> Predictor:
        model = copy.copy(self._predictor)
        model.module = s.graph  # type: ignore[attr-defined] # capture made sure that it has one
        return model

    def _ended(self, s: Student, work: Path, judge: Judge, budget: Budget) -> Candidate:
        """Exported when it may still be of use."""
        if s.stands.error:
            return s.stands
        if not _near(s.stands, budget):
            return msgspec.structs.replace(s.stands, left=f"it loses {100 * s.stands.loss:.2f} %")
        return self._export(s.steps, s.graph, work, judge)

    def _export(self, steps: tuple[str, ...], graph: Any, work: Path, judge: Judge) -> Candidate:
        self._say(f"{' + '.join(steps)}: to ONNX" if steps != ("onnx",) else "to ONNX")
        path = work / f"{slug(steps)}.onnx"
        try:
            to_onnx(graph, self._predictor, self._rows.inputs, path)
        except LeptonError as e:
            return Candidate(steps=steps, error=e.message)
        return judge(steps, path)


def _near(c: Candidate, budget: Budget) -> bool:
    """Whether it is worth a file: what is learnt on top, or another precision, can mend a little."""
    return not c.error and not c.left and c.loss <= SLACK * budget.loss + 1e-12


def stored(graph: Any) -> int:
    """Numbers in the parameters that ``graph`` uses: what a file of it will hold."""
    used = {n.target for n in graph.graph.nodes if n.op == "get_attr"}
    return sum(p.numel() for n, p in graph.named_parameters() if n in used)
