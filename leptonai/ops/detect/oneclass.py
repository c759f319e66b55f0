"""A one-class support vector machine over a group's vectors, learnt online."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leptonai.ops.detect.groups import MOST, Grouped, Index
from leptonai.protocols import Floats
from leptonai.series.columns import Columns


class OneClass(Grouped):
    """One-class SVM (Schoelkopf et al. 2001) by stochastic gradient (Kivinen et al. 2004, NORMA), on random features.

    The Gaussian kernel of width root(members) is replaced by ``features`` random cosines (Rahimi & Recht 2007), drawn
    once from ``seed`` for all groups, so a group is a weight vector and an offset. Only vectors outside the margin
    (a share ``nu``) move the weights. Statistic: how far outside. A member's part: how far it is out. Cost: 64
    features, 65 numbers (520 bytes) a slot. Cold start: 300 vectors. Fails on: groups of many
    members, where a kernel sees everything as equally far.
    """

    name = "one_class_svm"
    settle = 300  # three times what the rate remembers

    def __init__(self, seed: int = 0, features: int = 64, nu: float = 0.2, rate: float = 0.01) -> None:
        rng = np.random.default_rng(seed)
        self.nu, self.rate, self.features = nu, rate, features
        self._direction = rng.standard_normal((features, MOST))
        self._phase = rng.random(features) * 2 * np.pi
        self._machine = Columns(w=np.zeros(features), offset=0.0)
        super().__init__(machine=self._machine)

    def _mapped(self, z: Floats, index: Index) -> Floats:
        """``[rows, features]``."""
        # summed place by place: a matrix product would round differently for another number of rows
        angle = np.zeros((len(z), self.features))
        for place in range(z.shape[1]):
            angle += z[:, place, None] * self._direction[:, place]
        out: Floats = np.sqrt(2 / self.features) * np.cos(angle / np.sqrt(index.size)[:, None] + self._phase)
        return out

    def _judge(self, z: Floats, index: Index) -> tuple[Floats, Floats]:
        inside = (self._machine["w"][:, index.lead].T * self._mapped(z, index)).sum(axis=1)
        return self._machine["offset"][index.lead] - inside, z**2

    def _learn(self, z: Floats, index: Index, where: NDArray[np.bool_]) -> None:
        mapped, machine = self._mapped(z, index), self._machine
        inside = (machine["w"][:, index.lead].T * mapped).sum(axis=1)
        outside = inside < machine["offset"][index.lead] + 1e-12
        slot = where[index.row]
        gain = np.maximum(1.0 / (self._own["vectors"] + 1.0), self.rate) * slot
        pull = np.where(outside, 1.0 / self.nu, 0.0)[index.row]
        machine["w"][:] += gain * (pull * mapped[index.row].T - machine["w"])
        machine["offset"][:] += gain * (self.nu - outside[index.row])
