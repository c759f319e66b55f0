"""A notification in words. Pure."""

from __future__ import annotations

import time

from leptonai.ops.alert.group import Notification
from leptonai.types import Alert, Noun

MOST = 20  # alerts told one by one; a phone shows no more
RANK = {"critical": 0, "warning": 1, "info": 2}


class Message(Noun, frozen=True, kw_only=True):
    title: str
    body: str
    severity: str  # of the worst that fires; "resolved" when nothing does


def compose(notification: Notification) -> Message:
    """Title: what is wrong first, how much besides; body: every alert with since when, and where to read on."""
    firing = sorted(notification.firing, key=lambda a: (RANK.get(a.labels.get("severity", ""), 3), a.since))
    first = (firing or notification.resolved)[0]
    where = first.labels.get("service") or first.labels.get("external") or first.labels.get("host") or ""
    count = f"FIRING:{len(firing)}" if firing else "RESOLVED"
    title = f"[{count}] {first.labels.get('alertname', 'alert')}{f' {where}' if where else ''}"
    lines = [_line(alert) for alert in firing[:MOST]]
    if len(firing) > MOST:
        lines.append(f"... and {len(firing) - MOST} more.")
    if notification.resolved:
        lines += ["Over:", *(_line(a) for a in notification.resolved[:MOST])]
    if notification.why not in ("new", "resolved"):
        lines.append(f"Told because: {notification.why}.")
    worst = firing[0].labels.get("severity", "warning") if firing else "resolved"
    return Message(title=title, body="\n".join(lines), severity=worst)


def _line(alert: Alert) -> str:
    begin = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(alert.since))
    read = f" `leptonai report {alert.incident}` tells more." if alert.incident else ""
    flaps = " It comes and goes." if alert.flapping else ""
    severity = alert.labels.get("severity", "warning")
    return f"- {severity}: {alert.summary or alert.labels.get('alertname', '')} Since {begin}.{flaps}{read}"
