"""Which slot a series has: given on first sight, kept while it lives, handed on after it is released."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from leptonai.types import Key, Signal


class Identity(NamedTuple):
    """What makes two samples the same series."""

    name: str
    labels: tuple[tuple[str, str], ...]


class SlotMap:
    """Identities to slots ``0 .. size - 1``. ``size`` doubles when full and never shrinks."""

    def __init__(self) -> None:
        self.size = 0
        self.identity: dict[int, Identity] = {}
        self._slot: dict[Identity, int] = {}
        self._free: list[int] = []
        self._numbers: dict[Key, int] = {"": 0}
        self._service = np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._slot)

    def find(self, name: str, /, **labels: str) -> int | None:
        return self._slot.get(Identity(name, tuple(sorted(labels.items()))))

    def place(self, signal: Signal) -> tuple[int, bool]:
        """The slot of the signal's series, and whether it was given just now; ``size`` may have grown."""
        labels = signal.labels
        identity = Identity(signal.name, tuple(sorted(labels.items())) if len(labels) > 1 else tuple(labels.items()))
        slot = self._slot.get(identity)
        if slot is not None:
            return slot, False
        if not self._free:
            grown = max(64, 2 * self.size)
            self._free = list(range(grown - 1, self.size - 1, -1))
            self._service = np.concatenate((self._service, np.zeros(grown - self.size, dtype=np.int64)))
            self.size = grown
        slot = self._free.pop()
        self._slot[identity], self.identity[slot] = slot, identity
        self._service[slot] = self._numbers.setdefault(labels.get("service", ""), len(self._numbers))
        return slot, True

    def belongs(self, slot: int, about: str) -> None:
        """The series belongs to ``about``, whatever its labels say."""
        self._service[slot] = self._numbers.setdefault(about, len(self._numbers))

    def release(self, slot: int) -> None:
        """The series is gone; its slot may be given to another."""
        del self._slot[self.identity.pop(slot)]
        self._service[slot] = 0
        self._free.append(slot)

    def of(self, services: Collection[Key]) -> NDArray[np.bool_]:
        """Per slot: does its series belong to one of these services?"""
        numbers = [self._numbers[key] for key in services if key in self._numbers]
        return np.isin(self._service, numbers)
