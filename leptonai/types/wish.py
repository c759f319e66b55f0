"""The dials half of a wish, and the whole of it."""

from __future__ import annotations

from leptonai.types.keys import HUMAN, SCALER, Key, Noun
from leptonai.types.spec import Spec, Variant

QUARANTINE = "quarantine."  # what its dials begin with


class Dial(Noun, frozen=True, kw_only=True):
    """One entry of the dials log. ``path``: ``main.replicas|auto|weight|mirror|epoch``, ``evict.<replica id>``,
    ``rollout.<revision>.replicas|weight|mirror|promoted``, ``fallback``: 0 takes the spec's out of force, 1 puts it
    back, ``shed``: the share of requests refused, or ``quarantine.<InputRule>``: 1 refuses the requests of which it
    holds, 0 lets them in again."""

    path: str
    value: float
    owner: str  # who set it: "human:ana", "incident:42", "scaler"
    reason: str
    at: float
    expires: float | None = None


class VariantDials(Noun, frozen=True, kw_only=True):
    replicas: int = 1
    weight: float = 1.0
    mirror: float = 0.0
    epoch: int = 0
    auto: bool = True  # False: a person set the replicas, and the scaler leaves them


class Dials(Noun, frozen=True, kw_only=True):
    """The dials half in force: what ``effective_dials`` makes of the log at one moment."""

    variants: dict[str, VariantDials] = {}
    evict: tuple[str, ...] = ()
    fallback: bool = True  # whether the spec's fallback may answer
    shed: float = 0.0  # share of the requests that the gateway refuses with 429
    quarantine: tuple[str, ...] = ()  # texts of InputRule, sorted: replicas refuse these requests with 422


class Canary(Noun, frozen=True, kw_only=True):
    """The head is on probation: ``stable``, the variants of revision ``revision``, still serve.

    ``replicas`` of the head's variants run beside them, ``weight`` is the head's share of the requests, ``mirror`` the
    share that is copied to it. ``since``: when weight or mirror last changed; ``asked``: when replicas did.
    """

    stable: tuple[Variant, ...]
    revision: int
    replicas: int = 1
    weight: float = 0.0
    mirror: float = 0.0
    since: float = 0.0
    asked: float = 0.0


class Service(Noun, frozen=True, kw_only=True):
    """The whole wish: revision ``revision`` of the spec, and the dials in force.

    ``canary``: the rollout of the head that is under way. ``rejected``: digests that were on probation and never got
    through it: they must not answer anybody.
    """

    spec: Spec
    dials: Dials
    revision: int
    canary: Canary | None = None
    rejected: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        return self.spec.key

    def variant(self, name: str, digest: str) -> Variant:
        """What a replica of this wish is started from: the head's variant, or that of the revision before it."""
        stable = self.canary.stable if self.canary else ()
        return next(v for v in (*self.spec.variants, *stable) if v.name == name and v.digest == digest)

    def revision_of(self, variant: Variant) -> int:
        """The number of the revision that ``variant`` of this wish belongs to."""
        return self.canary.revision if self.canary and variant not in self.spec.variants else self.revision


def effective_dials(spec: Spec, log: list[Dial], now: float) -> Dials:
    """The dials in force at ``now``: per path the last unexpired entry, bounded by ``spec.scale``; epoch only rises.

    What the scaler set counts only while ``spec.scale`` has ``auto`` or ``idle``. A person who sets ``replicas`` takes
    them out of the scaler's hands (``auto`` false) until that entry expires or ``auto`` is set to 1.
    """
    last: dict[str, Dial] = {}
    epoch: dict[str, int] = {}
    auto: dict[str, bool] = {}
    for entry in log:
        if entry.path.endswith(".epoch"):
            epoch[entry.path] = max(epoch.get(entry.path, 0), int(entry.value))
        elif entry.owner == SCALER and spec.scale.auto is None and spec.scale.idle is None:
            continue
        elif entry.expires is None or entry.expires > now:
            last[entry.path] = entry
            name, _, dial = entry.path.rpartition(".")
            if dial == "auto":
                auto[name] = bool(entry.value)
            elif dial == "replicas" and entry.owner.startswith(HUMAN):
                auto[name] = False
    variants = {}
    for variant in spec.variants:
        wanted = last.get(f"{variant.name}.replicas")
        weight = last.get(f"{variant.name}.weight")
        mirror = last.get(f"{variant.name}.mirror")
        count = int(wanted.value) if wanted else spec.scale.replicas
        variants[variant.name] = VariantDials(
            replicas=min(max(count, spec.scale.min), spec.scale.max),
            weight=weight.value if weight else 1.0,
            mirror=mirror.value if mirror else 0.0,
            epoch=epoch.get(f"{variant.name}.epoch", 0),
            auto=auto.get(variant.name, True),
        )
    evict = tuple(sorted(p.removeprefix("evict.") for p, d in last.items() if p.startswith("evict.") and d.value))
    held = tuple(sorted(p.removeprefix(QUARANTINE) for p, d in last.items() if p.startswith(QUARANTINE) and d.value))
    fallback, shed = last.get("fallback"), last.get("shed")
    return Dials(
        variants=variants,
        evict=evict,
        fallback=fallback is None or bool(fallback.value),
        shed=shed.value if shed else 0.0,
        quarantine=held,
    )


class Revision(Noun, frozen=True, kw_only=True):
    """One spec change in the linear history of a service. ``spec`` None: the service was deleted here."""

    service: Key
    number: int
    by: str
    why: str
    at: float
    spec: Spec | None
    verified: float | None = None  # when it was found good; None: not (yet)
