"""The story: one fault after another, each only when everything is calm, each followed until it is repaired."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from leptonai.client import rollout
from leptonai.client.wire import ServiceView
from leptonai.demo.outcome import Drill, Injection, Outcome, judge, newest, settled, since
from leptonai.demo.screen import Screen
from leptonai.demo.stage import SERVICE, Stage
from leptonai.demo.traffic import Answer
from leptonai.types import Incident, Noun, Spec

POLL = 0.25  # seconds between two looks at the platform
QUIET = 2.0  # seconds of calm before the next fault
CALM_WITHIN = 45.0  # seconds until it must be calm again


class Report(Noun, frozen=True, kw_only=True):
    """All that the story showed. ``false_alarms``: incidents before anything was broken. ``stopped``: why it ended
    before its end."""

    seed: int
    accuracy: float  # of the good model on held-out images
    seconds: float  # from the first step of the demo to the last repair
    outcomes: tuple[Outcome, ...]
    false_alarms: tuple[str, ...] = ()
    stopped: str = ""

    @property
    def repaired(self) -> bool:
        return not self.stopped and not self.false_alarms and all(o.repaired for o in self.outcomes)


def unrest(view: ServiceView, incidents: Sequence[Incident], good: Spec) -> str:
    """Why the next fault has to wait; "" when all is calm."""
    unfinished = [i for i in incidents if i.closed is None]
    if unfinished:
        return f"incident {unfinished[0].id} is open"
    if not whole(view, good):
        return rollout(view).text
    if view.verified != view.service.revision:
        return f"revision {view.service.revision} is not verified yet"
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


@dataclass
class Chapter:
    """One drill as it went so far. ``known``: the newest incident before the injection."""

    drill: Drill
    known: int
    injection: Injection
    recovered: float | None = None


def tell(stage: Stage, drills: Sequence[Drill], screen: Screen, seed: int, began: float) -> Report:
    """Every drill injected, followed and judged. ``began``: monotonic time at which the demo began."""
    chapters: list[Chapter] = []
    stopped = ""
    for number, drill in enumerate(drills):
        stopped = wait_until_calm(stage, screen)
        if stopped:
            break
        screen.doing(f"injecting: {drill.title}")
        known = newest(stage.client.incidents())
        chapter = Chapter(drill, known, stage.inject(drill.kind, seed + number))
        screen.note(f"{drill.title}: {chapter.injection.target} broken")
        chapters.append(chapter)
        chapter.recovered = follow(stage, chapter, screen)
        screen.rows(judged(stage, chapters))
    seconds = time.monotonic() - began
    if chapters and not stopped:
        time.sleep(QUIET)  # the last requests come home, a late incident shows itself
    first = chapters[0].known if chapters else newest(stage.client.incidents())
    return Report(
        seed=seed,
        accuracy=stage.trained.accuracy,
        seconds=seconds,
        outcomes=tuple(judged(stage, chapters)),
        false_alarms=tuple(f"incident {i.id}: {i.title}" for i in stage.client.incidents() if i.id <= first),
        stopped=stopped,
    )


def judged(stage: Stage, chapters: Sequence[Chapter]) -> list[Outcome]:
    """The outcomes so far; each drill answers for all that happened until the next one."""
    incidents, proposals, answers = stage.client.incidents(), stage.client.proposals(), stage.answers.read()
    outcomes = []
    for chapter, following in zip(chapters, [*chapters[1:], None], strict=True):
        last, until = (following.known, following.injection.at) if following else (newest(incidents), time.time())
        mine = [i for i in since(incidents, chapter.known) if i.id <= last]
        outcomes.append(
            judge(
                chapter.drill,
                chapter.injection,
                mine,
                proposals,
                answers,
                stage.good,
                chapter.recovered,
                until,
            )
        )
    return outcomes


def wait_until_calm(stage: Stage, screen: Screen) -> str:
    """ "" once it has been calm for QUIET seconds, else what has kept it from being so for CALM_WITHIN seconds."""
    deadline = time.monotonic() + CALM_WITHIN
    calm_since: float | None = None
    while True:
        now = time.monotonic()
        why = unrest(stage.client.service(SERVICE), stage.client.incidents(), stage.good)
        calm_since = None if why else calm_since or now
        if calm_since is not None and now - calm_since >= QUIET:
            return ""
        if now > deadline:
            return f"not calm within {CALM_WITHIN:.0f} s: {why or 'it comes and goes'}"
        screen.doing(f"waiting for calm: {why or 'all is well'}", fare(stage.answers.read(), time.time()))
        time.sleep(POLL)


def follow(stage: Stage, chapter: Chapter, screen: Screen) -> float | None:
    """When the service was whole again and ops had found the incident repaired; None: not within the drill's limit."""
    drill, injection = chapter.drill, chapter.injection
    said: set[str] = set()
    whole_since: float | None = None
    while (now := time.time()) < injection.at + drill.limit:
        incident = next(iter(since(stage.client.incidents(), chapter.known)), None)
        for line in progress(incident, injection):
            if line not in said:
                said.add(line)
                screen.note(f"  {line}")
        whole_since = (whole_since or now) if whole(stage.client.service(SERVICE), stage.good) else None
        done = settled(incident)
        if done is not None and whole_since is not None:
            return max(done, whole_since)
        screen.doing(f"{drill.title}: {_waiting_for(incident)}", fare(stage.answers.read(), now), now - injection.at)
        time.sleep(POLL)
    return None


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
