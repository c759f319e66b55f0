"""When did it begin, is it beyond what normal data do, and how much did every series change. Pure, columnar."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import stdtr

from leptonai.protocols import Floats

PLACEMENTS = 400  # stretches of normal data a window is compared with at most, spread evenly
TAIL = 0.98  # the change that normal data stay below, in this share of stretches of the same shape
LASTING = 3.0  # robust sigmas
JUMPS = 1 / 2  # of its height above normal, that a stretch must rise by where it begins
BELONGS = 1 / 3  # a row beside the episode belongs to it when it shows this share of the shift
NEGLIGIBLE = 1e-3  # a shift below this share of the level is none, however constant the series was
UNKNOWN = 0.5  # share of its level that a series without normal data must change by
FEW = 10  # stretches below which normal data say nothing of noise
HEAVY = 3.0  # degrees of freedom of the law that continues beyond the most extreme stretch seen
STATISTICS = ("jump", "level")


class Episode(NamedTuple):
    """Rows ``start`` up to ``stop`` of the window stand out; the rows before ``start`` are as before.

    ``p``: share of normal windows at least as extreme (0 = none could be). ``sign``: +1 where the series rose.
    """

    start: int
    stop: int
    p: float
    sign: int


class Change(NamedTuple):
    """Per series: level before, mean in the episode, and the change in the bad direction normal data stay below."""

    before: Floats
    during: Floats
    noise: Floats


def episode(x: Floats, normal: Floats, sign: int) -> Episode:
    """The stretch of ``x`` (T,) that departs most in direction ``sign`` (0: either), against ``normal`` (M,).

    Two statistics, the jump of a stretch against the rows before it and its height above the median of the normal
    data, each of the values as they are and of values clipped at LASTING robust sigmas: to the clipped ones a single
    huge row is little and a lasting shift is much. ``p`` is the share of normal windows of the same length in which
    the rarest of the four is as rare (times four, where none is). A level that is rarer gives way to a jump that is
    rare and most of its height: what was high before drifted since the normal data. The stretch is then widened over
    adjacent rows that show BELONGS of its shift, so that a slow onset does not count as before; and where the rows
    before it are in trouble themselves, it begins with the window.
    """
    if sign == 0:
        return min((episode(x, normal, s) for s in (1, -1)), key=lambda e: e.p)
    normal = normal[np.isfinite(normal)]
    rows = len(x)
    if not len(normal) or not np.isfinite(x).any():
        return Episode(0, rows, 1.0, sign)
    middle = float(np.median(normal))
    windows = _windows(normal, rows)
    spread = max(1.4826 * float(np.median(np.abs(normal - middle))), NEGLIGIBLE * abs(middle))
    tails, wheres, known = [], [], []
    for limit in (np.inf, LASTING * spread):
        mine, where = _scan(np.clip(sign * (x - middle)[None, :], -limit, limit))
        theirs, _ = _scan(np.clip(sign * (windows - middle), -limit, limit))
        for i, name in enumerate(STATISTICS):
            tails.append(_tail(mine[i][0], theirs[i], NEGLIGIBLE * abs(middle)))
            wheres.append(where[name])
            known.append((theirs[i][:, None] <= theirs[i][None, :]).mean(axis=1))
    rarest = min(tails)
    together = (
        float((np.min(known, axis=0) <= rarest).mean()) if rarest >= 1 / (len(windows) + 1) else len(tails) * rarest
    )
    best = int(np.argmin(tails))
    high, usual = sign * (x - middle), sign * (normal - middle)
    if (
        STATISTICS[best % 2] == "level"
        and tails[best - 1] <= 1.0 - TAIL
        and not _within(high, usual, *wheres[best - 1])
    ):
        best -= 1
    start, stop = wheres[best]
    if _within(high, usual, start, stop):
        start = 0
    before = x[:start][np.isfinite(x[:start])]
    base = float(before.mean()) if len(before) else middle
    shift = sign * (x - base)
    height = float(np.nanmean(shift[start:stop])) if np.isfinite(shift[start:stop]).any() else 0.0
    if height <= NEGLIGIBLE * abs(base):
        return Episode(0, rows, 1.0, sign)
    while start > 0 and not shift[start - 1] < BELONGS * height:
        start -= 1
    while stop < rows and not shift[stop] < BELONGS * height:
        stop += 1
    return Episode(start, stop, min(1.0, together), sign)


def change(x: Floats, normal: Floats, when: Episode, sign: int) -> Change:
    """How every column of ``x`` (T, K) changed between the rows before ``when`` and those of it, and its noise.

    Without rows before, or without a value in them, before is the median of ``normal`` (M, K). ``noise`` is the TAIL
    quantile of the same difference over stretches of the same shape in the normal data, scaled with the level where a
    series now runs above its normal one (the noise of a time grows with it); a series without normal data is given
    UNKNOWN of its level.
    """
    before, during = _mean(x[: when.start]), _mean(x[when.start : when.stop])
    middle = _median(normal)
    settled = np.isfinite(before)
    before = np.where(settled, before, middle)
    rows, length = len(normal), when.stop - when.start
    lead = when.start
    if lead + length > rows // 2:  # too little normal data for this shape: a smaller one
        shrink = max(1, rows // 2) / (lead + length)
        lead, length = int(lead * shrink), max(1, int(length * shrink))
    starts = np.unique(np.linspace(0, max(0, rows - lead - length), PLACEMENTS).astype(int))
    total = np.concatenate((np.zeros((1, normal.shape[1])), np.nancumsum(normal, axis=0)))
    count = np.concatenate((np.zeros((1, normal.shape[1])), np.cumsum(np.isfinite(normal), axis=0)))

    def stretch(offset: int, size: int) -> Floats:
        first, last = starts + offset, np.minimum(starts + offset + size, rows)
        with np.errstate(invalid="ignore", divide="ignore"):
            out: Floats = (total[last] - total[first]) / (count[last] - count[first])
        return out

    inside = stretch(lead, length)
    outside = np.where(settled, stretch(0, lead), middle) if lead else np.broadcast_to(middle, inside.shape)
    moved = sign * (inside - outside)
    moved = np.sort(np.where(np.isfinite(moved), moved, np.inf), axis=0)  # missing ones last
    seen = np.isfinite(moved).sum(axis=0)
    at = np.clip(np.ceil(TAIL * seen).astype(int) - 1, 0, None)
    noise = np.take_along_axis(moved, at[None, :], axis=0)[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        taller = np.where((middle > 0) & (sign > 0), np.maximum(1.0, before / middle), 1.0)
    noise = np.maximum(noise, 0.0) * np.where(np.isfinite(taller), taller, 1.0)
    floor = NEGLIGIBLE * np.abs(np.nan_to_num(before))
    return Change(before, during, np.where(seen < FEW, UNKNOWN * np.abs(before), np.maximum(noise, floor)))


def shrunk(shift: Floats, noise: Floats) -> Floats:
    """``shift`` less what noise explains: shift (1 - (noise / shift)^2), 0 below the noise and where unknown.

    The non-negative garrote (Breiman 1995): nearly unbiased for a large shift, and 0 for one that noise can make.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        kept = shift * (1.0 - (noise / shift) ** 2)
    out: Floats = np.where((shift > noise) & np.isfinite(kept), kept, 0.0)
    return out


def _mean(x: Floats) -> Floats:
    count = np.isfinite(x).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        out: Floats = np.nansum(x, axis=0) / count
    return out


def _within(high: Floats, normal: Floats, start: int, stop: int) -> bool:
    """Whether the window begins in the middle of the trouble.

    ``high`` (T,), above the normal median, jumps at ``start`` by less than JUMPS of its height, and the rows before
    are higher than all but 1 - TAIL of normal stretches are.
    """
    before, during = high[:start], high[start:stop]
    if not np.isfinite(before).any() or not np.isfinite(during).any():
        return False
    low, top = float(np.nanmean(before)), float(np.nanmean(during))
    usual = np.lib.stride_tricks.sliding_window_view(normal, min(start, len(normal))).mean(axis=1)
    return low > 0 and top - low < JUMPS * top and bool((usual >= low).mean() <= 1.0 - TAIL)


def _median(x: Floats) -> Floats:
    """Per column, of what is there; nan where nothing is. Columns without gaps, the most, go the fast way."""
    out = np.full(x.shape[1], np.nan)
    whole = np.isfinite(x).all(axis=0) if len(x) else np.zeros(x.shape[1], dtype=np.bool_)
    some = np.isfinite(x).any(axis=0) & ~whole
    if whole.any():
        out[whole] = np.median(x[:, whole], axis=0)
    if some.any():
        out[some] = np.nanmedian(x[:, some], axis=0)
    return out


def _windows(normal: Floats, rows: int) -> Floats:
    rows = min(rows, len(normal))
    starts = np.unique(np.linspace(0, len(normal) - rows, PLACEMENTS).astype(int))
    out: Floats = np.lib.stride_tricks.sliding_window_view(normal, rows)[starts]
    return out


def _lengths(rows: int) -> list[int]:
    """Stretches tried: 1, 2, 3, 4, 6, 8, 12, ... and all rows."""
    out = {rows}
    size = 1
    while size < rows:
        out |= {size, min(rows, size + size // 2)}
        size *= 2
    return sorted(out)


def _scan(x: Floats) -> tuple[tuple[Floats, Floats], dict[str, tuple[int, int]]]:
    """Per row of ``x`` (m, T), already signed and centred: the highest jump and level statistic over all stretches.

    Also where the first row has them. Both are mean shifts in units that have the same variance for white noise.
    """
    m, rows = x.shape
    total = np.concatenate((np.zeros((m, 1)), np.nancumsum(x, axis=1)), axis=1)
    count = np.concatenate((np.zeros((m, 1)), np.cumsum(np.isfinite(x), axis=1)), axis=1)
    jump, level = np.full(m, -np.inf), np.full(m, -np.inf)
    where = {"jump": (0, rows), "level": (0, rows)}
    for length in _lengths(rows):
        starts = np.arange(0, rows - length + 1, max(1, length // 4))
        stops = starts + length
        n, before = count[:, stops] - count[:, starts], count[:, starts]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = (total[:, stops] - total[:, starts]) / n
            high = mean * np.sqrt(n)
            rise = (mean - total[:, starts] / before) * np.sqrt(n * before / (n + before))
        for name, found, best in (("level", high, level), ("jump", rise, jump)):
            found = np.where(np.isnan(found), -np.inf, found)
            first = int(np.argmax(found[0]))
            if found[0, first] > best[0]:
                where[name] = (int(starts[first]), int(stops[first]))
            np.maximum(best, found.max(axis=1), out=best)
    return (jump, level), where


def _tail(value: float, seen: Floats, floor: float) -> float:
    """P(S >= value) by the share of ``seen``; beyond the most extreme seen, a Student tail from their spread."""
    if not np.isfinite(value):
        return 1.0
    share = float((seen >= value).mean())
    if share > 0:
        return share
    seen = seen[np.isfinite(seen)]
    if not len(seen):
        return 1.0
    middle = float(np.median(seen))
    spread = max(1.4826 * float(np.median(np.abs(seen - middle))), floor)
    beyond = float(stdtr(HEAVY, -(value - middle) / spread)) if spread > 0 else 0.0
    return min(beyond, 1 / (len(seen) + 1))
