"""A small network that tells a group's vectors again from fewer numbers: what it cannot tell again is odd."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leptonai.errors import PluginError
from leptonai.ops.detect.groups import Grouped, Index
from leptonai.protocols import Floats
from leptonai.series.columns import Columns

HIDDEN = 8  # units at most: half of the largest group
PAST = 32  # newest vectors that are learnt from at once
EVERY = 4  # vectors between two steps of descent
BOUND = 4.0  # sigmas that a member counts as when it is learnt


class Autoencoder(Grouped):
    """Reconstruction error of an autoencoder with one layer of tanh (Hinton & Salakhutdinov 2006), learnt online.

    The hidden layer has half as many units as the group members, one at least: it must find what they have in common,
    linear or not. A member owns its rows of both layers and its share of the hidden bias, so members may come and go;
    all start from the same rows, drawn from ``seed``. After each EVERY vectors of a group comes a step of gradient
    descent on its newest PAST, by PyTorch (extra ``torch``; PluginError without it). Statistic: the sum of squared
    errors; a member's part is its own. Cost: 25 numbers of network and 32 of past, 600 bytes a slot, and the dearest
    step of all detectors. Cold start: 400 vectors. Fails on: groups of two, and what is far out along a relation it
    learnt.
    """

    name = "autoencoder"
    settle = 400  # vectors: the error is still falling until then

    def __init__(self, seed: int = 0, rate: float = 0.05, patience: int = 60) -> None:
        if find_spec("torch") is None:
            raise PluginError("the autoencoder needs PyTorch", hint="pip install 'leptonai-platform[torch]'")
        self._torch = import_module("torch")
        self.rate = rate
        rng = np.random.default_rng(seed)
        drawn = rng.standard_normal((2, HIDDEN)) * 0.5
        self._net = Columns(inward=drawn[0], outward=drawn[1], hidden=np.zeros(HIDDEN), out=0.0)
        self._past = Columns(z=np.zeros(PAST))
        super().__init__(patience, net=self._net, past=self._past)

    def _judge(self, z: Floats, index: Index) -> tuple[Floats, Floats]:
        t = self._torch
        with self._alone(), t.no_grad():
            error = self._error(t.from_numpy(z[None]), self._gathered(index), index)[0].numpy()
        parts: Floats = error**2
        return parts.sum(axis=1), parts

    def _learn(self, z: Floats, index: Index, where: NDArray[np.bool_]) -> None:
        t, past, slot = self._torch, self._past["z"], where[index.row]
        newest = self._own["vectors"].astype(np.int64)
        at = np.flatnonzero(slot)
        past[newest[at] % PAST, at] = np.clip(z[index.row[at], index.place[at]], -BOUND, BOUND)
        due = slot & (newest % EVERY == EVERY - 1)
        if not due.any():
            return
        net = {name: part.requires_grad_() for name, part in self._gathered(index).items()}
        seen = np.minimum(newest[index.lead] + 1, PAST)  # those before the first are no vectors
        real = t.from_numpy((np.arange(PAST)[:, None] < seen).astype(np.float64)[:, :, None])
        with self._alone():
            error = self._error(t.from_numpy(past[:, index.member]), net, index)
            (real * error**2 / t.from_numpy(seen.astype(np.float64))[None, :, None]).sum().backward()
        size = index.size[index.row]
        for name, part in net.items():
            down = part.grad.numpy()[..., index.row, index.place] / size
            self._net[name][:] -= self.rate * np.where(due, np.clip(down, -1.0, 1.0), 0.0)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One thread: tensors this small only wait for more of them."""
        before = self._torch.get_num_threads()
        self._torch.set_num_threads(1)
        try:
            yield
        finally:
            self._torch.set_num_threads(before)

    def _gathered(self, index: Index) -> dict[str, Any]:
        """The network as ``[..., rows, width]`` tensors; places without a member have no part in it."""
        return {
            name: self._torch.from_numpy(np.where(index.there, self._net[name][..., index.member], 0.0))
            for name in ("inward", "outward", "hidden", "out")
        }

    def _error(self, z: Any, net: dict[str, Any], index: Index) -> Any:
        """``z[vectors, rows, width]`` less what is told again of it."""
        t = self._torch
        units = np.maximum(index.size // 2, 1.0)
        on = t.from_numpy((np.arange(HIDDEN)[:, None] < units).astype(np.float64))[None]  # [1, unit, row]
        inside = (net["inward"] * z[:, None]).sum(dim=3) + net["hidden"].sum(dim=2)
        told = (net["outward"] * (on * t.tanh(inside))[..., None]).sum(dim=1) + net["out"]
        return t.from_numpy(index.there.astype(np.float64)) * (z - told)
