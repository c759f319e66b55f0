"""Which revision serves: the head, or the one before it while the head is on probation. Pure.

A revision is *in force* when it was promoted (dial ``rollout.<number>.promoted``), when its strategy is ``replace``,
when it is the first of its service, or when it runs what was in force before: going back is no rollout.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from leptonai.types import Canary, Dial, Revision, Spec


def probation(history: Sequence[Revision], dials: Iterable[Dial], now: float) -> tuple[Canary | None, tuple[str, ...]]:
    """The rollout of the newest of ``history`` (ascending), None when it is in force; and the digests that were on
    probation in the present life of the service and never were in force, sorted.

    A revision that renames, adds or drops variants replaces at once: there is nothing to compare it with.
    """
    last = {d.path: d for d in dials if d.path.startswith("rollout.") and (d.expires is None or d.expires > now)}
    stable: Revision | None = None
    proven: set[str] = set()
    tried: set[str] = set()
    for revision in history:
        spec = revision.spec
        if spec is None:
            stable, proven, tried = None, set(), set()
            continue
        running = {v.digest for v in spec.variants}
        promoted = last.get(f"rollout.{revision.number}.promoted")
        settled = (
            spec.rollout.strategy == "replace"
            or stable is None
            or stable.spec is None
            or running <= proven
            or _names(spec) != _names(stable.spec)
            or (promoted is not None and promoted.value > 0)
        )
        if settled:
            stable = revision
            proven |= running
        else:
            tried |= running
    rejected = tried - proven
    head = history[-1] if history else None
    if head is None or head.spec is None or stable is None or stable.spec is None or stable.number == head.number:
        return None, tuple(sorted(rejected))
    rejected -= {v.digest for v in head.spec.variants}
    set_here = {p: last.get(f"rollout.{head.number}.{p}") for p in ("replicas", "weight", "mirror")}
    value = {p: d.value for p, d in set_here.items() if d is not None}
    at = {p: d.at for p, d in set_here.items() if d is not None}
    canary = Canary(
        stable=stable.spec.variants,
        revision=stable.number,
        replicas=int(value.get("replicas", 1)),
        weight=value.get("weight", 0.0),
        mirror=value.get("mirror", 0.0),
        since=max(head.at, at.get("weight", 0.0), at.get("mirror", 0.0)),
        asked=max(head.at, at.get("replicas", 0.0)),
    )
    return canary, tuple(sorted(rejected))


def _names(spec: Spec) -> list[str]:
    return sorted(v.name for v in spec.variants)
