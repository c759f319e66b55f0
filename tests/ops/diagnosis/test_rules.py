"""Rules: what can never fire is refused, what ships concludes what it should, confidence is Bayes', files reload."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from leptonai.cli.main import run as command
from leptonai.errors import PluginError
from leptonai.ops.diagnosis.cases import run, untested
from leptonai.ops.diagnosis.conditions import Kind, holds, implies, possible
from leptonai.ops.diagnosis.files import BASE, RuleFiles, book_with, shipped_book
from leptonai.ops.diagnosis.rules import Case, bind, read
from leptonai.ops.diagnosis.weigh import by_rules, together

BOOK = shipped_book()


@pytest.mark.parametrize("case", BOOK.cases, ids=lambda c: c.name)
def test_what_ships_concludes_what_it_should(case: Case) -> None:
    assert run(case, BOOK).wrong == ()


def test_every_shipped_rule_fires_in_a_case_and_every_cause_has_a_rule() -> None:
    assert untested(BOOK.rules, BOOK, BOOK.cases) == ()
    assert {r.cause for r in BOOK.rules} == set(BASE.causes) - {"unknown"}


# --- conditions against brute force ---------------------------------------------------------------------------------

KINDS: dict[str, Kind] = {"x": "number", "y": "share", "f": "flag"}
GRID = {"x": [-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0], "y": [0.0, 0.1, 0.25, 0.4, 0.5, 0.75, 1.0], "f": [0.0, 1.0]}
leaves = st.one_of(
    st.just("f"),
    st.builds(lambda op, v: f"x {op} {v}", st.sampled_from(["<", "<=", ">", ">=", "=="]), st.sampled_from([0, 1, 2])),
    st.builds(lambda op, v: f"y {op} {v}", st.sampled_from(["<", "<=", ">", ">="]), st.sampled_from([0.5, 0.25])),
)
conditions = st.recursive(
    leaves,
    lambda parts: st.one_of(
        st.builds(lambda c: {"not": c}, parts),
        st.builds(lambda c: {"all": c}, st.lists(parts, min_size=1, max_size=3)),
        st.builds(lambda c: {"any": c}, st.lists(parts, min_size=1, max_size=3)),
        st.builds(lambda c: {"at_least": 2, "of": c}, st.lists(parts, min_size=2, max_size=3)),
    ),
    max_leaves=6,
)


def worlds() -> list[dict[str, float]]:
    """Every mixture of values between and on the limits, and of features that were not seen."""
    axes: list[list[float | None]] = [[None, *GRID[name]] for name in KINDS]
    return [{n: v for n, v in zip(KINDS, point, strict=True) if v is not None} for point in product(*axes)]


@given(conditions)
@settings(max_examples=80, deadline=None)
def test_a_condition_is_possible_when_some_world_makes_it_true(condition: Any) -> None:
    assert possible({}, condition, KINDS) == any(holds({}, condition, w).value for w in worlds())


@given(conditions, conditions)
@settings(max_examples=80, deadline=None)
def test_what_is_said_to_follow_holds_in_every_world(stronger: Any, weaker: Any) -> None:
    assume(implies({}, stronger, weaker, KINDS))
    assert all(holds({}, weaker, w).value for w in worlds() if holds({}, stronger, w).value)


# --- what is refused ------------------------------------------------------------------------------------------------

RULE = "rules: [{{cause: {cause}, about: {about}, confidence: {c}, when: {when}}}]"


def rule(when: str, cause: str = "disk_full", about: str = "service", c: float = 0.9) -> str:
    return RULE.format(cause=cause, about=about, c=c, when=when)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (rule("killed"), "can never be true: of a service, unknown feature 'killed'"),
        (rule("{all: [failing, disk_used > 0.9, disk_used < 0.5]}"), "can never be true"),
        (rule("{at_least: 2, of: [failing, {not: failing}]}"), "can never be true"),
        (rule("{all: [{any: [{not: failing}, slower]}, failing, {not: slower}]}"), "can never be true"),
        (rule("trouble", c=0.5) + "\ndefine: {trouble: slower}", "'trouble' is in common.yaml"),
        (rule("{all: [disk_used >= 1, failing]}", c=0.5), "is shadowed"),
        (rule("failing") + "\ncauses: {disk_full: again}", "in the taxonomy already"),
        ("causes: {high_latency: users wait}", "is a symptom"),
        ("signals: {moon: {signal: moon_phase}}", "'moon_phase' is not collected"),
        ("signals: {gone: {signal: ready_count}}", "'gone' is in the features of ours"),
        ("signals: {a: {signal: ready_count, text: '{value.real}'}}", "may name value"),
        ("signals: {a: {signal: ready_count, text: '{}'}}", "wrong placeholder"),
        ("trees: {t: {top: g, gates: {g: {any: [g]}}, events: {a: {probability: 0.1}}}}", "tree 't': .*itself: g -> g"),
        ("trees: {t: {top: {any: [a, b]}, events: {a: {probability: 0.1}}}}", "'b' is neither a gate nor an event"),
        ("cases: [{name: n, evidence: {}}]", "cannot fail"),
        ("cases: [{name: n, evidence: {service: {killed: true}}, never: [disk_full]}]", "no feature 'killed'"),
        ("cases: [{name: n, evidence: {}, expect: [sunspots]}]", "no such cause 'sunspots'"),
        ("rules: {", "ours.yaml"),
        ("moons: 1", "moons"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_and_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "ours.yaml"
    path.write_text(text)
    with pytest.raises(PluginError, match=says) as e:
        book_with(path)
    assert str(path) in e.value.message and e.value.hint


# --- rules and trees together ---------------------------------------------------------------------------------------


@given(st.floats(0.05, 0.99))
def test_a_rule_that_is_all_that_is_known_gives_its_own_confidence(confidence: float) -> None:
    """However a tree weighs it: without other evidence its calibration is kept."""
    rules = tuple(r for r in BOOK.rules if r.cause == "disk_full")
    assert len(rules) == 1
    book = BOOK._replace(
        rules=(type(rules[0])(cause="disk_full", about="service", when="failing", confidence=confidence),)
    )
    found, trees = together(book, {("service", "s"): {"failing": True}}, "s")
    assert [t.tree.name for t in trees] == ["failing_answers"]
    assert found["disk_full", "s"].confidence == pytest.approx(confidence, abs=1e-6)


def test_two_weak_explanations_of_one_trouble_keep_each_other_from_being_acted_upon() -> None:
    values: Any = {
        ("service", "s"): {"failing": True, "slower": True, "gpu_hot": 0.5, "retry_share": 0.9, "retry_rise": 0.9}
    }
    alone = {name: held.confidence for name, held in by_rules(BOOK, values, "s").items()}
    found, _ = together(BOOK, values, "s")
    assert found["gpu_thermal", "s"].confidence < alone["gpu_thermal", "s"]


def test_cut_sets_that_the_evidence_refutes_are_left_out() -> None:
    values: Any = {("service", "s"): {"slower": True, "host_cpu_ratio": 0.1, "traffic_ratio": 1.0, "gpu_hot": 0.0}}
    _, (tree,) = together(BOOK, values, "s")
    left = [cut.events for cut in tree.cuts()]
    assert {"cpu_starvation", "traffic_surge", "gpu_thermal"} == tree.refuted
    assert frozenset({"slow_dependency"}) in left and frozenset({"cpu_starvation"}) not in left
    assert len(left) == len(tree.tree.cut_sets) - 3


# --- files ----------------------------------------------------------------------------------------------------------

GOOD = rule("store_age > 5", cause="stale_store") + (
    "\ncauses: {stale_store: the store is old}\nsignals: {store_age: {signal: store_age_seconds, foreign: true}}"
)


def test_files_are_read_when_they_change_and_a_broken_one_never_takes_the_others_with_it(tmp_path: Path) -> None:
    files = RuleFiles(tmp_path / "rules")
    assert not files.look() and files.book is BOOK  # no folder: what ships
    (tmp_path / "rules").mkdir()
    good, bad = tmp_path / "rules" / "a.yaml", tmp_path / "rules" / "b.yaml"
    good.write_text(GOOD)
    bad.write_text(rule("sunspots"))
    assert files.look() and not files.look()
    assert "stale_store" in files.book.causes
    assert [*files.broken] == [str(bad)] and "sunspots" in files.broken[str(bad)].message
    good.write_text("rules: [")  # its last good version stays in force
    assert files.look() and "stale_store" in files.book.causes and str(good) in files.broken
    good.unlink()
    bad.write_text(GOOD)
    assert files.look() and files.broken == {} and "stale_store" in files.book.causes
    bad.unlink()
    (tmp_path / "rules" / "c.yaml").mkdir()
    assert files.look() and "stale_store" not in files.book.causes and files.broken


def test_a_file_too_large_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(PluginError, match="1,048,577 bytes"):
        book_with(path)


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_tests_checks_and_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = ["--home", str(tmp_path)]
    assert command([*home, "rules", "test"]) == 0
    assert "cases pass; 0 of" in capsys.readouterr().out
    path = tmp_path / "ours.yaml"
    path.write_text(GOOD + "\ncases: [{name: old, evidence: {service: {store_age: 9}}, expect: [disk_full]}]")
    assert command([*home, "rules", "check", str(path)]) == 0
    assert command([*home, "rules", "test", str(path)]) == 1
    assert "disk_full was expected at place 1, stale_store" in capsys.readouterr().out
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "x.yaml").write_text("rules: [")
    assert command([*home, "rules", "check"]) == 9
    assert "x.yaml" in capsys.readouterr().err
    assert command([*home, "rules", "tree", "no_answers"]) == 0
    assert "first_replica and second_replica" in capsys.readouterr().out
    assert command([*home, "rules", "tree", "slow_answers", "--case", "a hot GPU", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["events"][0]["event"] == "gpu_thermal" and told["events"][0]["posterior"] == pytest.approx(
        0.88, abs=1e-3
    )
    assert command([*home, "rules", "tree", "nothing"]) == 4


def test_all_files_of_one_book_are_checked_together(tmp_path: Path) -> None:
    a, b = tmp_path / "a.yaml", tmp_path / "b.yaml"
    a.write_text("define: {one: two}")
    b.write_text("define: {two: one}")
    with pytest.raises(PluginError, match="leads to itself: one -> two -> one"):
        bind([(str(p), read(p)) for p in (a, b)], BASE)
