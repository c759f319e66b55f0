"""Availability arithmetic of one service over a stretch of time, from its incidents and its counted requests. Pure.

MTTD = mean(opened - began), MTTR = mean(recovered - began), MTBF = time up / incidents. Expected downtime D = p * E:
p incidents a day, E seconds of downtime of one. An incident counts as downtime from its onset to its recovery, whole:
for requests, ``share`` tells what part of them was hurt. Intervals are of 95 %: Wilson's for shares, Garwood's for
counts, and for mean durations the chi-squared one of exponential times (IEC 60605-4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv

from leptonai.client.availability import Alarm, Availability, Estimate
from leptonai.errors import SpecError
from leptonai.ops.alarm import detects, garwood, pages
from leptonai.protocols import Floats
from leptonai.series.proportion import wilson
from leptonai.types import Incident, Key, Series, Slo

DAY = 86400.0


def availability(
    service: Key, slo: Slo, incidents: Sequence[Incident], rate: Series | None, errors: Series | None,
    slow: Series | None, start: float, end: float, step: float,
) -> Availability:  # fmt: skip
    """``rate``, ``errors`` and ``slow``: requests a second, their share of errors and of late answers, as step means;
    ``step``: of the burn rules.

    SpecError unless ``start`` < ``end``.
    """
    if not start < end:
        raise SpecError(f"availability from {start:.0f} to {end:.0f}: the stretch is empty", hint="start before end")
    at, requests, width = _counts(rate)
    bad, late = _of(requests, at, errors), _of(requests, at, slow)
    start = max(start, float(at[0])) if len(at) else start
    mine = sorted((i for i in incidents if i.began < end and _over(i, end) > start), key=lambda i: i.began)
    spans = [(max(i.began, start), min(_over(i, end), end)) for i in mine]
    down = _union(spans)
    length, n = max(end - start, 1e-9), len(mine)
    ended = sum(i.mitigated is not None or i.closed is not None for i in mine)
    known, wrong = round(float(requests.sum())), round(float(bad.sum())) if bad is not None else 0
    low, high = (float(v) for v in wilson(wrong, known))
    hurt = np.zeros(len(at), dtype=np.bool_)
    for a, b in spans:
        hurt |= (at + width > a) & (at < b)
    p_low, p_high = garwood(n)
    p = Estimate(value=n / length * DAY, low=p_low / length * DAY, high=p_high / length * DAY)
    lasted = [b - a for a, b in spans]
    each = _mean(lasted, ended)
    told: list[str] = []
    if not known:
        told.append("requests: none were measured in this stretch")
    elif bad is None:
        told.append("availability: how many requests failed was not measured")
    if not n:
        told.append("MTTD, MTTR and E: there was no incident")
    if 0 < n < 5:
        told.append(f"much: {n} incidents are few, look at the intervals")
    counts = _Counts(requests, width, hurt, each.value)
    alarms = (
        _alarm("errors", slo.availability, slo.period, step, counts, bad, told),
        _alarm("latency", slo.latency_objective, slo.period, step, counts, late, told),
    )
    budget, sure = (1.0 - slo.availability) * known, known > 0 and bad is not None
    return Availability(
        service=service, start=start, end=end, objective=slo.availability, incidents=n,
        open=sum(i.closed is None for i in mine), requests=known, errors=wrong,
        measured_share=min(float(width.sum()) / length, 1.0),
        detect=_mean([max(i.opened - i.began, 0.0) for i in mine], n), recover=each,
        between=Estimate(
            value=(length - down) / n if n else None, low=(length - down) / p_high,
            high=(length - down) / p_low if p_low else None,
        ),
        up_share=1.0 - down / length,
        share=Estimate(value=1.0 - wrong / known, low=1.0 - high, high=1.0 - low) if sure else Estimate(),
        budget_spent_share=wrong / budget if sure else None,
        per_day=p, downtime=each, expected_downtime=_product(p, each), alarms=alarms, cannot_tell=tuple(told),
    )  # fmt: skip


class _Counts(NamedTuple):
    """Requests of each stretch of ``width`` seconds, ``hurt``: in an incident. ``lasted``: mean seconds of one."""

    requests: Floats
    width: Floats
    hurt: NDArray[np.bool_]
    lasted: float | None


def _alarm(
    rule: Literal["errors", "latency"], objective: float, period: float, step: float, seen: _Counts, bad: Floats | None,
    told: list[str],
) -> Alarm:  # fmt: skip
    """What one burn rule does where all is well, and in incidents. Appends to ``told`` what cannot be told."""
    good = ~seen.hurt
    count = round(float(seen.requests[good].sum()))
    if bad is None or not count:
        none = "no requests were measured outside incidents" if not count else "how late answers were was not measured"
        told.append(f"false pages for {rule}: {none}")
        return Alarm(rule=rule, objective=objective, healthy=Estimate())
    wrong = min(round(float(bad[good].sum())), count)
    low, high = (float(v) for v in wilson(wrong, count))
    healthy = Estimate(value=wrong / count, low=low, high=high)
    # Without a single one seen, what may well be there counts: the upper end of the interval.
    share = wrong / count if wrong else high
    rate, ill = count / float(seen.width[good].sum()), float(seen.requests[seen.hurt].sum())
    try:
        false = pages(rate, share, objective, period, step)
        chance = None
        if ill > 0 and seen.lasted is not None:
            worse = float(bad[seen.hurt].sum()) / ill
            chance = detects(rate, worse, share, seen.lasted, objective, period, step)
    except SpecError as e:
        told.append(f"false pages for {rule}: {e.message}")
        return Alarm(rule=rule, objective=objective, healthy=healthy)
    return Alarm(rule=rule, objective=objective, healthy=healthy, false_pages=false, page_chance=chance)


def _over(incident: Incident, now: float) -> float:
    return next((at for at in (incident.mitigated, incident.closed) if at is not None), now)


def _union(spans: Sequence[tuple[float, float]]) -> float:
    total, reached = 0.0, -math.inf
    for a, b in sorted(spans):
        total += max(b - max(a, reached), 0.0)
        reached = max(reached, b)
    return total


def _mean(durations: Sequence[float], ended: int) -> Estimate:
    """Mean of exponential durations, ``ended`` of which are over: total time / ends (Epstein & Sobel 1953). Where some
    are not, the lower end has two degrees of freedom more, as in a test ended by time (IEC 60605-4)."""
    if not durations:
        return Estimate()
    total = sum(durations)
    if not ended:
        return Estimate(low=total / float(gammaincinv(1, 0.975)))
    more = int(ended < len(durations))
    low, high = float(gammaincinv(ended + more, 0.975)), float(gammaincinv(ended, 0.025))
    return Estimate(value=total / ended, low=total / low, high=total / high)


def _product(p: Estimate, each: Estimate) -> Estimate:
    """D = p * E; its interval takes both ends together, so it is wider than 95 %."""
    if p.value == 0:
        return Estimate(value=0.0, low=0.0)
    if p.value is None or each.value is None:
        return Estimate()
    assert p.low is not None and p.high is not None and each.low is not None and each.high is not None
    return Estimate(value=p.value * each.value, low=min(p.low * each.low, DAY), high=min(p.high * each.high, DAY))


def _counts(rate: Series | None) -> tuple[Floats, Floats, Floats]:
    """When, how many requests, over how many seconds; only where a rate was seen."""
    none = np.zeros(0)
    if rate is None or not rate.at:
        return none, none, none
    at, value = np.asarray(rate.at, dtype=np.float64), np.asarray(rate.value, dtype=np.float64)
    seen = np.isfinite(value)
    gaps = np.diff(at)
    usual = float(np.median(gaps)) if len(gaps) else 1.0
    width = np.clip(np.append(gaps, usual), 0.0, usual)[seen]
    return at[seen], value[seen] * width, width


def _of(requests: Floats, at: Floats, share: Series | None) -> Floats | None:
    """How many of the requests these are a share of; None where it was never seen."""
    if share is None or not share.at:
        return None
    when, told = np.asarray(share.at, dtype=np.float64), np.asarray(share.value, dtype=np.float64)
    known = np.isfinite(told)
    if not known.any():
        return None
    out: Floats = requests * np.clip(np.interp(at, when[known], told[known]), 0.0, 1.0)
    return out
