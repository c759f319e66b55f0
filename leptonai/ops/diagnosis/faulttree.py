"""Fault trees: declared, checked, solved exactly. Cut sets, probability of the top event, importance measures.

Sources: Vesely et al., "Fault Tree Handbook" (NUREG-0492, 1981) for the terms; Birnbaum, "On the importance of
different components in a multicomponent system" (1969); Lambert, "Measures of importance of events and cut sets in
fault trees" (1975), criticality; Fussell, "How to hand-calculate system reliability and safety characteristics" (1975).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

from leptonai.errors import PluginError
from leptonai.ops.diagnosis.bdd import Diagram
from leptonai.ops.diagnosis.conditions import Define, Kind, check_condition, fault, gate, possible
from leptonai.types import Noun

About = Literal["service", "replica", "revision"]

MOST_EVENTS = 300
MOST_DEPTH = 100  # gates below one another
MOST_CUT_SETS = 100_000  # listed


class Sign(Noun, frozen=True, kw_only=True):
    """What is seen more often with an event than without: P(when | event), P(when | no event)."""

    when: Any
    present: float
    absent: float


class Event(Noun, frozen=True, kw_only=True):
    """A basic event. ``cause``: the cause of the taxonomy that it is; without one it stands for what is not named."""

    probability: float
    cause: str = ""
    about: About = "service"
    text: str = ""
    signs: tuple[Sign, ...] = ()


class Tree(Noun, frozen=True, kw_only=True):
    """``top`` and ``gates`` are made of ``all``, ``any`` and ``at_least`` over names of gates and events.

    ``seen``: a condition on the service that says that the top event has happened; without it the tree is for
    arithmetic alone and takes no part in diagnosis.
    """

    top: Any
    events: dict[str, Event]
    gates: dict[str, Any] = {}
    seen: Any = None
    text: str = ""


class Importance(NamedTuple):
    """``birnbaum``: P(top | event) - P(top | no event). ``criticality``: that, times P(event) / P(top).

    ``fussell_vesely``: P(some minimal cut set with the event has happened) / P(top). The last two are 0 where the top
    event cannot happen.
    """

    birnbaum: float
    criticality: float
    fussell_vesely: float


class FaultTree:
    """A checked tree. Probabilities are exact, events independent."""

    def __init__(self, name: str, tree: Tree) -> None:
        self.name, self.tree = name, tree
        self.events = _in_order(name, tree)
        self.p = [tree.events[e].probability for e in self.events]
        self._index = {e: i for i, e in enumerate(self.events)}
        self._diagram = Diagram(len(self.events))
        self._top = self._build(tree.top, {})
        self._cuts = self._diagram.minimal(self._top)

    def probability(self, p: Sequence[float] | None = None) -> float:
        """P(top); ``p``: of the events, in the order of ``events``, instead of those declared."""
        return self._diagram.probability(self._top, self.p if p is None else p)

    def given(self, event: str, happened: bool, p: Sequence[float] | None = None) -> float:
        """P(top | the event has happened, or has not)."""
        row = list(self.p if p is None else p)
        row[self._index[event]] = float(happened)
        return self.probability(row)

    def posterior(self, event: str, p: Sequence[float] | None = None) -> float:
        """P(event | top), by Bayes; what ``p`` says of the event where the top event cannot happen at all."""
        row = self.p if p is None else p
        own = row[self._index[event]]
        yes, no = own * self.given(event, True, row), (1.0 - own) * self.given(event, False, row)
        return yes / (yes + no) if yes + no > 0.0 else own

    @cached_property
    def cut_sets(self) -> tuple[frozenset[str], ...]:
        """Every minimal cut set, the most probable first; PluginError past ``MOST_CUT_SETS``."""
        if (many := self._diagram.count(self._cuts)) > MOST_CUT_SETS:
            raise PluginError(
                f"tree {self.name!r} has {many:,} minimal cut sets; {MOST_CUT_SETS:,} are listed at most",
                hint="its probability and importances are exact all the same",
            )
        named = [frozenset(self.events[i] for i in found) for found in self._diagram.sets(self._cuts)]
        return tuple(sorted(named, key=lambda s: (-self.chance(s), len(s), sorted(s))))

    def chance(self, events: frozenset[str], p: Sequence[float] | None = None) -> float:
        """That all of the events have happened."""
        row, out = self.p if p is None else p, 1.0
        for event in events:
            out *= row[self._index[event]]
        return out

    def importance(self, event: str, p: Sequence[float] | None = None) -> Importance:
        row = self.p if p is None else p
        top, own = self.probability(row), row[self._index[event]]
        birnbaum = self.given(event, True, row) - self.given(event, False, row)
        if top <= 0.0:
            return Importance(birnbaum, 0.0, 0.0)
        through = self._diagram.any_of(self._cuts, self._index[event])
        return Importance(birnbaum, birnbaum * own / top, self._diagram.probability(through, row) / top)

    def _build(self, node: Any, done: dict[str, int]) -> int:
        if isinstance(node, str):
            if node not in done:
                known = node in self._index
                done[node] = self._diagram.variable(self._index[node]) if known else self._build(
                    self.tree.gates[node], done
                )  # fmt: skip
            return done[node]
        k, parts = gate(node)
        return self._diagram.at_least(k, [self._build(part, done) for part in parts])


def check_tree(
    tree: Tree, define: Define, features: Mapping[str, Kind], visible: Mapping[About, Mapping[str, Kind]],
    causes: frozenset[str],
) -> None:  # fmt: skip
    """PluginError naming the fault: a cycle, a name that leads nowhere or is never reached, a gate without inputs, a
    probability outside [0, 1], an unknown cause or feature, a sign that never can be seen or says nothing.

    ``visible``: about -> the features that a condition about that can see.
    """
    if both := tree.events.keys() & tree.gates.keys():
        raise fault(f"{min(both)!r} is both a gate and an event")
    if len(tree.events) > MOST_EVENTS:
        raise fault(f"{len(tree.events)} events; a tree has {MOST_EVENTS} at most")
    reached = set(_reached(tree))
    for name in [*tree.gates, *tree.events]:
        if name not in reached:
            raise fault(f"{name!r} is under no gate that leads to the top")
    if tree.seen is not None:
        _check_seen(tree.seen, "seen", define, features, visible["service"])
    named = [e.cause for e in tree.events.values() if e.cause]
    for name, event in tree.events.items():
        if not 0.0 <= event.probability <= 1.0:
            raise fault(f"event {name!r}: probability {event.probability:g} is not in [0, 1]")
        if event.cause and event.cause not in causes:
            raise fault(f"event {name!r}: no such cause {event.cause!r}; known: {', '.join(sorted(causes))}")
        if event.cause and named.count(event.cause) > 1:
            raise fault(f"cause {event.cause!r} belongs to two events; one event may stand under several gates")
        for sign in event.signs:
            where = f"event {name!r}: sign {sign.when!r}"
            for value in (sign.present, sign.absent):
                if not 0.0 <= value <= 1.0:
                    raise fault(f"{where}: probability {value:g} is not in [0, 1]")
            if sign.present == sign.absent:
                raise fault(f"{where}: is as likely with the event as without; it says nothing")
            _check_seen(sign.when, where, define, features, visible[event.about])


def _check_seen(
    when: Any, where: str, define: Define, features: Mapping[str, Kind], visible: Mapping[str, Kind]
) -> None:
    check_condition(define, when, features)
    if not possible(define, when, features):
        raise fault(f"{where}: {when!r} can never be true")
    try:
        check_condition(define, when, visible)
    except PluginError as e:
        raise fault(f"{where}: can never be seen: {e.message} is not told about its subject") from e


def _reached(tree: Tree) -> list[str]:
    """Every gate and event under the top, events in the order met. PluginError: a cycle, a dangling name."""
    seen: dict[str, None] = {}

    def walk(node: Any, path: tuple[str, ...]) -> None:
        if isinstance(node, str):
            if node in path:
                raise fault(f"gate {node!r} leads to itself: {' -> '.join((*path, node))}")
            if node in tree.events:
                seen[node] = None
            elif node in tree.gates:
                if node in seen:
                    return
                if len(path) >= MOST_DEPTH:
                    raise fault(f"more than {MOST_DEPTH} gates below one another")
                walk(tree.gates[node], (*path, node))
                seen[node] = None
            else:
                raise fault(f"{node!r} is neither a gate nor an event{f', under {path[-1]!r}' if path else ''}")
            return
        if isinstance(node, dict) and "not" in node:
            raise fault(f"{node!r}: a fault tree has no `not`; what happens cannot make it better")
        try:
            k, parts = gate(node)
        except PluginError as e:
            raise fault(e.message.replace("is no condition", "is no gate")) from e
        if k > len(parts):
            raise fault(f"{node!r} can never be true: it has {len(parts)} inputs")
        for part in parts:
            walk(part, path)

    walk(tree.top, ())
    return list(seen)


def _in_order(name: str, tree: Tree) -> list[str]:
    """Events as a walk meets them: neighbours under a gate are neighbours in the diagram, which keeps it small."""
    return [n for n in _reached(tree) if n in tree.events]
