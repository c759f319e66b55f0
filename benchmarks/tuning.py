"""How many trials a guided search needs to reach the best of a random one: 3 tasks, 5 seeds.

    python benchmarks/tuning.py [--random 60] [--seeds 5] [--only training,classifying,serving] [--table FILE]

training: rate, decay, batch and width of a network on scikit-learn's digits. classifying: a support vector machine on
labelled windows of equipment faults (generated), inner folds as ``leptonai tune`` does it. serving: batch, threads,
policy and precision of a replica, the seconds of each setting measured once against a real replica and then looked up,
so that every search sees the same machine (kept in --table, else measured anew). A trial that was made already costs
again; one that is ended early costs the share of its epochs or folds that it had: trials are counted in whole ones. The
bar: in the median over the seeds, a third of random's trials.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import msgspec
import numpy as np

from leptonai.improve.evaluate.rows import Rows
from leptonai.improve.tune.study import Dimension, Objective, Range, Sampler, Study, Told, Value, work

Task = tuple[dict[str, Dimension], Objective]
Search = tuple[Sampler, bool]  # and whether poor trials are ended early
SEARCHES: dict[str, Search] = {"tpe": ("tpe", True), "tpe whole": ("tpe", False), "gp": ("gp", True)}


def classifying(folder: Path) -> Task:
    """Windows of three sensors under five conditions; two of them differ only in how the sensors move together."""
    from leptonai.improve.tune.nested import Classify, maker, objective

    rng = np.random.default_rng(0)
    y = np.arange(240) % 5
    t = np.arange(32)
    x = np.stack([
        np.concatenate([
            np.sin(t / (3 + (k == 1)) + rng.uniform(0, 6)) + 0.9 * rng.standard_normal(32) * (1 + 0.5 * (k == 2)),
            0.03 * t * (k == 3) + 0.9 * rng.standard_normal(32),
            (common := 0.9 * rng.standard_normal(32)) * (k == 4) + 0.5 * rng.standard_normal(32),
            common + 0.3 * rng.standard_normal(32),
        ])
        for k in y
    ])  # fmt: skip
    spectra = np.abs(np.fft.rfft(x.reshape(240, 4, 32))).reshape(240, -1)
    task = Classify(data="", estimator="sklearn.svm.SVC")
    space: dict[str, Dimension] = {
        "C": Range(low=1e-3, high=1e4, log=True),
        "gamma": Range(low=1e-6, high=10, log=True),
        "class_weight": ("balanced",),
    }
    return space, objective(Rows({"x": spectra}, y), maker(task, 0), 4, None, 0, 0)


NET = """
from torch import nn
class Net(nn.Sequential):
    def __init__(self, width=32, drop=0.0):
        super().__init__(nn.Linear(64, width), nn.ReLU(), nn.Dropout(drop), nn.Linear(width, 10))
"""


def training(folder: Path) -> Task:
    import torch
    from sklearn.datasets import load_digits

    from leptonai.improve.train.job import Job
    from leptonai.improve.tune.training import objective

    torch.set_num_threads(1)
    x, y = load_digits(return_X_y=True)
    x = (x + np.random.default_rng(0).normal(0, 6, x.shape)) / 8  # noisy, so that the numbers matter
    np.savez(folder / "digits.npz", x=x.astype(np.float32), y=y)
    (folder / "net.py").write_text(NET)
    space: dict[str, Dimension] = {
        "rate": Range(low=1e-5, high=1.0, log=True),
        "weight_decay": Range(low=1e-4, high=3.0, log=True),
        "batch_size": Range(low=16, high=256, step=16),
        "args.width": Range(low=8, high=128, step=8),
        "args.drop": Range(low=0.0, high=0.8),
    }
    return space, objective(Job(data="digits.npz", module="net.py", epochs=3, hold=0.34), folder)


def serving(folder: Path, kept: Path | None = None) -> Task:
    from skl2onnx import to_onnx
    from sklearn.datasets import make_classification
    from sklearn.neural_network import MLPClassifier

    from leptonai.improve.tune.serving import Serve, Serving

    x, y = make_classification(400, 64, n_informative=20, random_state=0)
    x = x.astype(np.float32)
    model = MLPClassifier((512, 512), max_iter=3).fit(x, y)
    (folder / "m.onnx").write_bytes(to_onnx(model, x[:1], options={"zipmap": False}).SerializeToString())
    np.savez(folder / "traffic.npz", X=x[:64])
    space: dict[str, Dimension] = {
        "batch": (1, 2, 4, 8, 16, 32),
        "policy": ("adaptive", "eager"),
        "threads": (1, 2),
        "precision": ("fp32", "int8 dynamic", "int8 stored"),
    }
    real = Serving(Serve(model="m.onnx", traffic="traffic.npz", rate=300, seconds=1.5, aim="p50"), folder, 0)
    table: dict[str, float] = json.loads(kept.read_bytes()) if kept is not None and kept.is_file() else {}
    for values in itertools.product(*space.values()):  # type: ignore[arg-type]
        params: dict[str, Value] = dict(zip(space, values, strict=True))
        if json.dumps(params) not in table:
            table[json.dumps(params)] = -real(params, lambda step, value: True)
    if kept is not None:
        kept.write_text(json.dumps(table))
    print(f"  serving: {len(table)} settings, {-1e3 * max(table.values()):.2f} to {-1e3 * min(table.values()):.2f} ms")
    return space, lambda params, told: table[json.dumps({k: params[k] for k in space})]


TASKS: dict[str, Callable[[Path], Task]] = {"training": training, "classifying": classifying, "serving": serving}


class Spent:
    """Counts what a search spends, in whole trials, until it is as good as ``goal``."""

    def __init__(self, objective: Objective, steps: int, goal: float) -> None:
        self.objective, self.steps, self.goal = objective, steps, goal
        self.trials, self.needed, self.longest = 0.0, float("inf"), 0

    def __call__(self, params: dict[str, Value], told: Told) -> float:
        seen = 0

        def note(step: int, value: float) -> bool:
            nonlocal seen
            seen += 1
            return told(step, value)

        try:
            value = self.objective(params, note)
        finally:
            self.trials += min(1.0, seen / self.steps) if seen and self.steps else 1.0
            self.longest = max(self.longest, seen)
        if value >= self.goal - 1e-12:
            self.needed = min(self.needed, self.trials)
        return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=60, help="trials of the random search")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default=",".join(TASKS))
    parser.add_argument("--searches", default=",".join(SEARCHES))
    parser.add_argument("--table", type=Path, help="of serving: settings measured before; written when it is not there")
    parser.add_argument("--json", type=Path)
    o = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for task in o.only.split(","):
            folder = Path(name) / task
            folder.mkdir()
            space, objective = serving(folder, o.table) if task == "serving" else TASKS[task](folder)
            study = Study(name=task, space=space, trials=o.random, sampler="random", prune=False)
            needed: dict[str, list[float]] = {s: [] for s in o.searches.split(",")}
            for seed in range(o.seeds):
                whole = Spent(objective, 0, float("inf"))
                goal = work(msgspec.structs.replace(study, seed=seed), whole).value
                said = []
                for search in needed:
                    kind, prune = SEARCHES[search]
                    guided = Spent(objective, whole.longest, goal)
                    more = msgspec.structs.replace(study, seed=100 + seed, sampler=kind, prune=prune)
                    work(more, guided)
                    needed[search].append(guided.needed)
                    said.append(f"{search} after {guided.needed:.3g}")
                print(f"  {task} seed {seed}: random {goal:.4f}, {', '.join(said)}", flush=True)
            for search, trials in needed.items():
                middle = statistics.median(trials)
                verdict = "HOLDS" if middle <= o.random / 3 else "FALLS SHORT"
                told = ", ".join(f"{t:.3g}" for t in sorted(trials))
                print(f"{task:12} {search}: as good after {middle:.3g} whole trials ({told}) {verdict}")
                rows.append({"task": task, "search": search, "trials": trials, "median": middle})
    if o.json:
        o.json.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
