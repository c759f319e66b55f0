"""What the guard costs on healthy steps: CPU time of guarded against bare steps, in alternating blocks.

    python benchmarks/guard_overhead.py [--blocks 20]

Blocks of 100 steps (so that each holds its share of close looks and snapshots), one thread, process CPU time: other
work on the machine does not count. The figure is the median over pairs of blocks.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from leptonai.improve.train import Guard

torch.set_num_threads(1)
STEPS = 100


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 16, 10),
    )  # fmt: skip


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(1000, 64)
        layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 2)
        self.out = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.body(self.words(x)).mean(1))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


CASES: dict[str, tuple[Callable[[], nn.Module], torch.Tensor]] = {
    "CNN, 64 images of 8x8": (cnn, torch.randn(64, 1, 8, 8)),
    "transformer, 32 texts of 32 words": (Text, torch.randint(0, 1000, (32, 32))),
    "MLP 64-64-64-10, 64 rows": (mlp, torch.randn(64, 64)),
}


def measure(make: Callable[[], nn.Module], x: torch.Tensor, blocks: int) -> tuple[float, float]:
    torch.manual_seed(0)
    models = [make(), make()]
    optimizers = [torch.optim.AdamW(m.parameters(), lr=1e-4) for m in models]
    guard = Guard(models[1], optimizers[1])
    y = torch.randint(0, 10, (len(x),))

    def bare() -> None:
        optimizers[0].zero_grad()
        cross_entropy(models[0](x), y).backward()
        optimizers[0].step()

    def guarded() -> None:
        with guard.step((x, y)) as step:
            step.backward(cross_entropy(models[1](x), y))

    spent: dict[str, list[float]] = {"bare": [], "guarded": []}
    for i in range(blocks + 1):
        for name, step in (("bare", bare), ("guarded", guarded)) if i % 2 else (("guarded", guarded), ("bare", bare)):
            before = time.process_time()
            for _ in range(STEPS):
                step()
            if i:  # the first block warms up
                spent[name].append((time.process_time() - before) / STEPS)
    assert not guard.events, guard.events
    ratios = np.array(spent["guarded"]) / np.array(spent["bare"])
    return float(np.median(spent["bare"])), float(np.median(ratios) - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=20)
    o = parser.parse_args()
    for name, (make, x) in CASES.items():
        bare, more = measure(make, x, o.blocks)
        print(
            f"{name:36} bare {1e3 * bare:6.2f} ms/step   guard +{100 * more:5.1f} %  ({1e6 * bare * more:.0f} us)",
            flush=True,
        )


if __name__ == "__main__":
    main()
