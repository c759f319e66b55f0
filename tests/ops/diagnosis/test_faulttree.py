"""Fault trees against brute force over every state of their basic events, and the trees that must be refused."""

from __future__ import annotations

from itertools import product
from math import isclose
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leptonai.errors import PluginError
from leptonai.ops.diagnosis.conditions import gate
from leptonai.ops.diagnosis.faulttree import Event, FaultTree, Sign, Tree, check_tree
from leptonai.ops.diagnosis.files import BASE, shipped_book

NAMES = "abcdef"
VISIBLE: Any = {about: BASE.features for about in ("service", "replica", "revision")}
CLOSE = {"rel_tol": 1e-9, "abs_tol": 1e-12}


def happens(node: Any, tree: Tree, state: dict[str, bool]) -> bool:
    """The top event by the definition of the gates, one state of all basic events at a time."""
    if isinstance(node, str):
        return state[node] if node in state else happens(tree.gates[node], tree, state)
    k, parts = gate(node)
    return sum(happens(part, tree, state) for part in parts) >= k


def states(tree: Tree) -> list[tuple[dict[str, bool], float, bool]]:
    """Every state, its probability, and whether the top event happens in it."""
    out = []
    for bits in product((False, True), repeat=len(tree.events)):
        state = dict(zip(tree.events, bits, strict=True))
        chance = 1.0
        for name, on in state.items():
            p = tree.events[name].probability
            chance *= p if on else 1.0 - p
        out.append((state, chance, happens(tree.top, tree, state)))
    return out


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Random trees: events and gates shared by several gates, all three kinds of gate, also certain and impossible
    events."""
    names = list(NAMES[: draw(st.integers(1, len(NAMES)))])
    known, gates = list(names), {}
    for number in range(draw(st.integers(1, 5))):
        parts = draw(st.lists(st.sampled_from(known), min_size=1, max_size=5))
        kind = draw(st.sampled_from(["all", "any", "vote"]))
        gates[f"g{number}"] = (
            {"at_least": draw(st.integers(1, len(parts))), "of": parts} if kind == "vote" else {kind: parts}
        )
        known.append(f"g{number}")
    loose = [n for n in known if n not in {p for g in gates.values() for p in gate(g)[1]}]
    chance = st.floats(0, 1) | st.sampled_from([0.0, 1.0])
    events = {n: Event(probability=draw(chance)) for n in names}
    top = draw(st.sampled_from(["all", "any"]))
    return Tree(top={top: loose}, gates=gates, events=events)


@given(trees())
@settings(max_examples=150, deadline=None)
def test_cut_sets_are_those_found_by_trying_every_state(tree: Tree) -> None:
    """A cut set makes the top event happen, and no part of it does; there are no others."""
    tops = [frozenset(e for e, on in state.items() if on) for state, _, top in states(tree) if top]
    minimal = {s for s in tops if not any(other < s for other in tops)}
    assert set(FaultTree("t", tree).cut_sets) == minimal


@given(trees())
@settings(max_examples=150, deadline=None)
def test_probabilities_are_those_of_all_states_added_up(tree: Tree) -> None:
    built, rows = FaultTree("t", tree), states(tree)
    top = sum(chance for _, chance, yes in rows if yes)
    assert isclose(built.probability(), top, **CLOSE)
    cuts = built.cut_sets
    for name, event in tree.events.items():
        both = sum(chance for state, chance, yes in rows if yes and state[name])
        if top > 1e-9:
            assert isclose(built.posterior(name), both / top, rel_tol=1e-6, abs_tol=1e-9)
        given_yes, given_no = built.given(name, True), built.given(name, False)
        assert isclose(event.probability * given_yes + (1 - event.probability) * given_no, top, **CLOSE)
        found = built.importance(name)
        assert isclose(found.birnbaum, given_yes - given_no, **CLOSE)
        through = sum(
            chance for state, chance, _ in rows if any(name in cut and all(state[e] for e in cut) for cut in cuts)
        )
        if top > 1e-9:
            assert isclose(found.fussell_vesely, through / top, rel_tol=1e-6, abs_tol=1e-9)
            assert isclose(found.criticality, found.birnbaum * event.probability / top, rel_tol=1e-6, abs_tol=1e-9)
            assert found.criticality <= found.fussell_vesely + 1e-9  # critical: in a cut set that has happened


def test_the_textbook_example() -> None:
    """2 of 3 pumps, or the valve: P = 1 - (1 - 0.028) (1 - 0.01), cut sets by hand."""
    events = {n: Event(probability=0.1) for n in ("p1", "p2", "p3")} | {"valve": Event(probability=0.01)}
    tree = FaultTree("pumps", Tree(top={"any": [{"at_least": 2, "of": ["p1", "p2", "p3"]}, "valve"]}, events=events))
    assert tree.probability() == pytest.approx(1 - (1 - 0.028) * (1 - 0.01))
    assert set(tree.cut_sets) == {frozenset(s) for s in (["p1", "p2"], ["p1", "p3"], ["p2", "p3"], ["valve"])}
    assert tree.importance("valve").birnbaum == pytest.approx(1 - 0.028)


def test_a_wide_vote_is_solved_without_listing_its_combinations() -> None:
    """Ten of thirty: 30,045,015 cut sets, counted and refused to be listed; the probability is the binomial's."""
    from scipy.stats import binom

    events = {f"e{i}": Event(probability=0.2) for i in range(30)}
    tree = FaultTree("wide", Tree(top={"at_least": 10, "of": list(events)}, events=events))
    assert tree.probability() == pytest.approx(float(binom.sf(9, 30, 0.2)))
    with pytest.raises(PluginError, match=r"30,045,015 minimal cut sets"):
        _ = tree.cut_sets


E = {"a": Event(probability=0.1), "b": Event(probability=0.1)}
ANY = {"any": ["a", "b"]}


def with_a(**more: Any) -> dict[str, Event]:
    return E | {"a": Event(probability=0.1, **more)}


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        (Tree(top="g", gates={"g": {"any": ["h"]}, "h": {"all": ["g", "a", "b"]}}, events=E), "itself: g -> h -> g"),
        (Tree(top={"any": ["a", "c"]}, events=E), "'c' is neither a gate nor an event"),
        (Tree(top={"any": ["a"]}, events=E), "'b' is under no gate"),
        (Tree(top="a", gates={"g": ANY}, events=E), "'g' is under no gate"),
        (Tree(top={"any": []}, events=E), "a gate without inputs"),
        (Tree(top={"xor": ["a", "b"]}, events=E), "is no gate"),
        (Tree(top={"any": ["a", {"not": "b"}]}, events=E), "has no `not`"),
        (Tree(top={"at_least": 3, "of": ["a", "b"]}, events=E), "never be true"),
        (Tree(top={"at_least": 0, "of": ["a", "b"]}, events=E), "always true"),
        (Tree(top=ANY, events=E | {"a": Event(probability=1.5)}), r"probability 1.5 is not in \[0, 1\]"),
        (Tree(top=ANY, events=E | {"a": Event(probability=float("nan"))}), r"probability nan is not in \[0, 1\]"),
        (Tree(top={"any": ["a", "g"]}, gates={"a": "b", "g": "b"}, events=E), "both a gate and an event"),
        (Tree(top=ANY, events=with_a(cause="sunspots")), "no such cause 'sunspots'"),
        (Tree(top=ANY, events={n: Event(probability=0.1, cause="disk_full") for n in "ab"}), "belongs to two events"),
        (Tree(top=ANY, seen="sunspots", events=E), "unknown feature 'sunspots'"),
        (Tree(top=ANY, seen={"all": ["slower", {"not": "slower"}]}, events=E), "never be true"),
        (Tree(top=ANY, events=with_a(signs=(Sign(when="slower", present=0.5, absent=0.5),))), "says nothing"),
        (Tree(top=ANY, events=with_a(signs=(Sign(when="slower", present=1.5, absent=0.5),))), "1.5 is not in"),
        (Tree(top=ANY, events=with_a(signs=(Sign(when="moon", present=0.9, absent=0.5),))), "unknown feature 'moon'"),
    ],
)  # fmt: skip
def test_a_bad_tree_is_refused(tree: Tree, says: str) -> None:
    with pytest.raises(PluginError, match=says) as e:
        check_tree(tree, {}, BASE.features, VISIBLE, frozenset(BASE.causes))
    assert e.value.hint


def test_gates_too_deep_are_refused_before_anything_recurses() -> None:
    gates: dict[str, Any] = {f"g{i}": {"any": [f"g{i + 1}"]} for i in range(5_000)} | {"g5000": ANY}
    with pytest.raises(PluginError, match="below one another"):
        check_tree(Tree(top="g0", gates=gates, events=E), {}, BASE.features, VISIBLE, frozenset())


def test_the_shipped_trees_can_happen_by_each_of_their_events() -> None:
    for tree in shipped_book().trees.values():
        assert 0.0 < tree.probability() < 1.0
        assert {e for cut in tree.cut_sets for e in cut} == set(tree.events)
