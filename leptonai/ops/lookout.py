"""One service under watch: its promises, its replicas, its labels; every look gives what holds now."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from leptonai.ops.collect import Collected, Traffic
from leptonai.ops.convict import Leak, Tally, Wrong, leaks, wrong_answers
from leptonai.ops.exits import Exit
from leptonai.ops.judge import Memory, Seen, Trigger, judge
from leptonai.ops.modeltests import Round
from leptonai.ops.outcomes import Outcomes
from leptonai.ops.scene import latest_change
from leptonai.ops.slo import Burn, BurnState, Spent
from leptonai.ops.verify import Trial, advance
from leptonai.ops.warned import Warned, heard
from leptonai.ops.world import converged, ready, wished_replicas
from leptonai.protocols import TelemetryStore
from leptonai.settings import Ops
from leptonai.types import PEOPLE, Anomaly, Event, Replica, Revision, Service

KEEP_EXITS = 600.0  # seconds; as long as a change may be blamed
FRESH_CHANGE = 120.0  # seconds in which a revision is looked at with less patience
HASTE = 2.0  # seconds that an anomaly of a service with a suspect revision must last
KEEP_TRAFFIC = 120.0  # seconds; how far back an onset may lie
RSS_LOOK = 260.0  # seconds of memory looked at for leaks: twice the longest span of the judge, and what it skips


class Look(NamedTuple):
    """``triggers``: those that hold at this very moment, freshness of the symptoms checked."""

    triggers: tuple[Trigger, ...]
    leaks: tuple[Leak, ...]
    wrong: tuple[Wrong, ...]
    burns: tuple[BurnState, ...]


class Lookout:
    """``requests`` and ``sightings`` count, since the start, what users asked and which ready replicas were seen."""

    def __init__(self, service: Service, settings: Ops) -> None:
        self.service = service
        self.replicas: tuple[Replica, ...] = ()
        self.revisions: tuple[Revision, ...] = ()
        self.exits: dict[str, Exit] = {}
        self.warned: list[Warned] = []  # by the cluster that the replicas run on
        self.requests = 0.0
        self.bad = {"errors": 0.0, "latency": 0.0}  # of these requests, by rule
        self.sightings = 0.0
        self.refusals: deque[tuple[float, float]] = deque(maxlen=16)  # when a share was refused, oldest first
        self.converged_since: float | None = None
        self.at_convergence = (0.0, 0.0)  # requests and sightings then
        self.trial: Trial | None = None
        self.last = Look((), (), (), ())
        self.tested: tuple[Round, ...] = ()  # the newest model tests of its replicas
        self._settings = settings
        self._burns = self._promises()
        self._recent: deque[tuple[float, Traffic]] = deque()
        self._fresh_for = max(settings.settle, 3 * settings.period)
        self._memory: Memory = {}
        self._lost: dict[str, str] = {}
        self._cleared: set[str] = set()  # digests that labels found right
        self._whole = 0  # the newest revision that was converged
        self._awake: float | None = None  # since when it is expected to answer: wished, and ready once since then

    @property
    def quiet(self) -> bool:
        """Nothing of the past is still being judged: while nothing comes, a look would find nothing."""
        burning = any(burn.severity is not None for burn in self.last.burns)
        return not (self.last.triggers or burning or self.exits or self.replicas or self._lost)

    def spent(self) -> dict[str, Spent]:
        """What each rule has counted."""
        return {burn.rule: burn.spent for burn in self._burns}

    def resume(
        self, spent: Mapping[str, Spent], since: Sequence[tuple[float, float, Mapping[str, float]]] = ()
    ) -> None:
        """Go on from the counts of another process; ``since``: (at, requests, bad by rule) that came after them."""
        for burn in self._burns:
            if (known := spent.get(burn.rule)) is not None:
                burn.resume(known)
                for at, requests, broken in since:
                    if at > known.at:
                        burn.step(at, requests, broken.get(burn.rule, 0.0))

    def ended(self, exit: Exit) -> None:
        """A replica of the service ended by itself; told once or more, by the audit log or by its state."""
        known = self.exits.get(exit.replica)
        if known is None:
            self._lost[exit.replica] = exit.reason
            digest = exit.digest or next((r.digest for r in self.replicas if r.id == exit.replica), "")
            self.exits[exit.replica] = msgspec.structs.replace(exit, digest=digest)
        elif not known.digest and exit.digest:
            self.exits[exit.replica] = exit

    def hear(self, event: Event) -> None:
        """What the cluster says of the service, if the event tells of that."""
        if (found := heard(event, self.warned)) is not None:
            old = event.at - KEEP_EXITS
            self.warned = [w for w in found if w.at > old or (w.over is None and w.node and not w.replica)]

    def wish(self, service: Service, replicas: Sequence[Replica], now: float) -> None:
        """Take note of wish and world as they are at ``now``."""
        before, self.service = self.service, service
        if service.spec.slo != before.spec.slo:
            self._burns = self._promises()
        if service.dials.shed or before.dials.shed:  # in force, or until a moment ago
            again = self.refusals and before.dials.shed
            self.refusals.append((self.refusals.pop()[0] if again else now, now))
        self.replicas = tuple(r for r in replicas if r.service == service.key)
        if wished_replicas(service) == 0:
            self._awake = None
        elif self._awake is None and ready(self.replicas):
            self._awake = now
        if not converged(service, self.replicas):
            self.converged_since = None
        elif self.converged_since is None:
            self.converged_since, self._whole = now, service.revision
            self.at_convergence = (self.requests, self.sightings)

    def deploying(self, now: float, patience: float) -> str:
        """Whose deploy is under way: a person's revision that was not converged yet, for ``patience`` seconds."""
        newest = self.revisions[-1] if self.revisions else None
        if newest is None or newest.number != self.service.revision or self._whole >= newest.number:
            return ""
        if now - newest.at > patience or not newest.by.startswith(PEOPLE):
            return ""
        return f"revision {newest.number} of {newest.by} is on its way"

    def step(
        self,
        now: float,
        collected: Collected,
        anomalies: Sequence[Anomaly],
        golden: int,
        outcomes: Outcomes,
        store: TelemetryStore,
        declared: Sequence[Trigger] = (),
    ) -> Look:
        """Judge one collection. Call ``wish`` and ``ended`` before.

        A service that is asleep (none wished) or waking (none was ready yet) breaks no promise by not answering: what
        users ask of it then is not counted. Replicas that do not start are judged all the same.
        """
        traffic = collected.traffic.get(self.service.key)
        if traffic is not None and (self._awake is None or self._awake >= now):
            traffic = Traffic()
        self._count(now, traffic, collected)
        key = self.service.key
        burns = tuple(
            burn.step(now, *((traffic.requests, bad(burn.rule, traffic)) if traffic else (None, None)))
            for burn in self._burns
        )
        found = tuple(self._leaks(now, store))
        wrong = tuple(self._wrong(outcomes).values())
        seen = Seen(
            service=key,
            wanted=wished_replicas(self.service),
            replicas=tuple(r for r in self.replicas if r.id not in self.service.dials.evict or r.gone),
            lost=self._lost,
            anomalies=tuple(a for a in anomalies if a.labels.get("service") == key),
            golden=golden,
            burns=burns,
            leaks=found,
            wrong=wrong,
            tested=self.tested,
            declared=tuple(t for t in declared if t.subject not in self.service.dials.evict),
        )
        _, self._memory = judge(now, seen, self._memory, self._settings)
        self._lost = {}
        holding = [
            held.trigger
            for held in self._memory.values()
            if held.last >= now and (held.firing or (now - held.since >= HASTE and self._explained(store, now)))
        ]
        self.last = Look(tuple(f for t in holding if (f := self._fresh(t, now)) is not None), found, wrong, burns)
        for id in [id for id, exit in self.exits.items() if now - exit.at > KEEP_EXITS]:
            del self.exits[id]
        return self.last

    def on_trial(self, collected: Collected, troubled: bool, now: float) -> Trial | None:
        """How the head revision has done so far, after this collection."""
        digests = {v.digest for v in self.service.spec.variants}
        mine = {r.id for r in self.replicas if r.digest in digests}
        answered = sum(count for id, count in collected.answered.items() if id in mine)
        self.trial = advance(self.trial, self.service, self.converged_since is not None, troubled, answered, now)
        return self.trial

    def _promises(self) -> tuple[Burn, ...]:
        period, slo = self._settings.period, self.service.spec.slo
        return Burn(slo, "errors", period), Burn(slo, "latency", period)

    def _count(self, now: float, traffic: Traffic | None, collected: Collected) -> None:
        if traffic is not None:
            self.requests += traffic.requests
            for rule in self.bad:
                self.bad[rule] += bad(rule, traffic)
            self._recent.append((now, traffic))
        while self._recent and now - self._recent[0][0] > KEEP_TRAFFIC:
            self._recent.popleft()
        if collected.signals:
            silent = collected.unanswered
            self.sightings += ready([r for r in self.replicas if r.id not in silent])

    def _fresh(self, trigger: Trigger, now: float) -> Trigger | None:
        """A burn is counted over long windows; it holds only while the newest seconds burn too.

        Its onset is the beginning of the newest unbroken stretch of seconds that burn: buckets of the long window are
        too coarse to be compared with the time of a change.
        """
        if trigger.kind not in ("burn_errors", "burn_latency"):
            return trigger
        rule = "errors" if trigger.kind == "burn_errors" else "latency"
        limit = trigger.terms["factor"] * trigger.terms["budget"]
        newest = [t for at, t in self._recent if now - at < self._fresh_for]
        total = sum(t.requests for t in newest)
        if total and sum(bad(rule, t) for t in newest) <= limit * total:
            return None
        began = now
        for at, traffic in reversed(self._recent):
            if traffic.requests and bad(rule, traffic) <= limit * traffic.requests:
                break
            began = at if traffic.requests else began
        return msgspec.structs.replace(trigger, began=began)

    def _explained(self, store: TelemetryStore, now: float) -> bool:
        """Whether a fresh revision computes so much slower than the one before that no chance explains it.

        An anomaly that the judge still waits for (it might pass) is then believed at once.
        """
        change = latest_change(self.revisions)
        if change is None or change.previous is None or now - change.revision.at > FRESH_CHANGE:
            return False
        seen: dict[str, list[float]] = {change.variant.digest: [], change.previous: []}
        for series in store.read(
            "replica_compute_seconds", now - FRESH_CHANGE, now + 1e-3, {"service": self.service.key}
        ):
            seen.get(series.labels["digest"], []).extend(series.value)
        new, old = seen[change.variant.digest], seen[change.previous]
        return len(new) >= 3 and len(old) >= 3 and min(new) > 2.0 * max(old) and min(new) > max(old) + 0.02

    def _leaks(self, now: float, store: TelemetryStore) -> list[Leak]:
        series = store.read("replica_rss_bytes", now - RSS_LOOK, now + 1e-3, {"service": self.service.key})
        rss = {s.labels["replica"]: (np.array(s.at), np.array(s.value)) for s in series}
        since = {r.id: r.since for r in self.replicas if r.state == "ready"}
        return leaks(now, {id: row for id, row in rss.items() if id in since}, since)

    def _wrong(self, outcomes: Outcomes) -> dict[str, Wrong]:
        tallies = {d: Tally(wrong=w, total=n) for d, (n, w) in outcomes.tally(self.service.key).items()}
        if not tallies:
            return {}
        found = wrong_answers(tallies, self._standard())
        self._cleared |= {digest for digest, one in found.items() if one.verdict == "clear"}
        self._cleared &= tallies.keys()
        return {d: msgspec.structs.replace(one, cleared=d in self._cleared) for d, one in found.items()}

    def _standard(self) -> dict[str, str]:
        """Head digest -> the newest other digest that was verified good: a bad revision sets no standard.

        On probation it is held against the version that it would replace, however bad: it is to be better than that.
        """
        head = self.service.spec.variants[0].digest
        if self.service.canary is not None and self.service.canary.stable:
            return {head: self.service.canary.stable[0].digest}
        for revision in reversed(self.revisions):
            if revision.spec is not None and revision.verified is not None:
                digest = revision.spec.variants[0].digest
                if digest != head:
                    return {head: digest}
        return {}


def bad(rule: str, traffic: Traffic) -> float:
    """How many of the answers break the promise of ``rule``."""
    return traffic.errors if rule == "errors" else traffic.slow
