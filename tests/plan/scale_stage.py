"""Sights for policies: what one would see after a constant load."""

from __future__ import annotations

from leptonai.plan.scale import Outlook, Sight, Window


def constant(now: float, *stretches: tuple[float, float]) -> Window:
    """A window that ends at ``now`` with (seconds, mean) stretches, oldest first; zero before them."""
    begin = now - sum(seconds for seconds, _ in stretches)
    window = Window(begin - 1000.0)
    if begin > begin - 1000.0:
        window.push(begin, 0.0)
    for seconds, mean in stretches:
        begin += seconds
        window.push(begin, seconds * mean)
    return window


def sight(
    now: float,
    load: float,
    *,
    ready: int,
    starting: int = 0,
    recent: tuple[float, float] | None = None,
    least: int = 1,
    most: int = 64,
    waiting: float = 0.0,
    startup: float = 30.0,
    capacity: float = 1.0,
    outlook: Outlook | None = None,
) -> Sight:
    """``load`` for ten minutes; ``recent`` (seconds, mean) after it. Concurrency and demand are the same."""
    window = constant(now, (600.0, load), *([recent] if recent else []))
    return Sight(
        now=now,
        concurrency=window,
        demand=window,
        waiting=waiting,
        ready=ready,
        starting=starting,
        least=least,
        most=most,
        capacity=capacity,
        startup=startup,
        outlook=outlook,
    )
