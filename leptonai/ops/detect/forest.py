"""Forests of random trees over a group's vectors, learnt by counting."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leptonai.ops.detect.groups import Grouped, Index
from leptonai.protocols import Floats
from leptonai.series.columns import Columns

TREES = 25
PAST = 32  # vectors of which strangers are put together


class IsolationForest(Grouped):
    """Half-space trees (Tan, Ting & Liu, IJCAI 2011): the streaming form of the isolation forest (Liu et al. 2008).

    Trees split a random member at a random quantile of a normal law and are drawn once, from ``seed``, for all groups;
    a group learns only how many of its vectors fall into each leaf, discounted over ``memory``. Statistic: the mean
    over trees of -log of the leaf's share in units of the leaf's size under independence. A member's part: how far it
    is out. Cost: 25 trees of depth 4, 400 numbers (3 kB) a slot. Cold start: 300 vectors. Fails on: small shifts, and
    relations among many members.
    """

    name = "isolation_forest"
    settle = 300  # vectors: until then most leaves are still as they were drawn
    depth, spread = 4, 1.5  # of the trees; of the normal law that cuts are drawn from

    def __init__(self, seed: int = 0, memory: float = 500.0) -> None:
        self.memory, self.leaves = memory, 2**self.depth
        rng = np.random.default_rng(seed)
        self._which = rng.random((TREES, self.leaves))
        self._cut = self.spread * rng.standard_normal((TREES, self.leaves))
        self._mass = Columns(mass=np.full(TREES * self.leaves, 1.0 / self.leaves))
        super().__init__(mass=self._mass)

    def _leaves(self, z: Floats, index: Index) -> NDArray[np.int64]:
        """``[rows, trees]``: the flat number of the leaf each vector falls into."""
        rows, trees = np.arange(len(z))[:, None], np.arange(TREES)
        node = np.ones((len(z), TREES), dtype=np.int64)
        order = np.argsort(~index.there, axis=1, kind="stable")  # members first: places may have holes
        size = index.there.sum(axis=1)[:, None]
        for _ in range(self.depth):
            member = order[rows, (self._which[trees, node % self.leaves] * size).astype(np.int64)]
            node = 2 * node + (z[rows, member] > self._cut[trees, node % self.leaves])
        out: NDArray[np.int64] = trees * self.leaves + node - self.leaves
        return out

    def _judge(self, z: Floats, index: Index) -> tuple[Floats, Floats]:
        mass = self._mass["mass"][self._leaves(z, index), index.lead[:, None]]
        return -np.log(np.maximum(mass, 1e-4)).mean(axis=1), z**2

    def _learn(self, z: Floats, index: Index, where: NDArray[np.bool_]) -> None:
        self._count("mass", self._leaves(z, index), index, where)

    def _count(self, name: str, leaf: NDArray[np.int64], index: Index, where: NDArray[np.bool_]) -> None:
        mass, slot = self._mass[name], where[index.row]
        gain = np.maximum(1.0 / (self._own["vectors"] + 2.0), 1.0 / self.memory) * slot
        mass *= 1.0 - gain
        at = np.flatnonzero(slot)
        mass[leaf[index.row[at]], at[:, None]] += gain[at, None]


class RandomForest(IsolationForest):
    """A forest that tells the group's vectors from strangers: vectors whose members come from different times.

    The unsupervised random forest (Breiman 2001; Shi & Horvath 2006) with wholly random splits (Geurts et al. 2006),
    so that learning is counting: each leaf knows its share of real vectors and of strangers. Statistic: the mean log
    ratio of strangers to real ones. It is blind to a member that is far out alone, in which strangers are alike, and
    sees relations of any form. Cost: 25 trees of depth 6, twice counted, and 32 vectors, 26 kB a slot.
    """

    name = "random_forest"
    depth, spread = 6, 1.0

    def __init__(self, seed: int = 0, memory: float = 500.0) -> None:
        self._past = Columns(z=np.zeros(PAST))
        self._lag = 1 + np.random.default_rng(seed + 1).permutation(PAST - 1)  # by place: a time of its own
        super().__init__(seed, memory)
        size = TREES * self.leaves
        self._mass = Columns(mass=np.full(size, 1.0 / self.leaves), strange=np.full(size, 1.0 / self.leaves))
        self.parts.update(mass=self._mass, past=self._past)

    def _judge(self, z: Floats, index: Index) -> tuple[Floats, Floats]:
        leaf, lead = self._leaves(z, index), index.lead[:, None]
        ratio = np.log((self._mass["strange"][leaf, lead] + 0.01) / (self._mass["mass"][leaf, lead] + 0.01))
        return ratio.mean(axis=1), z**2

    def _learn(self, z: Floats, index: Index, where: NDArray[np.bool_]) -> None:
        super()._learn(z, index, where)
        past, slot = self._past["z"], where[index.row]
        now = self._own["vectors"].astype(np.int64)
        at = np.arange(self.slots)
        stranger = past[(now - self._lag[index.place % (PAST - 1)]) % PAST, at]
        self._count("strange", self._leaves(np.where(index.there, stranger[index.member], 0.0), index), index, where)
        past[now[slot] % PAST, at[slot]] = z[index.row[slot], index.place[slot]]
