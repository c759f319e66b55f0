"""Whether complaints became rarer after a repair: the exact test of two Poisson rates. Pure.

Given n complaints in all, those after the repair are binomial(n, q) while nothing has changed, q being the share of the
exposure (requests, else seconds) that came after it (Przyborowski and Wilenski, Biometrika 31, 1940).
"""

from __future__ import annotations

from math import comb
from typing import Literal, NamedTuple

CHANCE = 0.05  # that complaints are called rarer although nothing has changed
BACK = 3  # complaints after a repair, no rarer than before, until it is said not to have helped
MOST = 1_000  # complaints counted exactly; of more, both sides are scaled down, which errs towards "cannot tell"


class Fell(NamedTuple):
    """``outcome``: "unknown" until enough was asked; "fell"; "stayed": as frequent as before, or more."""

    outcome: Literal["unknown", "fell", "stayed"]
    before: float  # complaints per unit of exposure
    after: float
    chance: float  # of so few after it, had nothing changed


def fell(before: int, exposed_before: float, after: int, exposed_after: float) -> Fell:
    """Of ``before`` complaints over ``exposed_before``, and ``after`` over ``exposed_after``; exposures above 0."""
    rates = before / exposed_before, after / exposed_after
    q = exposed_after / (exposed_before + exposed_after)
    many = before + after
    if many > MOST:
        before, after = before * MOST // many, -(-after * MOST // many)
        many = before + after
    chance = sum(comb(many, k) * q**k * (1.0 - q) ** (many - k) for k in range(after + 1))
    if chance < CHANCE:
        return Fell("fell", *rates, chance)
    stayed = after >= BACK and rates[1] >= rates[0]
    return Fell("stayed" if stayed else "unknown", *rates, min(chance, 1.0))
