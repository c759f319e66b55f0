"""Keeps what reviews teach: reads them as they come, learns beside the loop, and writes down what is in force."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from leptonai.client.learnt import FOLDER, LEARNT, RESET, Learnt, Reset
from leptonai.errors import LeptonError
from leptonai.ops.control import Control
from leptonai.ops.diagnosis.rules import RuleBook
from leptonai.ops.known import FEATURES
from leptonai.ops.learn.judged import Judged, judged
from leptonai.ops.learn.lesson import Lesson, lesson
from leptonai.ops.learn.order import order
from leptonai.ops.runbook import Row, Runbook, shipped
from leptonai.platforms.local.rundir import write_atomically
from leptonai.types import Event, Incident, Review

log = logging.getLogger(__name__)
NEWS = ("incident.reviewed", "learnt.reset", "learnt.restored")  # events that change what is learnt
MOST = 1_000  # reviewed incidents that are learnt from, the newest; each is diagnosed a few times when one is added
FETCH = 50  # incidents asked for in one round
PAGE = 1_000


class Learner:
    """``book`` and ``runbook`` give what is in force; until something was learnt of it, what they are given."""

    def __init__(self, home: Path, control: Control) -> None:
        self._folder, self._control = home / FOLDER, control
        self._due = True
        self._after = 0
        self._reviews: dict[tuple[int, str], tuple[int, Review]] = {}
        self._incidents: dict[int, Incident] = {}
        self._stale: set[int] = set()  # incidents to be read again
        self._of: RuleBook | None = None
        self._lesson: Lesson | None = None

    def hear(self, event: Event) -> None:
        if event.kind in NEWS:
            self._due = True

    def book(self, declared: RuleBook) -> RuleBook:
        return self._lesson.book if self._lesson is not None and self._of is declared else declared

    def runbook(self, rows: Runbook) -> Runbook:
        """The rows with their remedies in the order that reviews make; a row that is not as shipped stays as it is."""
        if self._lesson is None or not self._lesson.told.orders:
            return rows
        known, told = self._lesson.known, self._lesson.told.orders
        ours = {row.cause: row for row in shipped().rows()}

        def by(row: Row) -> Sequence[str]:
            learnt = row.cause in told and row == ours.get(row.cause)
            return order(row.cause, row.remedies, known) if learnt else row.remedies

        return rows.ordered(by)

    async def step(self, now: float, declared: RuleBook) -> None:
        """Learn anew when a review came, one was taken back, or the rules are others; at most FETCH incidents are read
        a round, so that a long history is taken up over several."""
        if not self._due and self._of is declared:
            return
        await self._read()
        if self._stale:
            return
        self._due = False
        reset = self._reset()
        heard = [review for seq, review in self._reviews.values() if seq > reset.after]
        seen = judged(self._incidents.values(), heard)
        made = await asyncio.to_thread(_lesson, declared, seen, now, len(heard), reset.after)
        before, self._lesson, self._of = self._lesson, made, declared
        self._write(made.told)
        if before is not None and (before.told.rules, before.told.orders) != (made.told.rules, made.told.orders):
            detail = {
                "in_force": made.told.in_force, "why": made.told.why, "reviews": made.told.reviews,
                "rules": [f"{r.cause} {r.declared:.2f} -> {r.alone:.2f}, {r.beside:.2f}" for r in made.told.rules],
                "orders": {cause: list(now) for cause, (_, now) in made.told.orders.items()},
            }  # fmt: skip
            with contextlib.suppress(LeptonError):
                await self._control.record("learnt.changed", "ops", detail)

    async def _read(self) -> None:
        while True:
            items, after = await self._control.reviews(self._after)
            for seq, review in items:
                self._reviews[review.incident, review.by] = seq, review
                self._stale.add(review.incident)
            if after == self._after or len(items) < PAGE:
                self._after = after
                break
            self._after = after
        newest = sorted({incident for incident, _ in self._reviews})[-MOST:]
        kept = set(newest)
        self._reviews = {key: found for key, found in self._reviews.items() if key[0] in kept}
        self._incidents = {id: found for id, found in self._incidents.items() if id in kept}
        self._stale &= kept
        for id in sorted(self._stale)[:FETCH]:
            found = await self._control.incident(id)
            if found is not None:
                self._incidents[id] = found
            self._stale.discard(id)

    def _reset(self) -> Reset:
        try:
            return msgspec.json.decode((self._folder / RESET).read_bytes(), type=Reset)
        except FileNotFoundError:
            return Reset(after=0, by="", at=0.0, why="")
        except (OSError, msgspec.MsgspecError) as e:
            log.warning("%s: %s; every review counts", self._folder / RESET, e)
            return Reset(after=0, by="", at=0.0, why="")

    def _write(self, told: Learnt) -> None:
        try:
            self._folder.mkdir(exist_ok=True)
            write_atomically(self._folder / LEARNT, msgspec.json.encode(told))
        except OSError as e:
            log.warning("what was learnt cannot be shown: %s", e)


def _lesson(book: RuleBook, seen: list[Judged], now: float, reviews: int, after: int) -> Lesson:
    kinds = {**FEATURES, **{name: signal.kind for name, signal in book.signals.items()}}
    orders: Mapping[str, tuple[str, ...]] = {row.cause: row.remedies for row in shipped().rows() if row.steps}
    return lesson(book, kinds, orders, seen, now, reviews, after)
