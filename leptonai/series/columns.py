"""State of many series at once: named arrays whose last axis is the slot."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leptonai.errors import SpecError
from leptonai.protocols import Slots


class Columns:
    """Named arrays over slots; each slot starts from the same fresh values.

    Slots come last, so that one arithmetic step runs over contiguous memory for all series.
    """

    def __init__(self, **fresh: ArrayLike) -> None:
        self._fresh = {name: np.asarray(value, dtype=np.float64) for name, value in fresh.items()}
        self._columns: dict[str, NDArray[np.float64]] = {}
        self.open(0)

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        return self._columns[name]

    @property
    def slots(self) -> int:
        return int(next(iter(self._columns.values())).shape[-1])

    @property
    def nbytes(self) -> int:
        """Bytes held for all slots together."""
        return sum(column.nbytes for column in self._columns.values())

    def open(self, slots: int) -> None:
        """Forget everything; ``slots`` fresh slots exist afterwards."""
        self._columns = {name: self._filled(value, slots) for name, value in self._fresh.items()}

    def grow(self, slots: int) -> None:
        """Add fresh slots until there are ``slots``; never fewer than now."""
        extra = slots - self.slots
        if extra > 0:
            for name, value in self._fresh.items():
                self._columns[name] = np.concatenate((self._columns[name], self._filled(value, extra)), axis=-1)

    def drop(self, slot: Slots) -> None:
        """Make these slots fresh again."""
        for name, value in self._fresh.items():
            self._columns[name][..., slot] = value[..., None]

    def dump(self) -> dict[str, Any]:
        """A copy of the state: names to arrays, ready for ``numpy.savez``."""
        return {name: column.copy() for name, column in self._columns.items()}

    def load(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``dump`` was taken. SpecError when it is the dump of something else."""
        loaded = {name: np.array(value, dtype=np.float64) for name, value in state.items()}
        shapes = {name: value.shape[:-1] for name, value in loaded.items()}
        wanted = {name: value.shape for name, value in self._fresh.items()}
        if shapes != wanted or len({value.shape[-1] for value in loaded.values()}) > 1:
            raise SpecError(
                f"{type(self).__name__}: the state has columns {shapes}, wanted {wanted} over equally many slots",
                hint="load a state dumped by the same detector with the same options",
            )
        self._columns = loaded

    @staticmethod
    def _filled(value: NDArray[np.float64], slots: int) -> NDArray[np.float64]:
        return np.repeat(value[..., None], slots, axis=-1)
