"""Losses as torch modules, and ranking quality over plain arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from leptonai.errors import SpecError


def aligned(output: Any, target: Any) -> tuple[Any, Any]:
    """Both in one shape: ``(n, 1)`` against ``(n,)`` is meant as ``(n,)``. Anything else that differs is refused,
    because broadcasting it would compare every output with every target."""
    a = output.squeeze(-1) if output.dim() == target.dim() + 1 and output.shape[-1] == 1 else output
    b = target.squeeze(-1) if target.dim() == output.dim() + 1 and target.shape[-1] == 1 else target
    if a.shape != b.shape:
        raise SpecError(f"output has shape {tuple(output.shape)}, target {tuple(target.shape)}; they must be equal")
    return a, b


class MAE(torch.nn.Module):
    """Mean absolute error; differentiable."""

    def forward(self, output: Any, target: Any) -> Any:
        a, b = aligned(output, target)
        return (a - b).abs().mean()


class RMSE(torch.nn.Module):
    """Root of the mean squared error; differentiable where the error is not zero."""

    def forward(self, output: Any, target: Any) -> Any:
        a, b = aligned(output, target)
        return (a - b).square().mean().sqrt()


def ndcg(relevance: ArrayLike, score: ArrayLike, group: ArrayLike, k: int = 10) -> float:
    """Normalised discounted cumulative gain at ``k`` (Järvelin & Kekäläinen 2002), the mean over groups.

    Gain is ``2**relevance - 1``. Equal scores are ordered by position. Groups without any gain are left out.
    """
    y, s, g = np.asarray(relevance, float), np.asarray(score, float), np.asarray(group)
    values = []
    for one in np.unique(g):
        here = np.flatnonzero(g == one)
        gain = 2.0 ** y[here] - 1
        discount = 1 / np.log2(np.arange(2, min(k, len(here)) + 2))
        best = float((np.sort(gain)[::-1][:k] * discount).sum())
        if best > 0:
            order = np.argsort(-s[here], kind="stable")
            values.append(float((gain[order][:k] * discount).sum()) / best)
    if not values:
        raise SpecError("no group has a relevant item; NDCG says nothing")
    return float(np.mean(values))
