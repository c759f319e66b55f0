"""From templates to signals: counts per step, templates never seen before, rates that changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from leptonai.types import Noun, Signal

MEMORY = 300.0  # steps: how far back a usual rate looks
WARM = 30.0  # steps of a log, and of a template, before its rate is judged
TAIL = 1e-6  # of one template in one step: 100 templates each second alarm by chance once in three hours
SHOWN = 50  # templates with a signal of their own; the rest are summed as "other"
KEPT = 2000  # templates whose rate is remembered, the most frequent


class Rates(Noun, frozen=True, kw_only=True):
    """What is usual of one log. ``usual``: template id -> (lines, steps), both fading over MEMORY steps."""

    steps: float = 0.0
    newest: int = 0
    usual: dict[int, tuple[float, float]] = {}


def log_signals(past: Rates, ids: Sequence[int], labels: Mapping[str, str], now: float) -> tuple[list[Signal], Rates]:
    """Signals of one step at ``now``, and what is usual after it. ``ids``: the template of each line of the step, as
    ``Miner.add_many`` gave them.

    ``log_lines_count``; ``log_template_count{template}`` of the SHOWN most frequent templates and ``other``;
    ``log_new_template_count``: ids above all before, 0 in the first WARM steps; ``log_rate_change_count``: templates
    whose count is so far off their usual rate that chance does it once in 1 / TAIL steps.
    The tail is that of a negative binomial: Poisson counts of a rate known from the past alone (gamma posterior).
    """
    counts = Counter(ids)
    usual = dict(past.usual)
    warm = past.steps >= WARM
    changed = sum(
        1
        for id, (lines, steps) in usual.items()
        if warm and steps >= WARM and _surprise(counts.get(id, 0), lines, steps) < TAIL
    )
    fresh = [id for id in counts if id > past.newest]
    shown = sorted(usual, key=lambda id: (-usual[id][0], id))[:SHOWN]
    values = {str(id): counts.get(id, 0) for id in shown}
    other = sum(counts.values()) - sum(values.values())
    tags = dict(labels)
    signals = [
        Signal(name="log_lines_count", labels=tags, at=now, value=float(len(ids))),
        Signal(name="log_new_template_count", labels=tags, at=now, value=float(len(fresh)) if warm else 0.0),
        Signal(name="log_rate_change_count", labels=tags, at=now, value=float(changed)),
        *(
            Signal(name="log_template_count", labels={**tags, "template": id}, at=now, value=float(n))
            for id, n in {**values, "other": other}.items()
        ),
    ]
    return signals, _learn(past, counts)


def _learn(past: Rates, counts: Counter[int]) -> Rates:
    fade = 1.0 - 1.0 / MEMORY
    usual = {id: (lines * fade + counts.get(id, 0), steps * fade + 1.0) for id, (lines, steps) in past.usual.items()}
    for id, n in counts.items():
        usual.setdefault(id, (float(n), 1.0))
    if len(usual) > KEPT:
        usual = dict(sorted(usual.items(), key=lambda item: (-item[1][0], item[0]))[:KEPT])
    newest = max(past.newest, *counts) if counts else past.newest
    return Rates(steps=past.steps * fade + 1.0, newest=newest, usual=usual)


def _surprise(count: int, lines: float, steps: float) -> float:
    """Probability, both tails, of a count at least as far off as this one; Jeffreys prior on the rate."""
    from scipy.special import betainc

    shape, p = lines + 0.5, steps / (steps + 1.0)
    at_most = float(betainc(shape, count + 1.0, p))
    at_least = 1.0 if count == 0 else float(betainc(float(count), shape, 1.0 - p))
    return min(1.0, 2.0 * min(at_most, at_least))
