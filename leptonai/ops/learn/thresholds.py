"""Limits in rules that reviews may move: stricter, as far as no incident is lost that the rule was right about. Pure.

A limit is one that stands in the rule's own ``all``, like ``compute_ratio >= 1.5``: definitions are shared, and stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from leptonai.ops.diagnosis.conditions import Kind, comparison
from leptonai.ops.diagnosis.rules import Rule, RuleBook
from leptonai.ops.diagnosis.weigh import claims
from leptonai.ops.learn.judged import Judged

LEAST_WRONG, LEAST_RIGHT = 5, 2  # incidents on either side of a limit until it is moved
SHARE = 0.5  # of the incidents it was wrong about, that moving it must leave out
FURTHEST = 2.0  # times the declared limit (or a half of it, where less is asked for); a share is moved half-way at most


Spans = Mapping[str, tuple[float, float]]  # feature -> its least and most over the subjects of which a rule held


class Move(NamedTuple):
    """``left_out``: incidents the rule was wrong about, and does not hold in any more."""

    place: int  # of the rule in the book
    condition: str
    moved: str
    left_out: int
    wrong: int


def moves(book: RuleBook, kinds: Mapping[str, Kind], seen: Sequence[Judged]) -> list[Move]:
    """At most one limit of each rule: the one that leaves out most of what the rule was wrong about."""
    found = []
    for place, rule in enumerate(book.rules):
        right, wrong = _values(book, rule, seen)
        if len(wrong) < LEAST_WRONG or len(right) < LEAST_RIGHT:
            continue
        options = [_move(place, c, kinds, right, wrong) for c in _own(book, rule)]
        best = max((o for o in options if o is not None), key=lambda m: (m.left_out, m.condition), default=None)
        if best is not None:
            found.append(best)
    return found


def moved(book: RuleBook, found: Sequence[Move]) -> RuleBook:
    """The book with these limits in the place of its own."""
    rules = list(book.rules)
    for move in found:
        rule = rules[move.place]
        when = rule.when
        if isinstance(when, str):
            when = move.moved
        else:
            when = {"all": [move.moved if part == move.condition else part for part in when["all"]]}
        rules[move.place] = msgspec.structs.replace(rule, when=when)
    return book._replace(rules=tuple(rules))


def _own(book: RuleBook, rule: Rule) -> Iterator[str]:
    """The comparisons with a limit in the rule's own ``all``."""
    parts: list[Any] = [rule.when] if isinstance(rule.when, str) else rule.when.get("all", [])
    for part in parts:
        if isinstance(part, str) and part not in book.define and comparison(part)[1] in (">=", ">", "<=", "<"):
            yield part


def _values(book: RuleBook, rule: Rule, seen: Sequence[Judged]) -> tuple[list[Spans], list[Spans]]:
    """Of the incidents in which the rule held and was right, and of those in which it was wrong."""
    right: list[Spans] = []
    wrong: list[Spans] = []
    alone = book._replace(rules=(rule,))
    for item in seen:
        verdicts = {said.right for said in item.said if said.cause == rule.cause}
        held = claims(alone, item.values, item.service) if len(verdicts) == 1 else []
        if not held:
            continue
        home = item.values.get(("service", item.service), {})
        known = [{**home, **item.values.get(claim.subject, {})} for claim in held]
        names = set.intersection(*(set(k) for k in known))
        span = {n: (float(min(k[n] for k in known)), float(max(k[n] for k in known))) for n in names}
        (right if True in verdicts else wrong).append(span)
    return right, wrong


def _move(
    place: int,
    condition: str,
    kinds: Mapping[str, Kind],
    right: Sequence[Spans],
    wrong: Sequence[Spans],
) -> Move | None:
    """The limit half-way between the incidents it was right about and the nearest one it was wrong about."""
    name, op, limit = comparison(condition)
    if any(name not in span for span in (*right, *wrong)):
        return None
    up = op in (">=", ">")
    furthest = _furthest(limit, kinds.get(name, "number"), up)
    good = min(s[name][1] for s in right) if up else max(s[name][0] for s in right)
    bad = [s[name][1] if up else s[name][0] for s in wrong]
    outside = [v for v in bad if (v < good if up else v > good)]
    if not outside:
        return None
    to = (good + (max(outside) if up else min(outside))) / 2.0
    to = min(to, furthest) if up else max(to, furthest)
    left_out = sum(v < to for v in bad) if up else sum(v > to for v in bad)
    if left_out < SHARE * len(wrong) or (to <= limit if up else to >= limit):
        return None
    return Move(place, condition, f"{name} {op} {to:.6g}", left_out, len(wrong))


def _furthest(limit: float, kind: Kind, up: bool) -> float:
    if kind == "share":
        return (limit + 1.0) / 2.0 if up else limit / 2.0
    step = abs(limit) * (FURTHEST - 1.0) if up else abs(limit) * (1.0 - 1.0 / FURTHEST)
    return limit + step if up else limit - step
