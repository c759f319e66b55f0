"""Convictions from direct evidence: a replica that leaks, a revision that answers wrongly. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from leptonai.protocols import Floats
from leptonai.series.proportion import log_evidence, upper, wilson
from leptonai.series.slope import slope_against_siblings
from leptonai.types import Noun

# --- leaks ---------------------------------------------------------------------------------------------------------

SPANS = (8, 12, 16, 24, 48, 120)  # increments looked at, shortest first
PAST = 120  # increments before them that say how the replica used to move
LEAK_SCORE = 8.0  # -log10 p of one look; with its false alarms an hour: docs/detection.md
GROWN = 12e6  # bytes a replica must have gained over the span: 1.5 MB/s over 8 s, 0.1 MB/s over 120 s
STEADY = 0.9  # a leak's later half climbs at least this share of its earlier half and of what came before the span
SETTLE = 10.0  # seconds after ready that are not looked at
YOUNG, WARM = 60.0, 0.1  # seconds after ready within which growing by less than this share is warming up
FULL_SPAN = 24  # increments needed when as many before them are not known (a young replica), or without siblings


class Leak(Noun, frozen=True, kw_only=True):
    """A convicted replica. Slopes in bytes per second; ``score`` is -log10 p; ``began``: start of the span."""

    replica: str
    slope: float
    siblings: float
    score: float
    seconds: float
    began: float
    rss: float


def leaks(at: float, rss: Mapping[str, tuple[Floats, Floats]], ready_since: Mapping[str, float]) -> list[Leak]:
    """The replicas of one service that leak, by their RSS ``(times, bytes)`` of the last minutes, oldest first.

    Sampled once a second, a leak of 5 MB/s is convicted after 8 to 12 s, one under 1 MB/s of noise within 24 s.
    Convicted is who, over one of SPANS, climbs at all and climbs more than the median of the siblings (score >=
    LEAK_SCORE, ``series.slope``), gained GROWN bytes, and does not flatten out as a warm-up does: the later half
    climbs STEADY of the earlier half and of the stretch before the span. A replica too young to have such a stretch,
    or one without siblings, needs FULL_SPAN increments; one younger than YOUNG must have gained WARM of what it holds.
    Samples before ready + SETTLE, or after ``at``, do not exist.
    """
    rows = {replica: _settled(at, *rss[replica], ready_since[replica]) for replica in rss if replica in ready_since}
    found: dict[str, Leak] = {}
    for span in SPANS:
        able = {replica: row for replica, row in rows.items() if len(row[0]) > span and at - row[0][-1] <= 3.0}
        if not able:
            continue
        end = min(row[0][-1] for row in able.values())  # nobody's memory is guessed beyond what was seen of it
        times = max((row[0] for row in able.values()), key=len)
        times = times[times <= end][-span - 1 - PAST :]
        if len(times) <= span or not (np.diff(times) > 0).all():
            continue
        values = np.stack([np.interp(times, *row, left=np.nan) for row in able.values()])
        grown = values[:, -1] - values[:, -span - 1]
        if not (grown >= GROWN).any():
            continue  # nobody could be convicted, and the statistics cost milliseconds
        climb = slope_against_siblings(times, values, span)
        for i, replica in enumerate(able):
            full = span >= FULL_SPAN or (len(able) > 1 and np.isfinite(climb.before[i]))
            if replica in found or not full:
                continue
            if at - ready_since[replica] < YOUNG and grown[i] < WARM * values[i, -1]:
                continue
            steady = climb.late[i] >= STEADY * np.fmax(climb.early[i], climb.before[i])
            if climb.score[i] >= LEAK_SCORE and grown[i] >= GROWN and steady:
                found[replica] = Leak(
                    replica=replica,
                    slope=float(climb.rate[i]),
                    siblings=float(climb.others[i]),
                    score=float(climb.score[i]),
                    seconds=float(times[-1] - times[-span - 1]),
                    began=float(times[-span - 1]),
                    rss=float(values[i, -1]),
                )
    return [found[replica] for replica in sorted(found)]


def _settled(at: float, times: Floats, values: Floats, since: float) -> tuple[Floats, Floats]:
    times, values = np.asarray(times, dtype=np.float64), np.asarray(values, dtype=np.float64)
    use = (times <= at) & (times >= since + SETTLE) & np.isfinite(values)
    return times[use], values[use]


# --- wrong answers -------------------------------------------------------------------------------------------------

WRONG_ALPHA = 1e-4  # chance that a revision within the tolerable rate is ever convicted
TOLERABLE = 0.10  # share of wrong answers nobody is woken for, when no earlier revision says better


class Tally(NamedTuple):
    """Labels of one revision so far."""

    wrong: int
    total: int


class Wrong(Noun, frozen=True, kw_only=True):
    """The verdict over one digest. ``odds``: log10 of the evidence against it; convicted from 4 on. ``cleared``: fewer
    labels had once cleared it, so it was not wrong from its first answer on."""

    digest: str
    verdict: Literal["convicted", "clear", "not enough evidence"]
    wrong: int
    total: int
    ratio: float
    lower: float  # Wilson 95 %
    upper: float
    tolerable: float
    odds: float
    cleared: bool = False


def wrong_answers(
    outcomes: Mapping[str, Tally], baseline: Mapping[str, str] | None = None, tolerable: float = TOLERABLE
) -> dict[str, Wrong]:
    """A verdict for every digest, from all its labels since it was deployed.

    ``baseline``: digest to the digest it replaced. The tolerable rate is the greater of ``tolerable`` and the 99.99 %
    upper bound of what the replaced revision did, if that has labels. Convicted when the mixture SPRT
    (``series.proportion.log_evidence``) reaches 1 / WRONG_ALPHA: it may be asked after every label, and a revision
    within the tolerable rate is ever convicted with a chance of at most WRONG_ALPHA. Clear when the exact 99 % upper
    bound is within the tolerable rate. Everything else, and no labels at all, is "not enough evidence".
    """
    out = {}
    for digest, tally in outcomes.items():
        rate = tolerable
        before = outcomes.get((baseline or {}).get(digest, ""))
        if before is not None and before.total:
            rate = min(max(rate, float(upper(before.wrong, before.total, WRONG_ALPHA))), 0.99)
        odds = log_evidence(tally.wrong, tally.total, rate) / np.log(10.0) if tally.total else 0.0
        low, high = wilson(tally.wrong, tally.total)
        verdict: Literal["convicted", "clear", "not enough evidence"] = "not enough evidence"
        if odds >= -np.log10(WRONG_ALPHA):
            verdict = "convicted"
        elif tally.total and float(upper(tally.wrong, tally.total, 0.01)) <= rate:
            verdict = "clear"
        out[digest] = Wrong(
            digest=digest,
            verdict=verdict,
            wrong=tally.wrong,
            total=tally.total,
            ratio=tally.wrong / tally.total if tally.total else 0.0,
            lower=float(low),
            upper=float(high),
            tolerable=rate,
            odds=float(odds),
        )
    return out
