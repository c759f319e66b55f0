"""One series whose length is known or assumed, row by row, to one score with the same meaning on every series."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from leptonai.errors import SpecError
from leptonai.ops.detect.novelty import Novelty
from leptonai.protocols import Floats

PROBATION, PROBATION_ROWS = 0.15, 750  # NAB's rule: the first 15 %, at most 750 rows, are for learning only
ROWS = 2000  # length assumed at first when none is given
SAMPLES = 45  # coarse samples of the probation, the middle of a plateau from 34 to 52: what a sample is follows from it
FINER = 3  # fine samples of a coarse one
QUIET = 11  # coarse samples: for so long after an alarm only what is worse by LOUDER is another
LOUDER = 1.2
WINDOW = 10  # coarse samples before and behind a novelty that share its range score
EDGE = 0.5  # what is left of it at the window's edge
DECADES = 4.0  # novelty to decades: ALARM is near where NAB's weights put the best single threshold
DOUBT = 0.05  # each alarm of a series makes the next ones smaller: a score is divided by 1 + DOUBT x alarms so far
BETWEEN = 1.0  # the most that a row without news can score
HUGE = 1e300  # values beyond it are taken for it: sums stay finite
ALARM = 3.0


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
    def fine(self) -> int:
        """Rows of a fine sample."""
        return max(1, round(self.probation / (SAMPLES * FINER)))

    @property
    def coarse(self) -> int:
        """Rows of a coarse sample."""
        return FINER * self.fine


class Sampler:
    """Thins a series to the value of each stretch that departs most from the mean of the stretch before."""

    def __init__(self) -> None:
        self._mean = np.nan

    def step(self, block: Floats) -> float:
        """The sample of the next stretch; nan when all of it is missing."""
        seen = block[np.isfinite(block)]
        if not len(seen):
            return np.nan
        mean = float(seen.mean())
        before = mean if np.isnan(self._mean) else self._mean
        self._mean = mean
        return float(seen[np.argmax(np.abs(seen - before))])


class Sized:
    """Scores of one series as long as its hints say, fed in pieces of any size; how it is cut changes nothing.

    Novelty is found on two time scales, the coarse one FINER times the fine one, and the geometric mean of both counts:
    one that sees nothing vetoes. ``score`` of a row depends on that row and those before it: ALARM and more where
    something very new is worse than all within the last QUIET samples by LOUDER, at most BETWEEN where nothing is. Each
    alarm makes the series a little less credible (DOUBT): one that is always new must be louder each time.
    ``range_score`` is the greatest novelty near the row, fading to EDGE at WINDOW samples. It is known ``delay`` rows
    later: ``push`` returns those that became known, oldest first, and ``finish`` the rest.
    nan and infinite values count as missing: they are not learnt from.
    """

    louder, doubt = LOUDER, DOUBT

    def __init__(self, hints: Hints) -> None:
        self.hints = hints
        self.delay = (WINDOW + 1) * hints.coarse - 1
        self._low = np.inf if hints.low is None else hints.low
        self._high = -np.inf if hints.high is None else hints.high
        self._fine, self._coarse = (Sampler(), Novelty()), (Sampler(), Novelty())
        self._fade = 1.0 - (1.0 - EDGE) * np.abs(np.arange(-WINDOW, WINDOW + 1)) / WINDOW
        self._recent: deque[tuple[int, float]] = deque()  # (sample, novelty), novelty descending
        self._block = np.empty(0)
        self._samples = self._alarms = 0
        self._near = np.zeros(2 * WINDOW + 1)  # novelty of the newest samples, oldest first

    def push(self, values: Floats) -> tuple[Floats, Floats]:
        """``(score, range_score)``: of the rows given, and of the oldest rows whose range score is now known."""
        x = np.clip(np.where(np.isfinite(values), values, np.nan), -HUGE, HUGE)
        joined = np.concatenate((self._block, x))
        size, scores, ranges = self.hints.coarse, np.empty(len(joined)), []
        whole = len(joined) // size * size
        for start in range(0, whole, size):
            scores[start : start + size - 1] = self._between(ended=False)
            scores[start + size - 1] = self._judge(joined[start : start + size])
            if self._samples > WINDOW:
                ranges.append(DECADES * float((self._near * self._fade).max()))
        scores[whole:] = self._between(ended=False)
        skip, self._block = len(self._block), joined[whole:].copy()
        return scores[skip:], np.repeat(ranges, size).astype(np.float64)

    def finish(self) -> Floats:
        """``range_score`` of the rows not given by ``push`` yet."""
        ranges = []
        for _ in range(WINDOW + 1):
            self._near = np.append(self._near[1:], 0.0)
            ranges.append(DECADES * float((self._near * self._fade).max()))
        *whole, begun = ranges[-1 - min(self._samples, WINDOW) :]
        return np.concatenate((np.repeat(whole, self.hints.coarse), np.full(len(self._block), begun)))

    def _between(self, ended: bool) -> float:
        """The score of a row that is no alarm: what is left of the newest novelties, its own sample's if ``ended``."""
        fade = self._fade[: WINDOW + 1] if ended else self._fade[:WINDOW]
        left = float((self._near[-len(fade) :] * fade).max())
        return BETWEEN * left / (1.0 + left)

    def _judge(self, block: Floats) -> float:
        """The score of a coarse sample's last row."""
        seen = block[np.isfinite(block)]
        fine = 0.0
        for start in range(0, len(block), self.hints.fine):
            part = block[start : start + self.hints.fine]
            self._low, self._high = np.fmin(self._low, np.fmin.reduce(part)), np.fmax(self._high, np.fmax.reduce(part))
            fine = max(fine, self._news(part, *self._fine))
        novelty = self._agree(fine, self._news(block, *self._coarse)) if len(seen) else 0.0
        self._near = np.append(self._near[1:], novelty)
        self._samples += 1
        if self._samples * self.hints.coarse <= self.hints.probation:
            return self._between(ended=True)
        while self._recent and self._recent[0][0] < self._samples - QUIET:
            self._recent.popleft()
        news = not self._recent or novelty > self.louder * self._recent[0][1]
        while self._recent and self._recent[-1][1] <= novelty:
            self._recent.pop()
        self._recent.append((self._samples, novelty))
        between = self._between(ended=True)
        if not news:
            return between
        score = DECADES * novelty / (1.0 + self.doubt * self._alarms)
        self._alarms += score >= ALARM
        return max(score, between)

    def _agree(self, fine: float, coarse: float) -> float:
        return float(np.sqrt(fine * coarse))

    def _news(self, block: Floats, sampler: Sampler, novelty: Novelty) -> float:
        sample = sampler.step(block)
        return 0.0 if np.isnan(sample) else float(novelty.step(sample, float(self._high - self._low)).min())
