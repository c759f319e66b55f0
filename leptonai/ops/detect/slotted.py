"""What every base detector shares: it is made of columns, and slots come and go in all of them together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from leptonai.errors import SpecError
from leptonai.protocols import Floats, Scored, Slots
from leptonai.series.columns import Columns


class Slotted:
    """A detector whose whole state is a set of named Columns."""

    name = ""

    def __init__(self, **parts: Columns) -> None:
        self.parts = parts

    @property
    def slots(self) -> int:
        return next(iter(self.parts.values())).slots

    @property
    def nbytes(self) -> int:
        """Bytes of state for all slots together."""
        return sum(part.nbytes for part in self.parts.values())

    def open(self, slots: int) -> None:
        for part in self.parts.values():
            part.open(slots)

    def grow(self, slots: int) -> None:
        for part in self.parts.values():
            part.grow(slots)

    def drop(self, slot: Slots) -> None:
        for part in self.parts.values():
            part.drop(slot)

    def step(self, at: float, x: Floats, learn: NDArray[np.bool_]) -> Scored:
        """As ``protocols.Detector.step``."""
        raise NotImplementedError

    def dump(self) -> dict[str, Any]:
        return {"name": self.name, **{name: part.dump() for name, part in self.parts.items()}}

    def load(self, state: dict[str, Any]) -> None:
        if state.get("name") != self.name or not set(self.parts) <= set(state):
            raise SpecError(
                f"the state is of detector {state.get('name')!r}, wanted {self.name!r}",
                hint="load a state dumped by the same detector with the same options",
            )
        for name, part in self.parts.items():
            part.load(state[name])
