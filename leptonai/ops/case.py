"""One incident and what of it is known to ops only, and what is seen when its next act is decided."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from statistics import linear_regression
from typing import NamedTuple

from leptonai.ops import incidents as book
from leptonai.ops.jobs.form import Ended
from leptonai.ops.lookout import Lookout
from leptonai.ops.respond import Sight, fault_of
from leptonai.ops.respond.decide import row_of
from leptonai.ops.respond.ease import Moment
from leptonai.ops.runbook import Runbook
from leptonai.protocols import TelemetryStore
from leptonai.settings import Ops
from leptonai.types import QUARANTINE, Action, DialChange, Event, Incident, Key

MANY = 20  # requests since an action, before more errors count as its harm
MORE_ERRORS = 0.25  # of the answers: what an action costs at least to have done harm
MOST_REFUSED = 0.5  # of the requests in quarantine: what most users send is not what makes a model fail


class Trend(NamedTuple):
    """Of the errors before an action: their mean, and how fast they rose (per second, never below 0)."""

    level: float
    rise: float
    at: float  # the middle of the time they are of
    seconds: float  # how long that was

    def ahead(self, at: float) -> float:
        """The share of errors to be expected at ``at`` had nothing been done. A fault that grows goes on growing, which
        is believed for as long as it was seen to."""
        return min(1.0, self.level + self.rise * min(max(0.0, at - self.at), 1.5 * self.seconds))


class Case:
    """After a restart it begins anew, which can but delay an act."""

    def __init__(self, incident: Incident, now: float) -> None:
        self.incident = incident
        self.sent: Incident | None = incident if incident.id else None
        self.sent_at = now
        self.quiet_since: float | None = None
        self.since = (0.0, 0.0)  # requests and sightings of the service when the last action was taken
        self.errors_before: dict[Key, Trend | None] = {}  # of those it changed
        self.waiting: frozenset[str] = frozenset()
        self.ended: Ended | None = None  # how the process of the last action ended
        self.told = ""  # why nothing was done, when last recorded
        self.leads = ("", "", now)  # cause and subject that lead, and since when
        self.undid = float("-inf")  # when its last action was taken back
        self.refused: float | None = None  # the share that its last action still refuses; None: not seen yet
        self.refused_before = 0.0  # what others refused before that action
        self.moments: list[Moment] = []  # the load since then
        self.eased_at = float("-inf")  # when less was asked for last

    @property
    def service(self) -> Key:
        return book.service_of(self.incident)

    @property
    def last(self) -> Action | None:
        return self.incident.actions[-1] if self.incident.actions else None

    @property
    def trying(self) -> bool:
        """An action of it is being verified, or waits for approval."""
        return self.incident.closed is None and self.last is not None and self.last.verdict is None

    def led(self, now: float) -> None:
        """Note which cause leads."""
        if self.incident.causes:
            first = self.incident.causes[0]
            if self.leads[:2] != (first.name, first.subject):
                self.leads = (first.name, first.subject, now)

    def fault(self) -> str:
        first = self.incident.causes[0]
        return fault_of(first.name, first.subject)


class Surroundings:
    """What all cases share at one look."""

    def __init__(
        self,
        lookouts: Mapping[Key, Lookout],
        cases: Sequence[Case],
        collected: float,
        history: Sequence[Event],
        frozen: str,
        running: Iterable[str],
        theirs: frozenset[Key] = frozenset(),
    ) -> None:
        self.lookouts, self.cases, self.collected, self.frozen = lookouts, cases, collected, frozen
        self.history, self.running, self.theirs = tuple(history), frozenset(running), theirs

    def held(self, case: Case, now: float, settings: Ops) -> dict[Key, str]:
        """Service -> why nothing else may change it: one lock for deploys, rollbacks and remedies."""
        held: dict[Key, str] = {}
        for key, lookout in self.lookouts.items():
            if said := lookout.deploying(now, settings.verify_timeout):
                held[key] = f"deploy: {said}"
        for other in self.cases:
            if other is not case and other.trying and other.last is not None:
                said = f"{other.last.remedy} of incident {other.incident.id} is being verified"
                held |= {key: said for key in (other.service, other.last.service) if key}
            elif other.undid >= now and other.last is not None:  # this look knows the wish of before
                said = f"{other.last.remedy} of incident {other.incident.id} has just been taken back"
                held |= {key: said for key in (other.service, other.last.service) if key}
        return held

    def past(self, case: Case) -> tuple[Action, ...]:
        others = [c for c in self.cases if c is not case and c.service == case.service]
        return tuple(sorted((a for c in others for a in c.incident.actions), key=lambda a: a.at))


def sight(
    case: Case, around: Surroundings, firing: bool, now: float, settings: Ops, store: TelemetryStore, runbook: Runbook,
    doubt: str,
) -> Sight:  # fmt: skip
    """Everything the next act is decided by."""
    lookout = around.lookouts.get(case.service)
    services = tuple(seen.service for key, seen in around.lookouts.items() if key != case.service)
    if lookout is None:
        return Sight(service=None, collected=around.collected, firing=False, others=services)
    incident, last = case.incident, case.last
    floor = [max(a, b) for a, b in zip(case.since, lookout.at_convergence, strict=True)]
    counts = (lookout.requests - floor[0], lookout.sightings - floor[1])
    of_replicas = all(a.signal.startswith("replica_") for a in incident.anomalies if a.signal in _KINDS)
    acting = sum(c.trying and not c.waiting for c in around.cases if c is not case)
    recommended = {str(e.data.get("hash")) for e in incident.evidence if e.kind == "recommended"}
    return Sight(
        service=lookout.service,
        revisions=lookout.revisions,
        history=around.history,
        collected=around.collected,
        firing=firing,
        quiet_since=case.quiet_since,
        converged_since=lookout.converged_since,
        samples=counts[1] if of_replicas else counts[0],
        serving=frozenset(r.id for r in lookout.replicas if r.state == "ready"),
        waiting=case.waiting,
        denied=book.refusals(incident),
        worse=_worse(case, around.lookouts, now, settings, store, _patience(case, runbook, settings)),
        others=services,
        theirs=around.theirs,
        held=around.held(case, now, settings),
        acting=acting,
        past=around.past(case),
        doubt=doubt,
        frozen=around.frozen,
        readings=_readings(case, last, runbook, now, settings, store),
        running=last is not None and last.proposal in around.running,
        job=case.ended.failed if case.ended is not None and last is not None and last.verdict is None else "",
        told=frozenset(recommended),
        leads_since=case.leads[2],
    )


def _readings(
    case: Case, last: Action | None, runbook: Runbook, now: float, settings: Ops, store: TelemetryStore
) -> dict[str, float | None]:
    """The signals that the runbook wants for the verdict on ``last``, each as its mean over the time to settle."""
    if last is None or last.verdict is not None:
        return {}
    step = row_of(case.incident, runbook).step(last.remedy)
    if step is None:
        return {}
    settle = settings.settle if step.verify.settle is None else step.verify.settle
    return {name: mean(store, name, case.service, now - settle, now) for name in step.verify.signals}


def _patience(case: Case, runbook: Runbook, settings: Ops) -> float:
    """Seconds that the last remedy has until its verdict."""
    step = row_of(case.incident, runbook).step(case.last.remedy) if case.last is not None else None
    own = step.verify.seconds if step is not None else None
    return settings.verify_timeout if own is None else own


def _worse(
    case: Case, lookouts: Mapping[Key, Lookout], now: float, settings: Ops, store: TelemetryStore, patience: float
) -> str:
    """How the last remedy did harm: a quarter more of the answers of a service that it changed, or that it was for, are
    errors than was to be expected from before, once it has settled and, for ``patience``, all is as wished; or a
    quarantine refuses most requests."""
    last = case.last
    if last is None or last.verdict is not None or now - last.at < 2 * settings.settle:
        return ""
    refused = mean(store, "replica_quarantined_ratio", case.service, now - settings.settle, now)
    if refused is not None and refused > MOST_REFUSED and any(path.startswith(QUARANTINE) for path in last.set):
        return f"{refused:.0%} of the requests are in quarantine"
    for key, before in case.errors_before.items():
        lookout = lookouts.get(key)
        if lookout is not None and _relieves(last) and now - last.at < patience:
            whole = lookout.converged_since
            if whole is None or now - max(last.at, whole) < lookout.service.spec.timeout:
                continue  # what waited before it goes on failing until its time is up
        after = mean(store, "error_ratio", key, now - settings.settle, now)
        if lookout is None or before is None or after is None:
            continue
        expected = before.ahead(now - settings.settle / 2)
        if after < expected + MORE_ERRORS:
            continue
        if lookout.converged_since is None and now - last.at < patience:
            continue  # what was wrong still answers: it is being replaced
        if key != case.service or lookout.requests - case.since[0] >= MANY:
            whose = "" if key == case.service else f" of {key}"
            grown = f", {expected:.0%} was to be expected" if expected > before.level + 0.01 else ""
            return f"{after:.0%} of the answers{whose} are errors, {before.level:.0%} were before{grown}"
    return ""


def _relieves(action: Action) -> bool:
    """Whether all it does is to refuse requests, or to ask for more replicas."""
    was = action.undo.set if isinstance(action.undo, DialChange) else {}
    return bool(action.set) and all(
        path == "shed" or (path.endswith(".replicas") and value > was.get(path, value))
        for path, value in action.set.items()
    )


def trend(store: TelemetryStore, name: str, service: Key, start: float, end: float) -> Trend | None:
    """Of a signal of a service over ``[start, end]``, by least squares; None: nothing was seen."""
    found = store.read(name, start, end + 1e-3, {"service": service})
    seen = [(at, v) for s in found for at, v in zip(s.at, s.value, strict=True) if isfinite(v)]
    if not seen:
        return None
    times, values = zip(*seen, strict=True)
    lasted = max(times) - min(times)
    rise = linear_regression(times, values).slope if lasted > 0 else 0.0
    return Trend(sum(values) / len(seen), max(0.0, rise), sum(times) / len(seen), lasted)


def mean(store: TelemetryStore, name: str, service: Key, start: float, end: float) -> float | None:
    """Of a signal of a service over ``[start, end]``; None: nothing was seen."""
    found = [v for s in store.read(name, start, end + 1e-3, {"service": service}) for v in s.value if isfinite(v)]
    return sum(found) / len(found) if found else None


_KINDS = book.SYMPTOMS | {"replica_gone", "replica_hung", "replica_leak", "replica_test", "wrong_answers"}
