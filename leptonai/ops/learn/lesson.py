"""What all reviews together teach, whether it is better than what was declared, and what is in force of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from leptonai.client.learnt import HeldOut, Learnt, RuleLearnt
from leptonai.ops.diagnose import diagnose
from leptonai.ops.diagnosis.conditions import Kind
from leptonai.ops.diagnosis.rules import RuleBook
from leptonai.ops.evidence import Facts, Feature
from leptonai.ops.learn.judged import Judged
from leptonai.ops.learn.order import Outcomes, order, outcomes
from leptonai.ops.learn.thresholds import Move, moved, moves
from leptonai.ops.learn.weights import counts, reweighed

FOLDS = 5  # an incident is diagnosed by what the other four fifths teach
FALL = 0.02  # of its incidents that a cause may lose, of those that have LEAST
LEAST = 5


class Lesson(NamedTuple):
    """``book``: what diagnosis uses; the declared one when what was learnt is not in force."""

    book: RuleBook
    known: Outcomes
    told: Learnt


def taught(book: RuleBook, kinds: Mapping[str, Kind], seen: Sequence[Judged]) -> tuple[RuleBook, list[Move]]:
    """The book as the reviewed incidents make it: limits first, then the confidences of what still holds."""
    found = moves(book, kinds, seen)
    return reweighed(moved(book, found), seen), found


def first(book: RuleBook, item: Judged) -> str:
    """The cause that the book names first of an incident."""
    features = {subject: {n: Feature(v, "e0") for n, v in own.items()} for subject, own in item.values.items()}
    return diagnose(Facts((), features), item.service, book)[0].name


def held_out(book: RuleBook, kinds: Mapping[str, Kind], seen: Sequence[Judged]) -> dict[str, HeldOut]:
    """By true cause: how many were named first, before and after, each by what the incidents of other folds teach."""
    known = [item for item in seen if item.truth]
    out: dict[str, HeldOut] = {}
    for fold in range(FOLDS):
        asked = [item for place, item in enumerate(known) if place % FOLDS == fold]
        held = {item.incident for item in asked}
        if not asked:
            continue
        learnt, _ = taught(book, kinds, [item for item in seen if item.incident not in held])
        for item in asked:
            was = out.get(item.truth, HeldOut(incidents=0, before=0, after=0))
            out[item.truth] = HeldOut(
                incidents=was.incidents + 1,
                before=was.before + (first(book, item) == item.truth),
                after=was.after + (first(learnt, item) == item.truth),
            )
    return dict(sorted(out.items()))


def lesson(
    book: RuleBook, kinds: Mapping[str, Kind], orders: Mapping[str, Sequence[str]], seen: Sequence[Judged], at: float,
    reviews: int, after: int = 0,
) -> Lesson:  # fmt: skip
    """What is in force at ``at``. ``orders``: cause -> remedies as declared, of those that may be put in another order.

    It is in force unless, on held-out incidents, fewer are named right than before, or a cause of LEAST incidents loses
    more than FALL of them. A cause that reviews call wrong more often than right may: it was named too often.
    """
    by_cause = held_out(book, kinds, seen)
    total = HeldOut(
        incidents=sum(h.incidents for h in by_cause.values()),
        before=sum(h.before for h in by_cause.values()),
        after=sum(h.after for h in by_cause.values()),
    )
    why = _refused(total, {c: h for c, h in by_cause.items() if c not in _refuted(seen)})
    new, found = taught(book, kinds, seen)
    known = outcomes(seen)
    changed = {cause: (tuple(row), order(cause, row, known)) for cause, row in orders.items()}
    told = Learnt(
        at=at, reviews=reviews, incidents=len(seen), after=after, in_force=not why and bool(seen),
        why=why or ("it holds on held-out incidents" if seen else "nothing was reviewed yet"),
        rules=_rules(book, new, found, seen), orders={c: o for c, o in changed.items() if o[0] != o[1]},
        total=total, causes=by_cause,
    )  # fmt: skip
    return Lesson(book if why else new, known, told)


def _refused(total: HeldOut, by_cause: Mapping[str, HeldOut]) -> str:
    if total.after < total.before:
        return f"of {total.incidents} held-out incidents {total.after} would be named right, {total.before} are"
    for cause, h in by_cause.items():
        if h.incidents >= LEAST and h.before - h.after > FALL * h.incidents:
            return f"of {h.incidents} held-out incidents of {cause} {h.after} would be named right, {h.before} are"
    return ""


def _refuted(seen: Sequence[Judged]) -> set[str]:
    votes: dict[str, float] = {}
    for item in seen:
        for said in item.said:
            votes[said.cause] = votes.get(said.cause, 0.0) + (said.weight if said.right else -said.weight)
    return {cause for cause, balance in votes.items() if balance < 0.0}


def _rules(old: RuleBook, new: RuleBook, found: Sequence[Move], seen: Sequence[Judged]) -> tuple[RuleLearnt, ...]:
    """The rules that changed, as declared and as they are now."""
    limits = {move.place: {move.condition: move.moved} for move in found}
    out = []
    counted = counts(moved(old, found), seen)
    for place, (was, now, count) in enumerate(zip(old.rules, new.rules, counted, strict=True)):
        if was != now:
            out.append(
                RuleLearnt(
                    cause=was.cause, about=was.about, when=_spell(was.when), declared=was.confidence,
                    alone=now.confidence, beside=now.confidence if now.beside is None else now.beside,
                    right=count.right, wrong=count.wrong, right_beside=count.right_beside,
                    wrong_beside=count.wrong_beside, limits=limits.get(place, {}),
                )
            )  # fmt: skip
    return tuple(out)


def _spell(condition: Any) -> str:
    """A condition as one line: ``all`` and ``any`` as words between its parts."""
    match condition:
        case str():
            return condition
        case {"not": inner}:
            return f"not ({_spell(inner)})" if isinstance(inner, dict) else f"not {_spell(inner)}"
        case {"all": parts}:
            return " and ".join(f"({_spell(p)})" if isinstance(p, dict) and "any" in p else _spell(p) for p in parts)
        case {"any": parts}:
            return " or ".join(_spell(p) for p in parts)
        case {"at_least": k, "of": parts}:
            return f"{k} of ({', '.join(_spell(p) for p in parts)})"
    return str(condition)
