"""What simpler operators would have named and done about the same incidents. Pure; each states its rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from leptonai.drill.kinds import FAULTS, KINDS, PERSON, Fault
from leptonai.drill.outcome import Outcome
from leptonai.ops.diagnosis.files import shipped_book
from leptonai.ops.diagnosis.weigh import by_rules
from leptonai.types import Incident


class Said(NamedTuple):
    """``cause``: named first ("": none); ``remedy``: done; ``touched``: replicas that a restart would have hit."""

    cause: str
    remedy: str


# Which symptom a static threshold watches, in the order in which an operator would look, and what it is taken for.
THRESHOLDS = (
    ("replica_gone", "replica_killed"),
    ("replica_hung", "hung_replica"),
    ("replica_leak", "memory_leak"),
    ("wrong_answers", "bad_revision_wrong_answers"),
    ("burn_errors", "bad_revision_errors"),
    ("burn_latency", "traffic_surge"),
)
REPAIRS = {
    "replica_killed": "none: reconciled",
    "hung_replica": "evict",
    "memory_leak": "evict",
    "bad_revision_wrong_answers": "rollback",
    "bad_revision_errors": "rollback",
    "traffic_surge": PERSON,
}


def always_restart(incident: Incident | None) -> Said:
    """Whatever is wrong, restart the service, as a liveness probe does. It names nothing."""
    return Said("", "restart" if incident else "")


def threshold_only(incident: Incident | None) -> Said:
    """The first of THRESHOLDS that the incident's triggers crossed, taken for what it usually means; no evidence."""
    seen = {a.signal for a in incident.anomalies} if incident else set()
    cause = next((meaning for signal, meaning in THRESHOLDS if signal in seen), "")
    return Said(cause, REPAIRS.get(cause, PERSON if incident else ""))


def rules_only(incident: Incident | None) -> Said:
    """The most confident declared rule over the features that the incident's evidence holds, without trees."""
    if incident is None:
        return Said("", "")
    values: dict[Any, dict[str, Any]] = {}
    service = ""
    for evidence in incident.evidence:
        about, subject = evidence.data.get("about"), evidence.data.get("subject")
        if about and subject:
            service = subject if about == "service" else service
            own = {k: v for k, v in evidence.data.items() if k not in ("about", "subject")}
            values.setdefault((about, subject), {}).update(own)
    held = by_rules(shipped_book(), values, service)
    cause = max(held, key=lambda name: held[name].confidence)[0] if held else ""
    return Said(cause, incident.actions[-1].remedy if incident.actions else PERSON)


BASELINES: dict[str, Callable[[Incident | None], Said]] = {
    "always-restart": always_restart,
    "threshold-only": threshold_only,
    "rules-only": rules_only,
}


def baselines(outcomes: Sequence[Outcome]) -> dict[str, dict[str, float | None]]:
    """By baseline: the share of faults whose cause it names, of those whose remedy is right, and of all drills in which
    it does harm: it restarts or changes a service whose fault no restart mends, or that has none.

    ``chance`` names one of the causes that are drilled, each as likely as another, and is computed, not drawn. Faults
    that nobody could notice are left out, as in the score.
    """
    outcomes = [o for o in outcomes if o.felt]
    faults = [o for o in outcomes if not o.control]
    table: dict[str, dict[str, float | None]] = {}
    for name, rule in BASELINES.items():
        said = {id(o): rule(o.incidents[0] if o.incidents else None) for o in outcomes}
        table[name] = {
            "cause": _share([said[id(o)].cause in KINDS[o.kind].causes for o in faults]),
            "remedy": _share([_mends(KINDS[o.kind], said[id(o)].remedy) for o in faults]),
            "harm": _share([_harms(KINDS[o.kind], said[id(o)].remedy) for o in outcomes]),
        }
    causes = {c for f in FAULTS for c in f.causes}
    table["chance"] = {
        "cause": _mean([len(KINDS[o.kind].causes) / len(causes) for o in faults]),
        "remedy": None,
        "harm": None,
    }
    return table


def _mends(fault: Fault, remedy: str) -> bool:
    return remedy in fault.remedies or (remedy == "restart" and fault.restart)


def _harms(fault: Fault, remedy: str) -> bool:
    return remedy not in ("", PERSON, "none: reconciled") and not _mends(fault, remedy)


def _share(found: Sequence[bool]) -> float | None:
    return sum(found) / len(found) if found else None


def _mean(found: Sequence[float]) -> float | None:
    return sum(found) / len(found) if found else None
