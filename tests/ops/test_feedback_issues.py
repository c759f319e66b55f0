"""Complaints become issues, opinions become signals, and a repair is seen to have helped or not."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptonai.ops.feedback import kpi
from leptonai.ops.feedback.fell import fell
from leptonai.ops.feedback.issues import HOUR, MOST, complained, counted
from leptonai.ops.feedback.kpi import Opinions
from leptonai.ops.feedback.listener import Listener
from leptonai.ops.feedback.words import words
from leptonai.platforms.telemetry import Memory
from leptonai.types import Feedback, Issue, Service, Signal, Spec, Survey, Variant, effective_dials

SLOW = [
    "The answers are far too slow", "so slow, I wait ten seconds for answers", "waiting for a slow answer again",
    "Why is it so SLOW today?", "slow answers!!",
]  # fmt: skip
WRONG = [
    "it reads my seven as a one", "the digit seven is read as one", "My sevens are always read as ones",
    "again a seven read as one", "reads seven as one, wrong digit",
]  # fmt: skip
CHINESE = ["回答速度太慢了", "速度很慢，等了很久", "为什么回答速度这么慢", "慢，速度太慢"]
DENIED = ["登录失败，提示密码错误", "总是登录失败", "无法登录，密码错误", "登录失败了"]


def grown(texts: list[str], at: float = 0.0) -> list[tuple[Issue, dict[str, int]]]:
    known: list[tuple[Issue, dict[str, int]]] = []
    for n, text in enumerate(texts):
        issue, terms, gone = complained("digits", text, at + n, known)
        known = [k for k in known if k[0].id not in (gone, issue.id)]
        made = issue if issue.id else Issue(**{f: getattr(issue, f) for f in issue.__struct_fields__} | {"id": n + 1})
        known.append((made, terms))
    return known


@pytest.mark.parametrize("seed", range(5))
def test_complaints_that_say_the_same_are_one_issue_in_english_and_in_chinese(seed: int) -> None:
    """Whatever the order they come in, no issue mixes two kinds, and one of each holds half of it or more."""
    kinds = {text: name for name, texts in (("s", SLOW), ("w", WRONG), ("c", CHINESE), ("d", DENIED)) for text in texts}
    texts = list(kinds)
    random.Random(seed).shuffle(texts)
    known: list[tuple[Issue, dict[str, int]]] = []
    members: dict[int, list[str]] = {}
    for n, text in enumerate(texts):
        issue, terms, _ = complained("digits", text, float(n), known)
        place = issue.id or n + 1
        made = Issue(**{f: getattr(issue, f) for f in issue.__struct_fields__} | {"id": place})
        known = [k for k in known if k[0].id != place] + [(made, terms)]
        members.setdefault(place, []).append(kinds[text])
    assert all(len(set(of)) == 1 for of in members.values()), members
    for kind, many in (("s", 5), ("w", 5), ("c", 4), ("d", 4)):
        assert max(of.count(kind) for of in members.values()) >= many / 2, (kind, members)


@given(st.lists(st.text(max_size=60), max_size=30))
def test_whatever_is_written_counts_once_and_the_same_again_gives_the_same(texts: list[str]) -> None:
    known = grown(texts)
    assert known == grown(texts)
    assert sum(issue.count for issue, _ in known) == len(texts)
    assert all(len(terms) <= 80 and len(issue.title) <= 140 for issue, terms in known)


def test_issues_of_a_service_are_bounded_and_those_somebody_sees_to_stay() -> None:
    letters = "abcdefghij"
    texts = [f"{letters[n // 100]}{letters[n // 10 % 10]}{letters[n % 10]}xyz broken" for n in range(MOST)]
    known = [
        (
            Issue(id=n + 1, service="digits", title=t, count=1, first=n, last=n, owner="ana" if n == 0 else ""),
            {t[:6]: 1},
        )
        for n, t in enumerate(texts)
    ]
    _, _, gone = complained("digits", "something else entirely", 1e6, known)
    assert gone == 2, "the oldest without an owner"


def test_a_complaint_to_a_closed_issue_opens_it_again() -> None:
    closed = Issue(
        id=3, service="digits", title="", count=2, first=0.0, last=1.0, state="closed", closed=5.0, revision=4
    )
    issue, _, _ = complained("digits", "slow answers", 7200.0, [(closed, {"slow": 2, "answer": 2})])
    assert (issue.id, issue.state, issue.closed, issue.note) == (3, "open", None, "came back")
    assert issue.hours == ((2, 1),)


def test_words_are_what_a_text_is_about() -> None:
    assert words("The images were STOPPED, stopping!") == {"imag", "stop"}
    assert words("速度太慢了") == {"速", "度", "太", "慢", "速度", "度太", "太慢"}
    assert words("1234 !? the <email:abcdefgh>") == frozenset()


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [
        ((40, 1000.0), (5, 1000.0), "fell"),
        ((40, 1000.0), (38, 1000.0), "unknown"),
        ((40, 1000.0), (0, 10.0), "unknown"),  # too early: nobody has asked yet
        ((40, 1000.0), (3, 10.0), "stayed"),
        ((5000, 1e6), (100, 1e6), "fell"),
        ((5000, 1e6), (5100, 1e6), "stayed"),
    ],
)
def test_a_repair_is_believed_when_complaints_are_rarer_beyond_chance(
    before: tuple[int, float], after: tuple[int, float], outcome: str
) -> None:
    assert fell(*before, *after).outcome == outcome


def test_nothing_changed_is_seldom_taken_for_a_repair() -> None:
    """Of 400 repairs that change nothing, at most 5 % (and the error of counting) are believed."""
    dice, many = random.Random(3), 0
    for _ in range(400):
        counts = [sum(dice.random() < 0.02 for _ in range(1000)) for _ in range(2)]
        many += fell(counts[0], 1000.0, counts[1], 1000.0).outcome == "fell"
    assert many <= 32


def test_complaints_are_counted_by_the_hour() -> None:
    issue = Issue(id=1, service="d", title="", count=6, first=0.0, last=0.0, hours=((1, 1), (2, 2), (3, 3)))
    assert counted(issue, HOUR, 3 * HOUR) == 3
    assert counted(issue, 3 * HOUR, 9 * HOUR) == 3


def service(**survey: Any) -> Service:
    spec = Spec(name="digits", variants=(Variant(model="m"),), survey=Survey(**survey) if survey else None)
    return Service(spec=spec, dials=effective_dials(spec, [], 0.0), revision=1)


def said(about: str, at: float = 1.0, **more: Any) -> Feedback:
    return Feedback(about=about, by="a", at=at, **more)


def test_ratings_and_words_become_indicators_of_the_service_that_answered() -> None:
    opinions, wishes = Opinions(), {"digits": service()}
    asked = {f"id{n}": "digits" for n in range(10)}.get
    items = [said(f"id{n}", rating=5.0 if n < 6 else 1.0) for n in range(8)]
    items += [
        said("id8", note="slow"),
        said("incident:3", note="no"),
        said("id9", label=7),
        said("survey:digits", rating=3.0),
    ]
    opinions.heard(items, asked, wishes, 1.0)
    opinions.labelled({("digits", "d1"): (8, 2)}, 1.0)
    found = {s.name: s.value for s in opinions.signals(wishes, 2.0)}
    assert found["satisfaction_ratio"] == pytest.approx(6 / 9)
    assert found["complaint_ratio"] == pytest.approx(3 / 10)
    assert found["label_accuracy_ratio"] == pytest.approx(0.75)
    assert opinions.signals(wishes, 2.0 + kpi.WINDOW) == []


def test_another_scale_has_other_complaints() -> None:
    opinions, wishes = Opinions(), {"digits": service(scale=(0, 10), satisfied=9.0, complaint=6.0)}
    opinions.heard([said("survey:digits", rating=float(n)) for n in range(1, 11)], lambda id: None, wishes, 1.0)
    found = {s.name: s.value for s in opinions.signals(wishes, 2.0)}
    assert found == {"satisfaction_ratio": 0.2, "complaint_ratio": 0.6}


def test_feedback_may_come_before_its_prediction_and_unknown_ids_are_counted_and_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kpi, "WAITING", 10)
    opinions, wishes = Opinions(), {"digits": service()}
    asked: dict[str, str] = {}
    opinions.heard([said(f"id{n}", rating=1.0) for n in range(6)], asked.get, wishes, 1.0)
    assert opinions.signals(wishes, 1.0) == []
    asked |= {f"id{n}": "digits" for n in range(5)}
    opinions.heard([], asked.get, wishes, 2.0)
    assert {s.name: s.value for s in opinions.signals(wishes, 2.0)}["complaint_ratio"] == 1.0
    opinions.heard([said(f"flood{n}", rating=1.0) for n in range(100)], asked.get, wishes, 3.0)
    assert len(opinions._waiting) == 10
    opinions.heard([], asked.get, wishes, 3.0 + kpi.PATIENCE)
    found = {s.name: s.value for s in opinions.signals(wishes, 4.0)}
    assert found["feedback_unknown_count"] == 101
    assert not opinions._waiting


def test_a_repair_is_judged_by_complaints_per_request_and_the_issue_closed_or_opened_again() -> None:
    """Twice the traffic after the repair: as many complaints an hour as before are half as many a request."""
    kept, hours = Memory(keep=1e9), 8
    repaired = 5 * HOUR
    for n in range(hours * 60):
        at = n * 60.0
        rate = 0.5 if at < repaired else 4.0
        kept.write([Signal(name="request_rate_per_second", labels={"service": "digits"}, at=at, value=rate)])
    issue = Issue(
        id=1, service="digits", title="", count=80, first=0.0, last=0.0, state="fixed", fixed=repaired - 60.0,
        hours=tuple((hour, 10) for hour in range(hours)),
    )  # fmt: skip
    listener = Listener(None, kept)  # type: ignore[arg-type]
    assert listener.judge(issue, repaired + 100.0) is None, "too early"
    found = listener.judge(issue, hours * HOUR - 1.0)
    assert found is not None
    assert found.outcome == "fell"
    assert found.before == pytest.approx(8 * found.after, rel=0.02)
    by_time = Listener(None, Memory()).judge(issue, hours * HOUR - 1.0)  # type: ignore[arg-type]
    assert by_time is not None
    assert by_time.outcome == "stayed", "without requests, complaints per second are compared"
