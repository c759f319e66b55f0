"""What diagnosis is told as text: causes, signals, definitions, rules, trees, cases. Checked before it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Any, Literal, NamedTuple

import msgspec

from leptonai.errors import PluginError
from leptonai.ops.diagnosis.conditions import HINT, Kind, check_condition, fault, implies, names_in, possible
from leptonai.ops.diagnosis.faulttree import About, FaultTree, Tree, check_tree
from leptonai.types import Noun, Severity
from leptonai.yaml import decode

Take = Literal["mean", "max", "min", "last", "rise", "ratio", "excess", "times", "others"]

# Words that say what users feel, not what changed. A cause made of nothing else is a symptom.
_FELT = """
alert anomaly availability burn degraded down error errors fails failure failures high latency low many outage p50 p95
p99 queue rate requests saturated saturation slow slowness slo symptom the timeout timeouts too unavailable unhealthy
"""
SYMPTOMS = frozenset(_FELT.split())


class Rule(Noun, frozen=True, kw_only=True):
    """One way to a cause. ``confidence``: of a hundred incidents in which it holds, in how many is it the cause.

    ``weaker``: conditions that each take ``by`` from the confidence when they hold. ``beside``: the confidence where a
    rule for another cause holds too; None: the same.
    """

    cause: str
    about: About
    when: Any
    confidence: float
    weaker: tuple[Any, ...] = ()
    by: float = 0.2
    beside: float | None = None


class SignalFeature(Noun, frozen=True, kw_only=True):
    """A feature made of a signal around the onset. ``take``: over the time since it; ``rise`` and ``ratio`` compare
    with the minute before, ``excess`` and ``times`` with the median of the siblings,
    the service's other replicas of the same revision, which is ``others``. Of
    several series the one that stands out most counts.

    ``about`` service: series of the service and of the machine; replica: one value for each. ``foreign``: others send
    the signal, so it need not be one of ours. ``text``: the fact in words, with {value}, {before} and {subject}.
    """

    signal: str
    about: Literal["service", "replica"] = "service"
    kind: Kind = "number"
    take: Take = "mean"
    foreign: bool = False
    text: str = ""


class Opener(Noun, frozen=True, kw_only=True):
    """A condition over declared signals that opens an incident once it has held for ``hold`` seconds.

    ``text``: its title until a cause is known, with {subject}: the service, or the replica where it is about one.
    """

    when: Any
    about: Literal["service", "replica"] = "service"
    hold: float = 3.0
    severity: Severity = "warning"
    text: str


class Case(Noun, frozen=True, kw_only=True):
    """``evidence``: of ``service``, ``replica NAME`` or ``revision NAME``, feature -> value. ``expect``: what leads the
    list, in this order, as ``cause`` or ``cause of SUBJECT``; ``never``: what must not be on it."""

    name: str
    evidence: dict[str, dict[str, float | bool]]
    expect: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    at_least: float = 0.0  # confidence of the first


class Document(Noun, frozen=True, kw_only=True):
    """One file. Every part may be left out."""

    causes: dict[str, str] = {}
    signals: dict[str, SignalFeature] = {}
    define: dict[str, Any] = {}
    opens: dict[str, Opener] = {}
    rules: tuple[Rule, ...] = ()
    trees: dict[str, Tree] = {}
    cases: tuple[Case, ...] = ()


class RuleBook(NamedTuple):
    """What holds together: all files in force."""

    causes: Mapping[str, str]
    signals: Mapping[str, SignalFeature]
    define: Mapping[str, Any]
    rules: tuple[Rule, ...]
    trees: Mapping[str, FaultTree]
    cases: tuple[Case, ...] = ()
    opens: Mapping[str, Opener] = {}


class Base(NamedTuple):
    """What exists without any file: causes, features and whom they are about, and the signals that are collected."""

    causes: Mapping[str, str]
    features: Mapping[str, Kind]
    of: Mapping[str, About]
    signals: frozenset[str]


def read(path: Path) -> Document:
    """The document in ``path``, its form checked. PluginError naming the file: not there, not YAML, unknown fields."""
    try:
        return decode(path.read_bytes(), Document)
    except (OSError, msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise PluginError(f"{path}: {e}", hint="see docs/diagnosis.md for the form of a rule file") from e


def bind(documents: Sequence[tuple[str, Document]], base: Base) -> RuleBook:
    """All documents as one book, each part checked against all before it.

    Raises PluginError naming the file, the place and the fault: a name given twice or unknown, a definition or gate
    that leads to itself, a rule that never can fire or that another one always outdoes, a number out of its range.
    """
    causes: dict[str, str] = dict(base.causes)
    signals: dict[str, SignalFeature] = {}
    define: dict[str, Any] = {}
    owner = {("cause", cause): "the taxonomy" for cause in base.causes}
    owner |= {("feature or definition", feature): "the features of ours" for feature in base.features}
    for name, document in documents:
        for what, mine in (
            ("cause", document.causes), ("feature or definition", document.signals),
            ("feature or definition", document.define), ("tree", document.trees), ("opener", document.opens),
        ):  # fmt: skip
            for key in mine:
                if (other := owner.setdefault((what, key), name)) != name:
                    raise _at(name, fault(f"{what} {key!r} is in {other} already"))
        causes |= document.causes
        signals |= document.signals
        define |= document.define
    features = {**base.features, **{n: s.kind for n, s in signals.items()}}
    of: dict[str, About] = {**base.of, **{n: s.about for n, s in signals.items()}}
    visible = {a: {n: k for n, k in features.items() if of[n] in ("service", a)} for a in _ABOUTS}
    allowed = frozenset(causes) - {"unknown"}
    kept: list[Rule] = []
    trees: dict[str, FaultTree] = {}
    cases: list[Case] = []
    opens: dict[str, Opener] = {}
    for name, document in documents:
        try:
            for key, meaning in document.causes.items():
                _check_cause(key, meaning)
            for key, signal in document.signals.items():
                _check_signal(key, signal, base)
            for key in document.define:
                if key in features:
                    raise fault(f"definition {key!r} has the name of a feature")
                check_condition(define, document.define[key], features, (key,))
            for number, rule in enumerate(document.rules, 1):
                try:
                    _check_rule(rule, define, features, visible, allowed, kept)
                except PluginError as e:
                    raise fault(f"rule {number} ({rule.cause}): {e.message}") from e
                kept.append(rule)
            for key, tree in document.trees.items():
                try:
                    check_tree(tree, define, features, visible, allowed)
                    trees[key] = FaultTree(key, tree)
                except PluginError as e:
                    raise PluginError(f"tree {key!r}: {e.message}", hint=e.hint) from e
            for key, opener in document.opens.items():
                _check_opener(key, opener, define, signals, features)
                opens[key] = opener
            for case in document.cases:
                _check_case(case, of, frozenset(causes))
                cases.append(case)
        except PluginError as e:
            raise _at(name, e) from e
    return RuleBook(causes, signals, define, tuple(kept), trees, tuple(cases), opens)


_ABOUTS: tuple[About, ...] = ("service", "replica", "revision")


def _check_cause(name: str, meaning: str) -> None:
    if set(name.split("_")) <= SYMPTOMS:
        raise fault(f"cause {name!r} is a symptom: say what changed, not what users feel")
    if not meaning.strip():
        raise fault(f"cause {name!r} has no meaning")


def _check_signal(name: str, made: SignalFeature, base: Base) -> None:
    if not name.isidentifier():
        raise fault(f"signal {name!r} is no name: letters, digits and _")
    if made.kind == "flag":
        raise fault(f"signal {name!r}: a signal is a number or a share, never a flag")
    if not made.foreign and made.signal not in base.signals:
        raise PluginError(
            f"signal {name!r} never can be seen: {made.signal!r} is not collected",
            hint="docs/telemetry.md lists the signals; `foreign: true` for one that others send",
        )
    try:
        named = {field for _, field, _, _ in Formatter().parse(made.text) if field is not None}
        made.text.format(value=1.0, before=1.0, subject="a")
    except (ValueError, KeyError, IndexError, AttributeError) as e:
        raise fault(f"signal {name!r}: the text {made.text!r} has a wrong placeholder: {e}") from e
    if named - {"value", "before", "subject"}:
        raise fault(f"signal {name!r}: the text may name value, before and subject, not {min(named)!r}")


def _check_rule(
    rule: Rule, define: Mapping[str, Any], features: Mapping[str, Kind], visible: Mapping[About, Mapping[str, Kind]],
    causes: frozenset[str], before: Sequence[Rule],
) -> None:  # fmt: skip
    if rule.cause not in causes:
        raise fault(f"no such cause; known: {', '.join(sorted(causes))}")
    if not 0.0 < rule.confidence <= 1.0:
        raise fault(f"confidence {rule.confidence:g} is not in (0, 1]")
    if not 0.0 < rule.by <= 1.0:
        raise fault(f"by {rule.by:g} is not in (0, 1]")
    if rule.beside is not None and not 0.0 < rule.beside <= 1.0:
        raise fault(f"beside {rule.beside:g} is not in (0, 1]")
    for condition in (rule.when, *rule.weaker):
        check_condition(define, condition, features)
        if not possible(define, condition, features):
            raise fault(f"{condition!r} can never be true")
        try:
            check_condition(define, condition, visible[rule.about])
        except PluginError as e:
            raise fault(f"{condition!r} can never be true: of a {rule.about}, {e.message}") from e
        if condition is not rule.when and not possible(define, {"all": [rule.when, condition]}, features):
            raise fault(f"{condition!r} can never be true together with the rule itself")
    for other in before:
        outdone = min(_confidences(other)) >= max(_confidences(rule)) and set(map(repr, other.weaker)) <= set(
            map(repr, rule.weaker)
        )
        same = (other.cause, other.about) == (rule.cause, rule.about)
        if same and outdone and other.by <= rule.by and implies(define, rule.when, other.when, features):
            raise fault(f"is shadowed: whenever it holds, {other.when!r} holds too, as confident")


def _confidences(rule: Rule) -> tuple[float, ...]:
    return (rule.confidence,) if rule.beside is None else (rule.confidence, rule.beside)


def _check_opener(
    name: str, opener: Opener, define: Mapping[str, Any], signals: Mapping[str, SignalFeature],
    features: Mapping[str, Kind],
) -> None:  # fmt: skip
    """What opens an incident is seen before there is one: only signals are known then."""
    check_condition(define, opener.when, features)
    if not possible(define, opener.when, features):
        raise fault(f"opener {name!r}: {opener.when!r} can never be true")
    if unknown := sorted(n for n in names_in(define, opener.when) if n not in signals):
        raise fault(f"opener {name!r}: {unknown[0]!r} is known of an incident only, not of a signal")
    if opener.about == "service" and (
        of := [n for n in names_in(define, opener.when) if signals[n].about == "replica"]
    ):
        raise fault(f"opener {name!r} is about a service, {of[0]!r} about a replica")
    if not 0.0 <= opener.hold <= 3600.0:
        raise fault(f"opener {name!r}: hold {opener.hold:g} is not between 0 and 3600 s")
    try:
        opener.text.format(subject="a")
    except (ValueError, KeyError, IndexError, AttributeError) as e:
        raise fault(f"opener {name!r}: the text {opener.text!r} has a wrong placeholder: {e}") from e


def _check_case(case: Case, of: Mapping[str, About], causes: frozenset[str]) -> None:
    for subject, seen in case.evidence.items():
        about = subject.split(" ")[0]
        if about not in _ABOUTS or (about != "service") != (" " in subject):
            raise fault(f"case {case.name!r}: {subject!r} is not `service`, `replica NAME` or `revision NAME`")
        for feature in seen:
            if of.get(feature) != about:
                raise fault(f"case {case.name!r}: no feature {feature!r} of a {about}")
    for named in (*case.expect, *case.never):
        if named.split(" of ")[0] not in causes:
            raise fault(f"case {case.name!r}: no such cause {named!r}")
    if not 0.0 <= case.at_least <= 1.0:
        raise fault(f"case {case.name!r}: at_least {case.at_least:g} is not in [0, 1]")
    if not case.expect and not case.never:
        raise fault(f"case {case.name!r} expects nothing: it cannot fail")


def _at(name: str, error: PluginError) -> PluginError:
    return PluginError(f"{name}: {error.message}", hint=error.hint or HINT)
