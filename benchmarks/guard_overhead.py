"""What the guard costs on healthy steps: guarded beside bare steps of the same network, on the same batches.

    python benchmarks/guard_overhead.py [--steps 1000]

One process, one thread. Bare and guarded steps alternate, and who is first alternates too, so that whatever else the
machine does befalls both. A healthy guarded run is the bare run bit for bit (asserted at the end), so each pair has
done the same arithmetic. CPU time of the thread, and wall time. Every step counts: what guarding adds is the mean of
the differences over the mean of the bare steps. Steps in which the guard looked closely or took a snapshot are told
apart, and of each kind the hundredth of the differences at either end is left out, which is the machine's doing; a
median would leave out also what the guard does every fourth and every sixteenth step. The interval is that of 200
bootstrap samples.
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
Clock = Callable[[], int]
CLOCKS: dict[str, Clock] = {"cpu": time.thread_time_ns, "wall": time.perf_counter_ns}
WARM = 100  # steps before measuring: the guard's first close looks are over


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


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-4)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


Case = tuple[Callable[[], nn.Module], Callable[[], torch.Tensor], Callable[[nn.Module], torch.optim.Optimizer]]
CASES: dict[str, Case] = {
    "transformer, 32 texts of 32 words": (Text, lambda: torch.randint(0, 1000, (32, 32)), adam),
    "CNN, 64 images of 8x8": (cnn, lambda: torch.randn(64, 1, 8, 8), adam),
    "MLP 64-64-64-10, 64 rows": (mlp, lambda: torch.randn(64, 64), adam),
    "the same MLP by SGD": (mlp, lambda: torch.randn(64, 64), sgd),
}


def measure(case: Case, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Nanoseconds by (step, bare or guarded, clock), and the kind of each guarded step."""
    make, draw, by = case
    torch.manual_seed(0)
    models = [make(), make()]
    models[1].load_state_dict(models[0].state_dict())
    optimizers = [by(m) for m in models]
    guard = Guard(models[1], optimizers[1])
    clocks = list(CLOCKS.values())
    batches = [(draw(), torch.randint(0, 10, (64,))) for _ in range(100)]  # nothing to be learnt by heart
    kind = 0

    def bare(x: torch.Tensor, y: torch.Tensor) -> None:
        optimizers[0].zero_grad()
        cross_entropy(models[0](x), y[: len(x)]).backward()
        optimizers[0].step()

    def guarded(x: torch.Tensor, y: torch.Tensor) -> None:
        nonlocal kind
        with guard.step((x, y)) as step:
            step.backward(cross_entropy(models[1](x), y[: len(x)]))
        kind = (step._look is not None) + 2 * (guard.steps % guard.rules.snapshot == 0)

    told, kinds = np.zeros((steps, 2, len(clocks))), np.zeros(steps, int)
    for i in range(-WARM, steps):
        for which, run in ((0, bare), (1, guarded)) if i % 2 else ((1, guarded), (0, bare)):
            before = [clock() for clock in clocks]
            run(*batches[i % len(batches)])
            if i >= 0:
                told[i, which] = [clock() - b for clock, b in zip(clocks, before, strict=True)]
        if i >= 0:
            kinds[i] = kind
    assert not guard.events, guard.events
    pairs = zip(models[0].state_dict().values(), models[1].state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs), "a healthy guarded run is the bare run"
    return told, kinds


def trimmed(values: np.ndarray) -> float:
    """The mean without the hundredth at either end."""
    cut = len(values) // 100
    return float(np.sort(values)[cut : len(values) - cut].mean())


def share(told: np.ndarray, kinds: np.ndarray) -> float:
    """What guarding adds, over the bare step, by one clock."""
    more = told[:, 1] - told[:, 0]
    added = sum(trimmed(more[kinds == k]) * np.mean(kinds == k) for k in np.unique(kinds))
    return float(added / trimmed(told[:, 0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--only", default="")
    o = parser.parse_args()
    rng = np.random.default_rng(0)
    for name, case in CASES.items():
        if o.only not in name:
            continue
        told, kinds = measure(case, o.steps)
        said = []
        for c, clock in enumerate(CLOCKS):
            drawn = [rng.integers(0, len(told), len(told)) for _ in range(200)]
            low, high = np.percentile([share(told[d, :, c], kinds[d]) for d in drawn], [2.5, 97.5])
            bare, more = trimmed(told[:, 0, c]) / 1e6, share(told[:, :, c], kinds)
            said.append(
                f"{clock} {bare:6.2f} ms + {1e3 * bare * more:4.0f} us, "
                f"{100 * more:+5.1f} % ({100 * low:+.1f} to {100 * high:+.1f})"
            )
        print(f"{name:34} " + "   ".join(said), flush=True)


if __name__ == "__main__":
    main()
