"""What scores are worth against labels: the NAB score, VUS-PR, and plain counts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from leptonai.ops.detect.stream import PROBATION, PROBATION_ROWS
from leptonai.protocols import Floats

Bools = NDArray[np.bool_]


class Profile(NamedTuple):
    """What a false alarm and a missed window cost; a window found at once earns 1."""

    false_positive: float = 0.11
    false_negative: float = 1.0


# config/profiles.json of NAB 1.1
PROFILES = {
    "standard": Profile(),
    "reward_low_FP_rate": Profile(false_positive=0.22),
    "reward_low_FN_rate": Profile(false_negative=2.0),
}


class Judged(NamedTuple):
    """One series: a score for each row, and its labelled windows as first and last row, ascending, not overlapping."""

    scores: Floats
    windows: list[tuple[int, int]]


class Nab(NamedTuple):
    score: float  # 0: as good as no alarm at all, 100: every window at its first row and nothing else
    threshold: float  # the least score that is an alarm
    found: int
    false_alarms: int


def windows_of(label: Bools) -> list[tuple[int, int]]:
    """First and last row of each run of labelled rows."""
    edges = np.diff(np.concatenate(([False], label, [False])).astype(np.int8))
    return list(zip(np.flatnonzero(edges == 1).tolist(), (np.flatnonzero(edges == -1) - 1).tolist(), strict=True))


def _sigmoid(y: Floats) -> Floats:
    return np.where(y >= 3.0, -1.0, 2.0 / (1.0 + np.exp(5.0 * np.minimum(y, 3.0))) - 1.0)


def _worth(rows: int, windows: list[tuple[int, int]]) -> tuple[Floats, NDArray[np.int64]]:
    """What an alarm at each row is worth before weights, and the number of the window it is in (-1: in none)."""
    worth, inside = np.full(rows, -1.0), np.full(rows, -1)
    row = np.arange(rows)
    full = float(_sigmoid(np.array([-1.0]))[0])
    for k, (first, last) in enumerate(windows):
        width = last - first + 1
        until = windows[k + 1][0] if k + 1 < len(windows) else rows
        here, after = slice(first, last + 1), slice(last + 1, until)
        worth[here] = _sigmoid(-(last - row[here] + 1.0) / width) / full
        worth[after] = _sigmoid((row[after] - last) / max(width - 1.0, 1e-9))
        inside[here] = k
    return worth, inside


class _Sweep(NamedTuple):
    """Every row that may be an alarm, worst first, over all series."""

    score: Floats
    worth: Floats
    window: NDArray[np.int64]
    windows: int


def _sweep(corpus: Sequence[Judged]) -> _Sweep:
    parts, windows = [], 0
    for series in corpus:
        rows = len(series.scores)
        worth, inside = _worth(rows, series.windows)
        start = int(min(np.floor(PROBATION * rows), PROBATION_ROWS))
        # a window wholly in probation cannot be found and is not asked for
        asked = np.unique(inside[start:][inside[start:] >= 0])
        number = np.full(len(series.windows) + 1, -1)
        number[asked] = windows + np.arange(len(asked))
        parts.append((series.scores[start:], worth[start:], number[inside[start:]]))
        windows += len(asked)
    if not parts:
        return _Sweep(np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64), 0)
    score, worth, window = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(-score, kind="stable")
    return _Sweep(score[order], worth[order], window[order], windows)


def _totals(rows: _Sweep, profile: Profile) -> tuple[Floats, NDArray[np.int64]]:
    """Raw score and windows found when the first k rows are alarms, k = 1, 2, ..."""
    change = np.where(rows.window < 0, rows.worth * profile.false_positive, 0.0)
    first = np.zeros(len(change), dtype=np.int64)
    best: dict[int, float] = {}
    for i in np.flatnonzero(rows.window >= 0).tolist():
        window, worth = int(rows.window[i]), float(rows.worth[i])
        if window not in best:
            first[i] = 1
            change[i] = worth + profile.false_negative
        elif worth > best[window]:
            change[i] = worth - best[window]
        best[window] = max(worth, best.get(window, worth))
    return np.cumsum(change) - profile.false_negative * rows.windows, np.cumsum(first)


def nab(corpus: Sequence[Judged], profile: Profile = PROFILES["standard"], threshold: float | None = None) -> Nab:
    """The score of the Numenta Anomaly Benchmark 1.1 over all series with one threshold.

    ``threshold`` None: the one that scores best, found among all scores as NAB 1.1's sweeper does. Rules: the first
    15 % of a series (750 rows at most) are not judged; in a window only the best alarm counts, worth
    ``2 sigmoid(-5 y) - 1`` at relative position y in [-1, 0), 1 at the left edge; outside each alarm costs by its
    distance past the last window, fully beyond 3 widths or before the first; a missed window costs its weight.
    0 when there is no window (nothing could be earned).
    """
    rows = _sweep(corpus)
    null, perfect = -profile.false_negative * rows.windows, float(rows.windows)
    totals, found = _totals(rows, profile)
    alarms = np.cumsum(rows.window < 0)
    ends = np.flatnonzero(np.append(rows.score[1:] != rows.score[:-1], True)) if len(rows.score) else np.zeros(0, int)
    at = -1  # no alarm at all
    if threshold is not None:
        at = int(np.searchsorted(-rows.score, -threshold, side="right")) - 1
    elif len(ends):
        best = int(ends[np.argmax(totals[ends])])
        at = best if totals[best] > null else -1
    if at < 0:
        level = threshold if threshold is not None else float(rows.score[0]) + 1.0 if len(rows.score) else np.inf
        return Nab(0.0, level, 0, 0)
    level = threshold if threshold is not None else float(rows.score[at])
    score = 100.0 * (totals[at] - null) / (perfect - null) if rows.windows else 0.0
    return Nab(float(score), level, int(found[at]), int(alarms[at]))


def climb(corpus: Sequence[Judged], profile: Profile = PROFILES["standard"], tolerance: float = 1e-7) -> Nab:
    """As ``nab``, with the threshold found by the hill climb of NAB's optimizer before the sweep.

    From 0.5 in steps of 0.1; a step that gains is doubled, one that gains in neither direction is halved.
    """
    x, step = 0.5, 0.1
    best = nab(corpus, profile, x)
    while step > tolerance:
        for there in (x + step, x - step):
            tried = nab(corpus, profile, there)
            if tried.score > best.score:
                x, best, step = there, tried, step * 2.0
                break
        else:
            step *= 0.5
    return best


def period(x: Floats, lags: int = 400, default: int = 125) -> int:
    """The lag of the highest peak of the autocorrelation between 6 and 303 rows, else ``default`` (as TSB-AD's)."""
    x = np.asarray(x[:20000], dtype=np.float64)
    x = x - x.mean()
    if len(x) < 8 or not np.any(x):
        return default
    spectrum = np.fft.rfft(x, 1 << (2 * len(x)).bit_length())
    r = np.fft.irfft(np.abs(spectrum) ** 2)[: min(lags, len(x) - 1) + 1]
    r = (r / r[0])[3:]
    peaks = np.flatnonzero((r[1:-1] > r[:-2]) & (r[1:-1] > r[2:])) + 1
    if not len(peaks):
        return default
    best = int(peaks[np.argmax(r[peaks])])
    return default if best < 3 or best > 300 else best + 3


def _merged(windows: list[tuple[int, int]], buffer: int, rows: int) -> Iterator[tuple[int, int]]:
    first = max(windows[0][0] - buffer, 0)
    for (_, last), (following, _) in itertools.pairwise(windows):
        if last + buffer < following - buffer:
            yield first, last + buffer
            first = following - buffer
    yield first, min(windows[-1][1] + buffer, rows - 1)


def vus_pr(label: Bools, scores: Floats, window: int, thresholds: int = 250) -> float:
    """Volume under the precision-recall surface (Paparrizos et al., VLDB 2022), buffers 0 ... 2 x ``window`` rows.

    As TSB-AD's ``RangeAUC_volume_opt``: labels fade out as sqrt(1 - distance / buffer) up to half a buffer on both
    sides; recall is damped by the share of ranges touched; thresholds are ranks of the score, evenly spaced.
    nan when nothing, or everything, is labelled.
    """
    windows = windows_of(label)
    rows = len(scores)
    if not windows or label.all():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    level = ranked[np.linspace(0, rows - 1, thresholds).astype(int)]
    taken = np.searchsorted(-ranked, -level, side="right")  # rows at or above each threshold
    positives = float(label.sum())
    areas = []
    for buffer in range(2 * window + 1):
        soft = label.astype(np.float64)
        half = buffer // 2
        for first, last in windows:
            after = np.arange(last + 1, min(last + half + 1, rows))
            before = np.arange(max(first - half, 0), first)
            soft[after] += np.sqrt(1.0 - (after - last) / buffer)
            soft[before] += np.sqrt(1.0 - (first - before) / buffer)
        soft = np.minimum(soft, 1.0)
        hits = np.concatenate(([0.0], np.cumsum(soft[order])))[taken]
        fringe = np.concatenate(([0.0], np.cumsum(np.where(label, 0.0, soft)[order])))[taken]
        ranges = [float(scores[a : b + 1].max()) for a, b in _merged(windows, half, rows)]
        touched = np.mean(np.array(ranges)[:, None] >= level[None, :], axis=0)
        recall = np.minimum(hits / ((positives + positives + fringe) / 2.0), 1.0) * touched
        areas.append(float(np.dot(np.diff(recall, prepend=0.0), hits / taken)))
    return float(np.mean(areas))


class Counts(NamedTuple):
    """Rows, by what was labelled and what was said."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def precision(self) -> float:
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else 0.0

    @property
    def recall(self) -> float:
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else 0.0

    @property
    def f1(self) -> float:
        return 2.0 * self.tp / (2.0 * self.tp + self.fp + self.fn) if self.tp else 0.0


def count(label: Bools, said: Bools) -> Counts:
    return Counts(
        int((label & said).sum()), int((~label & said).sum()), int((label & ~said).sum()), int((~label & ~said).sum())
    )
