"""The past of one series at every scale, and the periods found in it."""

from __future__ import annotations

from typing import Any

import numpy as np

from leptonai.protocols import Floats

KEEP = 4096  # points a level; 56 days at 20 minutes, so weeks can be found in samples of seconds
CYCLES = 2.5  # periods that must have been seen: two to compare, and room for the lag
FINEST = 16  # points a period at least, so that its length is known to a few per cent


class History:
    """Means over 1, 2, 4, 8 ... samples, each level bounded: O(log n) memory and O(1) amortised a sample."""

    def __init__(self) -> None:
        self.count = 0
        self.levels: list[list[float]] = [[]]
        self.dropped = [0]

    def push(self, value: float) -> None:
        self.count += 1
        index, level = self.count, 0
        while True:
            points = self.levels[level]
            points.append(value)
            if len(points) >= 2 * KEEP:
                del points[:KEEP]
                self.dropped[level] += KEEP
            if index % 2:
                return
            value = 0.5 * (points[-1] + points[-2])
            index //= 2
            level += 1
            if level == len(self.levels):
                self.levels.append([])
                self.dropped.append(0)

    def dump(self) -> dict[str, Any]:
        """All that is kept, as plain values; every point as four bytes."""
        points = [np.array(level, dtype="<f4").tobytes() for level in self.levels]
        return {"count": self.count, "levels": points, "dropped": list(self.dropped)}

    def load(self, state: dict[str, Any]) -> None:
        self.count, self.dropped = int(state["count"]), [int(n) for n in state["dropped"]]
        self.levels = [np.frombuffer(points, dtype="<f4").astype(float).tolist() for points in state["levels"]]

    def at(self, time: float, level: int) -> float | None:
        """The value around sample ``time`` (0: the first), between two points of ``level``; None: not kept."""
        place = (time + 0.5) / (1 << level) - 0.5 - self.dropped[level]
        points = self.levels[level]
        low = int(place)
        if place < 0 or low >= len(points):
            return None
        if low + 1 >= len(points):
            return points[low]
        return points[low] + (points[low + 1] - points[low]) * (place - low)


def periods(history: History) -> tuple[float, ...]:
    """Up to two periods in samples, the shorter first, the longer a multiple of it (a day, and the week over it).

    Peaks of the autocorrelation of the detrended series (Box and Jenkins), looked for at each level: smoothing lets
    a season stand out of counting noise. A peak counts from 4 standard errors of white noise (1/sqrt(n - lag)) and
    0.3; of peaks nearly as high the shortest is the period, its length refined over its multiples.
    """
    best: tuple[float, float, Floats, int] | None = None
    for level, kept in enumerate(history.levels):
        points = np.array(kept[-KEEP:])
        longest = int(len(points) / CYCLES)
        if longest < FINEST:
            break
        corr = autocorrelation(points, min(len(points) - 1, 2 * longest))
        lag = _peak(corr, longest, len(points))
        if not lag:
            continue
        period = _refined(corr, lag)
        if best is not None:
            known = best[1] / 2.0 ** (level - best[3])
            if corr[lag] < best[0] + 0.02 or (known < FINEST and period > 1.5 * known):
                continue  # no clearer, or perhaps a multiple of what is too short for this level
        best = (float(corr[lag]), period, corr, level)
    if best is None:
        return ()
    height, period, corr, level = best
    scale = float(1 << level)
    for part in range(8, 1, -1):  # a week holds days
        lag = round(period / part)
        if lag >= FINEST and corr[lag] > 0.3 and corr[lag] >= corr[[lag - 2, lag + 2]].max():
            return period / part * scale, period * scale
    for multiple in range(2, 9):  # days are told apart by the week
        lag = round(period * multiple)
        if lag > (len(corr) - 2) // 2:
            break
        if corr[lag - 1 : lag + 2].max() > height + 0.1 * (1 - height):
            return period * scale, period * scale * multiple
    return (period * scale,)


def autocorrelation(points: Floats, lags: int) -> Floats:
    """At lags 0 ... ``lags``, unbiased, of the series without its linear trend."""
    n = len(points)
    t = np.arange(n) - (n - 1) / 2
    x = points - points.mean()
    x = x - t * (t @ x) / (t @ t)
    size = 1 << (2 * n - 1).bit_length()
    power = np.abs(np.fft.rfft(x, size)) ** 2
    cov = np.fft.irfft(power, size)[: lags + 1] / (n - np.arange(lags + 1))
    if not cov[0] > 1e-12 * max(1.0, float(np.abs(points).max()) ** 2):
        return np.zeros(lags + 1)  # a constant
    out: Floats = cov / cov[0]
    return out


def _peak(corr: Floats, longest: int, n: int) -> int:
    """The lag of the fundamental, or 0."""
    inner = corr[1:-1]
    tops = np.flatnonzero((inner >= corr[:-2]) & (inner > corr[2:])) + 1
    floor = np.maximum(0.3, 4.0 / np.sqrt(n - tops))
    dip = np.minimum.accumulate(corr)  # a season comes back; a slow drift never goes
    tops = tops[(tops >= FINEST) & (tops <= longest) & (corr[tops] > floor) & (dip[tops] < 0.5 * corr[tops])]
    if len(tops) == 0:
        return 0
    return int(tops[corr[tops] >= 0.9 * corr[tops].max()][0])


def _refined(corr: Floats, lag: int) -> float:
    """The period as a real number: each further multiple's peak is sought where the one before says it is."""
    period, multiple = _vertex(corr, lag), 1
    while True:
        multiple += 1
        expected = round(period * multiple)
        reach = max(1, lag // 8)
        if expected + reach + 1 >= len(corr):
            return period
        near = expected - reach + int(np.argmax(corr[expected - reach : expected + reach + 1]))
        if corr[near] < 0.5 * corr[lag]:
            return period
        period = _vertex(corr, near) / multiple


def _vertex(corr: Floats, lag: int) -> float:
    a, b, c = corr[lag - 1], corr[lag], corr[lag + 1]
    bend = a - 2 * b + c
    return lag + float(np.clip(0.5 * (a - c) / bend, -0.5, 0.5)) if bend < 0 else float(lag)
