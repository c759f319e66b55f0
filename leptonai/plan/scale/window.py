"""Averages of concurrency over the time just gone by, exact and O(log n) however long the window."""

from __future__ import annotations

from bisect import bisect_right


class Window:
    """Time averages of a value that was told interval by interval; ``keep`` seconds are remembered at least.

    What is kept is the running integral, so a mean over any window is one subtraction.
    """

    def __init__(self, began: float, keep: float = 600.0) -> None:
        self.keep = keep
        self._at = [began]
        self._sum = [0.0]

    def push(self, at: float, integral: float) -> None:
        """The value's integral over the time since the last push was ``integral`` (mean x seconds). Times ascend."""
        if at <= self._at[-1]:
            raise ValueError(f"a window's times ascend: {at} after {self._at[-1]}")
        self._at.append(at)
        self._sum.append(self._sum[-1] + integral)
        if self._at[0] < at - 2 * self.keep:
            cut = max(bisect_right(self._at, at - self.keep) - 1, 0)
            del self._at[:cut], self._sum[:cut]

    @property
    def covered(self) -> float:
        """Seconds known."""
        return self._at[-1] - self._at[0]

    def mean(self, seconds: float) -> float:
        """The time average over the last ``seconds``, or over all that is known if that is less; 0 before any push."""
        at, total = self._at, self._sum
        end = at[-1]
        start = max(end - seconds, at[0])
        if start >= end:
            return 0.0
        i = bisect_right(at, start) - 1
        inner = total[i] + (total[i + 1] - total[i]) * (start - at[i]) / (at[i + 1] - at[i])
        return max(0.0, (total[-1] - inner) / (end - start))
