"""Ranked causes of an incident, from facts by declared rules and trees. A symptom is never one; "unknown" may be."""

from __future__ import annotations

from leptonai.ops.diagnosis.causes import CAUSES
from leptonai.ops.diagnosis.rules import RuleBook
from leptonai.ops.diagnosis.weigh import together
from leptonai.ops.evidence import READING, Facts
from leptonai.types import Cause

UNKNOWN_BELOW = 0.5  # a best explanation weaker than this is joined by "unknown"
NAMED = 0.1  # a cause less probable than this is not worth a line


def diagnose(facts: Facts, service: str, book: RuleBook) -> tuple[Cause, ...]:
    """Causes by falling confidence, one per (name, subject), each citing the evidence it rests on.

    How rules and trees make the confidence: see ``diagnosis.weigh``. Without a cause of at least 0.5, ``unknown`` about
    the service is in the list, with what confidence is left.
    """
    values = {subject: {n: f.value for n, f in own.items()} for subject, own in facts.features.items()}
    found, _ = together(book, values, service)
    causes = [
        Cause(
            name=name,
            subject=subject,
            confidence=round(held.confidence, 3),
            evidence=tuple(sorted({facts.features[s][n].evidence for s, n in held.by}, key=_number)),
        )
        for (name, subject), held in found.items()
        if held.confidence >= NAMED
    ]
    top = max((c.confidence for c in causes), default=0.0)
    if top < UNKNOWN_BELOW:
        every = tuple(e.id for e in facts.evidence if e.kind != READING)
        left = round(1.0 - top, 3) if causes else 0.0
        causes.append(Cause(name="unknown", subject=service, confidence=left, evidence=every))
    order = {name: i for i, name in enumerate([*CAUSES, *sorted(book.causes.keys() - CAUSES.keys())])}
    return tuple(sorted(causes, key=lambda c: (-c.confidence, order[c.name], c.subject)))


def cited(facts: Facts, causes: tuple[Cause, ...]) -> Facts:
    """The facts without readings of signals that no cause rests on: those are in the telemetry, and no news."""
    used = {e for c in causes for e in c.evidence}
    kept = tuple(e for e in facts.evidence if e.kind != READING or e.id in used)
    return Facts(kept, facts.features)


def _number(evidence: str) -> int:
    return int(evidence.removeprefix("e"))
