"""One look at an incident: the scene, whose trouble it is, the facts, the causes by rules and classifiers together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import msgspec

from leptonai.ops.blame import suspects
from leptonai.ops.classify.files import Newest, counts
from leptonai.ops.classify.opinion import beside, weigh_in
from leptonai.ops.diagnose import diagnose
from leptonai.ops.diagnosis.files import RuleFiles
from leptonai.ops.evidence import Facts, gather
from leptonai.ops.features import features
from leptonai.ops.incidents import service_of
from leptonai.ops.learn.learner import Learner
from leptonai.ops.logs.shifts import Shift
from leptonai.ops.lookout import Lookout
from leptonai.ops.scene import Blamed, Marked
from leptonai.ops.scenery import set_scene
from leptonai.ops.similar import similar
from leptonai.protocols import TelemetryStore
from leptonai.types import Cause, Incident, Key

Shifts = Callable[[Key, float, float], tuple[Shift, ...]]
Marks = Callable[[Key, float, float], Marked | None]
Calls = Callable[[float], Sequence[tuple[Key, Key]]]
AGAIN = 5.0  # seconds after which the call graph is ranked anew for one incident: it costs some milliseconds
FAILS = frozenset({"burn_errors"})


class Looked(NamedTuple):
    """``facts`` cite everything ``causes`` rest on; ``blamed``: who explains most of the trouble, where the call graph
    tells."""

    facts: Facts
    causes: tuple[Cause, ...]
    features: dict[str, float]
    blamed: Blamed | None


class Examiner:
    """``shifts(service, onset, now)``: what changed in its log; ``calls(now)``: who calls whom; ``marks(service, onset,
    now)``: what failing requests have in common. None: nobody knows. ``said``: settings ``ops.classifiers``. ``cores``:
    processors of the machine; those of this one unless given."""

    def __init__(
        self,
        store: TelemetryStore,
        rules: RuleFiles,
        learner: Learner | None = None,
        shifts: Shifts | None = None,
        calls: Calls | None = None,
        classifier: Newest | None = None,
        marks: Marks | None = None,
        said: str = "vote",
        cores: float | None = None,
    ) -> None:
        self._store, self._rules, self._learner = store, rules, learner
        self._shifts: Shifts = shifts or (lambda service, onset, now: ())
        self._calls: Calls = calls or (lambda now: ())
        self._marks: Marks = marks or (lambda service, onset, now: None)
        self._classifier, self._said, self._cores = classifier, said, cores
        self._ranked: dict[tuple[Key, float], tuple[float, Blamed | None]] = {}  # (service, onset) -> newest ranking

    def look(
        self,
        lookout: Lookout,
        unanswered: dict[str, float],
        onset: float,
        now: float,
        explained: Collection[str] = (),
        gateway: str = "",
        past: Collection[Incident] = (),
    ) -> Looked:
        """What is known at ``now`` of a trouble of the service of ``lookout`` that began at ``onset``.

        ``explained``: replicas whose end another incident tells of. ``past``: closed incidents, to find its like, and
        to know when the service was well.
        """
        rules, key = self._rules.book, lookout.service.key
        if self._learner is not None:
            rules = self._learner.book(rules)
        troubled = [(i.began, i.closed) for i in past if i.closed is not None and service_of(i) == key]
        troubled += lookout.refusals  # who was refused is in no rate
        scene = set_scene(
            lookout, unanswered, onset, now, self._store, explained, gateway, rules.signals, self._cores, troubled
        )
        blamed = self._blame(lookout, onset, now)
        scene = msgspec.structs.replace(
            scene, logs=self._shifts(key, onset, now), blamed=blamed, marked=self._marks(key, onset, now)
        )
        facts = gather(scene)
        causes = diagnose(facts, key, rules)
        numbers = features(scene, facts)
        if self._classifier is not None and self._classifier.ensemble is not None:
            opinion = self._classifier.ensemble.opinion(numbers, causes)
            if opinion is not None and counts(self._classifier.version, self._said):
                facts, causes = weigh_in(facts, causes, opinion, key, now)
            elif opinion is not None:
                facts = beside(facts, opinion, now)
        told = list(facts.evidence)
        for fact in similar(numbers, past, now):
            told.append(msgspec.structs.replace(fact, id=f"e{len(told) + 1}"))
        return Looked(Facts(tuple(told), facts.features), causes, numbers, blamed)

    def _blame(self, lookout: Lookout, onset: float, now: float) -> Blamed | None:
        """Ranked anew every AGAIN seconds of one incident."""
        key = lookout.service.key
        before = self._ranked.get((key, onset))
        if before is not None and now - before[0] < AGAIN:
            return before[1]
        calls = self._calls(now)
        found: Blamed | None = None
        if any(caller == key for caller, _ in calls):
            errors = any(t.kind in FAILS for t in lookout.last.triggers)
            ranked = suspects(self._store, calls, key, onset, now, errors)
            if ranked and ranked[0].node != key:
                first = ranked[0]
                fails = not first.metric.startswith("latency")
                found = Blamed(node=first.node, share=first.score, fails=fails, told=tuple(first.evidence))
        self._ranked = {k: v for k, v in self._ranked.items() if now - v[0] < 20 * AGAIN}
        self._ranked[key, onset] = now, found
        return found
