"""Twelve injected training failures: the guard against a bare loop and against plain clipping.

    python benchmarks/train_guard.py [--seeds 3] [--clean 10] [--only NAME] [--json FILE]

Data: scikit-learn's bundled digits (1,797 images), a third held out by seed. A run is recovered when its accuracy on
the held-out third is within 1 point of the clean run's of the same seed. ``again``: the clean run on the same rows from
another start, in another order: what chance alone does. Rules are the defaults, the same everywhere.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from leptonai.improve.train import Batches, Guard, seed

torch.set_num_threads(1)
MODES = ("bare", "clipped", "guarded")


def data(at: int) -> tuple[torch.Tensor, ...]:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(at).permutation(len(y))
    inputs = torch.tensor((x[order] - 4.9) / 6.0, dtype=torch.float32)
    labels = torch.tensor(y[order])
    return inputs[:1200], labels[:1200], inputs[1200:], labels[1200:]


def mlp(depth: int = 3, width: int = 64) -> nn.Module:
    layers: list[nn.Module] = []
    for i in range(depth - 1):
        layers += [nn.Linear(64 if i == 0 else width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def he(model: nn.Module) -> nn.Module:
    for m in model.modules():
        if isinstance(m, nn.Linear):
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
            nn.init.zeros_(m.bias)
    return model


class Rows(nn.Module):
    """A recurrent net that reads an image row by row, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(8, 48, nonlinearity="relu")
        self.out = nn.Linear(48, 10)
        nn.init.orthogonal_(self.rnn.weight_hh_l0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, 8, 8).movedim(1, 0)
        return self.out(self.rnn(torch.cat([rows, rows]))[0][-1])


@dataclass
class Case:
    """How a run is broken. Each hook does nothing unless given."""

    model: Callable[[], nn.Module] = mlp
    clean_model: Callable[[], nn.Module] | None = None
    rate: float = 0.05
    clean_rate: float | None = None
    batch: Callable[[int, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]] | None = None
    weights: Callable[[int, nn.Module], None] | None = None
    labels: float = 0.0  # share of wrong labels in the whole training set, clean run as well
    rows: int = 1200
    epochs: int = 20
    clean_epochs: int | None = None
    fp16: bool = False
    adam: bool = False
    extra: dict[str, object] = field(default_factory=dict)


def nan_batch(step: int, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return (torch.full_like(x, float("nan")), y) if step == 150 else (x, y)


def corrupt_shard(step: int, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return (torch.randn_like(x) * 200, y) if 150 <= step < 170 else (x, y)


def flips(step: int, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return (x, torch.randint_like(y, 10)) if 340 <= step < 375 else (x, y)


def shuffled(step: int, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return (x, y[torch.randperm(len(y))]) if step >= 230 else (x, y)


def kill_units(step: int, model: nn.Module) -> None:
    if step == 150:
        with torch.no_grad():
            model[2].bias -= 100  # type: ignore[index,operator]


def huge(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(30)
    return model


def exploding() -> nn.Module:
    model = Rows()
    with torch.no_grad():
        model.rnn.weight_hh_l0.mul_(4.0)
    return model


CASES = {
    "rate x100": Case(rate=5.0, clean_rate=0.05),
    "NaN batch": Case(batch=nan_batch),
    "exploding recurrent net": Case(model=exploding, clean_model=Rows, rate=0.02),
    "dead ReLU": Case(weights=kill_units),
    "corrupt shard": Case(batch=corrupt_shard),
    "label flip burst": Case(batch=flips),
    "over-fit": Case(labels=0.3, epochs=150, clean_epochs=5, adam=True, rate=2e-3, model=lambda: mlp(3, 256)),
    "vanishing depth 50": Case(model=lambda: mlp(50), clean_model=lambda: he(mlp(50)), rate=3e-4, adam=True, epochs=40),
    "fp16 overflow": Case(fp16=True),
    "bad init": Case(model=lambda: huge(mlp()), clean_model=mlp),
    "shuffled labels mid-run": Case(batch=shuffled),
    "killed process": Case(),
}
SCALE = 2.0**24  # a loss scale at which fp16 gradients overflow


def run(
    case: Case, at: int, mode: str, clean: bool, folder: Path | None = None, die: int = -1, other: int = 0
) -> tuple[float, list]:
    """Accuracy on the held-out third, and the guard's events. ``other``: another start and order, the same rows."""
    x, y, held_x, held_y = data(at)
    if case.labels:
        wrong = torch.rand(len(y), generator=torch.Generator().manual_seed(at)) < case.labels
        y = torch.where(wrong, torch.randint(10, y.shape, generator=torch.Generator().manual_seed(at + 1)), y)
    cut = 1000
    x, y, judge_x, judge_y = x[:cut], y[:cut], x[cut:], y[cut:]
    seed(at + other)
    model = (case.clean_model or case.model)() if clean else case.model()
    rate = case.clean_rate if clean and case.clean_rate else case.rate
    optimizer: torch.optim.Optimizer
    optimizer = torch.optim.Adam(model.parameters(), lr=rate) if case.adam else torch.optim.SGD(
        model.parameters(), lr=rate, momentum=0.9
    )  # fmt: skip
    batches = Batches(x, y, size=50, seed=at + other)
    fp16 = case.fp16 and not clean
    guard = Guard(
        model, optimizer, folder=folder, every=40 if folder else 0, keep={"batches": batches},
        precision="fp16" if fp16 else "fp32", loss_scale=SCALE,
    )  # fmt: skip
    if folder:
        guard.resume()
    epochs = case.clean_epochs if clean and case.clean_epochs else case.epochs
    while batches.epoch < epochs and not guard.stopped:
        for bx, by in batches:
            step = batches.epoch * len(batches) + batches.done - 1
            if not clean and case.batch:
                bx, by = case.batch(step, bx, by)
            if not clean and case.weights:
                case.weights(step, model)
            if step == die:
                os.kill(os.getpid(), signal.SIGKILL)
            if mode == "guarded":
                with guard.step((bx, by)) as guarded:
                    guarded.backward(cross_entropy(model(bx), by))
                continue
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.float16, enabled=fp16):
                loss = cross_entropy(model(bx), by)
            (loss * SCALE if fp16 else loss).backward()
            if fp16:
                for p in model.parameters():
                    p.grad /= SCALE  # type: ignore[operator]
            if mode == "clipped":
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        if mode == "guarded":
            with torch.no_grad():
                guard.validated(cross_entropy(model(judge_x), judge_y).item(), cross_entropy(model(x), y).item())
    with torch.no_grad():
        accuracy = (model(held_x).argmax(1) == held_y).float().mean().item()
    return accuracy, guard.events


def killed(at: int, mode: str) -> float:
    """A process that dies at step 250 of 400 and is started again, with the same total of steps paid for."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--child", str(at), mode, folder]
        first = subprocess.run([*command, "250"], check=False)
        assert first.returncode == -signal.SIGKILL
        if mode != "guarded":
            return 0.1  # a bare loop has nothing to go on from: the model of the killed run does not exist
        return float(subprocess.run([*command, "-1"], check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each failure")
    parser.add_argument("--first", type=int, default=0, help="the first seed; the rules were developed on 0 to 4")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--clean", type=int, default=10)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--child", nargs=4)
    o = parser.parse_args()
    if o.child:
        at, mode, folder, die = o.child
        print(run(CASES["killed process"], int(at), mode, True, Path(folder), int(die))[0])
        return
    table, recovered = {}, {m: 0 for m in ("again", *MODES)}
    print(
        f"{'failure':26} {'clean':>7} "
        + " ".join(f"{m:>12}" for m in ("again", *o.modes.split(",")))
        + "   (median accuracy; * every seed within 1 point, then how many)"
    )
    for name, case in CASES.items():
        if o.only and o.only not in name:
            continue
        rows: dict[str, list[float]] = {m: [] for m in ("clean", "again", *MODES)}
        for at in range(o.first, o.first + o.seeds):
            rows["clean"].append(run(copy.copy(case), at, "bare", True)[0])
            rows["again"].append(run(copy.copy(case), at, "bare", True, other=1000)[0])
            for mode in o.modes.split(","):
                if name == "killed process":
                    rows[mode].append(killed(at, mode))
                    continue
                accuracy, events = run(case, at, mode, False)
                rows[mode].append(accuracy)
                if o.verbose:
                    for e in events[:8] + events[-2:]:
                        print("   ", at, mode, e.step, e.act.kind, e.act.cause, e.act.terms)
        told_of = ("again", *o.modes.split(","))
        within = {m: sum(a >= c - 0.01 for a, c in zip(rows[m], rows["clean"], strict=True)) for m in told_of}
        ok = {m: within[m] == o.seeds for m in told_of}
        for m in told_of:
            recovered[m] += ok[m]
        told = " ".join(f"{np.median(rows[m]):8.3f}{'*' if ok[m] else ' '}{within[m]}/{o.seeds}" for m in told_of)
        print(f"{name:26} {np.median(rows['clean']):7.3f} {told}", flush=True)
        table[name] = {**rows, "recovered": ok}
    print(
        f"{'recovered, every seed':34} "
        + " ".join(f"{recovered[m]:>12}" for m in ("again", *o.modes.split(",")))
        + f"   of {len(table)}"
    )
    acts = []
    for at in range(o.clean):
        acts += [(at, e.step, e.act.kind, e.act.cause) for e in run(CASES["NaN batch"], 100 + at, "guarded", True)[1]]
    false = [a for a in acts if a[2] != "note"]
    print(f"{o.clean} clean runs: {len(false)} actions {false}, {len(acts) - len(false)} notes")
    if o.json:
        o.json.write_text(json.dumps({"failures": table, "false": false}))


if __name__ == "__main__":
    main()
