"""Two tiers: the base tier on every series, the full tier on those that matter and on those that look odd."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leptonai.ops.detect.base import Agreement, base_tier
from leptonai.ops.detect.full import FullTier, Reason
from leptonai.protocols import Floats, Scored, Slots
from leptonai.series.columns import Columns

RISE = 3.0  # decades of the base tier from which a series is a suspect
STATED = ("threshold", "exhaustion")  # their word needs no second, and is material whatever was expected


class Tiers:
    """A Detector. Pinned slots have a seat in the full tier for good, suspects one for ``stay`` steps.

    A suspect is a slot whose base score rose to RISE; where seats are short the most surprising ones get them. Whoever
    sits is scored by the full tier as soon as that can tell (cold start: 30 values), until then and otherwise by the
    base tier. At most ``seats`` seats: the cost of the full tier is bounded however many series there are.
    """

    name = "tiers"

    def __init__(
        self, base: Agreement | None = None, full: FullTier | None = None, seats: int = 1000, stay: int = 600
    ) -> None:
        self.base, self.full = base or base_tier(), full or FullTier()
        self._blank = deepcopy((self.base, self.full))
        self.seats, self.stay = seats, stay
        self._own = Columns(seat=-1.0, pinned=0.0, calm=0.0)
        self._slot = np.zeros(0, dtype=np.int64)  # per seat, -1: free
        self.open(0)

    def anew(self) -> Tiers:
        """Tiers with the same options that know nothing."""
        base, full = deepcopy(self._blank)
        return Tiers(base, full, self.seats, self.stay)

    def open(self, slots: int) -> None:
        self._own.open(slots)
        self.base.open(slots)
        self.full.open(0)
        self._slot = np.zeros(0, dtype=np.int64)

    def grow(self, slots: int) -> None:
        self._own.grow(slots)
        self.base.grow(slots)

    def drop(self, slot: Slots) -> None:
        self._leave(np.atleast_1d(slot))
        self._own.drop(slot)
        self.base.drop(slot)

    @property
    def seated(self) -> int:
        """Slots in the full tier now."""
        return int((self._slot >= 0).sum())

    def pin(self, slot: Slots) -> NDArray[np.bool_]:
        """These slots sit in the full tier until they are dropped; suspects make room. Which of them got a seat."""
        slots = np.atleast_1d(slot)
        self._own["pinned"][slots] = 1.0
        sit = self._own["seat"][slots] >= 0
        short = int((~sit).sum()) - (self.seats - self.seated)
        if short > 0:
            guests = np.flatnonzero((self._own["seat"] >= 0) & (self._own["pinned"] == 0))
            self._leave(guests[np.argsort(-self._own["calm"][guests], kind="stable")][:short])
        self._sit(slots[~sit])
        out: NDArray[np.bool_] = self._own["seat"][slots] >= 0
        return out

    def assign(self, slot: Slots, group: int) -> None:
        """Those of the slots that sit are judged together. SpecError beyond 16 members of a group."""
        seat = self._seats(slot)
        if len(seat):
            self.full.assign(seat, group)

    def limit(self, slot: Slots, lower: float = -np.inf, upper: float = np.inf) -> None:
        """Beyond these a value is wrong; a climb towards them is told ahead. Only of slots that sit."""
        seat = self._seats(slot)
        if len(seat):
            self.full.limit(seat, lower, upper)

    def step(self, at: float, x: Floats, learn: NDArray[np.bool_]) -> Scored:
        score, expected, scale = self.base.step(at, x, learn)
        odd = np.nan_to_num(score) >= RISE
        own = self._own
        own["calm"][:] = np.where(odd, 0.0, own["calm"] + 1.0)
        self._leave(np.flatnonzero((own["seat"] >= 0) & (own["pinned"] == 0) & (own["calm"] > self.stay)))
        new = np.flatnonzero(odd & (own["seat"] < 0))
        self._sit(new[np.argsort(-score[new], kind="stable")])
        taken = self._slot >= 0
        there = self._slot[taken]
        sat, willing = np.full(len(taken), np.nan), np.zeros(len(taken), dtype=np.bool_)
        sat[taken], willing[taken] = x[there], learn[there]
        told = self.full.step(at, sat, willing)
        knows = np.zeros(len(x), dtype=np.bool_)
        knows[there] = np.isfinite(told.score[taken])
        for of, said in ((score, told.score), (expected, told.expected), (scale, told.scale)):
            mine = np.full(len(x), np.nan)
            mine[there] = said[taken]
            of[:] = np.where(knows & np.isfinite(mine), mine, of)
        return Scored(score, expected, scale)

    def reasons(self, slot: int, least: float = 1.0) -> list[Reason]:
        """Who spoke of the slot at the newest step with ``least`` decades and more, loudest first."""
        seat = int(self._own["seat"][slot])
        told = self.full.reasons(seat, least) if seat >= 0 else []
        if not told:
            voices = ((name, float(said[slot])) for name, said in self.base.said.items() if slot < len(said))
            told = [Reason(name, score, float("nan")) for name, score in voices if score >= least]
        return sorted(told, key=lambda r: -r.score)

    def said(self, detector: str, slots: int) -> Floats:
        """Per slot, what one detector of the full tier said at the newest step; nan: nothing."""
        out, told = np.full(slots, np.nan), self.full.said.get(detector)
        if told is not None:
            taken = self._slot[: len(told)] >= 0
            out[self._slot[: len(told)][taken]] = told[taken]
        return out

    def remaining(self, slot: int) -> tuple[float, float, float] | None:
        """Seconds until the slot's limit: likely, soonest, latest. None: it does not sit, or has no limit."""
        seat = int(self._own["seat"][slot])
        if seat < 0:
            return None
        likely, soonest, latest = (float(part[seat]) for part in self.full.remaining())
        return None if np.isnan(likely) else (likely, soonest, latest)

    def dump(self) -> dict[str, Any]:
        seats = {"slot": self._slot.astype(np.float64)}
        return {"own": self._own.dump(), "base": self.base.dump(), "full": self.full.dump(), "seats": seats}

    def load(self, state: dict[str, Any]) -> None:
        self._own.load(state["own"])
        self.base.load(state["base"])
        self.full.load(state["full"])
        self._slot = np.asarray(state["seats"]["slot"]).astype(np.int64)

    def part(self, slots: NDArray[np.int64]) -> dict[str, Any]:
        """``dump`` of these slots alone, numbered in this order; those that do not sit stand."""
        seats = self._own["seat"][slots].astype(np.int64)
        sit = seats >= 0
        own = taken(self._own.dump(), slots)
        own["seat"] = np.where(sit, np.cumsum(sit) - 1.0, -1.0)
        full = taken(self.full.dump(), seats[sit])
        seated = {"slot": np.flatnonzero(sit).astype(np.float64)}
        return {"own": own, "base": taken(self.base.dump(), slots), "full": full, "seats": seated}

    def graft(self, slots: NDArray[np.int64], other: Tiers) -> None:
        """These slots go on with what ``other``'s slots 0, 1, 2 ... have learnt; seats, pins and limits stay."""
        order = np.arange(len(slots))
        self.base.load(grafted(self.base.dump(), slots, taken(other.base.dump(), order)))
        both = (self._own["seat"][slots] >= 0) & (other._own["seat"][order] >= 0)
        mine, theirs = (t._own["seat"][s[both]].astype(np.int64) for t, s in ((self, slots), (other, order)))
        if len(mine):
            whole = self.full.dump()
            for name, kept in other.full.dump().items():
                if name in self.full.alone and name not in STATED:
                    whole[name] = grafted(whole[name], mine, taken(kept, theirs))
            self.full.load(whole)
            self.full.regroup(mine)

    def _seats(self, slot: Slots) -> NDArray[np.int64]:
        seats = self._own["seat"][np.atleast_1d(slot)].astype(np.int64)
        return seats[seats >= 0]

    def _sit(self, slots: NDArray[np.int64]) -> None:
        slots = slots[: max(0, self.seats - self.seated)]
        if not len(slots):
            return
        free = np.flatnonzero(self._slot < 0)
        if len(free) < len(slots):
            size = min(self.seats, max(64, 2 * len(self._slot), self.seated + len(slots)))
            self.full.grow(size)
            self._slot = np.concatenate((self._slot, np.full(size - len(self._slot), -1, dtype=np.int64)))
            free = np.flatnonzero(self._slot < 0)
        self._slot[free[: len(slots)]] = slots
        self._own["seat"][slots] = free[: len(slots)]
        self._own["calm"][slots] = 0.0

    def _leave(self, slots: NDArray[np.int64]) -> None:
        seats = self._seats(slots)
        if len(seats):
            self.full.drop(seats)
            self._slot[seats] = -1
            self._own["seat"][slots] = -1.0


def taken(state: dict[str, Any], slots: NDArray[np.int64]) -> dict[str, Any]:
    """The part of a dump that is of these slots."""
    return {k: taken(v, slots) if isinstance(v, dict) else v[..., slots] if isinstance(v, np.ndarray) else v
            for k, v in state.items()}  # fmt: skip


def grafted(state: dict[str, Any], slots: NDArray[np.int64], part: dict[str, Any]) -> dict[str, Any]:
    """The dump with ``part`` in the place of these slots."""
    out: dict[str, Any] = {}
    for name, value in state.items():
        if isinstance(value, dict):
            value = grafted(value, slots, part[name])
        elif isinstance(value, np.ndarray):
            value = value.copy()
            value[..., slots] = part[name]
        out[name] = value
    return out
