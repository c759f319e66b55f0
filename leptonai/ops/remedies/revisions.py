"""Remedies that wish for another spec: what ran before, other batching, other limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import msgspec

from leptonai.admit.bounds import validate
from leptonai.errors import SpecError
from leptonai.ops.remedies.wishing import Reversal, Risk, Seen, Wishing
from leptonai.types import Change, Spec, SpecChange, Variant


class Rollback(Wishing, frozen=True, kw_only=True):
    """Ask for the spec of the newest verified-good revision that runs something else than the head does."""

    name: ClassVar[str] = "rollback"
    risk: ClassVar[Risk] = "medium"
    reversal: ClassVar[Reversal] = "on request"

    def wish(self, seen: Seen) -> tuple[Change, str] | None:
        """None when no such revision is known, or the blamed revision no longer runs. The dials are kept."""
        service, revisions = seen.service, seen.revisions
        if not _current(seen):
            return None
        running = _digests(service.spec.variants)
        numbers = {f"{service.key}#{r.number}": r for r in revisions}
        blamed = numbers.get(seen.cause.subject)
        if blamed is not None and (blamed.spec is None or _digests(blamed.spec.variants) != running):
            return None
        for revision in reversed(revisions):
            if revision.spec is None:
                return None  # what was before a deletion is not ours to bring back
            if revision.verified is not None and _digests(revision.spec.variants) != running:
                why = f"back to revision {revision.number}, verified good: {seen.cause.name} of {seen.cause.subject}"
                return SpecChange(spec=revision.spec, base=service.revision), why
        return None


class Batching(Wishing, frozen=True, kw_only=True):
    """Ask for other batching of every variant: the replicas that run are told, none is replaced."""

    name: ClassVar[str] = "batching"
    policy: Literal["adaptive", "eager"] | None = None
    max_size: int | None = None
    max_wait: float | None = None
    max_queue: int | None = None

    def wish(self, seen: Seen) -> tuple[Change, str] | None:
        given = _given(self)
        variants = tuple(
            msgspec.structs.replace(v, batching=msgspec.structs.replace(v.batching, **given))
            for v in seen.service.spec.variants
        )
        return _other_spec(seen, msgspec.structs.replace(seen.service.spec, variants=variants), "other batching")


class Limits(Wishing, frozen=True, kw_only=True):
    """Ask for other limits of what a variant may hold at once; past them the gateway sheds."""

    name: ClassVar[str] = "limits"
    risk: ClassVar[Risk] = "medium"
    connections: int | None = None
    pending: int | None = None
    requests: int | None = None
    replica_connections: int | None = None

    def wish(self, seen: Seen) -> tuple[Change, str] | None:
        spec = seen.service.spec
        limits = msgspec.structs.replace(spec.limits, **_given(self))
        return _other_spec(seen, msgspec.structs.replace(spec, limits=limits), "other limits")


def _given(remedy: Wishing) -> dict[str, object]:
    return {name: value for name, value in msgspec.structs.asdict(remedy).items() if value is not None}


def _other_spec(seen: Seen, spec: Spec, what: str) -> tuple[Change, str] | None:
    """None when that is what is wished already, when it breaks a bound, or a rollout is under way: it would end it."""
    if spec == seen.service.spec or not _current(seen) or seen.service.canary is not None:
        return None
    try:
        validate(spec)
    except SpecError:
        return None
    return SpecChange(spec=spec, base=seen.service.revision), f"{what}: {seen.cause.name}"


def _current(seen: Seen) -> bool:
    """Whether the history is as new as the wish; a change made from an old view would be refused."""
    return bool(seen.revisions) and seen.revisions[-1].number == seen.service.revision


def _digests(variants: Sequence[Variant]) -> tuple[str, ...]:
    return tuple(v.digest for v in variants)
