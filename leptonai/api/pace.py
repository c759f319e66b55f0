"""A token bucket per caller: bursts are welcome, floods are told when to come back."""

from __future__ import annotations

from leptonai.errors import SpecError


class Pace:
    """``rate`` items a second for each caller, and at most ``burst`` at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, caller: str, items: int, now: float) -> None:
        """``items`` are on the account of ``caller``. Raises SpecError 429 with ``retry_after``, taking none."""
        left, at = self._left.get(caller, (self._burst, now))
        left = min(self._burst, left + max(0.0, now - at) * self._rate)
        if left < items:
            wait = (min(items, self._burst) - left) / self._rate
            raise SpecError(
                f"{items} more items are above {self._rate:g} a second and {self._burst:g} at once",
                hint=f"send them again in {wait:.1f} s",
                code="pace",
                status=429,
                retry=True,
                retry_after=round(wait, 3),
            )
        self._left[caller] = (left - items, now)
