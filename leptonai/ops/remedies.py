"""The remedies that ship with us. Each turns an incident's first cause into a wish; none touches the world."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points

from leptonai.errors import PluginError
from leptonai.protocols import Remedy
from leptonai.types import Cause, Change, DialChange, Event, Incident, Proposal, Revision, Service, SpecChange, Variant

PROPOSAL_SECONDS = 300.0  # a remedy that waited longer for approval was meant for another world


def _proposal(incident: Incident, change: Change, why: str, now: float) -> Proposal:
    return Proposal(id="", change=change, by=f"incident:{incident.id}", why=why, at=now, expires=now + PROPOSAL_SECONDS)


def _about(cause: Cause, service: Service) -> str:
    if cause.subject == service.key:
        return "service"
    return "revision" if cause.subject.startswith(f"{service.key}#") else "replica"


class Evict:
    """Ask for one replica to be replaced: the planner starts another first where there is room."""

    name = "evict"
    risk = "low"

    def propose(
        self,
        incident: Incident,
        service: Service,
        revisions: Sequence[Revision],
        history: Sequence[Event],
        now: float,
    ) -> Proposal | None:
        """None when the cause is not about a replica, or the replica is being evicted already."""
        cause = incident.causes[0] if incident.causes else None
        if cause is None or _about(cause, service) != "replica" or cause.subject in service.dials.evict:
            return None
        change = DialChange(service=service.key, set={f"evict.{cause.subject}": 1.0})
        return _proposal(incident, change, f"replace {cause.subject}: {cause.name}", now)


class Restart:
    """Ask for every replica of every variant to be replaced, one after another, by raising the epoch."""

    name = "restart"
    risk = "medium"

    def propose(
        self,
        incident: Incident,
        service: Service,
        revisions: Sequence[Revision],
        history: Sequence[Event],
        now: float,
    ) -> Proposal | None:
        """None without a cause."""
        if not incident.causes:
            return None
        epochs = {
            f"{v.name}.epoch": float(
                service.dials.variants[v.name].epoch + 1 if v.name in service.dials.variants else 1
            )
            for v in service.spec.variants
        }
        change = DialChange(service=service.key, set=epochs)
        return _proposal(incident, change, f"restart all replicas of {service.key}: {incident.causes[0].name}", now)


class Rollback:
    """Ask for the spec of the newest verified-good revision that runs something else than the head does."""

    name = "rollback"
    risk = "medium"

    def propose(
        self,
        incident: Incident,
        service: Service,
        revisions: Sequence[Revision],
        history: Sequence[Event],
        now: float,
    ) -> Proposal | None:
        """None when no such revision is known, or the blamed revision no longer runs. The dials are kept."""
        if not incident.causes or not revisions or revisions[-1].number != service.revision:
            return None  # an old view of the service: its base would be refused
        running = _digests(service.spec.variants)
        blamed = incident.causes[0].subject
        numbers = {f"{service.key}#{r.number}": r for r in revisions}
        if blamed in numbers:
            spec = numbers[blamed].spec
            if spec is None or _digests(spec.variants) != running:
                return None
        for revision in reversed(revisions):
            if revision.spec is None:
                return None  # what was before a deletion is not ours to bring back
            if revision.verified is not None and _digests(revision.spec.variants) != running:
                change = SpecChange(spec=revision.spec, base=service.revision)
                why = f"back to revision {revision.number}, verified good: {incident.causes[0].name} of {blamed}"
                return _proposal(incident, change, why, now)
        return None


def _digests(variants: Sequence[Variant]) -> tuple[str, ...]:
    return tuple(v.digest for v in variants)


OURS: dict[str, Remedy] = {r.name: r for r in (Evict(), Restart(), Rollback())}


def load_remedies() -> dict[str, Remedy]:
    """Ours and those of installed packages (entry points ``leptonai.remedies``), by name.

    Raises PluginError when one cannot be loaded, lacks a part of the protocol, or takes the name of another.
    """
    found = dict(OURS)
    for point in entry_points(group="leptonai.remedies"):
        try:
            remedy = point.load()()
        except Exception as e:
            raise PluginError(f"remedy {point.name} ({point.value}) cannot be loaded: {e}") from e
        name, risk = getattr(remedy, "name", None), getattr(remedy, "risk", None)
        if (
            not isinstance(name, str)
            or risk not in ("low", "medium", "high")
            or not callable(getattr(remedy, "propose", None))
        ):
            raise PluginError(
                f"remedy {point.name} ({point.value}) has name {name!r} and risk {risk!r}",
                hint="a remedy has a name, a risk of low, medium or high, and a method propose",
            )
        if name in found:
            raise PluginError(f"remedy {point.name} ({point.value}) takes the name {name!r} of another remedy")
        found[name] = remedy
    return found
