"""The network under a recommendation model: embeddings, their products, and a small network over both.

Koren, Bell & Volinsky 2009 (biases and factors); He et al. 2017 (neural interaction).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Recommender(nn.Module):
    """``(n, user columns)`` and ``(n, item columns)`` of category codes to ``(n,)`` logits. Code 0 is "unknown": its
    vector is zero, so that a stranger gets what is known of everything else."""

    def __init__(self, user_sizes: list[int], item_sizes: list[int], size: int, mean: float, dropout: float = 0.2):
        super().__init__()
        self.user = _vectors(user_sizes, size)
        self.item = _vectors(item_sizes, size)
        self.user_bias = _vectors(user_sizes, 1)
        self.item_bias = _vectors(item_sizes, 1)
        self.mean = nn.Parameter(torch.tensor(mean))
        self.dropout = nn.Dropout(dropout)
        self.deep = nn.Sequential(nn.Linear(3 * size, size), nn.ReLU(), nn.Dropout(dropout), nn.Linear(size, 1))
        nn.init.zeros_(self.deep[-1].weight)  # begins as plain factorisation; the network learns what that misses
        nn.init.zeros_(self.deep[-1].bias)

    def forward(self, users: Any, items: Any) -> Any:
        u, v = self.dropout(_sum(self.user, users)), self.dropout(_sum(self.item, items))
        bias = self.mean + _sum(self.user_bias, users)[:, 0] + _sum(self.item_bias, items)[:, 0]
        return bias + (u * v).sum(1) + self.deep(torch.cat([u, v, u * v], 1))[:, 0]


def _vectors(sizes: list[int], width: int) -> Any:
    tables = nn.ModuleList(nn.Embedding(n, width, padding_idx=0) for n in sizes)
    for table in tables:
        nn.init.normal_(table.weight, std=0.05 if width > 1 else 0.0)
        with torch.no_grad():
            table.weight[0] = 0
    return tables


def _sum(tables: Any, codes: Any) -> Any:
    return sum(table(codes[:, i]) for i, table in enumerate(tables))
