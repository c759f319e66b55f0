"""The digest of a day or a week: each service and the platform, from incidents and what was measured. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from leptonai.client.advice import Advice
from leptonai.client.availability import Availability, Estimate
from leptonai.client.classifier import Classifier
from leptonai.ops.incidents import service_of
from leptonai.ops.report.advice import advice
from leptonai.ops.report.safe import plain
from leptonai.ops.report.story import Story, check, render
from leptonai.ops.report.voice import voice
from leptonai.types import Evidence, Incident, Noun, Series, Service

SIGNALS = ("request_rate_per_second", "replica_compute_seconds", "replica_rss_bytes")
TOLD = 100  # incidents in one digest
DRAWN = 20  # charts of request rates, a service each
WELL, WORST = 0.95, 6  # an F1 that needs no line, and lines at most


class Member(Noun, frozen=True, kw_only=True):
    """One service of a digest. ``availability`` and ``advice`` None: they could not be had."""

    service: Service
    ready: int
    availability: Availability | None = None
    series: dict[str, tuple[Series, ...]] = {}
    advice: Advice | None = None


def digest(
    members: Sequence[Member], incidents: Sequence[Incident], start: float, end: float, language: str = "en",
    classifier: Classifier | None = None,
) -> Story:  # fmt: skip
    """The checked digest of ``[start, end)``; incidents are those that touched it, oldest first. ``classifier``: whose
    scores on unseen incidents are told; None: nobody's.

    NotFound for a language we do not speak; TelemetryError when a sentence is not backed.
    """
    tongue = voice(language)
    touched = [i for i in incidents if i.began < end and (i.closed is None or i.closed >= start)]
    touched = sorted(touched, key=lambda i: i.began)[-TOLD:]
    facts = [_window(members, touched, start, end), *map(_incident, touched)]
    rows = []
    for n, member in enumerate(members, 1):
        found = member.availability
        own: list[Evidence] = []
        if found is not None:
            own.append(_service(f"s{n}", found, end))
        rate = member.series.get(SIGNALS[0], ())
        compute, memory = (member.series.get(name, ()) for name in SIGNALS[1:])
        told = advice(f"v{n}x", member.service, member.ready, rate[0] if rate else None, compute, memory, end)
        if member.advice is not None:
            told += _ends(f"b{n}", member.advice, end)
        rows.append({"key": member.service.key, "fact": own[0] if own else None, "advice": told})
        facts += [*own, *told]
    judged = [] if classifier is None else _judged(classifier, end)
    facts += judged
    words = {
        "judged": judged,
        "start": start,
        "end": end,
        "rows": rows,
        "incidents": [f for f in facts if f.kind == "incident"],
        "total": facts[0].data,
    }
    story = Story(
        incident=0,
        title=tongue.terms.words["digest"].format(tongue.day(start), tongue.day(end)),
        language=language,
        sections=render("digest", tongue, words),
        facts=tuple(facts),
        charts=tuple(rate for member in members for rate in member.series.get(SIGNALS[0], ()) if rate.at)[:DRAWN],
    )
    check(story)
    return story


def _window(members: Sequence[Member], incidents: Sequence[Incident], start: float, end: float) -> Evidence:
    known = [m.availability for m in members if m.availability is not None]
    data: dict[str, Any] = {
        "start_at": start, "end_at": end, "length_seconds": end - start, "services": len(members),
        "incidents": len(incidents), "open": sum(i.closed is None for i in incidents),
        "requests_count": sum(a.requests for a in known), "errors_count": sum(a.errors for a in known),
    }  # fmt: skip
    if data["requests_count"]:
        data["errors_share"] = data["errors_count"] / data["requests_count"]
    return Evidence(id="w1", kind="window", at=start, text=f"{len(incidents)} incidents", data=data)


def _incident(found: Incident) -> Evidence:
    top = found.causes[0] if found.causes else None
    last = next((a for a in reversed(found.actions) if a.approved is not False), None)
    over = found.closed if found.mitigated is None else found.mitigated
    data: dict[str, Any] = {
        "number": found.id, "service": plain(service_of(found)), "began_at": found.began, "severity": found.severity,
        "title": plain(found.title), "cause": plain(top.name) if top else "unknown",
    }  # fmt: skip
    if over is not None:
        data["lasted_seconds"] = max(over - found.began, 0.0)
    if last is not None:
        data |= {"remedy": plain(last.remedy), "verdict": last.verdict or ""}
    return Evidence(id=f"i{found.id}", kind="incident", at=found.began, text=plain(found.title), data=data)


def _judged(found: Classifier, at: float) -> list[Evidence]:
    """How good the classifier in force is, and the causes it knows worst; nothing where it does not say."""
    held = found.held_out
    if held is None:
        return []
    data: dict[str, Any] = {
        "version": plain(found.version), "counts": found.counts, "incidents": held.incidents,
        "right_share": held.first, "two_share": held.first_two, "macro_share": held.macro_f1,
        "low_share": held.interval[0], "high_share": held.interval[1], "off_share": held.calibration,
    }  # fmt: skip
    out = [Evidence(id="k1", kind="classifier", at=at, text=f"classifier {plain(found.version)}", data=data)]
    worst = sorted(held.causes.items(), key=lambda item: (item[1].f1, item[0]))
    for n, (cause, of) in enumerate([w for w in worst if w[1].f1 < WELL][:WORST], 2):
        wrong = {said: count for said, count in held.confusion.get(cause, {}).items() if said != cause}
        told: dict[str, Any] = {
            "cause": plain(cause), "incidents": of.incidents, "precision_share": of.precision, "recall_share": of.recall
        }  # fmt: skip
        if wrong:
            most = max(sorted(wrong), key=lambda said: wrong[said])
            told |= {"taken": plain(most), "taken_count": wrong[most]}
        out.append(Evidence(id=f"k{n}", kind="confused", at=at, text=plain(cause), data=told))
    return out


def _ends(id: str, found: Advice, at: float) -> list[Evidence]:
    """Where the service ends; nothing where no limit could be told."""
    first, change = found.first, found.proposal
    if first is None or first.load is None:
        return []
    data: dict[str, Any] = {
        "service": found.service, "limit": first.name, "what": plain(first.what), "load_per_second": first.load,
        "low_per_second": first.low, "high_per_second": first.high, "peak_per_second": found.peak,
        "first_share": first.first_share,
    }  # fmt: skip
    if change is not None:
        data |= {"dial": change.dial, "to": change.to, "after_per_second": change.after, "then": change.then}
        if change.dial == "memory":
            data["to_bytes"] = change.to
    return [Evidence(id=id, kind="ends", at=at, text=f"{found.service}: {plain(first.what)}", data=data)]


def _service(id: str, found: Availability, at: float) -> Evidence:
    """Every number of the arithmetic under a name that ends in its unit."""
    data: dict[str, Any] = {
        "service": found.service, "requests_count": found.requests, "errors_count": found.errors,
        "incidents": found.incidents, "objective": found.objective, "spent_share": found.budget_spent_share,
        "up_share": found.up_share,
    }  # fmt: skip
    named: tuple[tuple[str, Estimate], ...] = (
        ("availability_{}_share", found.share), ("detect_{}_seconds", found.detect),
        ("recover_{}_seconds", found.recover), ("between_{}_seconds", found.between),
        ("expected_{}_seconds", found.expected_downtime), ("day_{}_count", found.per_day),
        ("each_{}_seconds", found.downtime),
    )  # fmt: skip
    for name, estimate in named:
        data |= {name.format(end): value for end, value in msgspec.to_builtins(estimate).items()}
    if (pages := found.false_pages_a_week) is not None:
        data["pages_count"] = pages
    kept = {k: v for k, v in data.items() if v is not None}
    return Evidence(id=id, kind="availability", at=at, text=found.service, data=kept)
