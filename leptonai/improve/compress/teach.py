"""A changed network learns again, from labels and from what the original says (Hinton, Vinyals & Dean 2015)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax, mse_loss, softmax

from leptonai.improve.compress.network import forward
from leptonai.improve.train.batches import Batches
from leptonai.improve.train.guard import Guard
from leptonai.improve.train.schedule import warmup

TEMPERATURE = 3.0  # softens both sides, so that small probabilities teach as well
SOFT = 0.7  # weight of the original's answers beside the labels
RATE = 2e-3
STEPS = 800
BATCH = 64


def soft_loss(student: Any, teacher: Any, temperature: float = TEMPERATURE) -> Any:
    """Kullback-Leibler divergence of softened answers, times the temperature squared: its gradients keep their size."""
    t = temperature
    return kl_div(log_softmax(student / t, -1), softmax(teacher / t, -1), reduction="batchmean") * t * t


def lesson(student: Any, teacher: Any, label: Any, soft: float = SOFT, temperature: float = TEMPERATURE) -> Any:
    """The loss of one batch. Labels of real numbers: a regression, squared errors to label and teacher alike."""
    if label.is_floating_point():
        out = student.squeeze(-1) if student.dim() > label.dim() else student
        said = teacher.squeeze(-1) if teacher.dim() > label.dim() else teacher
        return (1 - soft) * mse_loss(out, label) + soft * mse_loss(out, said)
    hard = cross_entropy(student, label)
    return (1 - soft) * hard + soft * soft_loss(student, teacher, temperature)


def said(teacher: Any, inputs: list[Any], step: int = 256) -> Any:
    """What ``teacher`` answers to all rows, asked ``step`` at a time."""
    with torch.no_grad():
        count = len(inputs[0])
        return torch.cat([forward(teacher, [x[i : i + step] for x in inputs]) for i in range(0, count, step)])


def teach(
    graph: Any,
    targets: Any,
    inputs: list[Any],
    labels: Any,
    *,
    steps: int = STEPS,
    seed: int = 0,
    masks: dict[str, Any] | None = None,
    soft: float = SOFT,
    temperature: float = TEMPERATURE,
    progress: Callable[[int], None] | None = None,
) -> None:
    """``graph`` has learnt for ``steps`` batches under the stability guard; weights that ``masks`` cut stay zero.

    ``targets``: what the teacher answers to the rows. The rate rises and falls to zero within these batches; more can
    be learnt by another call (warm restarts: Loshchilov & Hutter 2017). The same seed gives the same weights on the
    same machine. Its norms keep the statistics they were exported with.
    """
    torch.manual_seed(seed)
    parameters = dict(graph.named_parameters())
    cut = {parameters[n]: mask for n, mask in (masks or {}).items()}
    optimizer = torch.optim.AdamW(graph.parameters(), lr=RATE, weight_decay=0.01)
    factor = torch.optim.lr_scheduler.LambdaLR(optimizer, warmup(steps // 20, steps))
    guard = Guard(graph, optimizer, scheduler=factor)
    batches = Batches(*inputs, targets, labels, size=min(BATCH, max(2, len(labels) // 2)), seed=seed)
    while guard.steps < steps and not guard.stopped:
        for *x, target, label in batches:
            if len(label) < 2 or guard.steps >= steps or guard.stopped:
                break
            with guard.step(tuple(x)) as step:
                step.backward(lesson(forward(graph, x), target, label, soft, temperature))
            with torch.no_grad():
                for p, mask in cut.items():
                    p.mul_(mask)
            if progress is not None:
                progress(guard.steps)
