"""The open incidents: each gets what holds now, its causes, and the next act; nothing else proposes."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from leptonai.errors import LeptonError
from leptonai.ops import incidents as book
from leptonai.ops.alert.sources import foreign
from leptonai.ops.case import Case, Surroundings, sight
from leptonai.ops.classify.files import Newest
from leptonai.ops.control import Control
from leptonai.ops.diagnose import cited
from leptonai.ops.diagnosis.files import RuleFiles
from leptonai.ops.evidence import Facts
from leptonai.ops.examine import Calls, Examiner, Marks, Shifts
from leptonai.ops.hand import Hand
from leptonai.ops.judge import Trigger
from leptonai.ops.learn.learner import Learner
from leptonai.ops.leftover import Paid, leftover
from leptonai.ops.load import LATE, load_of
from leptonai.ops.lookout import Lookout
from leptonai.ops.respond import Close, Escalate, Judge, Propose, Recommend, TakeBack, Wait, next_action
from leptonai.ops.respond.ease import MOST_HOLD, Moment, eased, hold_after
from leptonai.ops.respond.verdict import SHED
from leptonai.ops.runbook import RunbookFiles
from leptonai.ops.scene import Blamed, latest_change
from leptonai.ops.things import explained
from leptonai.protocols import TelemetryStore
from leptonai.settings import Settings
from leptonai.types import Event, Incident, Key

log = logging.getLogger(__name__)
REMEMBER = 3600.0  # seconds a closed incident is kept here; the store keeps it for good
REWRITE = 10.0  # seconds after which a document is sent again although only its newest sighting changed

PARTS = 0.5  # share of a service's trouble that another must explain, so that their incidents become one
NEAR = 120.0  # seconds between the onsets of incidents that may be one
PAST = 300  # closed incidents remembered beyond REMEMBER, to find the like of a new one
EARLIER = 600.0  # seconds in which refusals that ended before their time make the next one end later
TELLING = 60.0  # seconds in which the facts of an incident of something foreign are told anew


class Casebook:
    def __init__(
        self,
        settings: Settings,
        control: Control,
        store: TelemetryStore,
        shifts: Shifts | None = None,
        rules: RuleFiles | None = None,
        learner: Learner | None = None,
        runbooks: RunbookFiles | None = None,
        calls: Calls | None = None,
        classifier: Newest | None = None,
        marks: Marks | None = None,
        cores: float | None = None,
        home: str = "",
    ) -> None:
        """``shifts(service, onset, now)``: what changed in its log; None: no logs are read. ``rules`` and ``runbooks``:
        in force as they are at each look; what ships with us unless given. ``learner``: what reviews make of both.
        ``calls(now)``: (caller, callee) of late; None: nobody knows. ``classifier``: votes beside the rules; None: no.
        ``marks(service, onset, now)``: what failing requests have in common; None: nobody looks. ``cores``: processors
        of the machine; those of this one unless given. ``home``: of the platform, for jobs that speak to it.

        ``doubt`` says why a diagnosis is not to be acted upon, "" when it may be; others may set it.
        """
        self._settings, self._control, self._store = settings, control, store
        self._runbooks, self._learner = runbooks or RunbookFiles(), learner
        self._examiner = Examiner(
            store,
            rules or RuleFiles(),
            learner,
            shifts,
            calls,
            classifier,
            marks,
            settings.ops.classifiers,
            cores,
        )
        self._older: deque[Incident] = deque(maxlen=PAST)
        self._parts: dict[Key, Case] = {}  # service -> the case that its symptoms are part of
        self._repaired: dict[
            Key, tuple[Case, Paid]
        ] = {}  # service -> the case of known cause closed last, and the counts then
        self.hand = Hand(control, store, home)
        self.doubt: Callable[[Incident], str] = lambda incident: ""
        self.cases: list[Case] = []
        self.gateway = ""  # why the gateway's newest configuration is not in force
        self.frozen = ""  # why the kill switch is on
        self.theirs: frozenset[Key] = frozenset()  # services whose replicas somebody else sets

    async def load(self, now: float) -> None:
        """Take up the incidents that the store knows of."""
        known = [i for i in await self._control.incidents() if not foreign(i)]
        self.cases = [Case(i, now) for i in known if i.closed is None or now - i.closed < REMEMBER]
        self._older.extend(i for i in known if i.features and i.closed is not None and now - i.closed >= REMEMBER)
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
            known = [t for t in triggers if not self._over(t, lookouts, now)]
            for case, trigger in [(self._case(t, now, lookouts), t) for t in known]:
                firing.setdefault(id(case), []).append(trigger)
        running = self.hand.running(self.cases)
        around = self._around(lookouts, collected, history, running)
        for case in self.cases:
            try:
                await self._attend(case, firing.get(id(case), []), now, around, unanswered)
            except LeptonError as e:
                log.warning("incident %d: %s", case.incident.id, e.message)
        for case in self.cases:
            try:
                await self.ease(case, around, now)
            except LeptonError as e:
                log.warning("incident %d, easing: %s", case.incident.id, e.message)
        gone = [c for c in self.cases if c.sent is c.incident and _old(c.incident, now)]
        self._older.extend(c.incident for c in gone if c.incident.features)
        self.cases = [c for c in self.cases if c not in gone]
        self._parts = {key: case for key, case in self._parts.items() if case.incident.closed is None}
        self._repaired = {key: paid for key, paid in self._repaired.items() if key in lookouts}

    def _around(
        self, lookouts: Mapping[Key, Lookout], collected: float, history: Sequence[Event], running: Sequence[str]
    ) -> Surroundings:
        return Surroundings(lookouts, self.cases, collected, history, self.frozen, running, self.theirs)

    def _over(self, trigger: Trigger, lookouts: Mapping[Key, Lookout], now: float) -> bool:
        """Whether it is what a repaired incident left in the windows; that one tells of it, once."""
        key = trigger.service
        repaired, lookout = self._repaired.get(key), lookouts.get(key)
        if repaired is None or lookout is None or self.open(key):
            return False
        case, paid = repaired
        if not leftover(trigger, paid, lookout.requests, lookout.bad, now):
            return False
        if not any(e.kind == "leftover" for e in case.incident.evidence):
            text = "The error budget still burns from this incident; what came since it was closed keeps the promise."
            case.incident = book.note(case.incident, "leftover", text, now)
        return True

    def _case(self, trigger: Trigger, now: float, lookouts: Mapping[Key, Lookout]) -> Case:
        whole = self._parts.get(trigger.service)
        if whole is not None and whole.incident.closed is None and trigger.kind in book.SYMPTOMS:
            whole.incident = book.join(whole.incident, [trigger], now)
            return whole
        by_incident = {id(c.incident): c for c in self.cases}
        lookout = lookouts.get(trigger.service)
        newest = latest_change(lookout.revisions) if lookout is not None else None
        changed, reopen = newest.revision.at if newest is not None else 0.0, self._settings.ops.reopen
        found = book.home_of(trigger, [c.incident for c in self.cases], now, reopen, changed)
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
        around: Surroundings,
        unanswered: dict[str, float],
    ) -> None:
        if case.incident.closed is not None:
            return await self._send(case, now)
        if book.outside(case.incident):
            return await self._attend_outside(case, triggers, now)
        lookout = around.lookouts.get(case.service)
        case.quiet_since = None if triggers else (now if case.quiet_since is None else case.quiet_since)
        last = case.incident.actions[-1] if case.incident.actions else None
        if lookout is not None and (triggers or not case.incident.causes) and (last is None or last.verdict):
            explained = {r for c in self.cases if c is not case for r in book.ended(c.incident)}
            past = (*self._older, *(c.incident for c in self.cases if c.incident.closed is not None))
            began, gateway = case.incident.began, self.gateway
            looked = self._examiner.look(lookout, unanswered, began, now, explained, gateway, past)
            if not book.forgets(case.incident, looked.causes):
                case.incident = book.explain(case.incident, cited(looked.facts, looked.causes), looked.causes, now)
                case.incident = msgspec.structs.replace(case.incident, features=looked.features)
                case.led(now)
            if looked.blamed is not None:
                self._fold(case, triggers, looked.blamed, now)
        await self._send(case, now)
        if not case.incident.id:
            return None  # control has not taken it yet; without a number there is no owner to propose for
        for _ in range(3):  # a verdict may be followed by closing at once
            before = case.incident
            await self.act(case, around, bool(triggers), now)
            if case.incident is before:
                break
        return await self._send(case, now)

    def _fold(self, case: Case, triggers: Sequence[Trigger], blamed: Blamed, now: float) -> None:
        """What another service with an open incident explains is a part of that one: of a service that only shows
        symptoms, about which nothing was done yet, the incident is closed and what it feels joins the other's."""
        mine = case.incident
        wholes = [
            c for c in self.cases
            if c is not case and c.incident.id and c.incident.closed is None
            and book.service_of(c.incident) == blamed.node and abs(c.incident.began - mine.began) <= NEAR
        ]  # fmt: skip
        felt = all(t.kind in book.SYMPTOMS for t in triggers) and not book.ended(mine)
        if not wholes or not felt or not triggers or mine.actions or not mine.id or blamed.share < PARTS:
            return
        whole, service = wholes[-1], book.service_of(mine)
        text = f"Incident {mine.id} of {service} is part of this one: {blamed.node} explains {blamed.share:.0%} of it."
        whole.incident = book.note(book.join(whole.incident, triggers, now), "joined", text, now)
        why = f"it is part of incident {whole.incident.id}: {blamed.node} explains {blamed.share:.0%} of it"
        case.incident = book.close(mine, now, "", why, now)
        self._parts[service] = whole

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

    async def act(self, case: Case, around: Surroundings, firing: bool, now: float) -> None:
        if not await self.hand.decided(case, around.lookouts, now):
            return
        incident, runbook = case.incident, self._runbooks.book
        if self._learner is not None:
            runbook = self._learner.runbook(runbook)
        doubt = self.doubt(incident) if incident.causes else ""
        seen = sight(case, around, firing, now, self._settings.ops, self._store, runbook, doubt)
        cooldown = self._settings.admit.cooldown
        match next_action(incident, seen, now, self._settings.ops, runbook, cooldown):
            case Wait(why=why):
                if why != case.told:
                    case.told = why
                    log.info("incident %d waits: %s", incident.id, why)
            case Propose() as wanted:
                await self.hand.propose(case, wanted, around.lookouts, now)
            case Recommend() as wanted:
                await self.hand.recommend(case, wanted, now)
            case Judge(verdict=verdict) as found:
                mitigated = self._well_since(case, around, now) if verdict == "effective" else None
                await self.hand.judge(case, found, mitigated, now)
            case TakeBack() as wanted:
                await self.hand.take_back(case, wanted, now)
            case Escalate() as found:
                self.hand.escalate(case, found, now)
            case Close() as found:
                self.hand.close(case, found, self._well_since(case, around, now), now)
                lookout, causes = around.lookouts.get(case.service), case.incident.causes
                if lookout is not None and causes and causes[0].name != "unknown":
                    self._repaired[case.service] = case, Paid(now, lookout.requests, dict(lookout.bad))

    async def ease(self, case: Case, around: Surroundings, now: float) -> None:
        """Refuse less of the requests that the last action of the case refuses, once they are carried; also when the
        incident is closed. Only what helped: what did not is taken back."""
        last, ops = case.last, self._settings.ops
        if last is None or SHED not in last.set or last.verdict != "effective" or last.undone is not None:
            return
        key = last.service or case.service
        lookout = around.lookouts.get(key)
        share = lookout.service.dials.shed if lookout is not None else 0.0
        if case.refused is None and 0.0 < share <= last.set[SHED]:  # less: eased, and ops was started again since
            case.refused = share
        # Its time is over, or somebody else has set it, or nothing is refused but what others refuse.
        if lookout is None or case.refused is None or abs(share - case.refused) > 1e-9 or share <= case.refused_before:
            case.moments = []
            return
        if now - around.collected > ops.stale_periods * ops.period:
            return
        if (load := load_of(self._store, lookout.service, lookout.replicas, now)) is None:
            return
        if now - max(last.at, case.eased_at) >= LATE:  # the load that is told is of what is let in now
            case.moments = [m for m in case.moments if m.at > now - MOST_HOLD - LATE] + [Moment(now, load)]
        told = [e for c in self.cases if c.service == case.service for e in c.incident.evidence if e.kind == "eased"]
        earlier = sum(not e.data.get("share") and now - e.at < EARLIER for e in told)
        less = eased(case.moments, share, now, hold_after(earlier))
        rest = now - max(last.at, case.eased_at) < self._settings.admit.cooldown
        if less is None or rest or around.frozen or around.held(case, now, ops).get(key):
            return
        await self.hand.ease(case, max(less, case.refused_before), now)

    def _well_since(self, case: Case, around: Surroundings, now: float) -> float:
        """When the trouble was over: since then nothing fires and what runs is what is wished."""
        lookout = around.lookouts.get(case.service)
        whole = lookout.converged_since if lookout is not None else None
        since = max(case.quiet_since or now, whole or 0.0)
        return min(max(since, case.incident.opened), now)

    async def _send(self, case: Case, now: float) -> None:
        """Keep the document, when something a reader would care for is new."""
        same = case.sent is not None and _gist(case.sent) == _gist(case.incident)
        if same and (case.sent is case.incident or now - case.sent_at < REWRITE):
            return
        kept = await self._control.put_incident(case.incident)
        if case.incident.id != kept.id:
            case.incident = msgspec.structs.replace(case.incident, id=kept.id)
        case.sent, case.sent_at = case.incident, now


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
