"""From templates to signals: counts per step, templates never seen before, rates that changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

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


def log_signals(
    past: Rates,
    ids: Sequence[int] | Mapping[int, int],
    labels: Mapping[str, str],
    now: float,
    shown: int = SHOWN,
    elapsed: float = 1.0,
) -> tuple[list[Signal], Rates]:
    """Signals of one step at ``now``, and what is usual after it. ``ids``: the template of each line of the step, as
    ``Miner.add_many`` gave them, or template -> lines. ``elapsed``: how many steps it stands for, when it came late.

    ``log_lines_count``; ``log_template_count{template}`` of the ``shown`` most frequent templates and ``other``;
    ``log_new_template_count``: ids above all before, 0 in the first WARM steps; ``log_rate_change_count``: templates
    whose count is so far off their usual rate that chance does it once in 1 / TAIL steps.
    The tail is that of a negative binomial: Poisson counts of a rate known from the past alone (gamma posterior).
    """
    counts = Counter(ids)
    usual = past.usual
    warm = past.steps >= WARM
    judged = [(counts.get(id, 0), lines, steps) for id, (lines, steps) in usual.items() if warm and steps >= WARM]
    changed = _off(judged, elapsed)
    fresh = [id for id in counts if id > past.newest]
    most = sorted(usual, key=lambda id: (-usual[id][0], id))[:shown]
    values = {str(id): counts.get(id, 0) for id in most}
    total = sum(counts.values())
    other = total - sum(values.values())
    tags = dict(labels)
    signals = [
        Signal(name="log_lines_count", labels=tags, at=now, value=float(total)),
        Signal(name="log_new_template_count", labels=tags, at=now, value=float(len(fresh)) if warm else 0.0),
        Signal(name="log_rate_change_count", labels=tags, at=now, value=float(changed)),
        *(
            Signal(name="log_template_count", labels={**tags, "template": id}, at=now, value=float(n))
            for id, n in {**values, "other": other}.items()
        ),
    ]
    return signals, _learn(past, counts, elapsed)


def _learn(past: Rates, counts: Counter[int], elapsed: float) -> Rates:
    fade = (1.0 - 1.0 / MEMORY) ** elapsed
    usual = {
        id: (lines * fade + counts.get(id, 0), steps * fade + elapsed) for id, (lines, steps) in past.usual.items()
    }
    for id, n in counts.items():
        usual.setdefault(id, (float(n), elapsed))
    if len(usual) > KEPT:
        usual = dict(sorted(usual.items(), key=lambda item: (-item[1][0], item[0]))[:KEPT])
    newest = max(past.newest, *counts) if counts else past.newest
    return Rates(steps=past.steps * fade + elapsed, newest=newest, usual=usual)


def _off(judged: Sequence[tuple[float, float, float]], elapsed: float) -> int:
    """How many of ``(count, lines, steps)`` are off, either way."""
    if not judged:
        return 0
    import numpy as np

    count, lines, steps = np.array(judged, dtype=float).T
    at_most, at_least = tails(count, lines, steps, elapsed)
    return int(np.sum(2.0 * np.minimum(at_most, at_least) < TAIL))


def tails(count: Any, lines: Any, steps: Any, elapsed: Any) -> tuple[Any, Any]:
    """Probability of at most, and of at least, ``count`` lines in ``elapsed`` steps after ``lines`` in ``steps``;
    Jeffreys prior on the rate. Numbers or arrays."""
    import numpy as np
    from scipy.special import betainc

    shape, p = np.add(lines, 0.5), np.divide(steps, np.add(steps, elapsed))
    at_most = betainc(shape, np.add(count, 1.0), p)
    at_least = np.where(np.equal(count, 0), 1.0, betainc(np.maximum(count, 0.5), shape, 1.0 - p))
    return at_most, at_least
