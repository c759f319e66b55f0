"""One drill after another, each only when everything is calm, each followed until it is answered, healed and judged."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import msgspec
import numpy as np

from leptonai.client import rollout
from leptonai.client.wire import ServiceView
from leptonai.drill.faults import Broken, inject
from leptonai.drill.felt import by_users
from leptonai.drill.kinds import Fault
from leptonai.drill.outcome import Injection, Outcome, judge, newest, settled, since, told
from leptonai.drill.screen import Screen
from leptonai.drill.stage import NEIGHBOUR, Place
from leptonai.drill.traffic import Answer, Counts
from leptonai.errors import LeptonError
from leptonai.types import Incident, Key, Spec, parse_key

POLL = 0.25  # seconds between two looks at the platform
CALM_WITHIN = (
    180.0  # seconds until it must be calm again: what is shed is let in after 120, a broken promise burns for 60
)
SECOND_AFTER = 2.0  # seconds between two faults of a combination


@dataclass
class Chapter:
    """One drill as it went so far. ``known``: the newest incident before the injection."""

    fault: Fault
    seed: int
    known: int
    broken: Broken
    recovered: float | None = None
    with_: tuple[Chapter, ...] = ()  # what was broken at the same time

    @property
    def injection(self) -> Injection:
        return self.broken.injection


def unrest(view: ServiceView, incidents: Sequence[Incident], good: Spec) -> str:
    """Why the next fault has to wait; "" when all is calm."""
    unfinished = [i for i in incidents if i.closed is None]
    if unfinished:
        return f"incident {unfinished[0].id} is open"
    if not whole(view, good):
        return rollout(view).text
    if view.verified != view.service.revision:
        return f"revision {view.service.revision} is not verified yet"
    if shed := view.service.dials.shed:
        return f"{shed:.0%} of the requests are still refused"
    return ""


def whole(view: ServiceView, good: Spec) -> bool:
    """The good spec runs on exactly the replicas that are wished, all of them ready."""
    ready = [r for r in view.replicas if r.state == "ready"]
    return view.service.spec == good and rollout(view).done and len(ready) == len(view.replicas) == view.wanted


def fare(answers: Sequence[Answer], now: float) -> str:
    """How the users fare, in one line."""
    failed, wrong = (sum(a.result == kind for a in answers) for kind in ("failed", "wrong"))
    recent = [a.seconds for a in answers[-1000:] if a.due + a.seconds > now - 5.0]
    p99 = f", p99 {np.quantile(recent, 0.99) * 1e3:.0f} ms" if recent else ""
    return f"users: {len(answers)} answers, {failed} failed, {wrong} wrong; now {len(recent) / 5:.0f} a second{p99}"


def seen(place: Place) -> Sequence[Answer]:
    """What users saw so far; [] where nobody tells us."""
    return place.answers.read() if place.answers is not None else ()


def concerning(place: Place, *others: Key) -> list[Incident]:
    """The incidents of the drilled service, and of ``others``."""
    workspaces = [parse_key(key) for key in (place.service, *others)]
    subjects = {f"{workspace}/service/{name}" for workspace, name in workspaces}
    return [i for i in place.client.incidents() if i.subject in subjects]


def wait_until_calm(place: Place, screen: Screen, within: float = CALM_WITHIN) -> str:
    """ "" once it has been calm for place.quiet seconds, else what has kept it from being so for ``within`` seconds."""
    deadline = time.monotonic() + within
    others = (NEIGHBOUR,) if place.props is not None else ()
    calm_since: float | None = None
    while True:
        now = time.monotonic()
        why = unrest(place.client.service(place.service), concerning(place, *others), place.good)
        calm_since = None if why else calm_since or now
        if calm_since is not None and now - calm_since >= place.quiet:
            return ""
        if now > deadline:
            return f"not calm within {within:.0f} s: {why or 'it comes and goes'}"
        screen.doing(f"waiting for calm: {why or 'all is well'}", fare(seen(place), time.time()))
        time.sleep(POLL)


def begin(place: Place, faults: Sequence[Fault], seed: int, screen: Screen) -> Chapter:
    """The faults are in force, one SECOND_AFTER the other."""
    chapters: list[Chapter] = []
    known = newest(concerning(place))
    for number, fault in enumerate(faults):
        if number:
            time.sleep(SECOND_AFTER)
        screen.doing(f"injecting: {fault.title}")
        try:
            chapters.append(Chapter(fault, seed, known, inject(place, fault, seed + number)))
        except LeptonError:
            for chapter in chapters:
                chapter.broken.heal()
            raise
        screen.note(f"{fault.title}: {chapters[-1].injection.target} {'broken' if not fault.control else 'done'}")
    chapters[0].with_ = tuple(chapters[1:])
    return chapters[0]


def follow(place: Place, chapter: Chapter, screen: Screen) -> float | None:
    """When the service was whole again and ops had found the incident repaired; None: not within the fault's time, or
    not by itself (then a person has been called, or nobody has noticed)."""
    everything = (chapter, *chapter.with_)
    lasts = max(c.fault.lasts for c in everything)
    said: set[str] = set()
    whole_since: float | None = None
    first = chapter.injection
    while (now := time.time()) < first.at + lasts:
        incidents = since(concerning(place), chapter.known)
        for incident in incidents:
            for line in progress(incident, first):
                if line not in said:
                    said.add(line)
                    screen.note(f"  {line}")
        is_whole = whole(place.client.service(place.service), place.good)
        whole_since = (whole_since or now) if is_whole else None
        over = [settled(i) for i in incidents]
        if incidents and None not in over and whole_since is not None and len(incidents) >= len(everything):
            return max([*(at for at in over if at is not None), whole_since])
        enough = len(incidents) >= len(everything)
        if enough and all(told(c.fault, i) is not None for c, i in zip(everything, incidents, strict=False)):
            return None
        waits = _waiting_for(incidents[0] if incidents else None)
        screen.doing(f"{chapter.fault.title}: {waits}", fare(seen(place), now), now - first.at)
        time.sleep(POLL)
    return None


def judged(place: Place, chapter: Chapter, last: int, until: float) -> list[Outcome]:
    """The outcomes of a chapter: it answers for all that happened until ``until``, up to incident number ``last``."""
    incidents = [i for i in since(concerning(place), chapter.known) if i.id <= last]
    proposals, answers = place.client.proposals(), seen(place)
    counts = answers if place.answers is not None else counted(place, chapter.injection.at, until)
    chapters = (chapter, *chapter.with_)
    outcomes = [
        judge(
            c.fault,
            c.injection,
            _by_match(c, incidents) if chapter.with_ else incidents,
            proposals,
            counts,
            place.good,
            chapter.recovered,
            until,
            c.seed,
            beside=tuple((o.fault, o.injection) for o in chapters if o is not c),
        )
        for c in chapters
    ]
    if chapter.with_ or not chapter.fault.only_late or place.answers is None:
        return outcomes
    at = chapter.injection.at
    noticed = by_users(answers, at, min(until, at + chapter.fault.lasts), place.good.slo.latency)
    return [msgspec.structs.replace(o, felt=noticed) for o in outcomes]


def _by_match(chapter: Chapter, incidents: Sequence[Incident]) -> list[Incident]:
    """Of two faults at once, the incident that names the one comes first for it."""

    def rank(incident: Incident) -> tuple[int, int]:
        places = [n for n, c in enumerate(incident.causes[:3]) if c.name in chapter.fault.causes]
        return (places[0] if places else 9, incident.id)

    return sorted(incidents, key=rank)


def counted(place: Place, start: float, end: float) -> Counts:
    """What the gateway says of the service's own users, to the whole request."""

    def read(name: str) -> dict[float, float]:
        found = place.client.signals(name, start, end, {"service": place.service})
        return {at: v for s in found for at, v in zip(s.at, s.value, strict=True) if v is not None}

    rate, errors = read("request_rate_per_second"), read("error_ratio")
    times = sorted(rate)
    seconds = {t: t - before for before, t in pairwise(times)}
    return Counts(
        sent=round(sum(rate[t] * s for t, s in seconds.items())),
        failed=round(sum(rate[t] * s * errors.get(t, 0.0) for t, s in seconds.items())),
    )


def conduct(place: Place, faults: Sequence[Fault], seed: int, screen: Screen) -> list[Outcome]:
    """The faults injected together, followed, healed and judged, an outcome each. Raises LeptonError when one could
    not be injected; nothing is left broken then either."""
    chapter = begin(place, faults, seed, screen)
    try:
        chapter.recovered = follow(place, chapter, screen)
    finally:
        for c in (chapter, *chapter.with_):
            c.broken.heal()
    restore(place)
    time.sleep(place.quiet)  # the last requests come home, a late incident shows itself
    return judged(place, chapter, newest(concerning(place)), time.time())


def restore(place: Place) -> None:
    """As many replicas are wished for as before: what a remedy added is taken away once the fault is over. Of a service
    that people use they are theirs to change."""
    if place.props is not None and place.client.service(place.service).wanted != place.wanted:
        place.client.scale(place.service, place.wanted, why="the drill is over")


def progress(incident: Incident | None, injection: Injection) -> list[str]:
    """The milestones that an incident has passed, a line each."""
    if incident is None:
        return []
    lines = [f"{incident.opened - injection.at:5.1f} s  incident {incident.id}: {incident.title}"]
    if incident.diagnosed is not None and incident.causes:
        cause = incident.causes[0]
        after = incident.diagnosed - injection.at
        lines.append(f"{after:5.1f} s  cause: {cause.name} of {cause.subject} ({cause.confidence:.0%} sure)")
    for action in incident.actions:
        lines.append(f"{action.at - injection.at:5.1f} s  remedy: {action.remedy}")
    if incident.escalated is not None:
        lines.append(f"{incident.escalated - injection.at:5.1f} s  a person is called")
    done = settled(incident)
    if done is not None:
        lines.append(f"{done - injection.at:5.1f} s  repaired")
    return lines


def _waiting_for(incident: Incident | None) -> str:
    if incident is None:
        return "nobody has noticed yet"
    if not incident.causes:
        return "looking for the cause"
    if not incident.actions:
        return "choosing a remedy"
    return "verifying the repair" if settled(incident) is None else "becoming whole again"
