"""Conditions over features: what they say, whether they ever can be true, whether one follows from another. Pure.

A condition is one of: a feature that is a yes or no (``hung``); a comparison (``compute_ratio >= 1.5``); the name of a
definition; ``{all: [...]}``, ``{any: [...]}``, ``{not: ...}``, ``{at_least: k, of: [...]}``. A condition over a feature
that is not known is neither true nor false, and so is its ``not``: what was not seen proves nothing (Kleene's logic).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import combinations, product
from math import inf, isfinite, nextafter
from typing import Any, Literal, NamedTuple

from leptonai.errors import PluginError

Kind = Literal["number", "share", "flag"]
Features = Mapping[str, float | bool]
Define = Mapping[str, Any]
Box = dict[str, tuple[float, float]]  # feature -> the closed range it must lie in

MOST_WAYS = 4096  # in which a condition can be true, looked at one by one
MOST_POINTS = 20_000  # looked at to show that one condition follows from another
HINT = "see docs/diagnosis.md for the form of a condition and the list of features"
_COMPARE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\s*(<=|>=|<|>|==)\s*(-?[0-9.]+(?:e[+-]?[0-9]+)?)")
_TURNED = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}


class Holds(NamedTuple):
    """Whether a condition holds (None: cannot tell), and which features say so."""

    value: bool | None
    by: frozenset[str]


def holds(define: Define, condition: Any, features: Features) -> Holds:
    """Evaluate a checked condition over the features that are known."""
    match condition:
        case str() if condition in define:
            return holds(define, define[condition], features)
        case str():
            name, op, limit = comparison(condition)
            if name not in features:
                return Holds(None, frozenset())
            return Holds(_compare(float(features[name]), op, limit), frozenset((name,)))
        case {"not": inner}:
            found = holds(define, inner, features)
            return Holds(None if found.value is None else not found.value, found.by)
    need, parts = gate(condition)
    return _at_least(need, [holds(define, p, features) for p in parts])


def names_in(define: Define, condition: Any) -> set[str]:
    """The features that a checked condition is made of, through definitions too."""
    match condition:
        case str() if condition in define:
            return names_in(define, define[condition])
        case str():
            return {comparison(condition)[0]}
        case {"not": inner}:
            return names_in(define, inner)
    return {name for part in gate(condition)[1] for name in names_in(define, part)}


def check_condition(define: Define, condition: Any, features: Mapping[str, Kind], path: tuple[str, ...] = ()) -> None:
    """PluginError for a form that is none, a feature that does not exist, a definition that leads to itself."""
    if isinstance(condition, str):
        if condition in define:
            if condition in path:
                raise fault(f"definition {condition!r} leads to itself: {' -> '.join((*path, condition))}")
            return check_condition(define, define[condition], features, (*path, condition))
        name, _, _ = comparison(condition)
        if name not in features:
            raise fault(f"unknown feature {name!r}")
        if features[name] != "flag" and not _COMPARE.fullmatch(condition.strip()):
            raise fault(f"{name!r} is a number and needs a comparison")
        return None
    if isinstance(condition, dict) and condition.keys() == {"not"}:
        return check_condition(define, condition["not"], features, path)
    for part in gate(condition)[1]:
        check_condition(define, part, features, path)
    return None


def gate(condition: Any) -> tuple[int, list[Any]]:
    """``(k, parts)`` of ``all``, ``any`` and ``at_least``: it holds when k of the parts do. PluginError: it is none."""
    match condition:
        case {"all": [*parts]} if len(condition) == 1 and parts:
            return len(parts), parts
        case {"any": [*parts]} if len(condition) == 1 and parts:
            return 1, parts
        case {"at_least": int(k), "of": [*parts]} if len(condition) == 2 and parts:
            if isinstance(k, bool) or k < 1:
                raise fault(f"at_least {k} of {len(parts)} is always true")
            return k, parts
        case {"all": []} | {"any": []} | {"of": []}:
            raise fault(f"{condition!r} is no condition: a gate without inputs")
    raise fault(f"{condition!r} is no condition")


def possible(define: Define, condition: Any, features: Mapping[str, Kind]) -> bool:
    """False when no values of its features at all make the condition true."""
    return next(boxes(define, condition, features), None) is not None


def implies(define: Define, stronger: Any, weaker: Any, features: Mapping[str, Kind]) -> bool:
    """True when ``weaker`` holds wherever ``stronger`` does, also where nothing else is known. False: not shown."""
    cuts = list(_limits(define, weaker))
    for box in boxes(define, stronger, features):
        axes = [
            sorted(
                {low, high}
                | {v for name, t in cuts if name == feature for v in (t, nextafter(t, inf), nextafter(t, -inf))}
            )
            for feature, (low, high) in box.items()
        ]
        inside = [[v for v in axis if low <= v <= high] for axis, (low, high) in zip(axes, box.values(), strict=True)]
        points = 1
        for axis in inside:
            points *= len(axis)
        if points > MOST_POINTS:
            return False
        if any(
            holds(define, weaker, dict(zip(box, point, strict=True))).value is not True for point in product(*inside)
        ):
            return False
    return True


def boxes(define: Define, condition: Any, features: Mapping[str, Kind]) -> Iterator[Box]:
    """The ways in which a condition can be true: ranges of features that must hold together, empty ones left out."""
    for number, terms in enumerate(_ways(define, condition, True)):
        if number >= MOST_WAYS:
            raise fault(f"a condition with more than {MOST_WAYS} ways to be true is too much to check")
        box: Box = {}
        for name, op, limit in terms:
            low, high = box.get(name, (-inf, inf) if features[name] == "number" else (0.0, 1.0))
            if op in (">", ">=", "=="):
                low = max(low, nextafter(limit, inf) if op == ">" else limit)
            if op in ("<", "<=", "=="):
                high = min(high, nextafter(limit, -inf) if op == "<" else limit)
            box[name] = (low, high)
        if all(_inhabited(features[name], *bounds) for name, bounds in box.items()):
            yield {n: _whole(features[n], *bounds) for n, bounds in box.items()}


def comparison(text: str) -> tuple[str, str, float]:
    """Feature, operator and limit; a bare name asks whether it is 1."""
    if match := _COMPARE.fullmatch(text.strip()):
        try:
            limit = float(match[3])
        except ValueError:
            raise fault(f"{match[3]!r} in {text!r} is no number") from None
        if not isfinite(limit):
            raise fault(f"{match[3]!r} in {text!r} is no finite number")
        return match[1], match[2], limit
    return text.strip(), "==", 1.0


def fault(message: str) -> PluginError:
    return PluginError(message, hint=HINT)


def _ways(define: Define, condition: Any, wanted: bool) -> Iterator[tuple[tuple[str, str, float], ...]]:
    """Conjunctions of comparisons, one of which must be true for the condition to be ``wanted``."""
    match condition:
        case str() if condition in define:
            yield from _ways(define, define[condition], wanted)
        case str():
            name, op, limit = comparison(condition)
            if wanted:
                yield ((name, op, limit),)
            elif op == "==":
                yield ((name, "<", limit),)
                yield ((name, ">", limit),)
            else:
                yield ((name, _TURNED[op], limit),)
        case {"not": inner}:
            yield from _ways(define, inner, not wanted)
        case _:
            need, parts = gate(condition)
            for some in combinations(parts, need if wanted else len(parts) - need + 1):
                yield from _together(define, some, wanted)


def _together(define: Define, parts: tuple[Any, ...], wanted: bool) -> Iterator[tuple[tuple[str, str, float], ...]]:
    if not parts:
        yield ()
        return
    for first in _ways(define, parts[0], wanted):
        for rest in _together(define, parts[1:], wanted):
            yield first + rest


def _limits(define: Define, condition: Any) -> Iterator[tuple[str, float]]:
    match condition:
        case str() if condition in define:
            yield from _limits(define, define[condition])
        case str():
            name, _, limit = comparison(condition)
            yield name, limit
        case {"not": inner}:
            yield from _limits(define, inner)
        case _:
            for part in gate(condition)[1]:
                yield from _limits(define, part)


def _inhabited(kind: Kind, low: float, high: float) -> bool:
    return low <= high and (kind != "flag" or low <= 0.0 or high >= 1.0)


def _whole(kind: Kind, low: float, high: float) -> tuple[float, float]:
    """A yes or no has no values between: ``< 1`` is 0."""
    return (0.0 if low <= 0.0 else 1.0, 1.0 if high >= 1.0 else 0.0) if kind == "flag" else (low, high)


def _at_least(k: int, parts: list[Holds]) -> Holds:
    """True by the parts that hold, false by those that do not; unknown parts could tip it, then it is unknown."""
    yes = [p for p in parts if p.value is True]
    no = [p for p in parts if p.value is False]
    if len(yes) >= k:
        return Holds(True, frozenset[str]().union(*(p.by for p in yes)))
    if len(parts) - len(no) < k:
        return Holds(False, frozenset[str]().union(*(p.by for p in no)))
    return Holds(None, frozenset())


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
