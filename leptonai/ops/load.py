"""How much comes to a service and how much its replicas carry: answers alone say neither once they are full."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import NamedTuple

from leptonai.ops.world import answering, ready
from leptonai.protocols import TelemetryStore
from leptonai.types import Replica, Series, Service

LATE = 4.0  # seconds that are looked at
ROOM = 0.8  # of what replicas carry at most, that may come: beyond it the queue is many times as long as a request
NOW = 1e-3  # the stretch of a read is half open


class Load(NamedTuple):
    """Requests, and requests a second, of late. ``arrivals``: what is answered, and by how much what is under way
    grows. ``carried``: what the ready replicas that answer users compute at most, each one request or batch after
    another."""

    arrivals: float
    waiting: float
    carried: float

    @property
    def too_much(self) -> bool:
        """More than the replicas carry with some room, or a queue of more than a second."""
        return self.arrivals > ROOM * self.carried or self.waiting > max(self.carried, 1.0)

    @property
    def text(self) -> str:
        return (
            f"{self.arrivals:.1f} requests/s come, {self.waiting:.0f} are under way; the ready replicas compute "
            f"{self.carried:.1f} a second at most."
        )

    def told(self, usual: float) -> dict[str, float]:
        """As features. ``usual``: requests a second of before."""
        return {
            "arrivals_per_second": self.arrivals, "arrivals_ratio": self.arrivals / usual,
            "waiting_count": self.waiting, "carried_per_second": self.carried,
        }  # fmt: skip


def load_of(store: TelemetryStore, service: Service, replicas: Sequence[Replica], now: float) -> Load | None:
    """Of the newest LATE seconds; None where nothing was answered or computed in them, or replicas do not tell what is
    under way. Replicas that no user is sent to, spares and those that get copies, neither carry nor count."""
    asked = answering(service, replicas)
    idle = {r.id for r in replicas} - {r.id for r in asked}

    def seen(name: str) -> list[Series]:
        found = store.read(name, now - LATE, now + NOW, {"service": service.key})
        return [s for s in found if s.labels.get("replica") not in idle]

    answered = _mean(seen("request_rate_per_second"))
    under_way = [s for s in seen("replica_in_flight_count") if len(s.at) > 0]
    seconds = _mean(seen("replica_service_seconds")) or _mean(seen("replica_compute_seconds"))
    if answered is None or not seconds or not under_way:
        return None
    grown = sum(s.value[-1] - s.value[0] for s in under_way)
    span = max(s.at[-1] - s.at[0] for s in under_way)
    return Load(
        arrivals=max(answered + (grown / span if span > 0 else 0.0), 0.0),
        waiting=sum(s.value[-1] for s in under_way if now - s.at[-1] < LATE / 2),
        carried=ready(asked) / seconds,
    )


def _mean(series: Sequence[Series]) -> float | None:
    values = [v for s in series for v in s.value if isfinite(v)]
    return sum(values) / len(values) if values else None
