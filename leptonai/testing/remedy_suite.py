"""What every Remedy must do. Subclass it, give ``remedy()`` and ``case()``, and let pytest collect the class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from leptonai.protocols import Remedy
from leptonai.types import Cause, DialChange, Event, Incident, Revision, Service


class Case(NamedTuple):
    """A situation in which the remedy has something to propose."""

    incident: Incident
    service: Service
    revisions: Sequence[Revision]
    history: Sequence[Event] = ()
    now: float = 1000.0


class RemedySuite:
    def remedy(self) -> Remedy:
        raise NotImplementedError

    def case(self) -> Case:
        raise NotImplementedError

    def changes(self, case: Case) -> str:
        """The service it changes: that of the incident, but for a remedy that makes room among others."""
        return case.service.key

    def test_it_says_what_it_is(self) -> None:
        remedy = self.remedy()
        assert remedy.name and remedy.name == remedy.name.strip().lower()
        assert remedy.risk in ("low", "medium", "high")

    def test_it_proposes_where_it_applies(self) -> None:
        case = self.case()
        proposal = self.remedy().propose(*case)
        assert proposal is not None, "the suite's case must be one in which the remedy applies"
        assert proposal.service == self.changes(case)
        assert proposal.by == f"incident:{case.incident.id}"
        assert proposal.why and proposal.at == case.now < proposal.expires
        assert proposal.status == "pending" and not proposal.dry_run

    def test_it_is_pure(self) -> None:
        case = self.case()
        before = msgspec.json.encode(case)
        first, second = self.remedy().propose(*case), self.remedy().propose(*case)
        assert first == second
        assert msgspec.json.encode(case) == before

    def test_without_a_cause_nothing_is_proposed(self) -> None:
        case = self.case()
        unexplained = msgspec.structs.replace(case.incident, causes=())
        assert self.remedy().propose(unexplained, *case[1:]) is None

    def test_it_touches_no_other_service(self) -> None:
        case = self.case()
        foreign = Cause(name=case.incident.causes[0].name, subject="somebody-else", confidence=1.0)
        incident = msgspec.structs.replace(case.incident, causes=(foreign,))
        proposal = self.remedy().propose(incident, *case[1:])
        assert proposal is None or proposal.service == self.changes(case)

    def test_dials_are_known_ones(self) -> None:
        proposal = self.remedy().propose(*self.case())
        assert proposal is not None
        if isinstance(proposal.change, DialChange):
            for path in proposal.change.set:
                head, _, tail = path.partition(".")
                assert head in ("evict", "shed", "fallback", "quarantine") or tail in (
                    "replicas",
                    "weight",
                    "mirror",
                    "epoch",
                ), path
