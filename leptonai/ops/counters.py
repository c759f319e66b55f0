"""Counters that only rise, and start again from zero with their process."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from leptonai.ops.exposition import Buckets


class Counters:
    """What each counter of one process rose by since the last look."""

    def __init__(self) -> None:
        self._last: dict[Hashable, float] = {}
        self._seen = False

    def rise(self, now: Iterable[tuple[Hashable, float]]) -> dict[Hashable, float]:
        """The increase per counter since the call before; {} at the first call, which has nothing to compare with.

        A counter that fell was reset: it rose by what it shows now (Prometheus' rule for ``rate``). One that is new
        since the last look rose by what it shows.
        """
        shown = dict(now)
        rose = {}
        if self._seen:
            for key, value in shown.items():
                before = self._last.get(key, 0.0)
                rose[key] = value - before if value >= before else value
        self._last, self._seen = shown, True
        return rose


def buckets(rose: dict[Hashable, float], prefix: tuple[str, ...], scale: float = 1.0) -> Buckets:
    """The histogram whose buckets are the counters keyed ``(*prefix, bound)``; bounds are multiplied by ``scale``."""
    found = [(key[-1] * scale, value) for key, value in rose.items() if isinstance(key, tuple) and key[:-1] == prefix]
    return sorted(found)
