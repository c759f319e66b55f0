"""The shapes of a PyTorch network that the search tries: alone first, then those that were good together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from leptonai.errors import LeptonError
from leptonai.improve.compress import shapes
from leptonai.improve.compress.front import Budget, Candidate, chosen, slug
from leptonai.improve.compress.network import capture, forward, to_onnx
from leptonai.improve.compress.teach import STEPS, lesson, teach
from leptonai.improve.evaluate.rows import Array, Rows
from leptonai.protocols import Predictor

Change = Callable[["Networks", Any], tuple[Any, dict[str, Any]]]
Judge = Callable[[Sequence[str], Path], Candidate]
SLACK = 2.0  # times the budget that a shape may lose alone and still be combined: what is learnt anew can mend it

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
    ) -> None:
        self._single = chosen(SINGLE, only)
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

    def gradients(self, graph: Any) -> None:
        """One backward pass over a sample, of the loss against the labels."""
        with torch.no_grad():
            said = forward(self.original, self.some)
        lesson(forward(graph, self.some), said, self._labels[:SAMPLE], soft=0.0).backward()

    def shapes(self, work: Path, judge: Judge, budget: Budget) -> list[Candidate]:
        """The network in ONNX as it is, in each single shape, and in combinations of the good ones, all judged."""
        whole = self._export(("onnx",), self.original, work, judge)
        if whole.error:
            return [whole]
        found, graphs = [whole], {}
        for name, change in self._single.items():
            candidate, graph = self._changed((name,), self.original, change, work, judge)
            found.append(candidate)
            if graph is not None and candidate.loss <= SLACK * budget.loss + 1e-12:
                graphs[name] = graph
        pruned = [n for n in graphs if n.startswith("prune")]
        if pruned:
            for name in ON_TOP:
                if name in graphs:
                    steps = (pruned[-1], name)
                    found.append(self._changed(steps, graphs[pruned[-1]], SINGLE[name], work, judge)[0])
        return found

    def _changed(
        self, steps: tuple[str, ...], graph: Any, change: Change, work: Path, judge: Judge
    ) -> tuple[Candidate, Any]:
        self._say(" + ".join(steps))
        try:
            new, masks = change(self, graph)
            teach(
                new, self.original, self._inputs, self._labels, steps=self._steps, seed=self._seed, masks=masks
            )  # fmt: skip
        except LeptonError as e:
            return Candidate(steps=steps, error=e.message), None
        return self._export(steps, new, work, judge), new

    def _export(self, steps: tuple[str, ...], graph: Any, work: Path, judge: Judge) -> Candidate:
        path = work / f"{slug(steps)}.onnx"
        try:
            to_onnx(graph, self._predictor, self._rows.inputs, path)
        except LeptonError as e:
            return Candidate(steps=steps, error=e.message)
        return judge(steps, path)
