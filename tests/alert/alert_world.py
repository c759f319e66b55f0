"""What the tests of alerts share: alerts and conditions made short."""

from __future__ import annotations

from typing import Any

from leptonai.ops.alert.state import Condition
from leptonai.types import Alert


def condition(service: str = "digits", name: str = "Incident", severity: str = "critical", **labels: str) -> Condition:
    named = {"alertname": name, "workspace": "default", "service": service, "severity": severity, **labels}
    return Condition(labels=named, summary=f"{service} is ill", incident=1)


def alert(service: str = "digits", name: str = "Incident", severity: str = "critical", **more: Any) -> Alert:
    labels = {"alertname": name, "workspace": "default", "service": service, "severity": severity}
    labels |= more.pop("labels", {})
    fields = {"state": "firing", "since": 0.0, "last": 0.0, "fired": 0.0} | more
    return Alert(labels=labels, **fields)
