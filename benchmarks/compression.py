"""Compression of three bundled examples within half a point of accuracy, beside each technique on its own.

    python benchmarks/compression.py [--only cnn,mlp,transformer] [--seeds 1] [--try STEPS] [--lessons 800]
                                     [--json FILE] [--picture FILE]

CNN on scikit-learn's digits; MLP on a generated table of 20 columns and 6 classes
(``make_classification``); a transformer that tells which of six kinds a generated sentence is. Half of the rows trains
the original and teaches its smaller forms (``--teach``); half of the others chooses, half confirms; what is printed as
confirmed is from rows that had no part in training or choosing. Sizes and speeds are against the plain fp32 ONNX export
of the same model, which is the stricter yardstick: onnxruntime alone is often faster than torch. Peers: onnxruntime's
dynamic and static int8 and fp16, torch's pruning, each alone within the same budget, measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from sklearn.datasets import load_digits, make_classification
from torch import nn
from torch.nn.functional import cross_entropy

from leptonai.cli.compress import names
from leptonai.improve.compress.front import Candidate, Report, affordable, budget, gain
from leptonai.improve.compress.search import Search
from leptonai.improve.evaluate.rows import Rows
from leptonai.improve.train import Batches, Guard, seed

torch.set_num_threads(1)
PEERS = ("fp16", "int8 dynamic", "int8 static", "int8 static percentile", "prune 50%", "prune 75%", "zeros 80%")


class Text(nn.Module):
    def __init__(self, words: int = 64, width: int = 96, depth: int = 2, classes: int = 6) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.place = nn.Parameter(torch.randn(24, width) * 0.1)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True)
        self.body = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.out = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.body(self.words(x) + self.place).mean(1))


def cnn(at: int) -> tuple[nn.Module, np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.Flatten(),
        nn.Linear(64 * 16, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip
    return model, (x.reshape(-1, 1, 8, 8) / 16 - 0.3).astype(np.float32), y


def mlp(at: int) -> tuple[nn.Module, np.ndarray, np.ndarray]:
    x, y = make_classification(
        6000, 20, n_informative=12, n_redundant=4, n_classes=6, n_clusters_per_class=2, class_sep=1.6, random_state=at
    )
    model = nn.Sequential(
        nn.Linear(20, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 6)
    )
    return model, x.astype(np.float32), y


def sentences(at: int, count: int = 4000, length: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Generated sentences: the class is the pair (which of three kinds of noun comes first, whether a verb agrees)."""
    rng = np.random.default_rng(at)
    x = rng.integers(30, 64, (count, length))  # filler words
    kind, agrees = rng.integers(0, 3, count), rng.integers(0, 2, count)
    for i in range(count):
        first, second = np.sort(rng.choice(length - 1, 2, replace=False))
        x[i, first] = 1 + kind[i] * 4 + rng.integers(0, 4)
        x[i, second + 1] = 13 + (kind[i] if agrees[i] else (kind[i] + rng.integers(1, 3)) % 3) * 4 + rng.integers(0, 4)
    return x.astype(np.int64), kind * 2 + agrees


def transformer(at: int) -> tuple[nn.Module, np.ndarray, np.ndarray]:
    return Text(), *sentences(at)


EXAMPLES: dict[str, Callable[[int], tuple[nn.Module, np.ndarray, np.ndarray]]] = {
    "cnn": cnn,
    "mlp": mlp,
    "transformer": transformer,
}


def trained(model: nn.Module, x: np.ndarray, y: np.ndarray, epochs: int, at: int) -> nn.Module:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    guard = Guard(model, optimizer)
    batches = Batches(torch.from_numpy(x), torch.from_numpy(y), size=64, seed=at)
    while batches.epoch < epochs and not guard.stopped:
        model.train()
        for bx, by in batches:
            with guard.step((bx,)) as step:
                step.backward(cross_entropy(model(bx), by))
    return model.eval()


def run(name: str, at: int, folder: Path, only: list[str] | None, lessons: int | None) -> Report:
    seed(at)
    model, x, y = EXAMPLES[name](at)
    order = np.random.default_rng(at).permutation(len(y))
    half = len(y) // 2
    trained(model, x[order[:half]], y[order[:half]], {"cnn": 15, "mlp": 15, "transformer": 20}[name], at)
    example = (torch.from_numpy(x[:2]),)
    program = torch.export.export(model, example, dynamic_shapes=({0: torch.export.Dim("batch")},))
    path = folder / f"{name}.pt2"
    torch.export.save(program, path)
    given = "x" if name == "transformer" else "input"
    taught, others = (Rows({given: x[part]}, y[part]) for part in (order[:half], order[half:]))
    spent = budget("accuracy=0.5%")
    return Search(
        path, others, spent, folder / f"{name}-{at}", teach=taught, seed=at, only=only, steps=lessons,
        say=lambda text: print(text, flush=True),
    ).run()  # fmt: skip


def told(name: str, report: Report) -> dict[str, object]:
    base = next(c for c in report.candidates if c.steps == ("onnx",))
    singles = [c for c in report.candidates if len(c.steps) == 1 and c.steps[0] in PEERS]
    fit = [c for c in singles if c.measured and affordable(c, report.budget)]
    chosen = report.chosen

    def against(c: Candidate) -> tuple[float, float]:
        return base.size / c.size, c.speedup / base.speedup  # both beside the same original, request by request

    best = max(fit, key=lambda c: gain(c, base, report.aim), default=base)
    print(f"\n{name}: {report.said}")
    print(
        f"  {'':34} {'size KB':>8} {'x small':>8} {'p50 ms':>8} {'p99 ms':>8} {'compute':>8} "
        f"{'x fast':>7} {'lost %':>7}"
    )
    for label, c in [("as served (torch)", report.candidates[0]), ("fp32 ONNX", base), *((c.name, c) for c in singles),
                     ("best single of the peers: " + best.name, best), ("chosen: " + chosen.name, chosen)]:  # fmt: skip
        if c.error or not c.size:  # what lost too much in its lessons was never written
            print(f"  {label:34} {c.error[:80] or 'not followed to its end'}")
            continue
        s, f = against(c)
        over = "" if affordable(c, report.budget) else "  over budget"
        print(
            f"  {label:34} {c.size / 1e3:8.1f} {s:8.2f} {1e3 * c.median:8.3f} {1e3 * c.p99:8.3f} "
            f"{1e3 * c.compute:8.3f} {f:7.2f} {100 * c.loss:7.2f}{over}"
        )
    s, f = against(chosen)
    print(f"  confirmed on {report.rows['confirm']} other rows: {100 * report.original:.2f} % -> "
          f"{100 * report.quality:.2f} %; {'HOLDS' if s >= 3.5 or f >= 2 else 'FALLS SHORT'}")  # fmt: skip
    mine, theirs = against(chosen), against(best)
    return {"name": name, "smaller": s, "faster": f, "lost": report.confirmed, "peer": best.name,
            "peer_smaller": theirs[0], "peer_faster": theirs[1],
            "as_good": mine[0] * mine[1] >= 0.97 * theirs[0] * theirs[1]}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(EXAMPLES))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--try", dest="steps", type=names, help="only these steps, with commas; else all")
    parser.add_argument("--lessons", type=int, help="batches that teach each changed network; else 800")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    o = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in o.only.split(","):
            for at in range(o.seeds):
                report = run(name, at, Path(folder), o.steps, o.lessons)
                rows.append(told(name, report))
                if o.picture and at == 0:
                    from leptonai.improve.compress.picture import plot

                    plot(report, o.picture.with_stem(f"{o.picture.stem}-{name}"))
    print(json.dumps(rows, indent=1))
    if o.json:
        o.json.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
