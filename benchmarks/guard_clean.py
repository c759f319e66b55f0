"""False actions: ten healthy runs under the guard, each of another kind, on data drawn here.

    python benchmarks/guard_clean.py [--first 0] [--runs 10]

Networks, data, losses, optimizers, schedules and precisions that the rules were not developed on; the rates are
ordinary for each. An action is any event but a note. The guarded run is compared with the bare one: bit for bit
the same weights unless something was done, and then the loss on the held-out fifth tells
whether it was well done.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import pi

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import nn
from torch.nn import functional as F

from leptonai.improve.train import Batches, Guard, seed, warmup

torch.set_num_threads(1)
Tensor = torch.Tensor
Data = tuple[Tensor, Tensor]


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


def train(one: Run, at: int, guarded: bool) -> tuple[nn.Module, list, float, float]:
    """The model, what was done, the mean loss of the first 20 batches, and the held-out loss at the end."""
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
    losses, held = [], 0
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
                held += 1
                if held % one.accumulate == 0:
                    optimizer.step()
                    scheduler.step()
                    optimizer.zero_grad()
            losses.append(loss.item())
        if guarded:
            model.eval()
            with torch.no_grad():
                held_out, taught = one.loss(model(x[cut:]), y[cut:]).item(), one.loss(model(x[:cut]), y[:cut]).item()
            guard.validated(held_out, taught)
            if guard.stopped:
                break
    model.eval()
    with torch.no_grad():
        return model, guard.events, sum(losses[:20]) / 20, one.loss(model(x[cut:]), y[cut:]).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--runs", type=int, default=10)
    o = parser.parse_args()
    false = notes = 0
    for i, (name, one) in enumerate(list(RUNS.items())[: o.runs]):
        bare, _, first, plain = train(one, o.first + i, False)
        model, events, _, kept = train(one, o.first + i, True)
        acts = [e for e in events if e.act.kind != "note"]
        same = all(torch.equal(a, b) for a, b in zip(bare.parameters(), model.parameters(), strict=True))
        false, notes = false + len(acts), notes + len(events) - len(acts)
        told = "the bare run bit for bit" if same else f"held-out loss {kept:.3f} instead of {plain:.3f}"
        print(f"{name:42} loss {first:6.3f} -> {plain:6.3f} held out   {len(acts)} actions, {told}", flush=True)
        for e in acts[:6]:
            print("   ", e.step, e.act.kind, e.act.cause, e.act.terms)
    print(f"{o.runs} clean runs: {false} actions, {notes} notes")


if __name__ == "__main__":
    main()
