"""What an Alertmanager of somebody else tells us, as incidents about ``workspace/external/name``. Pure.

Source: the webhook payload of Alertmanager, version 4. What we sent it ourselves comes back and is left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec

from leptonai.errors import SpecError
from leptonai.ops.alert.export import OURS
from leptonai.ops.alert.sources import FOREIGN, foreign
from leptonai.types import Anomaly, Evidence, Incident, Severity

__all__ = ["Told", "Webhook", "by_subject", "check", "foreign", "merge", "name_of"]

MOST_ALERTS = 1000  # of one payload; Alertmanager's max_alerts keeps them fewer
MOST_KEPT = 200  # of one incident; what has resolved goes first, then the oldest
MOST_TEXT = 1000  # characters of a summary
RANK: dict[Severity, int] = {"info": 0, "warning": 1, "critical": 2}
SPOKEN: dict[str, Severity] = {"critical": "critical", "page": "critical", "error": "critical", "info": "info",
                               "none": "info"}  # fmt: skip


class Told(msgspec.Struct, frozen=True, rename="camel"):
    """One alert of a payload; Go's zero time as ``endsAt`` says that it goes on."""

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    starts_at: datetime
    annotations: dict[str, str] = {}
    ends_at: datetime | None = None
    fingerprint: str = ""


class Webhook(msgspec.Struct, frozen=True, rename="camel"):
    """The payload; other fields are not read."""

    version: str
    alerts: list[Told]
    truncated_alerts: int = 0


def check(payload: Webhook) -> list[Told]:
    """The alerts that are somebody else's. SpecError names what is wrong with the payload."""
    if payload.version != "4":
        raise SpecError(
            f"the payload says version {payload.version!r:.40}, version 4 is spoken here", hint="Alertmanager >= 0.6"
        )
    if len(payload.alerts) > MOST_ALERTS:
        raise SpecError(
            f"{len(payload.alerts)} alerts, the limit is {MOST_ALERTS}", hint="set max_alerts in its webhook"
        )
    for place, told in enumerate(payload.alerts):
        if not told.labels.get("alertname"):
            raise SpecError(f"alerts[{place}] has no label alertname", hint="every alert of a Prometheus has one")
        if sum(len(k) + len(v) for k, v in told.labels.items()) > 10 * MOST_TEXT:
            raise SpecError(f"the labels of alerts[{place}] have more than {10 * MOST_TEXT} characters")
    return [t for t in payload.alerts if t.labels.get("source") != OURS]


def name_of(told: Told) -> str:
    """What the alert is about, as the last part of a subject: its service, else its job, else its own name."""
    text = next(t for t in (told.labels.get(k) for k in ("service", "job", "alertname")) if t)
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-") or "unnamed"


def by_subject(alerts: Sequence[Told], workspace: str) -> dict[str, list[Told]]:
    out: dict[str, list[Told]] = {}
    for told in alerts:
        out.setdefault(f"{workspace}/external/{name_of(told)}", []).append(told)
    return out


def merge(incident: Incident | None, subject: str, alerts: Sequence[Told], now: float) -> Incident | None:
    """The open incident of ``subject`` with what was told; None: it was of ends only, and nothing is open.

    It is closed once every alert it knows of has resolved. The severity never falls.
    """
    if incident is None and all(t.status == "resolved" for t in alerts):
        return None
    known = {str(e.data.get("fingerprint")): e for e in incident.evidence if e.kind == FOREIGN} if incident else {}
    seen = {_same(a): a for a in incident.anomalies} if incident else {}
    severity: Severity = incident.severity if incident else "info"
    for told in alerts:
        name = told.fingerprint or msgspec.json.encode(told.labels, order="deterministic").decode()
        if told.status == "resolved" and name not in known:
            continue
        known[name] = _evidence(told, name, known.get(name), now)
        anomaly = _anomaly(told, now)
        seen[_same(anomaly)] = anomaly
        severity = max(severity, _severity(told), key=RANK.__getitem__)
    kept = sorted(known.values(), key=lambda e: (e.data["status"] != "firing", -e.at))[:MOST_KEPT]
    kept = [msgspec.structs.replace(e, id=f"e{n + 1}") for n, e in enumerate(kept)]
    began = min([now, *(e.at for e in kept)])
    over = all(e.data["status"] == "resolved" for e in kept)
    ended = min(now, max((float(e.data["ended"]) for e in kept), default=now)) if over else None
    first = incident or Incident(
        id=0, subject=subject, severity=severity, title=_title(alerts[0], subject), began=began, opened=now
    )
    return msgspec.structs.replace(
        first, severity=severity, began=min(began, first.began), evidence=tuple(kept),
        anomalies=tuple(seen.values())[-MOST_KEPT:], closed=now if over else None, mitigated=ended,
    )  # fmt: skip


def _evidence(told: Told, name: str, before: Evidence | None, now: float) -> Evidence:
    begins = min(now, told.starts_at.replace(tzinfo=told.starts_at.tzinfo or UTC).timestamp())
    text = f"An Alertmanager says that {told.labels['alertname']} is {told.status}: {_said(told)}"
    data = {"fingerprint": name, "status": told.status, "labels": told.labels, "ended": _ended(told, now)}
    return Evidence(
        id="", kind=FOREIGN, at=max(0.0, min(begins, before.at) if before else begins), text=text, data=data
    )


def _ended(told: Told, now: float) -> float:
    if told.status == "firing" or told.ends_at is None:
        return now
    return min(now, max(0.0, told.ends_at.replace(tzinfo=told.ends_at.tzinfo or UTC).timestamp()))


def _anomaly(told: Told, now: float) -> Anomaly:
    begins = max(0.0, min(now, told.starts_at.replace(tzinfo=told.starts_at.tzinfo or UTC).timestamp()))
    name = told.labels["alertname"]
    return Anomaly(signal=name, labels=told.labels, began=begins, last=_ended(told, now), score=0.0, detail=_said(told))


def _same(anomaly: Anomaly) -> tuple[str, tuple[tuple[str, str], ...]]:
    return anomaly.signal, tuple(sorted(anomaly.labels.items()))


def _said(told: Told) -> str:
    notes = told.annotations
    return (notes.get("summary") or notes.get("description") or notes.get("message") or "nothing more")[:MOST_TEXT]


def _title(told: Told, subject: str) -> str:
    return f"{told.labels['alertname']} of {subject.rpartition('/')[2]}"[:200]


def _severity(told: Told) -> Severity:
    return SPOKEN.get(told.labels.get("severity", "").lower(), "warning")
