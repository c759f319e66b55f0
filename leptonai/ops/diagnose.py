"""Ranked causes of an incident, from facts by declared rules. A symptom can never be one; "unknown" is an answer."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from leptonai.ops.evidence import FEATURES, Facts
from leptonai.ops.rules import RuleBook, holds, load
from leptonai.types import Cause

# The taxonomy: changes of state, each with one sentence. Anything else that a rule concludes is refused.
CAUSES = {
    "replica_killed": "a replica was killed from outside",
    "replica_crashed": "a replica ended by itself",
    "crash_loop": "replicas end again and again",
    "out_of_memory": "a replica ran out of memory",
    "hung_replica": "a replica is alive and does not answer",
    "memory_leak": "the memory of a replica keeps growing",
    "bad_revision_wrong_answers": "a revision answers wrongly",
    "bad_revision_latency": "a revision computes slowly",
    "bad_revision_errors": "a revision fails",
    "traffic_surge": "more traffic came than the replicas carry",
    "cpu_starvation": "the processors of the machine are taken by something else",
    "unknown": "no rule explains what was seen",
}
UNKNOWN_BELOW = 0.5  # a best explanation weaker than this is joined by "unknown"


@cache
def rulebook() -> RuleBook:
    """The rules that ship with us, checked; PluginError when the file is damaged."""
    return load(Path(__file__).with_name("rules.yaml"), FEATURES, frozenset(CAUSES) - {"unknown"})


def diagnose(facts: Facts, service: str, book: RuleBook) -> tuple[Cause, ...]:
    """Causes by falling confidence, one per (name, subject), each citing the evidence its rule rests on.

    Several rules for the same cause and subject: the most confident counts, they are not independent. Without a cause
    of at least 0.5, ``unknown`` about the service is in the list, with what confidence is left.
    """
    shared = facts.features.get(("service", service), {})
    best: dict[tuple[str, str], Cause] = {}
    for rule in book.rules:
        for (about, subject), own in facts.features.items():
            if about != rule.about:
                continue
            known = {**shared, **own}
            values = {name: feature.value for name, feature in known.items()}
            found = holds(book, rule.when, values)
            if not found.value:
                continue
            used, confidence = found.by, rule.confidence
            for condition in rule.weaker:
                if (against := holds(book, condition, values)).value:
                    confidence -= rule.by
                    used |= against.by
            if confidence <= 0:
                continue
            cited = sorted({known[name].evidence for name in used}, key=_number)
            cause = Cause(name=rule.cause, subject=subject, confidence=round(confidence, 3), evidence=tuple(cited))
            before = best.get((rule.cause, subject))
            if before is None or cause.confidence > before.confidence:
                best[rule.cause, subject] = cause
    top = max((c.confidence for c in best.values()), default=0.0)
    if top < UNKNOWN_BELOW:
        every = tuple(e.id for e in facts.evidence)
        best["unknown", service] = Cause(
            name="unknown", subject=service, confidence=round(1.0 - top, 3) if best else 0.0, evidence=every
        )
    order = {name: i for i, name in enumerate(CAUSES)}
    return tuple(sorted(best.values(), key=lambda c: (-c.confidence, order[c.name], c.subject)))


def _number(evidence: str) -> int:
    return int(evidence.removeprefix("e"))
