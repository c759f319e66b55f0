"""What the inputs of failing requests have in common that those of answered ones have not. Pure.

Candidates are an aspect beyond all that was answered, such as a largest number above any other, and inputs that are
the same to the bit. One counts when chance would hardly put so many failures there: if failing had nothing to do with
the input, the ``h`` requests beyond all ``n`` answered ones would all be among the ``b`` failed with the probability
prod (b - i) / (b + n - i), i < h, for that is how often the first h of a shuffled deck are all of one colour.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from leptonai.ops.scene import Marked
from leptonai.types import InputRule
from leptonai.types.inputs import Aspect

FEWEST_FAILED, FEWEST_ANSWERED = 3, 20
CHANCE = 1e-5  # of a rule that means nothing; some hundred candidates are looked at
MOST = 4  # rules told: what needs more has nothing in common
ORDER: tuple[Aspect, ...] = ("high", "low", "odd", "length", "mean", "hash")  # of two as good the plainer one
CAUGHT = 0.5  # of the failed requests, that the rules must catch together

Inputs = Mapping[str, Any]  # of one request, as in the prediction log


def mark(failed: Sequence[Inputs], answered: Sequence[Inputs]) -> Marked | None:
    """The fewest rules that hold of most of ``failed`` and of none of ``answered``; None where there are none."""
    if len(failed) < FEWEST_FAILED or len(answered) < FEWEST_ANSWERED:
        return None
    left, rules = list(failed), list[InputRule]()
    while left and len(rules) < MOST:
        found = [(sum(rule.holds(seen) for seen in left), rule) for rule in _candidates(left, answered)]
        hits, best = max(found, key=lambda f: (f[0], -ORDER.index(f[1].aspect), str(f[1])), default=(0, None))
        if best is None or hits < FEWEST_FAILED or chance(hits, len(left), len(answered)) > CHANCE:
            break
        rules.append(best)
        left = [seen for seen in left if not best.holds(seen)]
    caught = len(failed) - len(left)
    if not rules or caught < CAUGHT * len(failed):
        return None
    return Marked(
        rules=tuple(str(rule) for rule in rules), failed=len(failed), caught=caught, answered=len(answered)
    )  # fmt: skip


def chance(hits: int, failed: int, answered: int) -> float:
    """That the ``hits`` most extreme of all requests are failed ones, if failing does not depend on the input."""
    p = 1.0
    for i in range(hits):
        p *= max(failed - i, 0) / (failed + answered - i)
    return p


def _candidates(failed: Sequence[Inputs], answered: Sequence[Inputs]) -> Iterator[InputRule]:
    """None of them holds of any of ``answered``."""
    for name in sorted({name for seen in failed for name in seen if isinstance(seen[name], Mapping)}):
        for aspect in ORDER[:-1]:
            bad, good = _values(failed, name, aspect), _values(answered, name, aspect)
            if aspect == "odd":  # told only where there are any
                good = good or [0.0] * any(name in seen for seen in answered)
            if not bad or not good:
                continue
            for sign, edge, beyond in (
                (">", max(good), [v for v in bad if v > max(good)]),
                ("<", min(good), [v for v in bad if v < min(good)]),
            ):
                text = f"{name}.{aspect}{sign}"
                near = (min if sign == ">" else max)(beyond, default=edge)
                rule = InputRule.parse(f"{text}{(edge + near) / 2:.6g}")
                if beyond and rule is not None and not any(rule.holds(seen) for seen in answered):
                    yield rule
        known = {seen[name].get("hash") for seen in answered if isinstance(seen.get(name), Mapping)}
        for digest in sorted({str(seen[name].get("hash")) for seen in failed if isinstance(seen.get(name), Mapping)}):
            rule = InputRule.parse(f"{name}.hash={digest}")
            if rule is not None and digest not in known:
                yield rule


def _values(rows: Sequence[Inputs], name: str, aspect: str) -> list[float]:
    found = [seen[name].get(aspect) for seen in rows if isinstance(seen.get(name), Mapping)]
    return [float(v) for v in found if isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < float("inf")]
