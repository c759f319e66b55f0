"""One series, row by row, to one score with the same meaning on every series, however long it will be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from leptonai.ops.detect.sized import ALARM, PROBATION, PROBATION_ROWS, QUIET, ROWS, Hints, Sized
from leptonai.protocols import Floats

__all__ = ["ALARM", "PROBATION", "PROBATION_ROWS", "QUIET", "Hints", "Sized", "Stream", "detect"]

AHEAD = 4  # a series of unknown length is taken to be at least so many times as long as what was seen of it
LONGEST = round(PROBATION_ROWS / PROBATION)  # rows beyond which samples do not become longer


class Stream:
    """``Sized``, fed in pieces of any size; where ``hints`` do not say how long the series is, the guess grows with it.

    ROWS at first; each time that a share of 1 in AHEAD of the guess was seen, it doubles, up to LONGEST. What was seen
    is then read anew in the longer samples, so that they know of it; scores already given stand. So ``score`` depends
    on its row and those before it alone, and ``range_score`` is known ``delay`` rows later, a number that grows too.
    On NAB's files it gives 4 to 5 points and .13 of VUS-PR over ROWS for ever (docs/benchmarks/detection.md).
    """

    def __init__(self, hints: Hints = Hints(), kind: Callable[[Hints], Sized] = Sized) -> None:  # noqa: B008 - frozen
        self._hints, self._kind = hints, kind
        self._guess = hints.rows or ROWS
        self._sized = kind(replace(hints, rows=self._guess))
        self._seen = np.empty(0)  # every row, while the guess may still grow
        self._given = self._skip = 0  # range scores returned, and those of them that the scale in use has yet to reach

    @property
    def coarse(self) -> int:
        """Rows of a coarse sample, as of now."""
        return self._sized.hints.coarse

    @property
    def delay(self) -> int:
        """Rows until a range score is known, as of now."""
        return self._sized.delay

    def push(self, values: Floats) -> tuple[Floats, Floats]:
        """``(score, range_score)``: of the rows given, and of the oldest rows whose range score is now known."""
        x = np.asarray(values, dtype=np.float64)
        scores, ranges = [np.empty(0)], [np.empty(0)]
        while len(x):
            piece = x
            if self._hints.rows is None and self._guess < LONGEST:
                if len(self._seen) >= self._guess // AHEAD:
                    ranges.append(self._grow())
                    continue
                piece = x[: self._guess // AHEAD - len(self._seen)]
                self._seen = np.concatenate((self._seen, piece))
            score, late = self._sized.push(piece)
            scores.append(score)
            ranges.append(self._news(late))
            x = x[len(piece) :]
        return np.concatenate(scores), np.concatenate(ranges)

    def finish(self) -> Floats:
        """``range_score`` of the rows not given by ``push`` yet."""
        return self._news(self._sized.finish())

    def _grow(self) -> Floats:
        self._guess = min(2 * self._guess, LONGEST)
        self._sized, self._skip = self._kind(replace(self._hints, rows=self._guess)), self._given
        late = self._news(self._sized.push(self._seen)[1])
        if self._guess == LONGEST:
            self._seen = np.empty(0)
        return late

    def _news(self, late: Floats) -> Floats:
        """Of the range scores that the scale in use gives next, those not given before."""
        known = min(self._skip, len(late))
        self._skip -= known
        self._given += len(late) - known
        return late[known:]


def detect(values: Floats, hints: Hints = Hints()) -> tuple[Floats, Floats]:  # noqa: B008 - frozen
    """``(score, range_score)`` of every row of a series, as ``Stream`` gives them."""
    stream = Stream(hints)
    scores, ranges = stream.push(values)
    return scores, np.concatenate((ranges, stream.finish()))
