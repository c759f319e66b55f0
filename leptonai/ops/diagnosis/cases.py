"""Tests of rules: evidence in, causes out. Pure."""

from __future__ import annotations

from typing import NamedTuple, cast

from leptonai.ops.diagnosis.faulttree import About
from leptonai.ops.diagnosis.rules import Case, Rule, RuleBook
from leptonai.ops.diagnosis.weigh import Held, Subject, Weighed, by_rules, together

SERVICE = "the service"  # what the service of a case is called


class Outcome(NamedTuple):
    """``wrong``: what was not as expected, in words; empty: the case passes."""

    case: Case
    causes: tuple[tuple[str, str, float], ...]  # (cause, subject, confidence), the most confident first
    wrong: tuple[str, ...]


def run(case: Case, book: RuleBook) -> Outcome:
    """What the book concludes from the evidence of a case, and whether it should."""
    found, _ = weigh_case(case, book)
    ranked = sorted(((n, s, round(h.confidence, 3)) for (n, s), h in found.items()), key=lambda c: (-c[2], c[0], c[1]))
    wrong: list[str] = []
    for place, wanted in enumerate(case.expect):
        if wanted == "unknown":
            if ranked and ranked[0][2] >= 0.5:
                wrong.append(f"{ranked[0][0]} was expected to be below 0.5, it has {ranked[0][2]:g}")
            continue
        if place >= len(ranked):
            wrong.append(f"{wanted} was expected at place {place + 1}, nothing is there")
        elif wanted not in (ranked[place][0], f"{ranked[place][0]} of {ranked[place][1]}"):
            wrong.append(
                f"{wanted} was expected at place {place + 1}, {ranked[place][0]} of {ranked[place][1]} is there"
            )
    for cause, subject, confidence in ranked:
        if {cause, f"{cause} of {subject}"} & set(case.never):
            wrong.append(f"{cause} of {subject} must not be named, it has {confidence:g}")
    if case.at_least and ranked and ranked[0][2] < case.at_least:
        wrong.append(f"the first has {ranked[0][2]:g}, {case.at_least:g} was expected at least")
    return Outcome(case, tuple(ranked), tuple(wrong))


def weigh_case(case: Case, book: RuleBook) -> tuple[dict[tuple[str, str], Held], list[Weighed]]:
    """Causes and trees by the evidence of a case."""
    return together(book, values_of(case), SERVICE)


def untested(rules: tuple[Rule, ...], book: RuleBook, cases: tuple[Case, ...]) -> tuple[Rule, ...]:
    """The rules that hold in no case: nobody knows whether they work."""
    seen = [values_of(case) for case in cases]

    def fires(rule: Rule) -> bool:
        return any(by_rules(book._replace(rules=(rule,)), values, SERVICE) for values in seen)

    return tuple(rule for rule in rules if not fires(rule))


def values_of(case: Case) -> dict[Subject, dict[str, float | bool]]:
    out: dict[Subject, dict[str, float | bool]] = {("service", SERVICE): {}}
    for named, features in case.evidence.items():
        about, _, subject = named.partition(" ")
        out[cast(About, about), subject or SERVICE] = features
    return out
