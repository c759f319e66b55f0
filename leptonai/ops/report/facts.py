"""What a report may cite beside an incident's own evidence: its record, causes, actions, and what was measured. Pure.

Ids: ``e`` evidence, ``t`` the record itself, ``c`` causes, ``a`` actions, ``m`` measured. Names of values end in their
unit, which is how the claim checker tells seconds from shares.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from leptonai.ops.incidents import said_of, service_of
from leptonai.ops.report.safe import plain
from leptonai.types import Evidence, Incident, Noun, Series, Slo

BEFORE, AFTER = 120.0, 60.0  # seconds shown around an incident
POINTS = 600  # of one series, at most: a chart is no wider
GOLDEN = ("request_rate_per_second", "error_ratio", "latency_p50_seconds", "latency_p99_seconds", "slow_ratio")


class Question(Noun, frozen=True, kw_only=True):
    """Which series a report wants; whoever has a door to them asks."""

    name: str
    start: float
    end: float
    step: float
    labels: dict[str, str] = {}


class Seen(Noun, frozen=True, kw_only=True):
    """What was measured around an incident: signal name -> series; and the promise, where there is one."""

    series: dict[str, Series] = {}
    slo: Slo | None = None


def questions(incident: Incident, now: float) -> tuple[Question, ...]:
    """The golden signals of the incident's service around it; none when it is about something else."""
    service = service_of(incident)
    if not service:
        return ()
    start, end = incident.began - BEFORE, min(ending(incident, now) + AFTER, now)
    step = math.ceil((end - start) / POINTS) if end - start > POINTS else 1.0
    about = {"service": service}
    end = max(end, start + 1.0)
    return tuple(Question(name=name, start=start, end=end, step=float(step), labels=about) for name in GOLDEN)


def ending(incident: Incident, now: float) -> float:
    """When the trouble was over; ``now`` while it goes on."""
    return next((at for at in (incident.mitigated, incident.closed) if at is not None), now)


def seconds(incident: Incident) -> dict[str, float]:
    """From the onset to ``detect``, ``diagnose`` and ``recover``, as far as known."""
    moments = {
        "detect": incident.opened,
        "diagnose": incident.diagnosed,
        "recover": incident.closed if incident.mitigated is None else incident.mitigated,
    }
    return {name: round(max(at - incident.began, 0.0), 3) for name, at in moments.items() if at is not None}


def facts(incident: Incident, seen: Seen) -> tuple[Evidence, ...]:
    """Everything a report of the incident may cite, cleaned; recorded evidence first, under its own ids."""
    made = [_clean(e) for e in incident.evidence]
    taken = {e.id for e in made}
    moments = {f"{k}_at": getattr(incident, k) for k in ("began", "opened", "diagnosed", "mitigated", "closed")}
    took = {f"{k}_seconds": v for k, v in seconds(incident).items()}
    names = {"service": plain(service_of(incident)), "about": f"incident:{incident.id}", "title": plain(incident.title)}
    record = {"number": incident.id, **names, **moments, **took, "escalated_at": incident.escalated}
    made.append(_fact("t1", "record", incident.began, f"Incident {incident.id}: {plain(incident.title)}", record))
    for n, cause in enumerate(incident.causes, 1):
        data: dict[str, Any] = {"name": cause.name, "subject": plain(cause.subject), "confidence": cause.confidence}
        text = f"{cause.name}: {plain(cause.subject)} ({cause.confidence:.0%})"
        made.append(_fact(f"c{n}", "cause", incident.diagnosed or incident.opened, text, data))
    for n, action in enumerate(incident.actions, 1):
        after = None if action.judged is None else max(action.judged - action.at, 0.0)
        data = {"remedy": plain(action.remedy), "proposal": plain(action.proposal or ""), "verdict": action.verdict}
        data |= {"began_at": action.at, "judged_seconds": after, "detail": plain(action.detail)}
        data["onset_seconds"] = max(action.at - incident.began, 0.0)
        data["approved"] = action.approved
        text = f"{plain(action.remedy)}: {said_of(action)}. {plain(action.detail)}".strip()
        made.append(_fact(f"a{n}", "remedy", action.at, text, data))
    made += impact(incident, seen)
    return tuple(f for f in made if f.id[0] == "e" or f.id not in taken)


def impact(incident: Incident, seen: Seen) -> list[Evidence]:
    """``m1``: requests from the onset to recovery, and how many went wrong; ``m2``: what that took of the budget.

    Counts are the integral of the measured rate, each sample holding until the next, and of rate x share. Nothing where
    no rate was measured.
    """
    rate = seen.series.get("request_rate_per_second")
    if rate is None:
        return []
    last = rate.at[-1] if rate.at else incident.began
    until = min(ending(incident, math.inf), last + 1.0)
    at, per_second = _within(rate, incident.began, until)
    if not len(at):
        return []
    width = widths(at, until)
    width, per_second = width[: len(at)], np.nan_to_num(per_second)
    total = float((per_second * width).sum())
    bad = {k: _weighted(seen.series.get(n), at, per_second * width) for k, n in _BAD.items()}
    known: dict[str, Any] = {"requests_count": round(total)}
    known |= {f"{k}_count": round(v) for k, v in bad.items() if v is not None}
    known |= {f"{k}_share": v / total for k, v in bad.items() if v is not None and total > 0}
    text = f"{round(total)} requests from the onset to the end" + "".join(
        f", {round(v)} {k}" for k, v in bad.items() if v is not None
    )
    made = [_fact("m1", "impact", incident.began, f"{text}.", known)]
    errors, slo = bad["errors"], seen.slo
    if slo is not None and errors is not None and total > 0:
        # The whole period's requests are not known here: it is taken to carry the rate of the time before the onset.
        before, usual = _within(rate, rate.at[0], incident.began)
        usual = usual[np.isfinite(usual)]
        if len(before) and len(usual) and usual.mean() > 0:
            allowed = (1.0 - slo.availability) * float(usual.mean()) * slo.period
            budget = {"spent_share": errors / allowed, "objective": slo.availability, "period_seconds": slo.period}
            budget |= {"allowed_count": round(allowed), "usual_per_second": float(usual.mean())}
            said = f"{errors / allowed:.2%} of the error budget"
            made.append(_fact("m2", "budget", incident.began, said, budget))
    return made


_BAD = {"errors": "error_ratio", "slow": "slow_ratio"}


def widths(at: Any, until: float) -> Any:
    """Seconds that each sample stands for: until the next one, a gap counting as the usual step."""
    step = np.diff(at, append=until)
    usual = float(np.median(step)) if len(step) else 1.0
    return np.clip(step, 0.0, max(usual * 3.0, 1e-9))


def _weighted(series: Series | None, at: Any, weight: Any) -> float | None:
    if series is None or not series.at:
        return None
    value = np.asarray(series.value, dtype=np.float64)
    seen = np.isfinite(value)
    if not seen.any():
        return None
    share = np.interp(at, np.asarray(series.at, dtype=np.float64)[seen], value[seen])
    return float((share * weight).sum())


def _within(series: Series, start: float, end: float) -> tuple[Any, Any]:
    at, value = np.asarray(series.at, dtype=np.float64), np.asarray(series.value, dtype=np.float64)
    inside = (at >= start) & (at < end)
    return at[inside], value[inside]


def seen_of(answers: Mapping[str, Sequence[Series]], slo: Slo | None) -> Seen:
    """What was answered to ``questions``: the first series of each name."""
    return Seen(series={name: found[0] for name, found in answers.items() if found}, slo=slo)


def _fact(id: str, kind: str, at: float, text: str, data: Mapping[str, Any]) -> Evidence:
    kept = {k: v for k, v in data.items() if v is not None and v != ""}
    return Evidence(id=id, kind=kind, at=at, text=text, data=kept)


def _clean(fact: Evidence) -> Evidence:
    return Evidence(id=fact.id, kind=plain(fact.kind), at=fact.at, text=plain(fact.text), data=_washed(fact.data))


def _washed(value: Any) -> Any:
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, dict):
        return {plain(str(k)): _washed(v) for k, v in value.items()}
    return [_washed(v) for v in value] if isinstance(value, list | tuple) else value
