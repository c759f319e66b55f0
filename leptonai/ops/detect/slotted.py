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
    options = ""  # what a state was learnt with where its shape does not tell; "": the defaults

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
        own = {"name": self.name, **({"options": self.options} if self.options else {})}
        return {**own, **{name: part.dump() for name, part in self.parts.items()}}

    def load(self, state: dict[str, Any]) -> None:
        mine = (self.name, self.options)
        theirs = (state.get("name"), state.get("options", ""))
        if theirs != mine or not set(self.parts) <= set(state):
            raise SpecError(
                f"the state is of detector {theirs[0]!r} {theirs[1]}, wanted {self.name!r} {self.options}",
                hint="load a state dumped by the same detector with the same options",
            )
        for name, part in self.parts.items():
            part.load(state[name])
