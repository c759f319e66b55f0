"""False actions: ten healthy runs under the guard, each of another kind, on data drawn here.

    python benchmarks/guard_clean.py [--first 0] [--runs 10] [--only NAME]

Networks, data, losses, optimizers, schedules and precisions that the rules were not developed on; the rates are
ordinary for each. An action is any event but a note. The guarded run is compared with the bare one: bit for bit
the same weights unless something was done, and then loss and accuracy on the held-out fifth tell
whether it was well done.

A run is healthy when its bare form is: the loss on the held-out fifth ends at most a tenth above the lowest that it
had after any epoch. One that is not is told with what the guard did there, and the same run is drawn by a seed ten
further on instead.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite, pi
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import nn
from torch.nn import functional as F

from leptonai.improve.train import Batches, Guard, seed, warmup

torch.set_num_threads(1)
Tensor = torch.Tensor
Data = tuple[Tensor, Tensor]
RISE = 0.1  # of the lowest held-out loss: a bare run that ends further above it was not healthy
DRAWS = 5  # seeds of one run


def rows(count: int, width: int, classes: int, noise: float) -> Data:
    """Gaussian rows labelled by a random network of two layers; ``noise``: share of wrong labels."""
    x = torch.randn(count, width)
    y = (torch.tanh(x @ torch.randn(width, 20) / width**0.5) @ torch.randn(20, classes)).argmax(1)
    wrong = torch.rand(count) < noise
    return x, torch.where(wrong, torch.randint(classes, (count,)), y)


def rare(count: int) -> Data:
    """One row of thirty is of the class that matters."""
    x, y = rows(count, 12, 30, 0.0)
    return x, (y == 3).long()


def stripes(count: int) -> Data:
    """Images of 12 x 12 with stripes in one of four directions, under noise."""
    y = torch.randint(4, (count,))
    at = torch.arange(12.0)
    angle, phase = y * pi / 4, torch.rand(count, 1, 1) * 6
    wave = torch.cos(angle)[:, None, None] * at[None, :, None] + torch.sin(angle)[:, None, None] * at[None, None, :]
    return (torch.sin(1.2 * wave + phase) + 0.5 * torch.randn(count, 12, 12))[:, None], y


def heavy(count: int) -> Data:
    """A regression whose targets have heavy tails: Student's t with three degrees of freedom."""
    x = torch.randn(count, 10)
    return x, x @ torch.randn(10) + 0.5 * torch.distributions.StudentT(3.0).sample((count,))


def waves(count: int) -> Data:
    """Sequences of 24 values; what is asked is the next one."""
    start, speed = 6 * torch.rand(count, 1), 0.2 + 0.5 * torch.rand(count, 1)
    series = torch.sin(start + speed * torch.arange(25.0)) + 0.05 * torch.randn(count, 25)
    return series[:, :24, None], series[:, 24]


def tokens(count: int) -> Data:
    """Sixteen tokens of 30; the label is the one seen most often of the first five."""
    x = torch.randint(30, (count, 16))
    return x, torch.stack([(x == k).sum(1) for k in range(5)], 1).argmax(1)


class Last(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.out = nn.LSTM(1, 24, batch_first=True), nn.Linear(24, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.body(x)[0][:, -1]).squeeze(-1)


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
        self.body, self.out = nn.TransformerEncoder(layer, 2), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.body(self.words(x)).mean(1))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(16, 48), nn.Linear(48, 6)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(48), nn.Linear(48, 48), nn.GELU(), nn.Linear(48, 48)) for _ in range(6)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.out(x)


def stack(*sizes: int, act: Callable[[], nn.Module] = nn.ReLU, norm: bool = False, drop: float = 0.0) -> nn.Module:
    parts: list[nn.Module] = []
    for a, b in pairwise(sizes[:-1]):
        parts += [nn.Linear(a, b), *([nn.BatchNorm1d(b)] if norm else []), act(), *([nn.Dropout(drop)] if drop else [])]
    return nn.Sequential(*parts, nn.Linear(*sizes[-2:]))


def convolving() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 24, 3, padding=1),
        nn.BatchNorm2d(24), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(96, 4),
    )  # fmt: skip


@dataclass
class Run:
    data: Callable[[], Data]
    model: Callable[[], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    size: int = 64
    epochs: int = 15
    accumulate: int = 1
    warm: bool = False
    bf16: bool = False


def sgd(rate: float, momentum: float = 0.9) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda m: torch.optim.SGD(m.parameters(), lr=rate, momentum=momentum, weight_decay=1e-4)


def adamw(rate: float) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda m: torch.optim.AdamW(m.parameters(), lr=rate)


LABELS = F.cross_entropy
RUNS = {
    "wide rows, batch norm, SGD": Run(
        lambda: rows(3000, 30, 8, 0.0), lambda: stack(30, 96, 96, 8, norm=True), LABELS, sgd(0.05)),
    "a fifth of labels wrong, dropout, Adam": Run(
        lambda: rows(3000, 20, 5, 0.2), lambda: stack(20, 128, 128, 5, drop=0.3), LABELS, adamw(1e-3)),
    "stripes, CNN, SGD with warm-up": Run(
        lambda: stripes(2000), convolving, LABELS, sgd(0.1), warm=True, epochs=8),
    "heavy tails, regression by squares": Run(
        lambda: heavy(3000), lambda: stack(10, 64, 64, 1, act=nn.Tanh),
        lambda out, y: F.mse_loss(out.squeeze(-1), y), adamw(3e-3)),
    "waves, LSTM, Adam": Run(lambda: waves(1500), Last, F.mse_loss, adamw(5e-3), epochs=10),
    "tokens, transformer with warm-up": Run(
        lambda: tokens(2000), Attends, LABELS, adamw(2e-3), warm=True, epochs=10),
    "one of thirty is positive, small batches": Run(
        lambda: rare(3000), lambda: stack(12, 32, 2), LABELS, sgd(0.02), size=16, epochs=6),
    "autoencoder, RMSprop": Run(
        lambda: (rows(2500, 24, 2, 0.0)[0] @ torch.randn(24, 24) / 5).repeat(2, 1, 1).unbind(),
        lambda: stack(24, 16, 6, 16, 24, act=nn.ELU), F.mse_loss,
        lambda m: torch.optim.RMSprop(m.parameters(), lr=1e-3)),
    "deep residual, accumulated, warm-up": Run(
        lambda: rows(3000, 16, 6, 0.05), Residual, LABELS, adamw(1e-3), size=32, accumulate=4, warm=True),
    "bf16, SGD without momentum": Run(
        lambda: rows(3000, 20, 5, 0.0), lambda: stack(20, 64, 64, 5), LABELS, sgd(0.2, 0.0), bf16=True),
}  # fmt: skip


class Trained(NamedTuple):
    model: nn.Module
    events: list
    first: float  # mean loss of the first 20 batches
    held: list[float]  # held-out loss after each epoch, and of the model as it is at the end
    accuracy: float | None  # held out; None where nothing is classified

    @property
    def healthy(self) -> bool:
        return all(map(isfinite, self.held)) and self.held[-1] <= (1 + RISE) * min(self.held)


def train(one: Run, at: int, guarded: bool) -> Trained:
    seed(at)
    x, y = one.data()
    cut = len(x) * 4 // 5
    model = one.model()
    optimizer = one.optimizer(model)
    batches = Batches(x[:cut], y[:cut], size=one.size, seed=at)
    total = one.epochs * len(batches) // one.accumulate + 1
    factor = warmup(total // 10, total) if one.warm else (lambda step: 1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    precision = "bf16" if one.bf16 else "fp32"
    guard = Guard(model, optimizer, scheduler=scheduler, accumulate=one.accumulate, precision=precision)
    losses, held, done = [], [], 0
    for _ in range(one.epochs):
        model.train()
        for a, b in batches:
            if guarded:
                with guard.step((a, b)) as step:
                    loss = one.loss(model(a), b)
                    step.backward(loss)
            else:
                with torch.autocast("cpu", torch.bfloat16, enabled=one.bf16):
                    loss = one.loss(model(a), b)
                (loss / one.accumulate if one.accumulate > 1 else loss).backward()
                done += 1
                if done % one.accumulate == 0:
                    optimizer.step()
                    scheduler.step()
                    optimizer.zero_grad()
            losses.append(loss.item())
        model.eval()
        with torch.no_grad():
            held.append(one.loss(model(x[cut:]), y[cut:]).item())
            taught = one.loss(model(x[:cut]), y[:cut]).item()
        if guarded:
            guard.validated(held[-1], taught)
            if guard.stopped:
                break
    model.eval()
    with torch.no_grad():
        out = model(x[cut:])
        held.append(one.loss(out, y[cut:]).item())
    accuracy = None if y.is_floating_point() else (out.argmax(1) == y[cut:]).float().mean().item()
    return Trained(model, guard.events, sum(losses[:20]) / 20, held, accuracy)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--only", default="")
    o = parser.parse_args()
    false = notes = runs = exchanged = 0
    for i, (name, one) in enumerate(list(RUNS.items())[: o.runs]):
        if o.only not in name:
            continue
        for at in range(o.first + i, o.first + i + 10 * DRAWS, 10):
            bare, guarded = train(one, at, False), train(one, at, True)
            acts = [e for e in guarded.events if e.act.kind != "note"]
            told(name, at, bare, guarded, acts)
            if bare.healthy:
                runs, false, notes = runs + 1, false + len(acts), notes + len(guarded.events) - len(acts)
                break
            exchanged += 1
    print(f"{runs} healthy runs: {false} actions, {notes} notes; {exchanged} that were not healthy are exchanged")


def told(name: str, at: int, bare: Trained, guarded: Trained, acts: list) -> None:
    weights = zip(bare.model.parameters(), guarded.model.parameters(), strict=True)
    if all(torch.equal(a, b) for a, b in weights):
        said = "the bare run bit for bit"
    else:
        said = f"held-out loss {guarded.held[-1]:.3f} instead of {bare.held[-1]:.3f}"
        if bare.accuracy is not None:
            said += f", accuracy {guarded.accuracy:.4f} instead of {bare.accuracy:.4f}"
    rise = 100 * (bare.held[-1] / min(bare.held) - 1)
    mark = "healthy" if bare.healthy else "NOT healthy"
    print(
        f"{name:42} seed {at} loss {bare.first:6.3f} -> {bare.held[-1]:6.3f} held out, {rise:5.1f} % above its lowest: "
        f"{mark}   {len(acts)} actions, {said}", flush=True,
    )  # fmt: skip
    for e in acts[:6]:
        print("   ", e.step, e.act.kind, e.act.cause, e.act.terms)


if __name__ == "__main__":
    main()
