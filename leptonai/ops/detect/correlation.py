"""Relations between the members of a group: what goes together stops going together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leptonai.ops.detect.groups import MOST, Grouped, Index
from leptonai.protocols import Floats, Slots
from leptonai.series.columns import Columns

SHRUNK = 0.1  # towards independence (Ledoit & Wolf 2004, with a fixed weight): short histories have no inverse
KEPT = 0.8  # of the variance is explained by the components; the rest is the residual


class _Covariance(Grouped):
    """Keeps the discounted covariance of standardised members: per slot, with each place of its group."""

    def __init__(self, patience: int = 60, memory: float = 300.0, **parts: Columns) -> None:
        self.memory = memory
        self._with = Columns(cov=np.zeros(MOST))
        super().__init__(patience, cov=self._with, **parts)

    def drop(self, slot: Slots) -> None:
        own = self._own
        for s in np.atleast_1d(slot).tolist():
            if own["group"][s] >= 0:
                self._with["cov"][int(own["place"][s]), own["group"] == own["group"][s]] = 0.0
        super().drop(slot)

    def _matrix(self, index: Index) -> Floats:
        """``[rows, width, width]``, shrunk; a place without a member is independent of all."""
        width = index.member.shape[1]
        both = index.there[:, :, None] & index.there[:, None, :]
        cov = np.where(both, self._with["cov"][:width, index.member].transpose(1, 2, 0), 0.0)
        out: Floats = (1.0 - SHRUNK) * (cov + cov.transpose(0, 2, 1)) / 2 + SHRUNK * np.eye(width)
        return out

    def _learn(self, z: Floats, index: Index, where: NDArray[np.bool_]) -> None:
        width = z.shape[1]
        gain = np.maximum(1.0 / (self._own["vectors"] + 1.0), 1.0 / self.memory) * where[index.row]
        mine = z[index.row, index.place]
        bounded = np.clip(z, -4.0, 4.0)
        cov = self._with["cov"]
        for place in range(width):
            cov[place] += gain * (np.clip(mine, -4.0, 4.0) * bounded[index.row, place] - cov[place])


class Mahalanobis(_Covariance):
    """Mahalanobis distance of the group's vector (Hotelling 1931): far out, given how members vary together.

    The covariance is discounted over ``memory`` vectors and shrunk by SHRUNK towards independence. A member's part is
    z_i times the i-th entry of the inverse covariance times z (a decomposition that sums to the distance; negative
    parts count as none). Cost: one batched solve of all groups a step; 16 numbers a slot. Fails on: relations that
    are not linear, and vectors out of line that stay small in every direction of variance.
    """

    name = "mahalanobis"

    def _judge(self, z: Floats, index: Index) -> tuple[Floats, Floats]:
        pull = np.linalg.solve(self._matrix(index), z[:, :, None])[:, :, 0]
        parts = np.maximum(z * pull, 0.0)
        return np.maximum((z * pull).sum(axis=1), 0.0), parts


class Pca(_Covariance):
    """Residual outside the principal components that explain 80 % of the variance (Jackson & Mudholkar 1979, SPE).

    Components are taken anew every ``refresh`` steps of a group. At most members - 1 are kept, so a group of one is
    its own residual. A member's part is its squared residual. Cost: one product a step, and an eigenvalue problem
    every ``refresh`` steps; 32 numbers a slot. Fails on: faults along a component, which Mahalanobis sees.
    """

    name = "pca"

    def __init__(self, patience: int = 60, memory: float = 300.0, refresh: int = 30) -> None:
        self.refresh = refresh
        self._outside = Columns(away=np.zeros(MOST))
        super().__init__(patience, memory, outside=self._outside)

    def _judge(self, z: Floats, index: Index) -> tuple[Floats, Floats]:
        due = (self._own["vectors"] % self.refresh == 0)[index.lead]
        if due.any():
            self._refresh(index, due)
        width = z.shape[1]
        away = self._outside["away"][:width, index.member].transpose(1, 2, 0)  # [rows, member, place]
        residual = np.where(index.there, (away * z[:, None, :]).sum(axis=2), 0.0)
        parts = residual**2
        return parts.sum(axis=1), parts

    def _refresh(self, index: Index, due: NDArray[np.bool_]) -> None:
        matrix = self._matrix(index)[due]
        there = index.there[due]
        matrix = np.where(there[:, :, None] & there[:, None, :], matrix, 0.0)
        values, vectors = np.linalg.eigh(matrix)
        values, vectors = values[:, ::-1], vectors[:, :, ::-1]
        before = np.cumsum(values, axis=1) - values
        kept = (before < KEPT * values.sum(axis=1, keepdims=True)) & (values > 1e-9)
        kept &= np.arange(values.shape[1]) < (there.sum(axis=1) - 1)[:, None]
        inside = np.einsum("rik,rk,rjk->rij", vectors, kept.astype(np.float64), vectors)
        away = np.eye(matrix.shape[1]) - inside
        number = np.cumsum(due) - 1
        mine = due[index.row]
        self._outside["away"][: matrix.shape[1], mine] = away[number[index.row[mine]], index.place[mine]].T
