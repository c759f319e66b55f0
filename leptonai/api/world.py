"""What the handlers know: the door, the records, the world, and who calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from leptonai.admit import Door
from leptonai.admit.switch import Switch
from leptonai.api.callers import Callers
from leptonai.api.mask import Mask
from leptonai.api.pace import Pace
from leptonai.api.sessions import Sessions
from leptonai.api.signals import Signals
from leptonai.api.wishes import Wish, Wishes
from leptonai.client.wire import ServiceView
from leptonai.errors import LeptonError
from leptonai.protocols import Platform
from leptonai.settings import Settings
from leptonai.store import Artifacts, Store
from leptonai.types import Event, Key, Replica, Service, VariantDials


@dataclass(frozen=True)
class World:
    door: Door
    store: Store
    artifacts: Artifacts
    platform: Platform
    settings: Settings
    clock: Callable[[], float]
    wishes: Wishes
    callers: Callers
    sessions: Sessions
    signals: Signals
    pace: Pace
    mask: Mask
    started: float
    switch: Switch
    closed: Callable[[], LeptonError | None] = lambda: None  # why no wish is taken here; None where one is

    @property
    def home(self) -> Path:
        """The folder of the platform, which holds what is no record."""
        return self.artifacts.folder.parent

    def view(self, wish: Wish, replicas: list[Replica]) -> ServiceView:
        service, theirs = wish.service, self.platform.scaled(wish.service)
        if theirs:
            dials = service.dials.variants
            there = {name: replace(dials.get(name, VariantDials()), replicas=n) for name, n in theirs.items()}
            service = replace(service, dials=replace(service.dials, variants=dials | there))
        own = tuple(r for r in replicas if r.service == service.key)
        canary = service.canary
        digests = {v.name: v.digest for v in (canary.stable if canary else service.spec.variants)}
        ready = sum(r.state == "ready" and r.digest == digests.get(r.variant) for r in own)
        wanted = sum(d.replicas for d in service.dials.variants.values())
        return ServiceView(
            service=service,
            replicas=own,
            ready=ready,
            wanted=wanted,
            status=status_line(own, ready, wanted, service),
            url=self.platform.url(service.key),
            verified=wish.verified,
            room={v.name: self.platform.room(v) for v in service.spec.variants} if service.spec.scale.auto else {},
            scaled_by=service.spec.scale.owner if theirs else "",
        )

    def record(self, kind: str, subject: str, detail: dict[str, Any], actor: str) -> Event:
        return self.store.record(kind, subject, detail, actor=actor, at=self.clock())

    def known_service(self, key: Key) -> None:
        """Raises NotFound when ``key`` is no service."""
        self.wishes.get(key, self.clock())


def status_line(replicas: tuple[Replica, ...], ready: int, wanted: int, service: Service | None = None) -> str:
    """How a service stands, as one line: what is ready, what is on its way, what is wrong and why."""
    parts = [f"{ready} of {wanted} ready" if wanted else "scaled to zero"]
    starting = sum(r.state == "starting" for r in replicas)
    stopping = sum(r.state == "stopping" for r in replicas)
    others = sum(r.state == "ready" for r in replicas) - ready
    if service is not None and service.canary is not None:
        digests = {v.digest for v in service.spec.variants} - {v.digest for v in service.canary.stable}
        fresh = sum(r.state == "ready" and r.digest in digests for r in replicas)
        others -= fresh
        if service.canary.weight > 0:
            stage = f"{service.canary.weight:.0%} of the requests"
        else:
            stage = (
                f"copies of {service.canary.mirror:.0%} of the requests" if service.canary.mirror else "no requests yet"
            )
        parts.append(f"revision {service.revision} on probation: {fresh} ready, {stage}")
    if starting:
        parts.append(f"{starting} starting")
    if others > 0:
        parts.append(f"{others} of an older revision")
    if stopping:
        parts.append(f"{stopping} draining")
    line = ", ".join(parts)
    sick = next((r for r in replicas if r.state == "failed"), None)
    if sick is not None:
        line += f"; {sick.id} {sick.reason or 'failed'}" + (f": {sick.detail}" if sick.detail else "")
    return line
