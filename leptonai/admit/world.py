"""What the judge looks at, and what a change would make of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from leptonai import settings as setting
from leptonai.store.probation import probation
from leptonai.types import (
    QUARANTINE,
    Change,
    DeleteChange,
    Dial,
    Dials,
    JobChange,
    Noun,
    Proposal,
    Revision,
    Service,
    Spec,
    SpecChange,
    Variant,
    effective_dials,
)


class World(Noun, frozen=True, kw_only=True):
    """What the judge looks at, at one moment."""

    now: float
    admit: setting.Admit
    history: tuple[Revision, ...] = ()  # of the proposal's service, oldest first
    dials: tuple[Dial, ...] = ()  # its log
    recent: tuple[Proposal, ...] = ()  # admitted automatic ones of any service, as far back as pace and cool-down reach
    frozen: str = ""  # who turned the kill switch on and why; "": it is off, unless ``admit.frozen`` says otherwise

    @property
    def head(self) -> Revision | None:
        return self.history[-1] if self.history and self.history[-1].spec is not None else None

    @property
    def service(self) -> Service | None:
        head = self.head
        if head is None or head.spec is None:
            return None
        canary, _ = probation(self.history, self.dials, self.now)
        dials = effective_dials(head.spec, list(self.dials), self.now)
        return Service(spec=head.spec, dials=dials, revision=head.number, canary=canary)


def diff(change: Change, service: Service | None) -> tuple[str, ...]:
    """What the change makes of the wish (None: there is none), one line a field: ``path: old → new``. () for nothing.

    Values of ``env`` are not shown.
    """
    if isinstance(change, DeleteChange):
        return (f"{change.service}: deleted",)
    if isinstance(change, JobChange):
        job = change.job
        what = f"POST {job.url}" if job.url else " ".join(job.command)
        return (f"runs {what}, for {job.timeout:g} s at most",)
    if isinstance(change, SpecChange):
        if service is None:
            return (f"{change.spec.key}: created",)
        old, new = _flat(service.spec), _flat(change.spec)
        paths = [p for p in (*old, *(p for p in new if p not in old)) if old.get(p) != new.get(p)]
        return tuple(
            f"{p}: changed" if ".env." in p else f"{p}: {old.get(p, 'unset')} → {new.get(p, 'unset')}" for p in paths
        )
    was = dialled(service) if service else {}
    lines = []
    for path, value in sorted(change.set.items()):
        if value != was.get(path, 0.0):
            until = "" if (lasts := change.lasts(path)) is None else f" for {lasts:g} s"
            lines.append(f"{path}: {was.get(path, 0.0):g} → {value:g}{until}")
    return tuple(lines)


def reset(old: Spec, new: Spec) -> tuple[str, ...]:
    """What ``old`` said and ``new`` leaves at its default, one line a field as in ``diff``; models are not compared."""
    plain = tuple(Variant(name=v.name, model=v.model, idempotent=v.idempotent) for v in new.variants)
    usual = _flat(Spec(name=new.name, workspace=new.workspace, variants=plain))
    was, now = _flat(old), _flat(new)
    back = [p for p in was if was[p] != now.get(p) and now.get(p) == usual.get(p) and not p.endswith(".model")]
    return tuple(f"{p}: unset" if ".env." in p else f"{p}: {was[p]} → {now.get(p, 'unset')}" for p in back)


def dialled(service: Service, named: Iterable[str] = ()) -> dict[str, float]:
    """Every dial in force by path; evicts and quarantines are 1, quarantines that are ``named`` and not in force 0."""
    dials, canary = service.dials, service.canary
    out = {f"{n}.{k}": float(x) for n, v in dials.variants.items() for k, x in msgspec.structs.asdict(v).items()}
    if canary is not None:
        out |= {f"rollout.{service.revision}.{k}": float(getattr(canary, k)) for k in ("replicas", "weight", "mirror")}
    if service.spec.fallback is not None:
        out["fallback"] = float(dials.fallback)
    off = {path: 0.0 for path in named if path.startswith(QUARANTINE)}
    return off | out | _flags(dials) | {"shed": dials.shed}


def _flags(dials: Dials) -> dict[str, float]:
    evicted, held = dict.fromkeys(dials.evict, "evict."), dict.fromkeys(dials.quarantine, QUARANTINE)
    return {f"{prefix}{what}": 1.0 for what, prefix in (*evicted.items(), *held.items())}


def _flat(spec: Spec | None) -> dict[str, Any]:
    """The leaves of a spec by dotted path; a variant is named, not numbered."""
    out: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for k, v in value.items():
                walk(f"{prefix}.{k}" if prefix else str(k), v)
        else:
            out[prefix] = value

    fields = msgspec.to_builtins(spec)
    variants = {v.pop("name"): v for v in fields.pop("variants")}
    walk("", fields)
    walk("", variants)
    return out
