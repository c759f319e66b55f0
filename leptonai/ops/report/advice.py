"""What the measured load says about capacity: where it goes, what the replicas carry, what fills up. Pure.

Each answer is a fact with its numbers, or one that says why it cannot be told. Nothing is proposed here: a person or
the scaler decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from leptonai.ops.detect.exhaustion import Exhaustion
from leptonai.series.forecast import Forecaster
from leptonai.types import Evidence, Series, Service

LEAST = 64  # samples of a rate until a forecast is told: as many as a season is first looked for in
BUSY = 0.7  # share of a compute thread's time that leaves room for bursts; the default target of ``scale.auto``
IDLE = 0.3  # below it a replica fewer would do
FAR = 30 * 86400.0  # seconds ahead beyond which a trend is not told


def advice(
    prefix: str, service: Service, ready: int, rate: Series | None, compute: Sequence[Series],
    memory: Sequence[Series], now: float,
) -> list[Evidence]:  # fmt: skip
    """Facts of kinds ``forecast``, ``headroom``, ``exhaustion`` and ``cannot tell``, ids ``<prefix>1`` ..."""
    found = [_forecast(rate), _headroom(service, ready, rate, compute), *_fills(service, memory)]
    named = {"service": service.key}
    return [
        Evidence(id=f"{prefix}{n}", kind=kind, at=now, text=text, data=named | data)
        for n, (kind, text, data) in enumerate(found, 1)
    ]


Found = tuple[str, str, dict[str, Any]]


def _forecast(rate: Series | None) -> Found:
    """The next stretch, as long as a tenth of what was seen."""
    values = [] if rate is None else rate.value
    seen = sum(math.isfinite(v) for v in values)
    if rate is None or seen < LEAST:
        data = {"what": "forecast", "samples": seen, "wanted": LEAST}
        return "cannot tell", f"{seen} samples of the request rate, {LEAST} are wanted for a forecast", data
    ahead = max(len(values) // 10, 1)
    model = Forecaster((ahead,))
    for value in values:
        model.step(value)
    step = (rate.at[-1] - rate.at[0]) / max(len(rate.at) - 1, 1)
    low, middle, high = (float(q) for q in model.quantiles((0.1, 0.5, 0.9))[:, 0])
    now_rate = float(np.nanmean(np.asarray(values[-max(ahead, 1) :], dtype=np.float64)))
    data = {
        "ahead_seconds": ahead * step, "low_per_second": low, "likely_per_second": middle, "high_per_second": high,
        "recent_per_second": now_rate, "samples": seen,
    }  # fmt: skip
    return "forecast", f"{low:.3g} to {high:.3g} requests/s, {ahead * step:.0f} s ahead", data


def _headroom(service: Service, ready: int, rate: Series | None, compute: Sequence[Series]) -> Found:
    """Utilisation law U = X * S / m (Denning and Buzen 1978), m compute threads: an upper bound where requests share
    batches, because S is counted for each."""
    spent = [v for s in compute for v in s.value if math.isfinite(v)]
    asked = [v for v in (rate.value if rate else ()) if math.isfinite(v)]
    if not spent or not asked or ready < 1:
        why = "no replica is ready" if ready < 1 else "no compute time or no request rate was measured"
        return "cannot tell", f"the headroom: {why}", {"what": "headroom", "ready": ready}
    each, peak = float(np.mean(spent)), float(np.quantile(asked, 0.99))
    busy = peak * each / ready
    data: dict[str, Any] = {
        "ready": ready, "compute_seconds": each, "peak_per_second": peak, "busy_share": min(busy, 1.0),
        "carried_per_second": BUSY * ready / each if each > 0 else 0.0, "target_share": BUSY,
    }  # fmt: skip
    if busy > BUSY:
        data["wanted"] = math.ceil(peak * each / BUSY)
    elif busy < IDLE and ready > 1:
        data["enough"] = max(math.ceil(peak * each / BUSY), 1)
    return "headroom", f"{busy:.0%} of the compute threads are busy at the peak", data


def _fills(service: Service, memory: Sequence[Series]) -> list[Found]:
    limits = [v.resources.memory for v in service.spec.variants if v.resources.memory is not None]
    if not limits:
        text = "no memory limit is set, so nothing says when memory runs out"
        return [("cannot tell", text, {"what": "exhaustion"})]
    found: list[Found] = []
    for series in memory:
        known = [(t, v) for t, v in zip(series.at, series.value, strict=True) if math.isfinite(v)]
        if len(known) < LEAST:
            continue
        detector = Exhaustion(horizon=FAR, limit=float(min(limits)))
        detector.open(1)
        learn = np.ones(1, dtype=np.bool_)
        score = 0.0
        for t, v in known:
            scored = detector.step(t, np.array([v]), learn)
            score = float(scored.score[0])
        left = detector.remaining()
        soonest, likely = float(left.soonest[0]), float(left.likely[0])
        if score < 4.0 or not math.isfinite(likely) or likely > FAR:
            continue
        replica = series.labels.get("replica", "")
        data = {"replica": replica, "soonest_seconds": soonest, "likely_seconds": likely, "limit_bytes": min(limits)}
        found.append(("exhaustion", f"{replica}: the memory limit is reached in {likely:.0f} s", data))
    return found
