"""What all remedies of ours share: they read one situation and answer with a wish, which the one door judges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

from leptonai.types import Cause, Change, Event, Incident, Key, Noun, Proposal, Revision, Service

PROPOSAL_SECONDS = 300.0  # a remedy that waited longer for approval was meant for another world
Risk = Literal["low", "medium", "high"]
# Whether a change is taken back when it did not help: by itself, only where the runbook asks for it, or never.
Reversal = Literal["automatic", "on request", "none"]
About = Literal["service", "revision", "replica"]


class Seen(NamedTuple):
    """What a remedy decides by. ``cause``: the first of the incident. ``theirs``: services whose replicas somebody else
    than us sets, so that the door takes no number of ours."""

    incident: Incident
    cause: Cause
    service: Service
    revisions: Sequence[Revision]
    history: Sequence[Event]
    now: float
    theirs: frozenset[Key] = frozenset()

    @property
    def about(self) -> About:
        if self.cause.subject == self.service.key:
            return "service"
        return "revision" if self.cause.subject.startswith(f"{self.service.key}#") else "replica"

    def facts(self, kind: str) -> list[dict[str, Any]]:
        """The data of the evidence of one kind, newest first."""
        return [e.data for e in reversed(self.incident.evidence) if e.kind == kind]

    def latest(self, name: str) -> float | None:
        """The newest number called ``name`` in the evidence."""
        for fact in reversed(self.incident.evidence):
            value = fact.data.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                return float(value)
        return None


class Wishing(Noun, frozen=True, kw_only=True):
    """A remedy; its fields are what a runbook may give it under ``with``. Subclasses say what they wish."""

    name: ClassVar[str]
    risk: ClassVar[Risk] = "low"
    reversal: ClassVar[Reversal] = "automatic"
    approved: ClassVar[bool] = False  # by a person, each time, unless the step of the runbook says otherwise

    def propose(
        self,
        incident: Incident,
        service: Service,
        revisions: Sequence[Revision],
        history: Sequence[Event],
        now: float,
        theirs: frozenset[Key] = frozenset(),
    ) -> Proposal | None:
        """What ``wish`` says, signed by the incident; None without a cause, or where there is nothing to wish."""
        if not incident.causes:
            return None
        found = self.wish(Seen(incident, incident.causes[0], service, revisions, history, now, theirs))
        if found is None:
            return None
        change, why = found
        by, expires = f"incident:{incident.id}", now + PROPOSAL_SECONDS
        return Proposal(id="", change=change, by=by, why=why, at=now, expires=expires)

    def wish(self, seen: Seen) -> tuple[Change, str] | None:
        """The change that would repair the cause and why; None where this remedy does not apply. Pure."""
        raise NotImplementedError
