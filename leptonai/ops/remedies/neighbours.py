"""The remedy that takes room from a less important service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol, runtime_checkable

from leptonai.ops.remedies.wishing import Risk, Seen, Wishing
from leptonai.protocols import Remedy
from leptonai.types import Change, DialChange, Service


@runtime_checkable
class Among(Protocol):
    """A remedy that may change another service: it is shown the others before it proposes."""

    def among(self, others: Sequence[Service]) -> Remedy: ...


class Preempt(Wishing, frozen=True, kw_only=True):
    """Ask for fewer replicas of the neighbour that the evidence names, if its ``priority`` is lower, for ``seconds``.

    Half of its replicas go, never more than leave one, or its ``scale.min``.
    """

    name: ClassVar[str] = "preempt"
    risk: ClassVar[Risk] = "medium"
    seconds: float = 900.0

    def among(self, others: Sequence[Service]) -> Remedy:
        return _Preempt(others={s.key: s for s in others}, seconds=self.seconds)

    def wish(self, seen: Seen) -> tuple[Change, str] | None:
        return None  # nobody is beside it


class _Preempt(Preempt, frozen=True, kw_only=True):
    others: dict[str, Service] = {}

    def wish(self, seen: Seen) -> tuple[Change, str] | None:
        named = next((str(e.data["neighbour"]) for e in seen.incident.evidence if "neighbour" in e.data), "")
        other = self.others.get(named)
        if other is None or other.spec.priority >= seen.service.spec.priority:
            return None
        least = max(1, other.spec.scale.min)
        fewer = {
            f"{name}.replicas": float(max(least, dials.replicas // 2))
            for name, dials in other.dials.variants.items()
            if dials.replicas > least
        }
        if not fewer:
            return None
        change = DialChange(service=other.key, set=fewer, ttl=self.seconds)
        return change, (
            f"{other.key} (priority {other.spec.priority}) makes room for {seen.service.key} "
            f"(priority {seen.service.spec.priority}) for {self.seconds:g} s: {seen.cause.name}"
        )


def shown(remedy: Remedy, others: Sequence[Service]) -> Remedy:
    """``remedy``, shown the other services where it asks for them."""
    return remedy.among(others) if isinstance(remedy, Among) else remedy
