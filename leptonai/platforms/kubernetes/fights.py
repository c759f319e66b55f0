"""Fields of ours that others set, and that are set back: until it is seen that they do not give in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from leptonai.errors import Conflict
from leptonai.platforms.kubernetes.converge import Move
from leptonai.platforms.kubernetes.names import Ref
from leptonai.protocols import Record

FIGHTS = 5  # times that somebody else may set a field of ours within FIGHT_SECONDS ...
FIGHT_SECONDS = 60.0  # ... until we stop taking it back, and say who it is


class Fights:
    def __init__(self, record: Record, clock: Callable[[], float]) -> None:
        self._record, self._clock = record, clock
        self._at: defaultdict[Ref, list[float]] = defaultdict(list)

    def count(self, move: Move, conflict: Conflict | None) -> None:
        """Fields of ours that somebody set are set back. Conflict, once that happens again and again."""
        now, at = self._clock(), move.ref
        managers = ", ".join(conflict.detail.get("managers") or ()) if conflict else "somebody"
        fights = self._at[at] = [t for t in self._at[at] if now - t < FIGHT_SECONDS] + [now]
        if len(fights) > FIGHTS:
            raise Conflict(
                f"{managers} and we set the same fields of {at} in turn: {', '.join(move.fields)}",
                hint="stop the other, or leave replicas to an autoscaler: scale.owner kubernetes or keda",
                code="field_managers",
                managers=managers,
            ) from conflict
        self._record("drift.corrected", str(at), {"fields": list(move.fields), "by": managers})
