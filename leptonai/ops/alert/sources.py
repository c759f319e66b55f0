"""What may become an alert: incidents, burning promises, absent data, silent hosts; one series never does. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from leptonai.ops.alert.inhibit import HOST_DOWN
from leptonai.ops.alert.state import Condition
from leptonai.ops.slo import BurnState
from leptonai.types import Incident, Key, parse_key

FOREIGN = "alertmanager"  # kind of the evidence that an Alertmanager of somebody else sent


def foreign(incident: Incident) -> bool:
    """Whether an Alertmanager told us of it: such an incident is neither ours to close nor sent back to it."""
    return any(e.kind == FOREIGN for e in incident.evidence)


def incident_condition(incident: Incident, host: str = "") -> Condition:
    """Severity and title are the incident's; ``kind`` is what it was opened for."""
    workspace, what, name = incident.subject.split("/", 2)
    labels = {
        "alertname": "Incident",
        "kind": incident.anomalies[0].signal if what == "service" and incident.anomalies else what,
        "workspace": workspace,
        what: name,
        "severity": incident.severity,
    }
    if host:
        labels["host"] = host
    if foreign(incident):
        labels["source"] = FOREIGN
    cause = incident.causes[0] if incident.causes else None
    because = f" Cause: {cause.name} of {cause.subject} ({cause.confidence:.0%})." if cause else ""
    return Condition(labels=labels, summary=f"{incident.title}.{because}", incident=incident.id)


def burn_conditions(
    service: Key, burns: Iterable[BurnState], hold: float, incident: int = 0, host: str = "", awake: bool = True
) -> list[Condition]:
    """A page is critical, a ticket a warning. ``awake``: the service is expected to answer, so silence is a trouble."""
    workspace, name = parse_key(service)
    base = {"workspace": workspace, "service": name} | ({"host": host} if host else {})
    out: list[Condition] = []
    burns = tuple(burns)
    for burn in burns:
        if burn.severity is None:
            continue
        labels = {"alertname": f"Slo{burn.rule.capitalize()}Burn", **base, "severity": burn.severity}
        said = (
            f"{service} spends its error budget for {burn.rule} {burn.burn_long:.3g} times too fast "
            f"({burn.burn_short:.3g} times lately, {burn.factor:.3g} allowed over {burn.window}): "
            f"{burn.bad} of {burn.total} requests were bad."
        )
        out.append(Condition(labels=labels, summary=said, hold=hold, incident=incident))
    if awake and burns and all(burn.absent for burn in burns):
        labels = {"alertname": "SloDataAbsent", **base, "severity": "critical"}
        said = f"Nothing is known of {service}, not even that nobody asks: its promise cannot be watched."
        out.append(Condition(labels=labels, summary=said, hold=hold, incident=incident))
    return out


def host_conditions(hosts: Mapping[str, float], now: float, silent: float) -> list[Condition]:
    """Of hosts whose agent has sent nothing for ``silent`` seconds; ``hosts``: workspace/name -> when it was heard."""
    return [
        Condition(
            labels={"alertname": HOST_DOWN, "workspace": w, "host": host, "severity": "critical"},
            summary=f"Nothing is heard of host {host} for more than {silent:.0f} s.",
        )
        for (w, _, host), last in sorted((name.partition("/"), last) for name, last in hosts.items())
        if now - last > silent
    ]


def all_conditions(
    incidents: Sequence[Incident],
    burns: Mapping[Key, tuple[Sequence[BurnState], bool]],
    hosts: Mapping[str, float],
    now: float,
    hold: float,
    silent: float,
    here: str,
) -> list[Condition]:
    """Everything that holds at ``now``. ``burns``: per service the rules' states, and whether it is expected to answer.
    ``here``: the host that all services run on."""
    opened = [i for i in incidents if i.closed is None]
    by_subject = {i.subject: i.id for i in sorted(opened, key=lambda i: -i.id)}
    out = [incident_condition(i, here if i.subject.split("/", 2)[1] == "service" else "") for i in opened]
    for service, (states, awake) in burns.items():
        workspace, name = parse_key(service)
        number = by_subject.get(f"{workspace}/service/{name}", 0)
        out += burn_conditions(service, states, hold, number, here, awake)
    return out + host_conditions(hosts, now, silent)
