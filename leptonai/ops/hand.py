"""The hand that does what was decided: it asks the door, notes the answer, starts jobs that got leave."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from leptonai.errors import LeptonError
from leptonai.ops import incidents as book
from leptonai.ops.case import Case, trend
from leptonai.ops.control import Control
from leptonai.ops.jobs import Jobs
from leptonai.ops.jobs.form import Ended
from leptonai.ops.logs.parse import clean
from leptonai.ops.lookout import Lookout
from leptonai.ops.respond import Close, Escalate, Judge, Plan, Propose, Recommend, TakeBack
from leptonai.protocols import TelemetryStore
from leptonai.types import Action, Change, DialChange, Job, JobChange, Key, Proposal, SpecChange

log = logging.getLogger(__name__)
BEFORE = 10.0  # seconds before an action whose errors are what it must not worsen, as far as the trouble lasted then
JUST = 2.0  # of these seconds at least
EASED = 120.0  # seconds until what was eased is let in altogether
ASKED = 1.0  # second for which an approval of that is waited for


class Hand:
    def __init__(self, control: Control, store: TelemetryStore, home: str = "") -> None:
        self._control, self._store = control, store
        self._granted: dict[str, Job] = {}  # proposal that waits for approval -> what to run then
        self.jobs = Jobs(home)

    async def propose(self, case: Case, wanted: Propose, lookouts: Mapping[Key, Lookout], now: float) -> None:
        """Put the plan to the door; the incident tells of it, whatever the answer is."""
        plan, proposal = wanted.plan, wanted.plan.proposal
        answer = await self._ask(case, wanted.remedy, proposal, wanted.ask, now)
        if answer is None:
            return
        case.waiting = frozenset((answer.id,)) if answer.status == "pending" else frozenset()
        case.ended = None
        self._began(case, plan, lookouts, now)
        change = proposal.change
        case.refused, case.moments, case.eased_at = None, [], float("-inf")
        case.refused_before = lookouts[plan.service].service.dials.shed
        key = plan.service if plan.service != case.service else ""
        made = lookouts[plan.service].service.revision + isinstance(change, SpecChange)
        action = Action(
            remedy=wanted.remedy,
            proposal=answer.id,
            at=now,
            detail=proposal.why,
            about=case.fault(),
            service=key,
            revision=made,
            set=change.set if isinstance(change, DialChange) else {},
            undo=wanted.undo,
            approved=False if answer.status == "pending" else None,
        )
        waits = ", which waits for a person's approval" if answer.status == "pending" else ""
        told = book.note(case.incident, "plan", f"Plan: {plan.text}.", now, **facts(plan))
        text = f"Proposal {answer.id} asks for {wanted.remedy} ({proposal.why}){waits}."
        case.incident = book.act(book.note(told, "action", text, now), action)
        await self._record("remedy.planned", case, {**facts(plan), "proposal": answer.id, "ask": wanted.ask})
        if isinstance(change, JobChange):
            if answer.status == "admitted":
                self._run(case, answer.id, change.job)
            else:
                self._granted[answer.id] = change.job

    async def recommend(self, case: Case, wanted: Recommend, now: float) -> None:
        """Only told: in the incident and in the audit log."""
        text = f"Not done ({wanted.why}): {wanted.plan.text}."
        case.incident = book.note(case.incident, "recommended", text, now, **facts(wanted.plan))
        await self._record("remedy.recommended", case, {**facts(wanted.plan), "why": wanted.why})

    async def judge(self, case: Case, found: Judge, mitigated: float | None, now: float) -> None:
        last = case.incident.actions[-1]
        done = msgspec.structs.replace(last, verdict=found.verdict, detail=found.detail, judged=now)
        told = book.note(case.incident, "verdict", f"The {done.remedy} was {found.verdict}: {found.detail}.", now)
        case.incident = msgspec.structs.replace(
            told, actions=(*told.actions[:-1], done), mitigated=mitigated if mitigated is not None else told.mitigated
        )
        case.ended = None
        detail = {"remedy": done.remedy, "verdict": found.verdict, "detail": found.detail, "proposal": done.proposal}
        await self._record("remedy.judged", case, detail)

    async def take_back(self, case: Case, wanted: TakeBack, now: float) -> None:
        """Put the undoing to the door, signed by the same incident."""
        last = case.incident.actions[-1]
        proposal = Proposal(
            id="", change=wanted.change, by=f"incident:{case.incident.id}", why=wanted.why, at=now, expires=now + 300.0
        )
        answer = await self._ask(case, f"take back {last.remedy}", proposal, "", now)
        if answer is None:
            return
        case.undid = now
        done = msgspec.structs.replace(last, undone=answer.id)
        told = book.note(case.incident, "taken_back", f"Proposal {answer.id}: {wanted.why}.", now)
        case.incident = msgspec.structs.replace(told, actions=(*told.actions[:-1], done))
        await self._record("remedy.taken_back", case, {"remedy": last.remedy, "proposal": answer.id})

    async def ease(self, case: Case, share: float, now: float) -> None:
        """Ask the door to refuse ``share`` of the requests from now on, less than is refused.

        A refusal that the door denies, or that a person would have to approve, ends by its time all the same; for the
        latter it is asked once and not waited: approved when the refusal is over, it would begin anew.
        """
        last = case.incident.actions[-1]
        key = last.service or case.service
        until = f"{share:.0%}" if share else "nothing"
        why = f"{until} is refused from now on: what comes is carried again"
        change = DialChange(service=key, set={"shed": share}, ttl=EASED)
        case.eased_at = now
        try:
            answer = await self._control.propose(change, why, f"incident:{case.incident.id}", expires_in=ASKED)
        except LeptonError as e:
            if e.retry:
                raise
            return
        if answer.status == "pending":
            case.eased_at = float("inf")
        if answer.status != "admitted":
            return
        case.refused, case.moments = share, []
        told = book.note(case.incident, "eased", f"Proposal {answer.id}: {why}.", now, share=share)
        if not share:  # who comes back then is no sign that it did not help
            done = msgspec.structs.replace(last, undone=answer.id)
            told = msgspec.structs.replace(told, actions=(*told.actions[:-1], done))
        case.incident = told

    def escalate(self, case: Case, found: Escalate, now: float) -> None:
        told = book.note(case.incident, "escalated", f"A person is needed: {found.why}.", now)
        case.incident = msgspec.structs.replace(told, escalated=now, severity="critical")

    def close(self, case: Case, found: Close, mitigated: float, now: float) -> None:
        case.incident = book.close(case.incident, now, found.remedy, found.why, mitigated)

    async def decided(self, case: Case, lookouts: Mapping[Key, Lookout], now: float) -> bool:
        """Whether a person's decision has come, where one is waited for; the action counts from then on."""
        if not case.waiting:
            return True
        (waiting,) = case.waiting
        proposal = await self._control.proposal(waiting)
        if proposal is not None and proposal.status == "pending":
            return False
        case.waiting = frozenset()
        last = case.incident.actions[-1]
        by = (proposal.approved_by or "") if proposal is not None else ""
        job = self._granted.pop(waiting, None)
        if proposal is not None and proposal.status == "admitted":
            seen = lookouts.get(last.service or case.service)
            revision = max(last.revision, seen.service.revision) if seen is not None else last.revision
            last = msgspec.structs.replace(last, at=now, revision=revision, approved=True)
            text = f"The {last.remedy} was approved by {proposal.approved_by}."
            if job is None and isinstance(proposal.change, JobChange):
                job = proposal.change.job
            if job is not None:
                self._run(case, waiting, job)
        else:
            last = msgspec.structs.replace(last, verdict="inconclusive", judged=now, detail="it was not approved")
            how = "not approved in time"
            if proposal is not None and proposal.status == "denied":
                how = f"refused when it was approved: {'; '.join(proposal.reasons)}"
            text = f"The {last.remedy} was not done: it was {how}."
        told = book.note(case.incident, "approval", text, now, remedy=last.remedy, by=by, approved=last.approved)
        case.incident = msgspec.structs.replace(told, actions=(*told.actions[:-1], last))
        return True

    def running(self, cases: list[Case]) -> list[str]:
        """Proposals of jobs that run; of one that ended the case is told, and it is verified from then on."""
        out = []
        for case in cases:
            last = case.last
            if last is None or last.proposal is None:
                continue
            if self.jobs.running(last.proposal):
                out.append(last.proposal)
            elif (ended := self.jobs.ended(last.proposal)) is not None:
                self._ended(case, last, ended)
        return out

    def _ended(self, case: Case, last: Action, ended: Ended) -> None:
        case.ended = ended
        at = last.at + ended.seconds
        said = clean(ended.output.strip())[-300:]
        text = f"The process of {last.remedy} took {ended.seconds:.1f} s: {ended.failed or 'it ended well'}"
        told = book.note(case.incident, "job", text + (f"; it said {said!r}." if said else "."), at)
        last = msgspec.structs.replace(last, at=at)
        case.incident = msgspec.structs.replace(told, actions=(*told.actions[:-1], last))

    def _run(self, case: Case, id: str, job: Job) -> None:
        first = case.incident.causes[0]
        about = {
            "service": case.service, "incident": str(case.incident.id), "cause": first.name, "subject": first.subject
        }  # fmt: skip
        self.jobs.start(id, job, about)

    async def _ask(self, case: Case, what: str, proposal: Proposal, ask: str, now: float) -> Proposal | None:
        """The door's answer; None when it refused, of which the incident tells."""
        change: Change = proposal.change
        try:
            answer = await self._control.propose(
                change, proposal.why, proposal.by, ask=ask, expires_in=max(1.0, proposal.expires - now)
            )
            if answer.status not in ("denied", "expired"):
                return answer
            why = "; ".join(answer.reasons) or answer.status
        except LeptonError as e:
            if e.retry:
                raise
            why = e.message
        case.incident = book.note(case.incident, "refused", f"The door refused to {what}: {why}", now)
        return None

    def _began(self, case: Case, plan: Plan, lookouts: Mapping[Key, Lookout], now: float) -> None:
        lookout = lookouts[case.service]
        case.since = (lookout.requests, lookout.sightings)
        # What was before the trouble is not what the action must not worsen: an action a second after the onset would
        # be blamed for all that the fault itself does.
        start = max(now - BEFORE, min(case.incident.began, now - JUST))
        case.errors_before = {
            key: trend(self._store, "error_ratio", key, start, now) for key in {case.service, plan.service}
        }

    async def _record(self, kind: str, case: Case, detail: dict[str, Any]) -> None:
        known = {"incident": case.incident.id, **detail}
        with contextlib.suppress(LeptonError):  # the incident tells it all; the audit log has the door's own lines
            await self._control.record(kind, case.service, known)


def facts(plan: Plan) -> dict[str, Any]:
    """A plan as recorded."""
    return {
        "remedy": plan.remedy,
        "service": plan.service,
        "hash": plan.hash,
        "preview": list(plan.preview),
        "risk": plan.risk,
        "taken_back": plan.reversal,
        "replaces": plan.replaces,
        "share": round(plan.share, 3),
    }
