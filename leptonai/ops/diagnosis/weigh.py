"""Rules and trees together: how sure of which cause. Exact Bayes over the basic events of a tree. Pure.

A rule's confidence is P(cause | the rule holds, the trouble is there). In a tree that makes it evidence worth
``odds(confidence) / odds(P(event | top))``, so that a rule that is all that is known gives exactly its confidence
(virtual evidence: Pearl, "Probabilistic Reasoning in Intelligent Systems", 1988, 2.2.2). What else is known of the
tree then counts too: a cause rises when others are ruled out, and falls when another explains the same trouble. Signs
are not asked where a rule has spoken: they would count the same facts twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from leptonai.ops.diagnosis.conditions import holds
from leptonai.ops.diagnosis.faulttree import About, Event, FaultTree
from leptonai.ops.diagnosis.rules import Rule, RuleBook

SURE = 1e-6  # no evidence is surer than one in a million
SUBSTANTIAL = 10**0.5  # a ratio of likelihoods from which on signs name a cause, by the scale of Jeffreys (1961)
REFUTED = 0.1  # a ratio of likelihoods: strong evidence against, by the same scale

Subject = tuple[About, str]
Values = Mapping[Subject, Mapping[str, float | bool]]


class Held(NamedTuple):
    """How sure, and the features (of whom, named what) that say so."""

    confidence: float
    by: frozenset[tuple[Subject, str]]


class Cut(NamedTuple):
    """A minimal cut set that the evidence does not refute, and P(all of it has happened | top, evidence)."""

    events: frozenset[str]
    probability: float


class Weighed(NamedTuple):
    """One tree whose top event was seen. ``named``: (cause, subject) of events with evidence of their own."""

    tree: FaultTree
    named: Mapping[tuple[str, str], Held]
    p: tuple[float, ...]  # of the events, by what was seen of each, before the top event counts
    refuted: frozenset[str]

    def cuts(self) -> list[Cut]:
        """The cut sets that agree with the evidence, the most probable first. PluginError: too many to be listed."""
        top = self.tree.probability(self.p)
        agree = [s for s in self.tree.cut_sets if not s & self.refuted]
        found = [Cut(s, self.tree.chance(s, self.p) / top if top else 0.0) for s in agree]
        return sorted(found, key=lambda c: (-c.probability, len(c.events), sorted(c.events)))


class Claim(NamedTuple):
    """A rule that holds of a subject. ``beside``: a rule for another cause holds too, of whatever subject."""

    rule: Rule
    subject: Subject
    by: frozenset[str]
    beside: bool


def claims(book: RuleBook, values: Values, service: str) -> list[Claim]:
    """Every rule that holds, in the order of the book."""
    found: list[tuple[Rule, Subject, frozenset[str]]] = []
    for rule in book.rules:
        for subject in _subjects(values, rule.about):
            if (said := holds(book.define, rule.when, _known(values, subject, service))).value:
                found.append((rule, subject, said.by))
    causes = {rule.cause for rule, _, _ in found}
    return [Claim(rule, subject, by, causes != {rule.cause}) for rule, subject, by in found]


def by_rules(book: RuleBook, values: Values, service: str) -> dict[tuple[str, str], Held]:
    """(cause, subject) -> the most confident rule that holds; rules for one cause are dependent, and never add."""
    best: dict[tuple[str, str], Held] = {}
    for rule, subject, used, beside in claims(book, values, service):
        known = _known(values, subject, service)
        confidence = rule.beside if beside and rule.beside is not None else rule.confidence
        for condition in rule.weaker:
            if (against := holds(book.define, condition, known)).value:
                confidence -= rule.by
                used |= against.by
        name = (rule.cause, subject[1])
        if confidence > 0 and (name not in best or confidence > best[name].confidence):
            best[name] = Held(confidence, _told(values, subject, service, used))
    return best


def by_trees(book: RuleBook, values: Values, service: str, ruled: Mapping[tuple[str, str], Held]) -> Iterator[Weighed]:
    """Each tree whose top event was seen."""
    home: Subject = ("service", service)
    for tree in book.trees.values():
        if tree.tree.seen is None:
            continue
        seen = holds(book.define, tree.tree.seen, values.get(home, {}))
        if seen.value:
            yield _weigh(book, tree, values, service, ruled, _told(values, home, service, seen.by))


def together(book: RuleBook, values: Values, service: str) -> tuple[dict[tuple[str, str], Held], list[Weighed]]:
    """(cause, subject) -> how sure: the largest of the trees that have it, the rule's own where no tree was seen."""
    ruled = by_rules(book, values, service)
    trees = list(by_trees(book, values, service, ruled))
    best: dict[tuple[str, str], Held] = {}
    for weighed in trees:
        for name, held in weighed.named.items():
            if name not in best or held.confidence > best[name].confidence:
                best[name] = held
    return {**ruled, **best}, trees


def _weigh(
    book: RuleBook,
    tree: FaultTree,
    values: Values,
    service: str,
    ruled: Mapping[tuple[str, str], Held],
    seen: frozenset[tuple[Subject, str]],
) -> Weighed:
    ratios: dict[str, float] = {}
    claims: list[tuple[str, str, float, frozenset[tuple[Subject, str]]]] = []
    for name, event in tree.tree.events.items():
        subjects: list[Subject] = (
            [("service", service)] if event.about == "service" else list(_subjects(values, event.about))
        )
        for subject in subjects:
            if (held := ruled.get((event.cause, subject[1]))) is not None:
                ratio, by = _odds(held.confidence) / _odds(tree.posterior(name)), held.by
            else:
                ratio, by = _signs(book, event, values, subject, service)
            ratios[name] = max(ratio, ratios.get(name, 0.0))
            spoken = (event.cause, subject[1]) in ruled or ratio >= SUBSTANTIAL
            if by and event.cause and spoken:
                claims.append((name, subject[1], ratio, by))
    p = [_update(prior, ratios.get(e, 1.0)) for e, prior in zip(tree.events, tree.p, strict=True)]
    named: dict[tuple[str, str], Held] = {}
    for name, about, ratio, by in claims:
        row = list(p)
        place = tree.events.index(name)
        row[place] = _update(tree.p[place], ratio)
        named[tree.tree.events[name].cause, about] = Held(tree.posterior(name, row), by | seen)
    refuted = frozenset(e for e in tree.events if ratios.get(e, 1.0) <= REFUTED)
    return Weighed(tree, named, tuple(p), refuted)


def _signs(
    book: RuleBook, event: Event, values: Values, subject: Subject, service: str
) -> tuple[float, frozenset[tuple[Subject, str]]]:
    """The ratio of likelihoods of what is known of the signs, and what speaks for the event."""
    ratio, by = 1.0, frozenset[str]()
    known = _known(values, subject, service)
    for sign in event.signs:
        found = holds(book.define, sign.when, known)
        if found.value is None:
            continue
        yes, no = (sign.present, sign.absent) if found.value else (1.0 - sign.present, 1.0 - sign.absent)
        ratio *= max(yes, SURE) / max(no, SURE)
        if yes > no and found.value:
            by |= found.by
    return ratio, _told(values, subject, service, by)


def _update(prior: float, ratio: float) -> float:
    return prior * ratio / (1.0 - prior + prior * ratio) if 0.0 < prior < 1.0 else prior


def _odds(p: float) -> float:
    p = min(max(p, SURE), 1.0 - SURE)
    return p / (1.0 - p)


def _subjects(values: Values, about: About) -> Iterator[Subject]:
    return (subject for subject in values if subject[0] == about)


def _known(values: Values, subject: Subject, service: str) -> dict[str, float | bool]:
    """What is known of a subject: the features of its service, and its own over them."""
    return {**values.get(("service", service), {}), **values.get(subject, {})}


def _told(values: Values, subject: Subject, service: str, names: frozenset[str]) -> frozenset[tuple[Subject, str]]:
    own = values.get(subject, {})
    return frozenset((subject if n in own else ("service", service), n) for n in names)
