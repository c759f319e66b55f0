"""Shuffled batches whose position can be kept: the order is a pure function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from leptonai.errors import SpecError


class Batches:
    """Tuples of rows of ``tensors``, ``size`` at a time. Iterating goes on where it was left, to the epoch's end.

    ``augment`` is applied to each batch. A position restored by ``load_state_dict`` yields exactly what was due next.
    """

    def __init__(
        self, *data: Any, size: int, seed: int = 0, augment: Callable[[tuple[Any, ...]], tuple[Any, ...]] | None = None
    ) -> None:
        lengths = {len(t) for t in data}
        if len(lengths) != 1 or 0 in lengths:
            raise SpecError(f"tensors have {sorted(lengths)} rows; they must have the same number, at least 1")
        if size < 1:
            raise SpecError(f"batch size is {size}; it must be at least 1")
        self.data, self.size, self.seed, self.augment = data, size, seed, augment
        self.epoch = self.done = 0  # whole epochs; batches of the present one

    def __len__(self) -> int:
        return -(-len(self.data[0]) // self.size)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.data[0]), generator=generator)
        while self.done < len(self):
            rows = order[self.done * self.size : (self.done + 1) * self.size]
            self.done += 1
            if self.done == len(self):
                self.epoch, self.done = self.epoch + 1, 0
            batch = tuple(t[rows] for t in self.data)
            yield self.augment(batch) if self.augment else batch
            if self.done == 0:
                return

    def state_dict(self) -> dict[str, int]:
        return {"seed": self.seed, "epoch": self.epoch, "done": self.done, "size": self.size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        if state["size"] != self.size:
            raise ValueError(f"batch size was {state['size']}, now {self.size}")
        self.seed, self.epoch, self.done = state["seed"], state["epoch"], state["done"]
