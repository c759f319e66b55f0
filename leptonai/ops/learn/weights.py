"""What reviews make of the rules' confidences: Beta posteriors whose prior is what was declared. Pure.

A rule's confidence is P(its cause | it holds). Declared, it weighs as much as STRENGTH incidents that were seen: a
Beta(STRENGTH c, STRENGTH (1 - c)) prior; an incident in which the rule holds adds one to a side (Gelman et al.,
"Bayesian Data Analysis", 2.4). An incident counts for a rule when somebody called its cause right or wrong, or told
another cause where its own had been named first; a cause that was named below the true one did nothing wrong.

A rule may be right where nothing else explains the trouble, and wrong where something does: the second has a posterior
of its own (``Rule.beside``), whose prior is the first. What was refuted beside another rule does not count against the
rule alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import fsum
from typing import NamedTuple

import msgspec

from leptonai.ops.diagnosis.rules import Rule, RuleBook
from leptonai.ops.diagnosis.weigh import claims
from leptonai.ops.learn.judged import Judged

STRENGTH = 8.0  # incidents that a declared confidence is worth: four refutations take 0.9 below ops.min_confidence
MOST = 20.0  # incidents that one reviewer weighs in on one rule at most, however many they review
EDGE = 1e-3  # no confidence is nearer to 0 or 1 than that


class Count(NamedTuple):
    """Incidents in which a rule held, weighed: alone, or beside a rule for another cause."""

    right: float = 0.0
    wrong: float = 0.0
    right_beside: float = 0.0
    wrong_beside: float = 0.0


def counts(book: RuleBook, seen: Iterable[Judged]) -> list[Count]:
    """Of each rule of the book, in its order. The order of incidents and reviews does not matter."""
    places = {id(rule): place for place, rule in enumerate(book.rules)}
    by: list[dict[str, list[tuple[bool, bool, float]]]] = [{} for _ in book.rules]
    for item in seen:
        held = {id(c.rule): c for c in claims(book, item.values, item.service)}
        for claim in held.values():
            for said in item.said:
                if said.cause == claim.rule.cause:
                    mine = by[places[id(claim.rule)]].setdefault(said.reviewer, [])
                    mine.append((claim.beside, said.right, said.weight))
    return [_count(reviewers) for reviewers in by]


def _count(reviewers: Mapping[str, Sequence[tuple[bool, bool, float]]]) -> Count:
    parts: dict[tuple[bool, bool], list[float]] = {}
    for mine in reviewers.values():
        scale = min(1.0, MOST / fsum(weight for _, _, weight in mine))
        for beside, right, weight in mine:
            parts.setdefault((beside, right), []).append(scale * weight)

    def total(beside: bool, right: bool) -> float:
        return fsum(parts.get((beside, right), ()))

    return Count(total(False, True), total(False, False), total(True, True), total(True, False))


def learnt(rule: Rule, count: Count) -> Rule:
    """The rule with the confidences that the counts make of its own; itself when nothing was counted."""
    if not any(count):
        return rule
    alone = posterior(rule.confidence, count.right, count.wrong)
    prior = alone if rule.beside is None else alone * rule.beside / rule.confidence
    beside = posterior(prior, count.right_beside, count.wrong_beside)
    return msgspec.structs.replace(rule, confidence=alone, beside=beside)


def posterior(prior: float, right: float, wrong: float) -> float:
    """The mean of the Beta posterior, in (0, 1)."""
    mean = min(max(prior, EDGE), 1.0 - EDGE)
    return (STRENGTH * mean + right) / (STRENGTH + right + wrong)


def reweighed(book: RuleBook, seen: Sequence[Judged]) -> RuleBook:
    """The book with the confidences that the reviewed incidents make of its own."""
    rules = tuple(learnt(rule, count) for rule, count in zip(book.rules, counts(book, seen), strict=True))
    return book._replace(rules=rules)
