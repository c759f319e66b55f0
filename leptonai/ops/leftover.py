"""Errors of a trouble that is over stay in the windows of the burn rules; they are no second trouble. Pure.

A burn counts hours, and is told while the newest seconds burn too. After a repair one stray error among the newest
answers is enough for that, long before the windows have let go of what the repaired incident spent. So from the closing
of an incident on, the rule is asked again over what came since: does that alone break the promise as fast?
"""

from __future__ import annotations

from typing import NamedTuple

from leptonai.ops.judge import Trigger
from leptonai.ops.slo import ALPHA
from leptonai.series.proportion import bound

RULES = {"burn_errors": "errors", "burn_latency": "latency"}


class Paid(NamedTuple):
    """What a service had counted at ``at``, when its last incident was closed: requests, and bad ones by rule."""

    at: float
    requests: float
    bad: dict[str, float]


def leftover(trigger: Trigger, paid: Paid, requests: float, bad: dict[str, float], now: float) -> bool:
    """Whether ``trigger`` is a burn that only the requests of before ``paid`` explain: those since then would break the
    promise by chance more often than ALPHA. Never once the window has begun after the closing."""
    rule = RULES.get(trigger.kind)
    if rule is None or now - paid.at >= float(trigger.terms.get("long", 0.0)):
        return False
    limit = float(trigger.terms["factor"]) * float(trigger.terms["budget"])
    total, broken = requests - paid.requests, bad[rule] - paid.bad[rule]
    return float(bound(broken, total, limit)) >= ALPHA
