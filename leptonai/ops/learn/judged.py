"""A reviewed incident as learning sees it: what was known of it, and who called which cause right or wrong. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, cast

from leptonai.ops.diagnosis.faulttree import About
from leptonai.ops.diagnosis.weigh import Subject, Values
from leptonai.ops.incidents import service_of
from leptonai.ops.learn.reviews import in_force, truth, truths
from leptonai.types import Incident, Key, Review
from leptonai.types.keys import Verdict


class Said(NamedTuple):
    """That ``cause`` was right or wrong. The reviewers of one incident who speak of a cause weigh 1 together."""

    reviewer: str
    cause: str
    right: bool
    weight: float


class Judged(NamedTuple):
    """``truth``: the cause held to be true, "" when none was told. ``remedies``: what each that was tried did."""

    incident: int
    service: Key
    values: Values
    said: tuple[Said, ...]
    truth: str
    remedies: tuple[tuple[str, Verdict], ...] = ()


def judged(incidents: Iterable[Incident], reviews: Iterable[Review]) -> list[Judged]:
    """The incidents that were reviewed, by number; where a drill spoke, only drills are heard."""
    heard: dict[int, list[Review]] = {}
    for review in in_force(reviews):
        heard.setdefault(review.incident, []).append(review)
    known = truths(r for mine in heard.values() for r in mine)
    out = []
    for incident in sorted({i.id: i for i in incidents}.values(), key=lambda i: i.id):
        mine = heard.get(incident.id, [])
        mine = [r for r in mine if r.source == "drill"] or mine
        if mine:
            out.append(
                Judged(
                    incident=incident.id, service=_about(incident),
                    values=values_of(incident), said=tuple(_said(incident, mine)), truth=known.get(incident.id, ""),
                    remedies=_remedies(incident, mine),
                )
            )  # fmt: skip
    return out


def values_of(incident: Incident) -> dict[Subject, dict[str, float | bool]]:
    """The features of an incident, as its evidence recorded them."""
    out: dict[Subject, dict[str, float | bool]] = {}
    for evidence in incident.evidence:
        about, subject = evidence.data.get("about"), evidence.data.get("subject")
        if about in ("service", "replica", "revision") and isinstance(subject, str):
            own = out.setdefault((cast(About, about), subject), {})
            own.update({n: v for n, v in evidence.data.items() if _is_feature(n, v)})
    return out


def _about(incident: Incident) -> str:
    return service_of(incident) or incident.subject


def _is_feature(name: str, value: Any) -> bool:
    return name not in ("about", "subject") and isinstance(value, bool | int | float)


def _said(incident: Incident, reviews: list[Review]) -> list[Said]:
    """One by one: the truth is right, a hypothesis as judged (while the analysis is the one that was), and the cause
    that was named first is wrong where another one is told to be true."""
    first = incident.causes[0].name if incident.causes else ""
    told: list[tuple[str, str, bool]] = []
    for review in reviews:
        mine = dict(review.hypotheses) if review.analysis == incident.analysis else {}
        if cause := truth(review):
            mine = {first: False} | mine | {cause: True} if first != cause else mine | {cause: True}
        told += [(review.by, cause, right) for cause, right in mine.items() if cause and cause != "unknown"]
    voices = {cause: sum(c == cause for _, c, _ in told) for _, cause, _ in told}
    return [Said(by, cause, right, 1.0 / voices[cause]) for by, cause, right in told]


def _remedies(incident: Incident, reviews: list[Review]) -> tuple[tuple[str, Verdict], ...]:
    """What each action did: as the newest review of it says, else as it was judged at the time."""
    said = {
        remedy: did for review in sorted(reviews, key=lambda r: (r.at, r.by)) for remedy, did in review.remedies.items()
    }
    did = [(a.remedy, said.get(a.remedy, a.verdict)) for a in incident.actions]
    return tuple((remedy, verdict) for remedy, verdict in did if verdict is not None)
