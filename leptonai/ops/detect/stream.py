"""The full tier: one series, row by row, to one score with the same meaning on every series."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from leptonai.errors import SpecError
from leptonai.ops.detect.novelty import Novelty
from leptonai.protocols import Floats

PROBATION, PROBATION_ROWS = 0.15, 750  # NAB's rule: the first 15 %, at most 750 rows, are for learning only
SAMPLES = 36  # of the probation: what a sample is follows from it
ROWS = 5000  # length assumed when none is given
QUIET = 0.3  # of SAMPLES: for so long after an alarm only what is worse by LOUDER is another
LOUDER = 1.2
DECADES = 4.0  # novelty to -log10 of a tail probability
BETWEEN = 1.0  # the most a row can score that is no news of its own
HUGE = 1e300  # values beyond it are taken for it: sums stay finite
ALARM = 3.0  # one row in a thousand


@dataclass(frozen=True)
class Hints:
    """What may be known of a series in advance; everything is optional and nothing is looked up in the rows to come."""

    low: float | None = None
    high: float | None = None
    rows: int | None = None

    def __post_init__(self) -> None:
        if self.low is not None and self.high is not None and not self.low <= self.high:
            raise SpecError(f"range {self.low}:{self.high} is upside down", hint="write LOW:HIGH, as in 0:100")
        if self.rows is not None and self.rows < 1:
            raise SpecError(f"rows is {self.rows}; a series has at least 1")

    @property
    def probation(self) -> int:
        """Rows at the start that raise no alarm."""
        return min(int(PROBATION * (self.rows or ROWS)), PROBATION_ROWS)

    @property
    def stride(self) -> int:
        """Rows of one sample."""
        return max(1, round(self.probation / SAMPLES))

    @property
    def quiet(self) -> int:
        """Samples for which an alarm quietens lesser ones."""
        return round(QUIET * SAMPLES)


class Stream:
    """Scores of one series, fed in pieces of any size; how it is cut changes nothing.

    ``push`` returns a pair for each row: ``score`` depends on that row and those before it; ``range_score`` of a row
    is known one window (``delay`` rows) later, so ``push`` returns those of older rows and ``finish`` the rest.
    nan and infinite values count as missing: they score 0 and are not learnt from.
    """

    def __init__(self, hints: Hints = Hints()) -> None:
        self.hints = hints
        self.stride = hints.stride
        self.delay = 2 * self.stride
        self._low = np.inf if hints.low is None else hints.low
        self._high = -np.inf if hints.high is None else hints.high
        self._novelty = Novelty()
        self._quiet = hints.quiet
        self._recent: deque[tuple[int, float]] = deque()  # (sample, score), scores descending
        self._block = np.empty(0)
        self._mean = np.nan
        self._sample = 0
        self._level = 0.0
        self._late = np.empty(0)

    def push(self, values: Floats) -> tuple[Floats, Floats]:
        """``(score, range_score)`` of the next rows, and of the rows that are ``delay`` older."""
        x = np.clip(np.where(np.isfinite(values), values, np.nan), -HUGE, HUGE)
        joined = np.concatenate((self._block, x))
        scores = np.empty(len(x))
        at, whole = 0, len(joined) // self.stride
        blocks = joined[: whole * self.stride].reshape(whole, self.stride)
        skip = len(self._block)
        level = np.empty(len(joined))
        for block in blocks:
            level[at : at + self.stride - 1] = self._between()
            news = self._judge(block)
            at += self.stride
            level[at - 1] = news
        self._block = joined[at:].copy()
        level[at:] = self._between()
        scores = level[skip:]
        return scores, self._spread(scores)

    def finish(self) -> Floats:
        """``range_score`` of the last ``delay`` rows."""
        late, self._late = self._late, np.empty(0)
        return late

    def _between(self) -> float:
        return BETWEEN * self._level / (1.0 + self._level)

    def _judge(self, block: Floats) -> float:
        """The score of a block's last row."""
        seen = block[np.isfinite(block)]
        if not len(seen):
            return 0.0
        self._low, self._high = min(self._low, float(seen.min())), max(self._high, float(seen.max()))
        mean = float(seen.mean())
        before = mean if np.isnan(self._mean) else self._mean
        extreme = float(seen[np.argmax(np.abs(seen - before))])
        self._mean = mean
        self._level = float(self._novelty.step(extreme, self._high - self._low).min())
        self._sample += 1
        if self._sample * self.stride <= self.hints.probation:
            return self._between()
        while self._recent and self._recent[0][0] < self._sample - self._quiet:
            self._recent.popleft()
        news = not self._recent or self._level > LOUDER * self._recent[0][1]
        while self._recent and self._recent[-1][1] <= self._level:
            self._recent.pop()
        self._recent.append((self._sample, self._level))
        return max(DECADES * self._level, self._between()) if news else self._between()

    def _spread(self, scores: Floats) -> Floats:
        known = np.concatenate((self._late, scores))
        ready = max(0, len(known) - self.delay)
        out, self._late = known[:ready], known[ready:]
        return out


def detect(values: Floats, hints: Hints = Hints()) -> tuple[Floats, Floats]:
    """``(score, range_score)`` of every row of a series, as ``Stream`` gives them."""
    stream = Stream(hints)
    scores, ranges = stream.push(np.asarray(values, dtype=np.float64))
    return scores, np.concatenate((ranges, stream.finish()))
