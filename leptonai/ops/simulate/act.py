"""The whole loop over a simulated world: casebook, runbook, remedies and the door's judge are those that run live; what
is admitted changes the world, and cures only what it would cure.

``Watching`` sees and names; this one also answers. Each service has a platform of its own: pace and locks of one do not
keep another waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import msgspec
import numpy as np

from leptonai.admit.judge import judge
from leptonai.admit.world import World as DoorWorld
from leptonai.admit.world import diff
from leptonai.errors import LeptonError
from leptonai.ops.case import Case
from leptonai.ops.casebook import Casebook
from leptonai.ops.control import Control
from leptonai.ops.logs.shifts import Shift
from leptonai.ops.simulate import show
from leptonai.ops.simulate.flow import REPLACED, Flow
from leptonai.ops.simulate.watch import Watching, _Post, _shifts, proved
from leptonai.settings import Settings
from leptonai.types import (
    Change,
    Dial,
    DialChange,
    Incident,
    Key,
    Proposal,
    Revision,
    Service,
    Spec,
    SpecChange,
    Token,
    effective_dials,
)

OPS = Token(name="ops", role="operator", secret_sha256="", created=0.0)


class SimulatedDoor:
    """``Control`` of one service, as far as the casebook asks it: the pure judge, and a flow to act upon."""

    def __init__(self, flow: Flow, s: int, settings: Settings, most: int) -> None:
        self.flow, self.s, self._settings, self._most = flow, s, settings, most
        self.dials: list[Dial] = []
        self.proposals: dict[str, Proposal] = {}
        self.incidents_: dict[int, Incident] = {}
        self._by = {1: "human:ana"}  # of revisions
        self._why: dict[int, str] = {}

    # --- the wish

    def spec(self, number: int) -> Spec:
        found = show.spec(self.flow, self.s, number)
        scale = msgspec.structs.replace(found.scale, max=max(self._most, found.scale.replicas))
        return msgspec.structs.replace(found, scale=scale)

    def revisions_(self) -> tuple[Revision, ...]:
        """Those that stood long enough before any incident are verified-good."""
        first = min((i.began for i in self.incidents_.values()), default=self.flow.at)
        out = []
        for made in self.flow.made:
            if made.service != self.s:
                continue
            out.append(
                Revision(
                    service=self.flow.system.names[self.s], number=made.number,
                    by=self._by.get(made.number, "human:ana"), why=made.why, at=made.at, spec=self.spec(made.number),
                    verified=proved(made.at, first, self.flow.at),
                )
            )  # fmt: skip
        return tuple(out)

    def service(self) -> Service:
        number = int(self.flow.head[self.s])
        spec = self.spec(number)
        return Service(spec=spec, dials=effective_dials(spec, self.dials, self.flow.at), revision=number)

    # --- what the casebook calls

    async def propose(
        self, change: Change, why: str, by: str, ask: str = "", expires_in: float | None = None
    ) -> Proposal:
        now = self.flow.at
        made = Proposal(
            id=f"p-{len(self.proposals)}", change=change, by=by, why=why, at=now, expires=now + (expires_in or 300.0),
            ask=ask,
        )  # fmt: skip
        status, reasons = judge(made, OPS, self._world())
        if status == "admitted":
            reasons += diff(change, self.service())
        made = msgspec.structs.replace(made, status=status, reasons=reasons)
        self.proposals[made.id] = made
        if status == "admitted":
            self.apply(change, by)
        return made

    async def proposal(self, id: str) -> Proposal | None:
        return self.proposals.get(id)

    async def put_incident(self, incident: Incident) -> Incident:
        kept = incident if incident.id else msgspec.structs.replace(incident, id=len(self.incidents_) + 1)
        self.incidents_[kept.id] = kept
        return kept

    async def record(self, kind: str, subject: str, detail: dict[str, Any]) -> None:
        """The outcome is judged from the documents; nobody reads an audit log here."""

    def _world(self) -> DoorWorld:
        recent = tuple(p for p in self.proposals.values() if p.status == "admitted")
        return DoorWorld(
            now=self.flow.at, admit=self._settings.admit, history=self.revisions_(), dials=tuple(self.dials),
            recent=recent,
        )  # fmt: skip

    # --- what an admitted change does to the world

    def apply(self, change: Change, by: str) -> None:
        flow, s, now = self.flow, self.s, self.flow.at
        if isinstance(change, SpecChange):
            wanted = change.spec.variants[0].digest
            model = next((m for n, m in flow.models[s].items() if show.digest(flow, s, n) == wanted), None)
            number = flow.deploy(s, "by the runbook", model)
            self._by[number] = by
            return
        if not isinstance(change, DialChange):
            return
        for path, value in change.set.items():
            expires = None if (lasts := change.lasts(path)) is None else now + lasts
            self.dials.append(Dial(path=path, value=value, owner=by, reason="", at=now, expires=expires))
            if path.startswith("evict."):
                self._evict(path.removeprefix("evict."))
            elif path.endswith(".epoch"):
                flow.restart(s)
        self.settle()

    def by_hand(self, dial: str, value: float) -> None:
        """A person sets a dial of the variant."""
        change = DialChange(service=self.flow.system.names[self.s], set={f"main.{dial}": value})
        self.apply(change, "human:ana")

    def settle(self) -> None:
        """The world follows the dials that are in force; an eviction that was carried out is forgotten."""
        flow, s = self.flow, self.s
        dials = self.service().dials
        wanted = dials.variants["main"].replicas
        if wanted != int(flow.wanted[s]):
            flow.scale(s, wanted)
        flow.shed[s] = dials.shed
        there = {flow.id(s, r) for r in np.flatnonzero(flow.alive[s]).tolist()}
        self.dials = [d for d in self.dials if not d.path.startswith("evict.") or d.path[6:] in there]

    def _evict(self, id: str) -> None:
        flow, s = self.flow, self.s
        for r in range(int(flow.wanted[s])):
            if flow.alive[s, r] and flow.id(s, r) == id:
                flow.stop(s, r, again=flow.at + REPLACED)


@dataclass
class Platform:
    """One service with its own door and casebook."""

    door: SimulatedDoor
    book: Casebook
    whole_since: float | None = None
    sent: list[float] = field(default_factory=list)
    failed: list[float] = field(default_factory=list)


class Acting(Watching):
    """``Watching`` that answers. Use as a context: it runs the casebooks in an event loop of its own."""

    def __init__(
        self, flow: Flow, watched: Sequence[int], settings: Settings, lookouts_from: float = 0.0, most: int = 8
    ) -> None:
        self._made = settings
        self.platforms: dict[int, Platform] = {}
        self._doors = {s: SimulatedDoor(flow, s, settings, most) for s in watched}
        super().__init__(flow, watched, lookouts_from, settings.ops)
        for post in self.posts:
            door = self._doors[post.s]
            cores = float(flow.system.cores[flow.system.machine[post.s]])
            # The casebook calls nothing else of ``Control``; pending approvals, reviews and issues have no part here.
            control: Control = door  # type: ignore[assignment]
            self.platforms[post.s] = Platform(
                door, Casebook(settings, control, post.store, shifts=_reader(post), cores=cores)
            )
        self._runner = asyncio.Runner()

    def __enter__(self) -> Acting:
        self._runner.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._runner.__exit__(kind, error, tb)

    def wish(self, s: int) -> Service:
        door = self._doors[s]
        door.settle()
        return door.service()

    def revisions(self, s: int) -> tuple[Revision, ...]:
        return self._doors[s].revisions_()

    def incidents(self, s: int) -> list[Incident]:
        """In the order of their opening, as they stand."""
        cases: list[Case] = self.platforms[s].book.cases
        known = dict(self._doors[s].incidents_) | {c.incident.id: c.incident for c in cases if c.incident.id}
        return [known[id] for id in sorted(known)]

    def leave(self, s: int) -> None:
        """The service is watched no more."""
        for post in self.posts:
            if post.s == s:
                post.over = True

    def _attend(self, post: _Post, unanswered: dict[str, float]) -> None:
        """One round of the casebook instead of a look."""
        platform, now, key = self.platforms[post.s], self.flow.at, self.flow.system.names[post.s]
        post.lookout.revisions = self.revisions(post.s)
        step = platform.book.step(now, {key: post.lookout}, unanswered, now, ())
        try:
            self._runner.run(step)
        except LeptonError:
            return  # as live: the round is lost, the next one looks again
        whole = post.lookout.converged_since is not None
        platform.whole_since = (platform.whole_since or now) if whole else None


def _reader(post: _Post) -> Any:
    def shifts(service: Key, onset: float, now: float) -> tuple[Shift, ...]:
        return _shifts(post.log, onset, now)

    return shifts
