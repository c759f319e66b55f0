"""The remedies: each turns an incident's first cause into a wish; none touches the world."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points

from leptonai.errors import PluginError
from leptonai.ops.remedies.jobs import Command, Retrain, Webhook
from leptonai.ops.remedies.neighbours import Preempt, shown
from leptonai.ops.remedies.replicas import Evict, Recycle, Restart, Scale
from leptonai.ops.remedies.revisions import Batching, Limits, Rollback
from leptonai.ops.remedies.traffic import Degrade, FallbackOff, FallbackOn, Quarantine, Shed, ShiftWeight
from leptonai.ops.remedies.wishing import Reversal, Wishing
from leptonai.protocols import Remedy

# By name: a class of ours, which a runbook's ``with`` fills in, or a remedy that is whole already.
Remedies = Mapping[str, type[Wishing] | Remedy]

OURS: dict[str, type[Wishing]] = {
    kind.name: kind
    for kind in (
        Evict, Recycle, Restart, Scale, Rollback, Batching, Limits, ShiftWeight, Degrade, FallbackOn, FallbackOff, Shed,
        Quarantine, Preempt, Command, Retrain, Webhook,
    )
}  # fmt: skip


def load_remedies() -> Remedies:
    """Ours and those of installed packages (entry points ``leptonai.remedies``), by name.

    Raises PluginError when one cannot be loaded, lacks a part of the protocol, or takes the name of another.
    """
    found: dict[str, type[Wishing] | Remedy] = dict(OURS)
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


def reversal_of(remedy: Remedy) -> Reversal:
    """What becomes of its change when it did not help; a remedy that does not say is not taken back."""
    said = getattr(remedy, "reversal", "none")
    return said if said in ("automatic", "on request") else "none"  # type: ignore[return-value]


__all__ = [
    "OURS", "Batching", "Command", "Degrade", "Evict", "FallbackOff", "FallbackOn", "Limits", "Preempt", "Quarantine",
    "Recycle", "Remedies", "Restart", "Retrain", "Rollback", "Scale", "Shed", "ShiftWeight", "Webhook", "Wishing",
    "load_remedies", "reversal_of", "shown",
]  # fmt: skip
