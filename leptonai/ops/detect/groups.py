"""What belongs together is judged together: detectors over the members of a group, with each member's share."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leptonai.errors import SpecError
from leptonai.ops.detect.slotted import Slotted
from leptonai.protocols import Floats, Scored, Slots
from leptonai.series.columns import Columns
from leptonai.series.peaks import Peaks
from leptonai.series.robust import Level

MOST = 16  # members of a group
REACH = 8.0  # sigmas that a member counts as at most


class Index(NamedTuple):
    """Groups as a table: which slot is the j-th member of which row, and where each slot is."""

    member: NDArray[np.int64]  # [rows, width]; a slot number, its own lead's where there is none
    there: NDArray[np.bool_]  # [rows, width]
    row: NDArray[np.int64]  # [S]
    place: NDArray[np.int64]  # [S]

    @property
    def lead(self) -> NDArray[np.int64]:
        """The first slot of each row."""
        out: NDArray[np.int64] = self.member[np.arange(len(self.member)), self.there.argmax(axis=1)]
        return out

    @property
    def size(self) -> Floats:
        """Members of each row."""
        out: Floats = self.there.sum(axis=1).astype(np.float64)
        return out


class Grouped(Slotted):
    """A detector over groups: slots of one number are one vector; a slot without a number is a group of its own.

    Values are standardised by a robust level per slot (``series.robust.Level``) and bounded by REACH sigmas; a missing
    member counts as its mean. A subclass turns the vectors ``z[rows, width]`` into one statistic a row and each
    member's part of it; the statistic's law is learnt (``series.peaks``). The group's score is given to the members
    whose share is at least an equal one; the others score 0. What a group learnt is kept in each of its members, so
    the slots of any of them may come and go. Cold start: 30 values for the level, ``settle`` vectors
    and 60 for the tail.
    """

    settle = 100  # vectors that a group learns before its statistic is taken for its own law

    def __init__(self, patience: int = 60, **parts: Columns) -> None:
        self._level, self._peaks = Level(patience=patience), Peaks()
        self._own = Columns(group=-1.0, place=0.0, share=np.nan, vectors=0.0)
        self._index: Index | None = None
        super().__init__(**{"level": self._level, "peaks": self._peaks, "own": self._own, **parts})

    def _judge(self, z: Floats, index: Index) -> tuple[Floats, Floats]:
        """The statistic of each row, and ``[rows, width]`` parts of it, each >= 0."""
        raise NotImplementedError

    def _learn(self, z: Floats, index: Index, where: NDArray[np.bool_]) -> None:
        """Learn the vectors of the rows ``where``."""
        raise NotImplementedError

    def assign(self, slot: Slots, group: int) -> None:
        """These slots belong to ``group`` (a number >= 0) until they are dropped. SpecError beyond MOST members."""
        own = self._own
        taken = set(own["place"][own["group"] == group].astype(int).tolist())
        fresh = [int(s) for s in np.atleast_1d(slot) if own["group"][int(s)] != group]
        free = [p for p in range(MOST) if p not in taken]
        if len(fresh) > len(free):
            raise SpecError(
                f"group {group} would have {len(taken) + len(fresh)} members, at most {MOST} are judged together",
                hint="split it, by replica for example",
            )
        for s, place in zip(fresh, free, strict=False):
            self.drop(np.array([s]))
            own["group"][s], own["place"][s] = float(group), float(place)
        self._index = None

    def groups(self, slot: Slots) -> dict[int, Slots]:
        """Those of the slots that were assigned, by group."""
        slots = np.atleast_1d(slot)
        number = self._own["group"][slots].astype(np.int64)
        return {int(n): slots[number == n] for n in np.unique(number) if n >= 0}

    @property
    def together(self) -> NDArray[np.bool_]:
        """Per slot: was it assigned to a group?"""
        out: NDArray[np.bool_] = self._own["group"] >= 0
        return out

    @property
    def contributions(self) -> Floats:
        """Per slot, its share of its group's statistic at the newest step; they sum to 1 a group."""
        return self._own["share"].copy()

    def step(self, at: float, x: Floats, learn: NDArray[np.bool_]) -> Scored:
        x = np.where(np.isfinite(x), x, np.nan)
        index = self._indexed()
        mean, scale, ready, held = self._level.step(x, learn)
        seen = ready & np.isfinite(x)
        every = np.where(seen, np.clip((x - mean) / scale, -REACH, REACH), 0.0)
        z = np.where(index.there, every[index.member], 0.0)
        known = (seen[index.member] & index.there).any(axis=1)
        statistic, parts = self._judge(z, index)
        total = parts.sum(axis=1, keepdims=True)
        share = np.where(total > 0, parts / np.where(total > 0, total, 1.0), 0.0)
        mine = np.where(known, statistic, np.nan)[index.row]
        whole = self._peaks.score(mine)
        part = share[index.row, index.place]
        self._own["share"][:] = np.where(seen, part, np.nan)
        named = part >= 0.999 / index.size[index.row]
        score = np.where(seen, np.where(named, whole, np.where(np.isnan(whole), np.nan, 0.0)), np.nan)
        steady = ~np.asarray(((held & learn)[index.member] & index.there).any(axis=1))
        willing = (learn[index.member] | ~index.there).all(axis=1)
        taught: NDArray[np.bool_] = np.asarray(known & steady & willing)
        self._peaks.learn(mine, taught[index.row] & (self._own["vectors"] >= self.settle))
        self._learn(z, index, taught)
        self._own["vectors"][:] += taught[index.row]
        return Scored(score, np.where(ready, mean, np.nan), np.where(ready, scale, np.nan))

    def open(self, slots: int) -> None:
        super().open(slots)
        self._index = None

    def grow(self, slots: int) -> None:
        super().grow(slots)
        self._index = None

    def drop(self, slot: Slots) -> None:
        super().drop(slot)
        self._index = None

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self._index = None

    def _indexed(self) -> Index:
        if self._index is None:
            slots, group = self.slots, self._own["group"]
            number = np.where(group >= 0, group, -1.0 - np.arange(slots))  # alone: a number of one's own
            _, row = np.unique(number, return_inverse=True)
            place = self._own["place"].astype(np.int64)
            width = int(place.max()) + 1 if slots else 1
            rows = int(row.max()) + 1 if slots else 0
            member, there = np.zeros((rows, width), dtype=np.int64), np.zeros((rows, width), dtype=np.bool_)
            member[row, place], there[row, place] = np.arange(slots), True
            lead = member[np.arange(rows), there.argmax(axis=1)]
            member = np.where(there, member, lead[:, None])
            self._index = Index(member, there, row.astype(np.int64), place)
        return self._index
