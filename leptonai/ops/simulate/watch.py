"""The detection and diagnosis of ops over a simulated world: the code of the loop, on the simulator's signals.

What differs from ``ops.watch`` is where samples come from; the watcher, the judge, the grouping into incidents, the
scene, its facts and features, and the rules are the very functions that run live. Nothing is repaired.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import msgspec
import numpy as np

from leptonai.ops import incidents as book
from leptonai.ops.detect import GOLDEN, Watcher
from leptonai.ops.diagnose import diagnose
from leptonai.ops.diagnosis.files import shipped_book
from leptonai.ops.diagnosis.rules import RuleBook
from leptonai.ops.evidence import gather
from leptonai.ops.exits import as_seen
from leptonai.ops.features import features
from leptonai.ops.logs.shifts import Seen, Shift, Step, shifts
from leptonai.ops.lookout import Lookout
from leptonai.ops.openers import Openers
from leptonai.ops.outcomes import Outcomes
from leptonai.ops.scenery import set_scene
from leptonai.ops.simulate import show
from leptonai.ops.simulate.flow import Flow
from leptonai.ops.simulate.lines import Log
from leptonai.ops.simulate.told import Told
from leptonai.platforms.telemetry import Memory
from leptonai.settings import Ops
from leptonai.types import Cause, Incident, Key, Revision, Service, Signal

LOOKS = (0.0, 3.0, 8.0, 20.0)  # seconds after the opening of an incident at which it is diagnosed
VERIFIED = 30.0  # seconds after which a revision without an incident counts as good
QUIET = 20.0  # seconds without a trigger after which an incident is over


@dataclass
class Look:
    """One diagnosis: ``age`` seconds after the incident was opened; ``causes`` as rules and trees tell them."""

    age: float
    features: dict[str, float]
    causes: tuple[Cause, ...]


@dataclass
class Found:
    """One incident of one service."""

    service: int
    incident: Incident
    looks: list[Look] = field(default_factory=list)
    quiet_since: float | None = None


@dataclass
class _Post:
    """One service under watch."""

    s: int
    lookout: Lookout
    store: Memory
    log: Log
    told: Told
    openers: Openers
    revision: int = 0
    proves: float = inf  # when it has, if nothing happens
    open: Found | None = None
    over: bool = False


class Watching:
    """Ops beside a flow. ``step`` lets one second pass for both; ``found`` are the incidents so far.

    ``watched``: the services that have a lookout. ``lookouts_from``: until then only levels are learnt.
    """

    def __init__(
        self, flow: Flow, watched: Sequence[int], lookouts_from: float = 0.0, settings: Ops | None = None,
        rules: RuleBook | None = None, looks: Sequence[float] = LOOKS, once: float | None = None,
    ) -> None:  # fmt: skip
        """``once``: a service that had all its looks at an incident opened later than that is watched no more."""
        self._once = once
        self.flow, self.found = flow, list[Found]()
        self._settings, self._rules, self._looks = settings or Ops(), rules or shipped_book(), tuple(looks)
        self._from = lookouts_from
        self.watcher = Watcher()
        self._outcomes = Outcomes()
        self._stores = {int(m): Memory(keep=900.0) for m in np.unique(flow.system.machine[list(watched)])}
        self.posts = [
            _Post(
                s,
                Lookout(show.service(flow, s), self._settings),
                self._stores[int(flow.system.machine[s])],
                Log(np.random.default_rng([s, 11]), flow.at),
                Told(s),
                Openers(),
            )
            for s in watched
        ]
        for post in self.posts:
            post.openers.use(self._rules)
        self._watched = frozenset(watched)
        self._beside = [
            (int(o), self._stores[int(flow.system.machine[o])])
            for o in np.flatnonzero(flow.system.ours)
            if int(o) not in self._watched and int(flow.system.machine[o]) in self._stores
        ]
        gpus = {int(flow.system.machine[s]) for s in np.flatnonzero(flow.system.gpu)}
        self._machines = [(m, store, m in gpus) for m, store in self._stores.items()]

    def step(self) -> None:
        flow = self.flow
        flow.step()
        now = flow.at
        golden: list[Signal] = []
        for post in self._watched_posts():
            users = show.of_users(flow, post.s)
            golden += [s for s in users if s.name in GOLDEN]
            heard = [*users, *show.of_replicas(flow, post.s), *show.of_calls(flow, post.s), *post.told.step(flow)]
            post.store.write(heard)
            post.openers.saw(heard)
            post.log.step(flow, post.s)
        for o, store in self._beside:
            store.write(show.of_neighbour(flow, o))
        for m, store, gpu in self._machines:
            heard = show.of_machine(flow, m, gpu)
            store.write(heard)
            for post in self._watched_posts():
                if int(flow.system.machine[post.s]) == m:
                    post.openers.saw(heard)
        sick = [flow.system.names[p.s] for p in self.posts if p.open is not None]
        anomalies: dict[Key, list[object]] = {}
        for anomaly in self.watcher.step(now, golden, frozen=sick):
            anomalies.setdefault(anomaly.labels.get("service", ""), []).append(anomaly)
        ended = list(show.exits(flow))
        for post in self._watched_posts():
            mine = show.collected(flow, (post.s,))
            seen = as_seen(show.replicas(flow, post.s), mine.unanswered, now)
            if post.revision != flow.head[post.s] or now >= post.proves:
                post.revision = int(flow.head[post.s])
                post.lookout.revisions = self.revisions(post.s)
                newest = post.lookout.revisions[-1]
                post.proves = inf if newest.verified or newest.at + VERIFIED <= now else newest.at + VERIFIED
            self._labels(post)
            if now < self._from:
                continue
            post.lookout.wish(self.wish(post.s), seen, now)
            for s, exit in ended:
                if s == post.s:
                    post.lookout.ended(exit)
            key = flow.system.names[post.s]
            golden_now = self.watcher.golden(key)
            declared = post.openers.step(now, {key: seen}).get(key, ())
            own: Any = anomalies.get(key, [])
            post.lookout.step(now, mine, own, golden_now, self._outcomes, post.store, declared)
            self._attend(post, mine.unanswered)

    def wish(self, s: int) -> Service:
        return show.service(self.flow, s)

    def revisions(self, s: int) -> tuple[Revision, ...]:
        first = min((f.incident.began for f in self.found if f.service == s), default=inf)
        return tuple(
            msgspec.structs.replace(made, verified=proved(made.at, first, self.flow.at))
            for made in show.revisions(self.flow, s)
        )

    def _watched_posts(self) -> list[_Post]:
        return [post for post in self.posts if not post.over]

    def _labels(self, post: _Post) -> None:
        flow, s = self.flow, post.s
        for number in np.unique(flow.runs[s]).tolist():
            which = flow.runs[s] == number
            n, wrong = int(flow.labels[s][which].sum()), int(flow.wrong[s][which].sum())
            if n:
                self._outcomes.count(flow.system.names[s], show.digest(flow, s, int(number)), n, wrong)

    def _attend(self, post: _Post, unanswered: dict[str, float]) -> None:
        now, triggers = self.flow.at, post.lookout.last.triggers
        found = post.open
        if triggers and found is None:
            found = post.open = Found(post.s, book.open_incident(triggers, now))
            self.found.append(found)
        elif triggers and found is not None:
            found.incident = book.join(found.incident, triggers, now)
        if found is None:
            return
        if not triggers:
            found.quiet_since = now if found.quiet_since is None else found.quiet_since
            if now - found.quiet_since >= QUIET:
                found.incident = msgspec.structs.replace(found.incident, closed=now)
                post.open = None
            return
        found.quiet_since = None
        age = now - found.incident.opened
        if len(found.looks) < len(self._looks) and age >= self._looks[len(found.looks)]:
            self._diagnose(post, found, age, unanswered)
            if self._once is not None and len(found.looks) == len(self._looks) and found.incident.opened > self._once:
                post.over = True

    def _diagnose(self, post: _Post, found: Found, age: float, unanswered: dict[str, float]) -> None:
        now, began = self.flow.at, found.incident.began
        scene = set_scene(
            post.lookout, unanswered, began, now, post.store, signals=self._rules.signals,
            cores=float(self.flow.system.cores[self.flow.system.machine[post.s]]),
        )  # fmt: skip
        scene = msgspec.structs.replace(scene, logs=_shifts(post.log, began, now))
        facts = gather(scene)
        causes = diagnose(facts, self.flow.system.names[post.s], self._rules)
        found.looks.append(Look(age, features(scene, facts), causes))


def proved(made: float, first: float, now: float) -> float | None:
    """When a revision was verified good; None: an incident began before, or it is too soon."""
    return made + VERIFIED if made + VERIFIED <= min(first, now) else None


def _shifts(log: Log, onset: float, now: float) -> tuple[Shift, ...]:
    known = {
        id: Seen(first=first, sample=text, severity=severity, text=text)
        for id, (first, severity, text) in log.known.items()
    }
    history = [Step(at=at, counts=counts) for at, counts in log.steps]
    return shifts(history, known, log.began, onset, now)


def run(flow: Flow, watched: Sequence[int], seconds: int, lookouts_from: float = 0.0) -> Iterator[Found]:
    """The incidents of ``seconds`` of it, when they are over or the time is."""
    watching = Watching(flow, watched, lookouts_from)
    for _ in range(seconds):
        watching.step()
    yield from watching.found
