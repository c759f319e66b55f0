"""How many trials a guided search needs to reach the best of a random one: 3 tasks, 5 seeds.

    python benchmarks/tuning.py [--random 60] [--seeds 5] [--only training,classifying,serving] [--table FILE]
                                [--rounds 6] [--by wall,cpu] [--within 0.1]

training: rate, decay, batch and width of a network on scikit-learn's digits. classifying: a support vector machine on
labelled windows of equipment faults (generated), inner folds as ``leptonai tune`` does it. serving: batch, threads,
policy and precision of a replica of a network of 17 MB, so that they matter; each setting is measured and then looked
up, so that every search sees the same machine. It is measured in --rounds rounds, in each of them in another order,
each time beside a reference replica that gets the same requests in the same second; what is searched is the median of
these ratios of medians (``wall``), or the processor time of a request (``cpu``). How alike two halves of the rounds
rank the settings is printed: no search can find what the machine does not tell. Rounds are kept in --table as they end.
A trial that was made already costs again; one that is ended early costs the share of its epochs or folds that it had:
trials are counted in whole ones. The bar: in the median over the seeds, a third of random's trials.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import tempfile
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")

import msgspec
import numpy as np

from leptonai.improve.evaluate.rows import Rows
from leptonai.improve.tune.study import Dimension, Objective, Range, Sampler, Study, Told, Value, work

if TYPE_CHECKING:
    from leptonai.improve.tune.serving import Serving

RATE, STRETCH = 600, 0.1  # requests a second, for so long: more than a slow setting can answer, so that it falls behind
WARM = 10  # requests before
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


Rounds = dict[str, list[tuple[float, float]]]  # setting -> of each round, wall beside the reference; processor seconds


def serving(folder: Path, kept: Path | None, rounds: int, by: str) -> Task:
    from skl2onnx import to_onnx
    from sklearn.datasets import make_classification
    from sklearn.neural_network import MLPClassifier

    from leptonai.improve.tune.serving import Serve, Serving

    x, y = make_classification(200, 64, n_informative=20, random_state=0)
    x = x.astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it need not learn
        model = MLPClassifier((2048, 2048), max_iter=1).fit(x, y)
    (folder / "m.onnx").write_bytes(to_onnx(model, x[:1], options={"zipmap": False}).SerializeToString())
    np.savez(folder / "traffic.npz", X=x[:64])
    space: dict[str, Dimension] = {
        "batch": (1, 2, 4, 8, 16, 32),
        "policy": ("adaptive", "eager"),
        "threads": (1, 2),
        "precision": ("fp32", "int8 dynamic", "int8 stored"),
    }
    real = Serving(Serve(model="m.onnx", traffic="traffic.npz", rate=RATE, seconds=STRETCH, aim="p50"), folder, 0)
    table: Rounds = json.loads(kept.read_bytes()) if kept is not None and kept.is_file() else {}
    settings = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]  # type: ignore[arg-type]
    while (done := min(len(table.get(json.dumps(p), [])) for p in settings)) < rounds:
        for key, found in measured(real, settings, done).items():
            table.setdefault(key, []).append(found)
        if kept is not None:
            kept.write_text(json.dumps(table))
        print(f"  serving: round {done + 1} of {rounds}", flush=True)
    values = {key: np.array(found)[:rounds, int(by == "cpu")] for key, found in table.items()}
    middle = {key: -float(np.median(v)) for key, v in values.items()}
    halves = [np.array([np.median(v[at::2]) for v in values.values()]) for at in (0, 1)]
    alike = float(np.corrcoef(*(h.argsort().argsort() for h in halves))[0, 1])
    best = max(middle, key=middle.__getitem__)
    print(
        f"  serving by {by}: {len(middle)} settings, {-middle[best]:.3g} to {-min(middle.values()):.3g}; best: {best}"
    )
    print(f"  two halves of the rounds rank them alike by a correlation of {alike:.2f}", flush=True)
    return space, lambda params, told: middle[json.dumps({k: params[k] for k in space})]


def measured(real: Serving, settings: list[dict[str, Value]], seed: int) -> dict[str, tuple[float, float]]:
    """One round: every setting once, in an order of its own. Replicas differ in threads and precision; the rest is told
    them while they run."""
    from leptonai.improve.compress.replica import Replica, replica
    from leptonai.improve.tune.serving import batching, beside, pair

    rng = np.random.default_rng(seed)
    found: dict[str, tuple[float, float]] = {}
    with ExitStack() as stack:
        running: dict[tuple[Value, Value], Replica] = {}
        for number, i in enumerate(rng.permutation(len(settings))):
            params = settings[i]
            key = (params["threads"], params["precision"])
            if key not in running:
                running[key] = stack.enter_context(replica(real.model(params), {"threads": params["threads"]}))
            one = running[key]
            one.tune(batching(params))
            one.ask([b for _, b in real.due[:16]], WARM, 5.0)
            lines = [one.another() for _ in range(real.task.connections)]
            used = -one.processor()
            both = pair(real.reference(), lines, real.due, bool(number % 2))
            used += one.processor()
            found[json.dumps(params)] = beside([both], 0.5), used / len(real.due)
            for line in lines:
                line.close()
    return found


TASKS: dict[str, Callable[[Path], Task]] = {"training": training, "classifying": classifying}


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
    parser.add_argument("--only", default="training,classifying,serving")
    parser.add_argument("--searches", default=",".join(SEARCHES))
    parser.add_argument("--table", type=Path, help="of serving: the rounds measured before; what is missing is added")
    parser.add_argument("--rounds", type=int, default=6, help="of serving, in which each setting is measured once")
    parser.add_argument("--within", type=float, default=0.0, help="share of random's best that counts as equal to it")
    parser.add_argument("--by", default="wall,cpu", help="what is searched of serving")
    parser.add_argument("--json", type=Path)
    o = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        table = o.table or Path(name) / "table.json"
        wanted = [(t, by) for t in o.only.split(",") for by in (o.by.split(",") if t == "serving" else [""])]
        for task, by in wanted:
            folder = Path(name) / task
            folder.mkdir(exist_ok=True)
            space, objective = serving(folder, table, o.rounds, by) if by else TASKS[task](folder)
            task = f"{task} {by}".strip()
            study = Study(name=task, space=space, trials=o.random, sampler="random", prune=False)
            needed: dict[str, list[float]] = {s: [] for s in o.searches.split(",")}
            for seed in range(o.seeds):
                whole = Spent(objective, 0, float("inf"))
                goal = work(msgspec.structs.replace(study, seed=seed), whole).value
                said = []
                for search in needed:
                    kind, prune = SEARCHES[search]
                    guided = Spent(objective, whole.longest, goal - o.within * abs(goal))
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
