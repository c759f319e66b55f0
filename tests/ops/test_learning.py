"""What reviews change: pure functions by invariants, and the loop by what an incident is called afterwards."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leptonai.ops.diagnosis.cases import SERVICE, values_of
from leptonai.ops.diagnosis.files import BASE, shipped_book
from leptonai.ops.diagnosis.rules import Document, Rule, RuleBook, bind
from leptonai.ops.diagnosis.weigh import by_rules
from leptonai.ops.learn.judged import Judged, Said, judged
from leptonai.ops.learn.lesson import first, lesson, taught
from leptonai.ops.learn.order import Tried, order
from leptonai.ops.learn.thresholds import moves
from leptonai.ops.learn.weights import EDGE, MOST, STRENGTH, counts, posterior, reweighed
from leptonai.types import Action, Cause, Evidence, Incident, Review

BOOK = shipped_book()
KINDS = {**BASE.features, **{name: signal.kind for name, signal in BOOK.signals.items()}}
SEEN = [values_of(case) for case in BOOK.cases]
CAUSES = sorted({rule.cause for rule in BOOK.rules})

SAID = st.builds(
    Said, st.sampled_from("abc"), st.sampled_from(CAUSES), st.booleans(), st.sampled_from((0.25, 0.5, 1.0))
)
REVIEWED = st.lists(
    st.builds(
        lambda number, values, said: Judged(number, SERVICE, values, tuple(said), said[0].cause if said else ""),
        st.integers(1, 50), st.sampled_from(SEEN), st.lists(SAID, max_size=3),
    ), max_size=30,
)  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(REVIEWED, st.randoms(use_true_random=False))
def test_confidences_stay_within_0_and_1_and_the_order_of_reviews_does_not_matter(
    seen: list[Judged], dice: Any
) -> None:
    learnt = reweighed(BOOK, seen)
    shuffled = [item._replace(said=tuple(dice.sample(item.said, len(item.said)))) for item in seen]
    dice.shuffle(shuffled)
    for one, other in zip(learnt.rules, reweighed(BOOK, shuffled).rules, strict=True):
        assert one.confidence == pytest.approx(other.confidence, rel=1e-9)
        for confidence in (one.confidence, one.beside):
            assert confidence is None or 0.0 < confidence < 1.0


@settings(deadline=None, max_examples=30)
@given(REVIEWED, st.integers(1, 400), st.booleans())
def test_a_flood_of_one_reviewer_weighs_no_more_than_its_bound(seen: list[Judged], flood: int, right: bool) -> None:
    """However many incidents one reviewer speaks of, every rule keeps what MOST of theirs leave of its prior."""
    case = values_of(BOOK.cases[0])
    cause = BOOK.cases[0].expect[0].split(" of ")[0]
    more = [Judged(1000 + n, SERVICE, case, (Said("flood", cause, right, 1.0),), cause) for n in range(flood)]
    before, after = counts(BOOK, seen), counts(BOOK, [*seen, *more])
    assert all(sum(b) - sum(a) <= MOST + 1e-6 for a, b in zip(before, after, strict=True))
    if not seen:
        place = next(n for n, count in enumerate(after) if any(count))
        rule, now = BOOK.rules[place], reweighed(BOOK, more).rules[place]
        assert now.beside is not None
        low, high = posterior(rule.confidence, 0.0, MOST), posterior(rule.confidence, MOST, 0.0)
        assert low - 1e-9 <= now.confidence <= high + 1e-9


def test_a_declared_confidence_weighs_as_much_as_eight_incidents() -> None:
    assert posterior(0.9, 0.0, 0.0) == pytest.approx(0.9)
    assert posterior(0.9, 0.0, STRENGTH) == pytest.approx(0.45)
    assert posterior(1.0, 0.0, 0.0) == 1.0 - EDGE
    assert posterior(0.9, 0.0, 4.0) < 0.7, "four refutations take it below what may act by itself"


def book_of(*rules: Rule) -> RuleBook:
    return bind([("ours", Document(rules=rules))], BASE)


def seen_at(number: int, said: str, right: bool, **features: float | bool) -> Judged:
    named = Said("ana", said, right, 1.0)
    return Judged(number, SERVICE, {("service", SERVICE): features}, (named,), said if right else "")


def test_a_rule_refuted_beside_another_is_still_right_alone() -> None:
    """Told to be wrong wherever another rule holds too: there it loses its place, where it stands alone it keeps it."""
    wide = Rule(cause="traffic_surge", about="service", when="slower", confidence=0.95)
    narrow = Rule(cause="disk_full", about="service", when={"all": ["slower", "host_cpu_ratio >= 0.5"]}, confidence=0.8)
    book = book_of(wide, narrow)
    wrong = [seen_at(n, "traffic_surge", False, slower=True, host_cpu_ratio=0.9) for n in range(10)]
    learnt = reweighed(book, wrong)
    both = {("service", SERVICE): {"slower": True, "host_cpu_ratio": 0.9}}
    alone = {("service", SERVICE): {"slower": True, "host_cpu_ratio": 0.1}}
    before, after = (by_rules(b, both, SERVICE)["traffic_surge", SERVICE].confidence for b in (book, learnt))
    assert before == 0.95
    assert after < 0.5
    assert by_rules(learnt, alone, SERVICE)["traffic_surge", SERVICE].confidence == 0.95
    told = [seen_at(n, "traffic_surge", False, slower=True, host_cpu_ratio=0.1) for n in range(10)]
    learnt = reweighed(book, told)
    assert by_rules(learnt, alone, SERVICE)["traffic_surge", SERVICE].confidence < 0.5
    assert by_rules(learnt, both, SERVICE)["traffic_surge", SERVICE].confidence < 0.5, "wrong alone is wrong beside too"


@pytest.mark.parametrize(
    ("right", "wrong", "to"),
    [
        ([3.0, 4.0], [1.6] * 6, "traffic_ratio >= 2.3"),  # half-way between them
        ([30.0, 40.0], [1.6] * 6, "traffic_ratio >= 3"),  # twice the declared limit at most
        ([3.0, 4.0], [1.6] * 4, None),  # too few that it was wrong about
        ([3.0], [1.6] * 6, None),  # too few that it was right about
        ([1.55, 4.0], [1.6] * 6, None),  # an incident it was right about would be lost
        ([3.0, 4.0], [1.6, 1.6, 5.0, 5.0, 5.0, 5.0], None),  # it would leave out too few
    ],
)
def test_a_limit_moves_only_to_what_reviews_show_and_only_so_far(
    right: list[float], wrong: list[float], to: str | None
) -> None:
    book = book_of(
        Rule(cause="traffic_surge", about="service", when={"all": ["slower", "traffic_ratio >= 1.5"]}, confidence=0.8)
    )
    seen = [seen_at(n, "traffic_surge", True, slower=True, traffic_ratio=v) for n, v in enumerate(right)]
    seen += [seen_at(100 + n, "traffic_surge", False, slower=True, traffic_ratio=v) for n, v in enumerate(wrong)]
    assert [m.moved for m in moves(book, KINDS, seen)] == ([to] if to else [])
    if to == "traffic_ratio >= 2.3":
        learnt, _ = taught(book, KINDS, seen)
        assert learnt.rules[0].when == {"all": ["slower", to]}
        assert learnt.rules[0].confidence > 0.8, "what the limit leaves out does not count against the rule any more"


ROW = ("evict", "rollback", "restart")


@given(st.permutations(ROW), st.dictionaries(st.sampled_from(ROW), st.builds(Tried, *[st.integers(0, 9)] * 3)))
def test_an_order_of_remedies_keeps_them_all_and_moves_each_one_place(row: list[str], tried: dict[str, Tried]) -> None:
    """But for what did harm twice, which goes last."""
    known = {("memory_leak", remedy): t for remedy, t in tried.items()}
    now = order("memory_leak", row, known)
    assert sorted(now) == sorted(row)
    if not any(t.harmed >= 2 for t in tried.values()):
        assert all(abs(now.index(remedy) - place) <= 1 for place, remedy in enumerate(row))
    assert order("data_drift", row, known) == tuple(row), "of another cause nothing was learnt"


def test_what_helped_comes_first_and_what_harmed_last() -> None:
    helped = {("memory_leak", "rollback"): Tried(helped=3), ("memory_leak", "evict"): Tried(failed=3)}
    assert order("memory_leak", ROW, helped) == ("rollback", "evict", "restart")
    assert order("memory_leak", ROW, {("memory_leak", "rollback"): Tried(helped=2)}) == ROW, "too few"
    assert order("memory_leak", ROW, {("memory_leak", "evict"): Tried(harmed=2)}) == ("rollback", "restart", "evict")


def spoilt() -> tuple[RuleBook, list[Judged]]:
    """A rule that holds wherever users wait, surer than all others; and incidents of other causes in which it won."""
    wide = Rule(cause="retry_storm", about="service", when="slower", confidence=0.98)
    rules = (wide, *(r for r in BOOK.rules if r.cause != "retry_storm"))
    book, dice, seen = BOOK._replace(rules=rules), random.Random(7), []
    cases = [
        c for c in BOOK.cases if c.expect and c.expect[0] not in ("unknown", "retry_storm") and "service" in c.evidence
    ]
    while len(seen) < 20:
        case = dice.choice(cases)
        item = Judged(len(seen), SERVICE, values_of(case), (), case.expect[0].split(" of ")[0])
        if first(book, item) == "retry_storm":
            said = (Said("ana", "retry_storm", False, 1.0), Said("ana", item.truth, True, 1.0))
            seen.append(item._replace(said=said))
    return book, seen


def test_twenty_verdicts_on_a_wrong_rule_are_seen_to_help_and_are_put_in_force() -> None:
    book, seen = spoilt()
    made = lesson(book, KINDS, {}, seen, 5.0, 20)
    assert made.told.in_force
    assert made.told.total.before == 0
    assert made.told.total.after >= 18
    (rule,) = [r for r in made.told.rules if r.cause == "retry_storm"]
    assert (rule.declared, rule.wrong_beside) == (0.98, 20.0)
    assert rule.beside < 0.5
    assert lesson(book, KINDS, {}, [], 5.0, 0).book.rules == book.rules


def test_what_would_name_fewer_held_out_incidents_right_is_not_put_in_force() -> None:
    """Verdicts by chance: a cause that is told right and then wrong of the same evidence."""
    case = next(c for c in BOOK.cases if c.name == "a replica killed from outside")
    seen = [
        Judged(
            n, SERVICE, values_of(case), (Said("ana", "replica_killed", False, 1.0),), "replica_killed" if n % 2 else ""
        )
        for n in range(40)
    ]
    made = lesson(BOOK, KINDS, {}, seen, 5.0, 40)
    assert not made.told.in_force
    assert "held-out incidents" in made.told.why
    assert made.book.rules == BOOK.rules
    assert made.told.rules, "it is shown all the same"


def test_what_a_review_says_of_an_incident() -> None:
    """The cause told is right; the one named first is wrong when it is another; hypotheses lapse with their analysis;
    of several reviewers each weighs a part; where a drill spoke, only drills are heard."""
    about = {"about": "service", "subject": "digits"}
    incident = Incident(
        id=4, subject="default/service/digits", severity="critical", title="", began=0.0, opened=1.0,
        causes=tuple(Cause(name=n, subject="digits", confidence=0.6) for n in ("data_drift", "disk_full")),
        evidence=(
            Evidence(id="e1", kind="users", at=1.0, text="", data={**about, "slower": True}),
            Evidence(id="e2", kind="log_new", at=1.0, text="", data={**about, "name": "x"}),
        ),
        actions=(
            Action(remedy="evict", proposal="p", at=2.0, verdict="effective"),
            Action(remedy="restart", proposal="q", at=3.0),
        ),
    )  # fmt: skip

    def said(by: str, **more: Any) -> Review:
        return Review(**({"incident": 4, "by": by, "at": 1.0, "analysis": incident.analysis} | more))

    (one,) = judged([incident], [said("a", cause="retry_storm", remedies={"evict": "harmful"})])
    assert one.values == {("service", "digits"): {"slower": True}}
    assert {(s.cause, s.right) for s in one.said} == {("data_drift", False), ("retry_storm", True)}
    assert (one.service, one.truth, one.remedies) == ("digits", "retry_storm", (("evict", "harmful"),))
    (two,) = judged(
        [incident], [said("a", hypotheses={"data_drift": True}), said("b", hypotheses={"data_drift": False})]
    )
    assert {(s.reviewer, s.right, s.weight) for s in two.said} == {("a", True, 0.5), ("b", False, 0.5)}
    (old,) = judged([incident], [said("a", hypotheses={"data_drift": False, "disk_full": False}, analysis="another")])
    assert old.said == ()
    (drilled,) = judged([incident], [said("a", cause="retry_storm"), said("b", cause="disk_full", source="drill")])
    assert {s.reviewer for s in drilled.said} == {"b"}
    assert judged([incident], []) == []
