"""Auto-regression: the next value as a linear function of the last ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from leptonai.errors import SpecError
from leptonai.series.robust import Level
from leptonai.series.tails import Tail


class AR(nn.Module):
    """``AR()(x)`` maps rows of past values ``(n, order)``, oldest first, to ``(n, 1)``.

    The order is taken from the first ``x`` (or given). ``parameters()`` may go to an optimizer before that.
    ``fit`` solves for the weights at once instead.
    """

    def __init__(self, order: int | None = None) -> None:
        super().__init__()
        if order is not None and order < 1:
            raise SpecError(f"order is {order}; it must be at least 1")
        self.linear = nn.LazyLinear(1) if order is None else nn.Linear(order, 1)

    def forward(self, x: Any) -> Any:
        if not isinstance(self.linear, nn.LazyLinear) and x.shape[-1] != self.linear.in_features:
            order = self.linear.in_features
            raise SpecError(f"x has {x.shape[-1]} past values a row; this AR has order {order}")
        return self.linear(x)

    def fit(self, series: Any, order: int = 8) -> AR:
        """The weights are the least-squares ones for ``series`` (one dimension, oldest first)."""
        x, y = windows(series, order)
        ones = torch.ones(len(x), 1, dtype=torch.float64)
        solution = torch.linalg.lstsq(torch.cat([x, ones], 1), y[:, None], driver="gelsd").solution[:, 0]
        self.linear = nn.Linear(order, 1)
        with torch.no_grad():
            self.linear.weight.copy_(solution[None, :-1])
            self.linear.bias.copy_(solution[-1:])
        return self

    def residuals(self, series: Any) -> Any:
        """Observed minus predicted; nan for the first ``order`` values, which nothing predicts."""
        if isinstance(self.linear, nn.LazyLinear):
            raise SpecError("this AR has not learnt anything yet", hint="call fit(series) or train it first")
        order = self.linear.in_features
        x, y = windows(series, order)
        with torch.no_grad():
            predicted = self.linear(x.to(self.linear.weight.dtype))[:, 0].double()
        return torch.cat([torch.full((order,), float("nan"), dtype=torch.float64), y - predicted])

    def scores(self, series: Any) -> Any:
        """-log10 of how unlikely each residual is, given those before it: 3 is one in a thousand.

        nan for the first ``order`` values and until 30 residuals are known. The streaming detector ``ar`` says the
        same of a series, in the same unit and by the same tail (``series.tails``), while it still learns its weights;
        here they stay as they are, so what ``fit`` saw is better left out of what is scored.
        """
        residuals = self.residuals(series).numpy()
        level, tail, every = Level(), Tail(), np.ones(1, dtype=np.bool_)
        level.open(1)
        tail.open(1)
        out = np.full(len(residuals), np.nan)
        for i, residual in enumerate(residuals[:, None]):
            mean, scale, ready, held = level.step(residual, every)
            z = np.where(ready, (residual - mean) / scale, np.nan)
            out[i] = tail.score(z)[0]
            tail.learn(z, every, held)
        return torch.from_numpy(out)


def windows(series: Any, order: int) -> tuple[Any, Any]:
    """Every run of ``order`` values, and the value after each."""
    values = torch.as_tensor(series, dtype=torch.float64)
    if values.dim() != 1 or order < 1 or len(values) <= 2 * order:
        shape = tuple(values.shape)
        raise SpecError(f"series has shape {shape}; order {order} needs one dimension of more than {2 * order} values")
    if not bool(torch.isfinite(values).all()):
        raise SpecError("the series holds values that are not finite", hint="fill or drop them first")
    return values.unfold(0, order, 1)[:-1], values[order:]
