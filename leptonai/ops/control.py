"""What ops needs of the control API, and nothing more."""

from __future__ import annotations

from typing import Any, Protocol

from leptonai.client.wire import Desk, IssueVerdict
from leptonai.types import (
    Change,
    Event,
    Feedback,
    Incident,
    Issue,
    Key,
    Noun,
    Proposal,
    Replica,
    Review,
    Revision,
    Service,
)


class World(Noun, frozen=True, kw_only=True):
    """Wish and world at one moment. ``gateways``: where each of them is asked for its counters. ``trouble``: why
    their newest configuration is not in force, "" while it is. ``room``: of services with ``scale.auto``, how many more
    replicas of each variant fit; None: no limit is known. ``frozen``: why the kill switch is on, "" while it is off.
    ``theirs``: services whose replicas somebody else than us sets; their dials show the numbers."""

    services: tuple[Service, ...] = ()
    replicas: tuple[Replica, ...] = ()
    gateways: tuple[str, ...] = ()
    trouble: str = ""
    room: dict[Key, dict[str, int | None]] = {}
    frozen: str = ""
    theirs: frozenset[Key] = frozenset()


class Control(Protocol):
    """Every call raises LeptonError with ``retry`` set when control is away for the moment."""

    async def world(self) -> World:
        """All services with their dials in force, all replicas, and where the gateway's statistics are."""

    async def revisions(self, key: Key) -> list[Revision]:
        """Of one service, ascending."""

    async def events(self, after: int) -> list[Event]:
        """The audit log past ``after``, ascending; [] at its end. ``after`` -1: only the newest event."""

    async def feedback(self, after: int) -> tuple[list[Feedback], int]:
        """Feedback past ``after``, ascending, and what to ask for next."""

    async def reviews(self, after: int) -> tuple[list[tuple[int, Review]], int]:
        """Reviews with their numbers past ``after``, ascending, and what to ask for next."""

    async def incident(self, id: int) -> Incident | None:
        """As it is recorded; None when it is not any more."""

    async def issues(self, state: str) -> list[Issue]:
        """Those in this state."""

    async def judge_issue(self, id: int, verdict: IssueVerdict) -> None:
        """Whether complaints became rarer since the repair. Conflict: it is not ``fixed`` any more."""

    async def incidents(self) -> list[Incident]:
        """Those that are open, and those closed lately."""

    async def put_incident(self, incident: Incident) -> Incident:
        """Create (id 0) or replace; the incident as stored."""

    async def propose(
        self, change: Change, why: str, by: str, ask: str = "", expires_in: float | None = None
    ) -> Proposal:
        """The proposal as judged: admitted, denied with reasons, or pending approval.

        ``ask``: why a person must approve it first; ``expires_in``: seconds it may wait for that.
        """

    async def proposal(self, id: str) -> Proposal | None:
        """The proposal as it stands now."""

    async def verify(self, key: Key, number: int, detail: str) -> None:
        """Mark a revision verified-good."""

    async def record(self, kind: str, subject: str, detail: dict[str, Any]) -> None:
        """One line for the audit log."""

    async def desk(self) -> Desk:
        """What holds now."""

    async def end_silence(self, id: int) -> None:
        """End a silence now; nothing happens when it is over."""
