"""A stretch of kept telemetry judged once more, as the loop would have: for people who want to see why."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leptonai.client.wire import JudgedView
from leptonai.ops.detect.base import base_tier
from leptonai.protocols import Floats
from leptonai.series.drift import Drift
from leptonai.types import Series

WARM = 300.0  # seconds before the stretch that are learnt from
BAND = 3.89  # sigmas beyond which a normal law has 4 decades, where an anomaly begins by default
AHEAD = (60.0, 300.0, 900.0)  # seconds
MOST = 12  # series that are judged for one question


def judge_again(series: Sequence[Series], start: float) -> list[JudgedView]:
    """``series`` from WARM seconds before ``start`` on; what is told is from ``start`` on.

    The base tier, learning from everything: what the full tier and an open incident made of it at the time is in the
    anomalies that were kept. About 0.4 ms of a core per time, however many series.
    """
    series = series[:MOST]
    at = np.unique(np.concatenate([np.array(s.at) for s in series])) if series else np.zeros(0)
    x = np.full((len(at), len(series)), np.nan)
    for i, one in enumerate(series):
        x[np.searchsorted(at, one.at), i] = one.value
    tier, drift = base_tier(), Drift()
    tier.open(len(series))
    drift.open(len(series))
    every = np.ones(len(series), dtype=np.bool_)
    told = np.full((4, len(at), len(series)), np.nan)
    for t, row in enumerate(x):
        scored = tier.step(float(at[t]), row, every)
        drift.step(float(at[t]), row, every)
        wide = BAND * scored.scale
        told[:, t] = scored.expected, scored.expected - wide, scored.expected + wide, scored.score
    out = []
    for i, one in enumerate(series):
        mine = (at >= start) & np.isin(at, one.at)
        value, expected, low, high, score = (_plain(c) for c in (x[mine, i], *(told[k, mine, i] for k in range(4))))
        seen = x[np.isfinite(x[:, i]), i]
        ahead = []
        if drift.ready[i] and len(seen):
            for seconds in AHEAD:
                likely, apart = float(seen[-1] + drift["rate"][i] * seconds), 1.96 * float(drift.wander(seconds)[i])
                ahead.append((seconds, likely, likely - apart, likely + apart))
        out.append(
            JudgedView(
                name=one.name,
                labels=one.labels,
                at=at[mine].tolist(),
                value=value,
                expected=expected,
                low=low,
                high=high,
                score=score,
                ahead=ahead,
            )
        )
    return out


def _plain(column: Floats) -> list[float | None]:
    return [v if np.isfinite(v) else None for v in column.tolist()]
