"""Learning-rate schedules as pure factors of the step, for ``torch.optim.lr_scheduler.LambdaLR``."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi
from typing import Literal

from leptonai.errors import SpecError

Shape = Literal["constant", "cosine", "linear"]


def warmup(steps: int, total: int, shape: Shape = "cosine", floor: float = 0.0) -> Callable[[int], float]:
    """A factor in ``[floor, 1]``: rises linearly to 1 over ``steps``, then falls to ``floor`` at ``total``.

    Goyal et al. 2017 (warm-up), Loshchilov & Hutter 2017 (cosine). The first step is never zero.
    """
    if not 0 <= steps < total:
        raise SpecError(f"warm-up is {steps} steps of {total}; it must be shorter than the run")
    if shape not in ("constant", "cosine", "linear"):
        raise SpecError(f"shape is {shape!r}; it must be constant, cosine or linear")

    def factor(step: int) -> float:
        if step < steps:
            return (step + 1) / steps
        done = min((step - steps) / (total - steps), 1.0)
        if shape == "constant":
            return 1.0
        left = (1 + cos(pi * done)) / 2 if shape == "cosine" else 1 - done
        return floor + (1 - floor) * left

    return factor
