"""Who is called when nobody answers: escalation steps of critical alerts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from leptonai.ops.alert.group import Notification, Told
from leptonai.ops.alert.route import receiver_of
from leptonai.settings import Alerts
from leptonai.types import Ack, Alert


def escalate(
    told: Set[str], alerts: Mapping[str, Alert], acks: Iterable[Ack], settings: Alerts, now: float
) -> tuple[frozenset[str], list[Notification]]:
    """The steps taken so far (``fingerprint step``), and the calls that are due at ``now``.

    A step is taken once ``after`` seconds have gone by since a critical alert fired, while it fires, is not muted and
    nobody has acknowledged its incident. Each step is taken once; the steps of an alert that is over are forgotten,
    and those whom they had called are told that it is over.
    """
    taken = {ack.incident for ack in acks}
    after: set[str] = set()
    out: list[Notification] = []
    for name, alert in alerts.items():
        for number, step in enumerate(settings.escalation):
            mark = f"{name} {number}"
            receiver = receiver_of(step.receiver, alert, settings.owners)
            if alert.state == "resolved" and mark in told and receiver:
                out.append(_call(receiver, alert, now, "resolved"))
            if alert.state != "firing":
                continue
            if mark in told:
                after.add(mark)
                continue
            held = alert.muted or alert.labels.get("severity") != "critical" or alert.incident in taken
            if held or alert.fired is None or now - alert.fired < step.after or not receiver:
                continue
            after.add(mark)
            out.append(_call(receiver, alert, now, f"nobody has acknowledged it for {now - alert.fired:.0f} s"))
    return frozenset(after), out


def _call(receiver: str, alert: Alert, now: float, why: str) -> Notification:
    fires = alert.state == "firing"
    return Notification(
        receiver=receiver, group="", labels=alert.labels, made=now, why=why,
        firing=(alert,) if fires else (), resolved=() if fires else (alert,),
        told=Told(at=now, firing=frozenset(), resolved=frozenset()),
    )  # fmt: skip
