"""The rules of diagnosis: conditions over features, declared as text, checked before they are used.

A condition is one of: a feature that is a yes or no (``hung``); a comparison (``compute_ratio >= 1.5``); the name of a
definition; ``{all: [...]}``, ``{any: [...]}``, ``{not: ...}``, ``{at_least: k, of: [...]}``. A condition over a feature
that is not known is false, and so is its ``not``: what was not seen proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import inf, nextafter
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from leptonai.errors import PluginError
from leptonai.types import Noun

Kind = Literal["number", "share", "flag"]
About = Literal["service", "replica", "revision"]
Features = Mapping[str, float | bool]

_COMPARE = re.compile(r"([a-z_]+)\s*(<=|>=|<|>|==)\s*(-?[0-9.]+(?:e-?[0-9]+)?)")


class Rule(Noun, frozen=True, kw_only=True):
    """One way to a cause. ``unless`` takes ``by`` from the confidence for each condition that holds."""

    cause: str
    about: About
    when: Any
    confidence: float
    weaker: tuple[Any, ...] = ()
    by: float = 0.2


class RuleBook(Noun, frozen=True, kw_only=True):
    rules: tuple[Rule, ...]
    define: dict[str, Any] = {}


class Holds(NamedTuple):
    """Whether a condition holds (None: cannot tell), and which features say so."""

    value: bool | None
    by: frozenset[str]


def load(path: Path, features: Mapping[str, Kind], causes: frozenset[str]) -> RuleBook:
    """The checked rules in ``path``.

    Raises PluginError naming the file, the rule and the fault: not YAML, an unknown field, feature or cause, a
    definition that leads to itself, a condition that can never be true, a confidence outside (0, 1].
    """
    try:
        book = msgspec.yaml.decode(path.read_bytes(), type=RuleBook)
    except (OSError, msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as e:
        raise PluginError(f"{path}: {e}", hint="see docs/operations.md for the form of a rule") from e
    try:
        check(book, features, causes)
    except PluginError as e:
        raise PluginError(f"{path}: {e.message}", hint=e.hint) from e
    return book


def check(book: RuleBook, features: Mapping[str, Kind], causes: frozenset[str]) -> None:
    """Raises PluginError for the first fault found; see load."""
    for name in book.define:
        if name in features:
            raise _fault(f"definition {name!r} has the name of a feature")
        _known(book, book.define[name], features, (name,))
    for number, rule in enumerate(book.rules, 1):
        where = f"rule {number} ({rule.cause})"
        if rule.cause not in causes:
            raise _fault(f"{where}: no such cause; known: {', '.join(sorted(causes))}")
        if not 0.0 < rule.confidence <= 1.0:
            raise _fault(f"{where}: confidence {rule.confidence:g} is not in (0, 1]")
        for condition in (rule.when, *rule.weaker):
            try:
                _known(book, condition, features, ())
            except PluginError as e:
                raise _fault(f"{where}: {e.message}") from e
            if not _possible(book, condition, features):
                raise _fault(f"{where}: {condition!r} can never be true")


def holds(book: RuleBook, condition: Any, features: Features) -> Holds:
    """Evaluate a checked condition over the features that are known."""
    match condition:
        case str() if condition in book.define:
            return holds(book, book.define[condition], features)
        case str():
            name, op, limit = _comparison(condition)
            if name not in features:
                return Holds(None, frozenset())
            return Holds(_compare(float(features[name]), op, limit), frozenset((name,)))
        case {"not": inner}:
            found = holds(book, inner, features)
            return Holds(None if found.value is None else not found.value, found.by)
        case {"all": parts}:
            return _at_least(len(parts), [holds(book, p, features) for p in parts])
        case {"any": parts}:
            return _at_least(1, [holds(book, p, features) for p in parts])
        case {"at_least": k, "of": parts}:
            return _at_least(k, [holds(book, p, features) for p in parts])
    raise _fault(f"{condition!r} is no condition")


def _at_least(k: int, parts: list[Holds]) -> Holds:
    """True by the parts that hold, false by those that do not; unknown parts could tip it, then it is unknown."""
    yes = [p for p in parts if p.value is True]
    no = [p for p in parts if p.value is False]
    if len(yes) >= k:
        return Holds(True, frozenset[str]().union(*(p.by for p in yes)))
    if len(parts) - len(no) < k:
        return Holds(False, frozenset[str]().union(*(p.by for p in no)))
    return Holds(None, frozenset())


def _comparison(text: str) -> tuple[str, str, float]:
    if match := _COMPARE.fullmatch(text.strip()):
        return match[1], match[2], float(match[3])
    return text.strip(), "==", 1.0


def _compare(value: float, op: str, limit: float) -> bool:
    match op:
        case "<":
            return value < limit
        case "<=":
            return value <= limit
        case ">":
            return value > limit
        case ">=":
            return value >= limit
    return value == limit


def _parts(condition: Any) -> list[Any]:
    match condition:
        case {"not": inner} if len(condition) == 1:
            return [inner]
        case {"all": [*parts]} | {"any": [*parts]} if len(condition) == 1 and parts:
            return parts
        case {"at_least": int(), "of": [*parts]} if len(condition) == 2 and parts:
            return parts
    raise _fault(f"{condition!r} is no condition")


def _known(book: RuleBook, condition: Any, features: Mapping[str, Kind], path: tuple[str, ...]) -> None:
    if isinstance(condition, str):
        if condition in book.define:
            if condition in path[:-1] or (path and condition == path[-1]):
                raise _fault(f"definition {condition!r} leads to itself: {' -> '.join((*path, condition))}")
            return _known(book, book.define[condition], features, (*path, condition))
        name, op, _ = _comparison(condition)
        if name not in features:
            raise _fault(f"unknown feature {name!r}")
        if features[name] != "flag" and op == "==" and not _COMPARE.fullmatch(condition.strip()):
            raise _fault(f"{name!r} is a number and needs a comparison")
        return None
    for part in _parts(condition):
        _known(book, part, features, path)
    return None


def _possible(book: RuleBook, condition: Any, features: Mapping[str, Kind]) -> bool:
    """False only when no features at all could make it true; bounds of one feature that meet in an ``all`` count."""
    match condition:
        case {"any": parts}:
            return any(_possible(book, p, features) for p in parts)
        case {"at_least": k, "of": parts}:
            return bool(1 <= k <= sum(_possible(book, p, features) for p in parts))
    bounds: dict[str, tuple[float, float]] = {}
    for part in _flat(book, condition):
        if not isinstance(part, str):
            if "not" not in part and not _possible(book, part, features):
                return False
            continue
        name, op, limit = _comparison(part)
        low, high = bounds.get(name, {"number": (-inf, inf)}.get(features[name], (0.0, 1.0)))
        if op in (">", ">=", "=="):
            low = max(low, nextafter(limit, inf) if op == ">" else limit)
        if op in ("<", "<=", "=="):
            high = min(high, nextafter(limit, -inf) if op == "<" else limit)
        bounds[name] = (low, high)
        if low > high:
            return False
    return True


def _flat(book: RuleBook, condition: Any) -> list[Any]:
    """The conditions that must all hold for ``condition`` to hold, definitions and nested ``all`` opened."""
    match condition:
        case str() if condition in book.define:
            return _flat(book, book.define[condition])
        case {"all": parts}:
            return [leaf for part in parts for leaf in _flat(book, part)]
        case {"not": str() as name} if name not in book.define:
            feature, op, limit = _comparison(name)
            if op == "==" and limit == 1.0:
                return [f"{feature} == 0"]
            turned = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}.get(op)
            return [f"{feature} {turned} {limit}"] if turned else [condition]
    return [condition]


def _fault(message: str) -> PluginError:
    return PluginError(message, hint="see docs/operations.md for the form of a rule and the list of features")
