"""Availability arithmetic of one service over a stretch of time, from its incidents and its counted requests. Pure.

MTTD = mean(opened - began), MTTR = mean(recovered - began), MTBF = time up / incidents. Expected downtime D = p * E:
p incidents a day, E seconds of downtime of one. An incident counts as downtime from its onset to its recovery, whole:
for requests, ``share`` tells what part of them was hurt. Intervals are of 95 %: Wilson's for shares, Garwood's for
counts, and for mean durations the chi-squared one of exponential times (IEC 60605-4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import gammaincinv

from leptonai.client.availability import Availability, Estimate
from leptonai.errors import SpecError
from leptonai.ops.alarm import detects, garwood, pages
from leptonai.protocols import Floats
from leptonai.series.proportion import wilson
from leptonai.types import Incident, Key, Series, Slo

DAY = 86400.0


def availability(
    service: Key, slo: Slo, incidents: Sequence[Incident], rate: Series | None, errors: Series | None,
    start: float, end: float, step: float,
) -> Availability:  # fmt: skip
    """``rate`` and ``errors``: requests a second and their share of errors, as step means; ``step``: of the burn rules.

    SpecError unless ``start`` < ``end``.
    """
    if not start < end:
        raise SpecError(f"availability from {start:.0f} to {end:.0f}: the stretch is empty", hint="start before end")
    at, requests, bad, width = _counts(rate, errors)
    start = max(start, float(at[0])) if len(at) else start
    mine = sorted((i for i in incidents if i.began < end and _over(i, end) > start), key=lambda i: i.began)
    spans = [(max(i.began, start), min(_over(i, end), end)) for i in mine]
    down = _union(spans)
    length, n = max(end - start, 1e-9), len(mine)
    ended = sum(i.mitigated is not None or i.closed is not None for i in mine)
    known, wrong = round(float(requests.sum())), round(float(bad.sum()))
    low, high = (float(v) for v in wilson(wrong, known))
    hurt = np.zeros(len(at), dtype=np.bool_)
    for a, b in spans:
        hurt |= (at + width > a) & (at < b)
    good_n, good_bad = round(float(requests[~hurt].sum())), round(float(bad[~hurt].sum()))
    healthy = [float(v) for v in wilson(good_bad, good_n)]
    p_low, p_high = garwood(n)
    p = Estimate(value=n / length * DAY, low=p_low / length * DAY, high=p_high / length * DAY)
    lasted = [b - a for a, b in spans]
    each = _mean(lasted, ended)
    told: list[str] = []
    if not known:
        told.append("requests: none were measured in this stretch")
    if not n:
        told.append("MTTD, MTTR and E: there was no incident")
    if 0 < n < 5:
        told.append(f"much: {n} incidents are few, look at the intervals")
    false_pages, caught = None, None
    if good_n:
        seconds = float(width[~hurt].sum())
        # Without any error seen, what may well be there counts: the upper end of the interval.
        share = good_bad / good_n if good_bad else healthy[1]
        try:
            false_pages = pages(good_n / seconds, share, slo.availability, slo.period, step)
            ill_n = float(requests[hurt].sum())
            if ill_n and float(bad[hurt].sum()):
                ill = float(bad[hurt].sum()) / ill_n
                caught = detects(good_n / seconds, ill, slo.availability, slo.period, step)
        except SpecError as e:
            told.append(f"false pages: {e.message}")
    else:
        told.append("false pages: no requests were measured outside incidents")
    budget = (1.0 - slo.availability) * known
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
        share=Estimate(value=1.0 - wrong / known, low=1.0 - high, high=1.0 - low) if known else Estimate(),
        budget_spent_share=wrong / budget if budget else None,
        per_day=p, downtime=each, expected_downtime=_product(p, each),
        healthy_share=Estimate(value=good_bad / good_n, low=healthy[0], high=healthy[1]) if good_n else Estimate(),
        false_pages=false_pages, page_chance=caught, cannot_tell=tuple(told),
    )  # fmt: skip


def _over(incident: Incident, now: float) -> float:
    return next((at for at in (incident.mitigated, incident.closed) if at is not None), now)


def _union(spans: Sequence[tuple[float, float]]) -> float:
    total, reached = 0.0, -math.inf
    for a, b in sorted(spans):
        total += max(b - max(a, reached), 0.0)
        reached = max(reached, b)
    return total


def _mean(durations: Sequence[float], ended: int) -> Estimate:
    """Mean of exponential durations, ``ended`` of which are over: total time / ends (Epstein & Sobel 1953)."""
    if not durations:
        return Estimate()
    total = sum(durations)
    if not ended:
        return Estimate(low=total / float(gammaincinv(1, 0.975)))
    low, high = float(gammaincinv(ended, 0.975)), float(gammaincinv(ended, 0.025))
    return Estimate(value=total / ended, low=total / low, high=total / high)


def _product(p: Estimate, each: Estimate) -> Estimate:
    """D = p * E; its interval takes both ends together, so it is wider than 95 %."""
    if p.value == 0:
        return Estimate(value=0.0, low=0.0)
    if p.value is None or each.value is None:
        return Estimate()
    assert p.low is not None and p.high is not None and each.low is not None and each.high is not None
    return Estimate(value=p.value * each.value, low=min(p.low * each.low, DAY), high=min(p.high * each.high, DAY))


def _counts(rate: Series | None, errors: Series | None) -> tuple[Floats, Floats, Floats, Floats]:
    """When, how many requests, how many of them errors, over how many seconds; only where a rate was seen."""
    none = np.zeros(0)
    if rate is None or not rate.at:
        return none, none, none, none
    at, value = np.asarray(rate.at, dtype=np.float64), np.asarray(rate.value, dtype=np.float64)
    seen = np.isfinite(value)
    gaps = np.diff(at)
    usual = float(np.median(gaps)) if len(gaps) else 1.0
    width = np.clip(np.append(gaps, usual), 0.0, usual)[seen]
    at, requests = at[seen], value[seen] * width
    share = np.zeros(len(at))
    if errors is not None and errors.at:
        told = np.asarray(errors.value, dtype=np.float64)
        known = np.isfinite(told)
        if known.any():
            share = np.interp(at, np.asarray(errors.at, dtype=np.float64)[known], told[known])
    return at, requests, requests * np.clip(share, 0.0, 1.0), width
