"""What a resource is told of incidents; the rest of ``daemon.declared`` runs on a cluster, in tests/platforms."""

from __future__ import annotations

from leptonai.daemon.declared import worst
from leptonai.types import Incident, Severity


def incident(id: int, subject: str, severity: Severity, began: float) -> Incident:
    return Incident(id=id, subject=subject, severity=severity, title="t", began=began, opened=began)


def test_of_each_service_the_most_severe_incident_counts_then_the_oldest_whatever_else_incidents_are_about() -> None:
    told = [
        incident(1, "default/service/digits", "warning", 1.0),
        incident(2, "default/service/digits", "critical", 3.0),
        incident(3, "default/service/digits", "critical", 2.0),
        incident(4, "team/service/digits", "info", 1.0),
        incident(5, "platform", "critical", 0.0),
        incident(6, "default/external/payments", "critical", 0.0),
    ]
    found = worst(told)
    assert (found["digits"].id, found["team/digits"].id) == (3, 4)
