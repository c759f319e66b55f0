"""The open incidents: each gets what holds now, its causes, and the next act; nothing else proposes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from leptonai.errors import LeptonError
from leptonai.ops import incidents as book
from leptonai.ops.alert.sources import foreign
from leptonai.ops.control import Control
from leptonai.ops.diagnose import cited, diagnose
from leptonai.ops.diagnosis.files import RuleFiles
from leptonai.ops.evidence import Facts, gather
from leptonai.ops.features import features
from leptonai.ops.judge import Trigger
from leptonai.ops.learn.learner import Learner
from leptonai.ops.logs.shifts import Shift
from leptonai.ops.lookout import Lookout
from leptonai.ops.remedies import load_remedies
from leptonai.ops.respond import Close, Escalate, Judge, Propose, Sight, Wait, next_action
from leptonai.ops.runbook import shipped
from leptonai.ops.scenery import set_scene
from leptonai.ops.things import explained
from leptonai.protocols import TelemetryStore
from leptonai.settings import Settings
from leptonai.types import Action, Event, Incident, Key

log = logging.getLogger(__name__)
Shifts = Callable[[Key, float, float], tuple[Shift, ...]]
REMEMBER = 3600.0  # seconds a closed incident is kept here; the store keeps it for good
REWRITE = 10.0  # seconds after which a document is sent again although only its newest sighting changed

TELLING = 60.0  # seconds in which the facts of an incident of something foreign are told anew


class Case:
    """One incident and what of it is known here only. After a restart it begins anew, which can but delay an act."""

    def __init__(self, incident: Incident, now: float) -> None:
        self.incident = incident
        self.sent: Incident | None = incident if incident.id else None
        self.sent_at = now
        self.quiet_since: float | None = None
        self.since = (0.0, 0.0)  # requests and sightings of the service when the last action was taken
        self.error_before: float | None = None
        self.waiting: frozenset[str] = frozenset()
        self.told = ""  # why nothing was done, when last recorded


class Casebook:
    def __init__(
        self,
        settings: Settings,
        control: Control,
        store: TelemetryStore,
        shifts: Shifts | None = None,
        rules: RuleFiles | None = None,
        learner: Learner | None = None,
    ) -> None:
        """``shifts(service, onset, now)``: what changed in its log; None: no logs are read. ``rules``: in force as they
        are at each look; what ships with us unless given. ``learner``: what reviews make of rules and runbook."""
        self._shifts = shifts or (lambda service, onset, now: ())
        self._settings, self._control, self._store = settings, control, store
        self._remedies = load_remedies()
        self._rules, self._runbook, self._learner = rules or RuleFiles(), shipped(), learner
        self.cases: list[Case] = []
        self.gateway = ""  # why the gateway's newest configuration is not in force

    async def load(self, now: float) -> None:
        """Take up the incidents that the store knows of."""
        known = [i for i in await self._control.incidents() if not foreign(i)]
        self.cases = [Case(i, now) for i in known if i.closed is None or now - i.closed < REMEMBER]
        for case in self.cases:
            last = case.incident.actions[-1] if case.incident.actions else None
            if last is not None and last.verdict is None and last.proposal is not None:
                proposal = await self._control.proposal(last.proposal)
                if proposal is not None and proposal.status == "pending":
                    case.waiting = frozenset((proposal.id,))

    def opened(self, now: float, most: float) -> list[str]:
        """The subjects of open incidents of what we do not serve, for ``most`` seconds from their opening."""
        mine = (c.incident for c in self.cases if book.outside(c.incident))
        return [i.subject for i in mine if i.closed is None and now - i.opened < most]

    def open(self, service: Key) -> bool:
        """Whether an incident of the service is open."""
        return any(c.incident.closed is None and book.service_of(c.incident) == service for c in self.cases)

    def trouble(self, service: Key) -> Literal["none", "open", "remedy"]:
        """Whether an incident of the service is open, and whether a remedy of it is being verified."""
        here = [c.incident for c in self.cases if c.incident.closed is None and book.service_of(c.incident) == service]
        trying = any(i.actions and i.actions[-1].verdict is None for i in here)
        return "remedy" if trying else "open" if here else "none"

    async def step(
        self,
        now: float,
        lookouts: Mapping[Key, Lookout],
        unanswered: dict[str, float],
        collected: float,
        history: Sequence[Event],
        outside: Sequence[Trigger] = (),
    ) -> None:
        """One round over all incidents. An incident that fails is logged and does not keep the others waiting.

        ``outside``: the triggers of what we do not serve.
        """
        firing: dict[int, list[Trigger]] = {}
        for triggers in (*(lookout.last.triggers for lookout in lookouts.values()), outside):
            for case, trigger in [(self._case(t, now), t) for t in triggers]:
                firing.setdefault(id(case), []).append(trigger)
        for case in self.cases:
            try:
                await self._attend(case, firing.get(id(case), []), now, lookouts, unanswered, collected, history)
            except LeptonError as e:
                log.warning("incident %d: %s", case.incident.id, e.message)
        self.cases = [c for c in self.cases if c.sent is not c.incident or not _old(c.incident, now)]

    def _case(self, trigger: Trigger, now: float) -> Case:
        by_incident = {id(c.incident): c for c in self.cases}
        found = book.home_of(trigger, [c.incident for c in self.cases], now, self._settings.ops.reopen)
        if found is None:
            case = Case(book.open_incident([trigger], now), now)
            self.cases.append(case)
            return case
        case = by_incident[id(found)]
        if case.incident.closed is not None:
            case.incident = book.reopen(case.incident, now)
        case.incident = book.join(case.incident, [trigger], now)
        return case

    async def _attend(
        self,
        case: Case,
        triggers: list[Trigger],
        now: float,
        lookouts: Mapping[Key, Lookout],
        unanswered: dict[str, float],
        collected: float,
        history: Sequence[Event],
    ) -> None:
        if case.incident.closed is not None:
            return await self._send(case, now)
        if book.outside(case.incident):
            return await self._attend_outside(case, triggers, now)
        lookout = lookouts.get(book.service_of(case.incident))
        case.quiet_since = None if triggers else (now if case.quiet_since is None else case.quiet_since)
        last = case.incident.actions[-1] if case.incident.actions else None
        if lookout is not None and (triggers or not case.incident.causes) and (last is None or last.verdict):
            explained = {r for c in self.cases if c is not case for r in book.ended(c.incident)}
            rules, key = self._rules.book, lookout.service.key
            if self._learner is not None:
                rules = self._learner.book(rules)
            scene = set_scene(
                lookout, unanswered, case.incident.began, now, self._store, explained, self.gateway, rules.signals
            )
            scene = msgspec.structs.replace(scene, logs=self._shifts(key, case.incident.began, now))
            facts = gather(scene)
            causes = diagnose(facts, key, rules)
            if not book.forgets(case.incident, causes):
                case.incident = book.explain(case.incident, cited(facts, causes), causes, now)
            case.incident = msgspec.structs.replace(case.incident, features=features(scene, facts))
        await self._send(case, now)
        if not case.incident.id:
            return None  # control has not taken it yet; without a number there is no owner to propose for
        for _ in range(3):  # a verdict may be followed by closing at once
            before = case.incident
            await self._act(case, lookout, bool(triggers), now, collected, history)
            if case.incident is before:
                break
        return await self._send(case, now)

    async def _attend_outside(self, case: Case, triggers: list[Trigger], now: float) -> None:
        """Nothing of it is ours to change: it is told with its facts, and closed once it was quiet for ``reopen``."""
        case.quiet_since = None if triggers else (now if case.quiet_since is None else case.quiet_since)
        if triggers:
            facts, causes = explained(triggers)
            if not case.incident.evidence or now - case.incident.opened < TELLING:
                case.incident = book.explain(case.incident, Facts(facts, {}), causes, now)
        elif case.quiet_since is not None and now - case.quiet_since >= self._settings.ops.reopen:
            case.incident = book.close(case.incident, now, "", "it is as it used to be", case.quiet_since)
        await self._send(case, now)

    async def _act(
        self, case: Case, lookout: Lookout | None, firing: bool, now: float, collected: float, history: Sequence[Event]
    ) -> None:
        if case.waiting and not await self._decided(case, now):
            return
        incident = case.incident
        sight = self._sight(case, lookout, firing, now, collected, history)
        cooldown = self._settings.admit.cooldown
        runbook = self._learner.runbook(self._runbook) if self._learner is not None else self._runbook
        match next_action(incident, sight, now, self._settings.ops, runbook, self._remedies, cooldown):
            case Wait(why=why):
                if why != case.told:
                    case.told = why
                    log.info("incident %d waits: %s", incident.id, why)
            case Propose() as wanted:
                await self._propose(case, wanted, lookout, now)
            case Judge(verdict=verdict, detail=detail):
                done = msgspec.structs.replace(incident.actions[-1], verdict=verdict, detail=detail, judged=now)
                mitigated = self._well_since(case, lookout, now) if verdict == "effective" else incident.mitigated
                told = book.note(incident, "verdict", f"The {done.remedy} was {verdict}: {detail}.", now)
                case.incident = msgspec.structs.replace(
                    told, actions=(*incident.actions[:-1], done), mitigated=mitigated
                )
            case Escalate(why=why):
                told = book.note(incident, "escalated", f"A person is needed: {why}.", now)
                case.incident = msgspec.structs.replace(told, escalated=now, severity="critical")
            case Close(why=why, remedy=remedy):
                case.incident = book.close(incident, now, remedy, why, self._well_since(case, lookout, now))

    def _well_since(self, case: Case, lookout: Lookout | None, now: float) -> float:
        """When the trouble was over: since then nothing fires and what runs is what is wished."""
        whole = lookout.converged_since if lookout is not None else None
        since = max(case.quiet_since or now, whole or 0.0)
        return min(max(since, case.incident.opened), now)

    async def _propose(self, case: Case, wanted: Propose, lookout: Lookout | None, now: float) -> None:
        proposal = wanted.proposal
        try:
            answer = await self._control.propose(proposal.change, proposal.why, proposal.by)
        except LeptonError as e:
            if e.retry:
                raise
            case.incident = book.note(
                case.incident, "refused", f"The door refused to {wanted.remedy}: {e.message}", now
            )
            return
        if answer.status in ("denied", "expired"):
            why = "; ".join(answer.reasons) or answer.status
            case.incident = book.note(case.incident, "refused", f"The door refused to {wanted.remedy}: {why}", now)
            return
        if answer.status == "pending":
            case.waiting = frozenset((answer.id,))
        self._began(case, lookout, now)
        action = Action(remedy=wanted.remedy, proposal=answer.id, at=now, detail=proposal.why)
        waits = ", which waits for a person's approval" if answer.status == "pending" else ""
        text = f"Proposal {answer.id} asks for {wanted.remedy} ({proposal.why}){waits}."
        case.incident = book.act(book.note(case.incident, "action", text, now), action)

    def _began(self, case: Case, lookout: Lookout | None, now: float) -> None:
        if lookout is not None:
            case.since = (lookout.requests, lookout.sightings)
            case.error_before = self._errors(lookout.service.key, now - 10.0, now)

    async def _decided(self, case: Case, now: float) -> bool:
        """Whether the person's decision has come; the action counts from then on."""
        (waiting,) = case.waiting
        proposal = await self._control.proposal(waiting)
        if proposal is not None and proposal.status == "pending":
            return False
        case.waiting = frozenset()
        last = case.incident.actions[-1]
        if proposal is not None and proposal.status == "admitted":
            last = msgspec.structs.replace(last, at=now)
        else:
            last = msgspec.structs.replace(last, verdict="inconclusive", judged=now, detail="it was not approved")
        case.incident = msgspec.structs.replace(case.incident, actions=(*case.incident.actions[:-1], last))
        return True

    def _sight(
        self, case: Case, lookout: Lookout | None, firing: bool, now: float, collected: float, history: Sequence[Event]
    ) -> Sight:
        incident = case.incident
        if lookout is None:
            return Sight(service=None, collected=collected, firing=False)
        subject = incident.causes[0].subject if incident.causes else ""
        serving = [r.id for r in lookout.replicas if r.state == "ready"]
        floor = [max(a, b) for a, b in zip(case.since, lookout.at_convergence, strict=True)]
        counts = (lookout.requests - floor[0], lookout.sightings - floor[1])
        of_replicas = all(a.signal.startswith("replica_") for a in incident.anomalies if a.signal in _KINDS)
        return Sight(
            service=lookout.service,
            revisions=lookout.revisions,
            history=tuple(history),
            collected=collected,
            firing=firing,
            quiet_since=case.quiet_since,
            converged_since=lookout.converged_since,
            samples=counts[1] if of_replicas else counts[0],
            subject_ready=subject in serving,
            others_ready=len([r for r in serving if r != subject]),
            waiting=case.waiting,
            denied=book.refusals(incident),
            worse=self._worse(case, lookout, now),
        )

    def _worse(self, case: Case, lookout: Lookout, now: float) -> str:
        """How the last remedy did harm: a quarter more of the answers are errors than before, once it has settled."""
        last = case.incident.actions[-1] if case.incident.actions else None
        settle = self._settings.ops.settle
        if last is None or last.verdict is not None or case.error_before is None or now - last.at < 2 * settle:
            return ""
        after = self._errors(lookout.service.key, now - settle, now)
        if after is None or after < case.error_before + 0.25 or lookout.requests - case.since[0] < 20:
            return ""
        return f"{after:.0%} of the answers are errors, {case.error_before:.0%} were before"

    def _errors(self, service: Key, start: float, end: float) -> float | None:
        found = [v for s in self._store.read("error_ratio", start, end + 1e-3, {"service": service}) for v in s.value]
        return sum(found) / len(found) if found else None

    async def _send(self, case: Case, now: float) -> None:
        """Keep the document, when something a reader would care for is new."""
        same = case.sent is not None and _gist(case.sent) == _gist(case.incident)
        if same and (case.sent is case.incident or now - case.sent_at < REWRITE):
            return
        kept = await self._control.put_incident(case.incident)
        if case.incident.id != kept.id:
            case.incident = msgspec.structs.replace(case.incident, id=kept.id)
        case.sent, case.sent_at = case.incident, now


_KINDS = book.SYMPTOMS | {"replica_gone", "replica_hung", "replica_leak", "wrong_answers"}


def _gist(incident: Incident) -> object:
    """The document without what changes at every look: newest sightings, scores, and the numbers in the evidence."""
    return (
        incident.id, incident.severity, incident.title, incident.diagnosed, incident.mitigated, incident.closed,
        incident.escalated, incident.actions, incident.summary,
        [(a.signal, a.labels) for a in incident.anomalies],
        [(c.name, c.subject, round(c.confidence, 2)) for c in incident.causes],
        [e.kind for e in incident.evidence],
    )  # fmt: skip


def _old(incident: Incident, now: float) -> bool:
    return incident.closed is not None and now - incident.closed > REMEMBER
