"""Pending, firing, resolved: the life of an alert, as a rule of Prometheus has it, with flap control. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from leptonai.settings import Alerts
from leptonai.types import Alert, Noun, canonical

KEEP_RESOLVED = 900.0  # seconds a resolved alert is remembered, so that everybody hears of its end (Prometheus' 15 min)


class Condition(Noun, frozen=True, kw_only=True):
    """Something that holds now. ``hold``: seconds it must have held before it fires (``for`` of a Prometheus rule)."""

    labels: dict[str, str]
    summary: str = ""
    hold: float = 0.0
    incident: int = 0


def fingerprint(labels: Mapping[str, str]) -> str:
    """What makes two alerts one: all labels but ``severity``, which may rise while it fires."""
    named = {k: v for k, v in labels.items() if v and k != "severity"}
    return hashlib.sha256(canonical(named)).hexdigest()[:16]


def advance(
    before: Mapping[str, Alert], conditions: Iterable[Condition], now: float, settings: Alerts
) -> dict[str, Alert]:
    """All alerts at ``now`` by fingerprint.

    inactive -> pending while the condition holds, -> firing once it has held ``hold`` seconds without a break, ->
    resolved once it was gone ``keep_firing`` seconds. One that fires ``flap_count`` times within ``flap_window`` flaps:
    it stays open until its condition was gone ``flap_hold`` seconds. Of two conditions with one fingerprint the more
    severe one counts.
    """
    true_now: dict[str, Condition] = {}
    for condition in conditions:
        name = fingerprint(condition.labels)
        if name not in true_now or _rank(condition) > _rank(true_now[name]):
            true_now[name] = condition
    after = {name: _held(before.get(name), condition, now, settings) for name, condition in true_now.items()}
    for name, alert in before.items():
        if name not in after and (left := _left(alert, now, settings)) is not None:
            after[name] = left
    return after


def _rank(condition: Condition) -> int:
    return ("info", "warning", "critical").index(condition.labels.get("severity", "warning"))


def _held(before: Alert | None, condition: Condition, now: float, settings: Alerts) -> Alert:
    fires = tuple(t for t in before.fires if now - t < settings.flap_window) if before else ()
    if before is None or before.state == "resolved":
        alert = Alert(labels=condition.labels, state="pending", since=now, last=now, fires=fires)
    else:
        alert = replace(before, fires=fires)
    if alert.state == "pending" and now - alert.since >= condition.hold:
        alert = replace(alert, state="firing", fired=now, fires=(*fires, now)[-2 * settings.flap_count :])
    return replace(
        alert,
        labels=condition.labels,
        summary=condition.summary,
        incident=condition.incident,
        last=now,
        flapping=len(alert.fires) >= settings.flap_count,
    )


def _left(alert: Alert, now: float, settings: Alerts) -> Alert | None:
    """The alert when its condition does not hold; None: it is forgotten."""
    if alert.state == "pending":
        return None
    if alert.state == "resolved":
        assert alert.resolved is not None
        return alert if now - alert.resolved < max(KEEP_RESOLVED, 2 * settings.group_interval) else None
    patience = max(settings.flap_hold, settings.keep_firing) if alert.flapping else settings.keep_firing
    return alert if now - alert.last < patience else replace(alert, state="resolved", resolved=now)
