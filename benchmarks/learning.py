"""Twenty verdicts on a systematically wrong rule: what they lift, and what they cost.

    python benchmarks/learning.py [--seeds 20] [--verdicts 20]

Each seed picks one shipped rule and spoils it: it holds wherever one of the other rules about the same kind of subject
does, and claims to be surer than all of them (0.98), so its cause is named first in the wrong. Incidents are the tested
cases that ship with the rules: their numbers are multiplied by exp(0.15 z), and the readings of a healthy service stand
beside them. An operator reviews the first incidents in which the spoilt cause is named first, and tells what each truly
was. Held out: 40 other incidents of each cause, from another seed.

"all": share of the held-out incidents named right first, with the rules as shipped, spoilt, and taught by the verdicts
(``ops.learn.lesson``, as ops does it, with its own check whether to put it in force). "held": the same of those in
which the spoilt rule holds. "own" and "other": points that the spoilt rule's cause, and the worst of all others, change
by from spoilt to taught; "other, shipped": the worst of all others against the rules as shipped.
"""

from __future__ import annotations

import argparse
import math
import random
from typing import NamedTuple

import msgspec

from leptonai.ops.diagnosis.cases import SERVICE, values_of
from leptonai.ops.diagnosis.files import BASE, shipped_book
from leptonai.ops.diagnosis.rules import Case, RuleBook
from leptonai.ops.diagnosis.weigh import claims
from leptonai.ops.learn.judged import Judged, Said
from leptonai.ops.learn.lesson import first, lesson

SURE = 0.98
MOST = 400  # incidents that happen until nobody reviews any more
HELD_OUT = 40  # incidents of each cause
KINDS = {**BASE.features, **{name: signal.kind for name, signal in shipped_book().signals.items()}}
SHARES = frozenset(name for name, kind in KINDS.items() if kind == "share")
COUNTS = frozenset({"crashes", "failed_starts", "load_failures", "lost_replicas", "replicas", "labels", "gpu_xids"})
HEALTHY = {"traffic_ratio": 1.0, "host_cpu_ratio": 0.4, "change_age_seconds": 9000.0, "neighbour_cpu_rise": 0.0}


class Outcome(NamedTuple):
    cause: str
    asked: list[Judged]
    held: list[bool]  # of each: whether the spoilt rule holds
    right: dict[str, list[bool]]  # by book, of each: named right first
    in_force: bool

    def share(self, book: str, only_held: bool = False) -> float:
        marks = [r for r, h in zip(self.right[book], self.held, strict=True) if h or not only_held]
        return 100.0 * sum(marks) / len(marks)

    def of(self, book: str, cause: str) -> float:
        marks = [r for r, item in zip(self.right[book], self.asked, strict=True) if item.truth == cause]
        return 100.0 * sum(marks) / len(marks)

    def worst(self, book: str) -> float:
        return min(self.of("taught", c) - self.of(book, c) for c in cases() if c != self.cause)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--verdicts", type=int, default=20)
    given = parser.parse_args()
    print(f"{'':33}|{'all':^27}|{'held':^20}| class, points")
    print(f"seed {'spoilt rule':27} | shipped spoilt taught lift | spoilt taught lift |   own  other  other, shipped")
    found = []
    for seed in range(given.seeds):
        o = once(seed, given.verdicts)
        found.append(o)
        every = [o.share(book) for book in ("shipped", "spoilt", "taught")]
        held = [o.share(book, True) for book in ("spoilt", "taught")]
        own = o.of("taught", o.cause) - o.of("spoilt", o.cause)
        print(
            f"{seed:>4} {o.cause:27} | {every[0]:7.1f} {every[1]:6.1f} {every[2]:6.1f} {every[2] - every[1]:4.1f} "
            f"| {held[0]:6.1f} {held[1]:6.1f} {held[1] - held[0]:4.1f} "
            f"| {own:5.1f} {o.worst('spoilt'):6.1f} {o.worst('shipped'):6.1f}{'' if o.in_force else '  not in force'}"
        )
    lifts = [o.share("taught", True) - o.share("spoilt", True) for o in found]
    every_lift = [o.share("taught") - o.share("spoilt") for o in found]
    print(f"lift where the rule holds: least {min(lifts):.1f}, mean {sum(lifts) / len(lifts):.1f} points (bar: 20)")
    print(f"lift over all incidents: least {min(every_lift):.1f}, mean {sum(every_lift) / len(lifts):.1f} points")
    print(f"worst change of another class: {min(o.worst('spoilt') for o in found):.1f} points (bar: -2)")


def once(seed: int, verdicts: int) -> Outcome:
    dice = random.Random(seed)
    sound = shipped_book()
    spoilt, place = spoil(sound, dice)
    name = spoilt.rules[place].cause
    reviewed: list[Judged] = []
    for number in range(MOST):
        item = incident(dice, number)
        if len(reviewed) < verdicts and first(spoilt, item) == name:
            reviewed.append(item._replace(said=said(name, item.truth)))
    made = lesson(spoilt, KINDS, {}, reviewed, 0.0, len(reviewed))
    others = random.Random(1_000_000 + seed)
    asked = [incident(others, number, cause) for cause in cases() for number in range(HELD_OUT)]
    alone = spoilt._replace(rules=(spoilt.rules[place],))
    books = {"shipped": sound, "spoilt": spoilt, "taught": made.book}
    return Outcome(
        cause=name,
        asked=asked,
        held=[bool(claims(alone, i.values, i.service)) for i in asked],
        right={key: [first(book, i) == i.truth for i in asked] for key, book in books.items()},
        in_force=made.told.in_force,
    )


def spoil(book: RuleBook, dice: random.Random) -> tuple[RuleBook, int]:
    """One rule holds wherever another about the same kind of subject does, and is surer than they are."""
    place = dice.randrange(len(book.rules))
    rule = book.rules[place]
    others = [r.when for r in book.rules if r.about == rule.about and r.cause != rule.cause]
    wrong = msgspec.structs.replace(rule, when={"any": [rule.when, *others]}, confidence=SURE, weaker=())
    rules = (*book.rules[:place], wrong, *book.rules[place + 1 :])
    return book._replace(rules=rules), place


def cases() -> dict[str, list[Case]]:
    """By the cause that leads them; a case that expects nothing definite is none."""
    found: dict[str, list[Case]] = {}
    for case in shipped_book().cases:
        if case.expect and (cause := case.expect[0].split(" of ")[0]) != "unknown":
            found.setdefault(cause, []).append(case)
    return dict(sorted(found.items()))


def incident(dice: random.Random, number: int, cause: str = "") -> Judged:
    """One case of ``cause`` (any, unless given), its numbers moved, with the readings of a healthy service beside."""
    known = cases()
    cause = cause or dice.choice(list(known))
    values = values_of(dice.choice(known[cause]))
    out = {}
    for subject, own in values.items():
        full = {**HEALTHY, **own} if subject[0] == "service" else own
        out[subject] = {name: move(name, value, dice) for name, value in full.items()}
    return Judged(number, SERVICE, out, (), cause)


def move(name: str, value: float | bool, dice: random.Random) -> float | bool:
    """Yes, no and counts stay; a share keeps to 0..1: its odds are moved, not it."""
    if isinstance(value, bool) or name in COUNTS:
        return value
    step = math.exp(0.15 * dice.gauss(0.0, 1.0))
    if name in SHARES:
        return value if value in (0.0, 1.0) else value * step / (1.0 - value + value * step)
    return value * step


def said(first_named: str, truth: str) -> tuple[Said, ...]:
    """What one operator's review of the true cause says."""
    if truth == first_named:
        return (Said("ana", truth, True, 1.0),)
    return (Said("ana", first_named, False, 1.0), Said("ana", truth, True, 1.0))


if __name__ == "__main__":
    main()
