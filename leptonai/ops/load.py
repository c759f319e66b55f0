"""How much comes to a service and how much its replicas carry: answers alone say neither once they are full."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import NamedTuple

from msgspec.structs import replace

from leptonai.ops.world import answering, ready
from leptonai.protocols import TelemetryStore
from leptonai.types import Replica, Series, Service

LATE = 4.0  # seconds that are looked at
ROOM = 0.8  # of what replicas carry at most, that may come: beyond it the queue is many times as long as a request
REMEMBERED = 600.0  # seconds for which what a request took is known where nobody asks
NOW = 1e-3  # the stretch of a read is half open


class Load(NamedTuple):
    """Requests, and requests a second, of late. ``arrivals``: what is answered, and by how much what is under way
    grows. ``carried``: what the ready replicas that answer users compute at most, each one request or batch after
    another. ``ready``: how many these are."""

    arrivals: float
    waiting: float
    carried: float
    ready: int = 1

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
            "waiting_count": self.waiting, "carried_per_second": self.carried, "carrying_count": self.ready,
        }  # fmt: skip


def load_of(store: TelemetryStore, service: Service, replicas: Sequence[Replica], now: float) -> Load | None:
    """Of the newest LATE seconds; None where nothing was computed in them although something is under way, or replicas
    do not tell what is. Where nobody asks, a request takes as long as the last ones of REMEMBERED did. Replicas that
    no user is sent to, spares and those that get copies, neither carry nor count."""
    asked = answering(service, replicas)
    idle = {r.id for r in replicas} - {r.id for r in asked}

    def seen(name: str, back: float = LATE) -> list[Series]:
        found = store.read(name, now - back, now + NOW, {"service": service.key})
        return [s for s in found if s.labels.get("replica") not in idle]

    answered = _mean(seen("request_rate_per_second"))
    under_way = [known for s in seen("replica_in_flight_count") if (known := _finite(s)).at]
    seconds = _mean(seen("replica_service_seconds")) or _mean(seen("replica_compute_seconds"))
    if not seconds and answered == 0.0 and not any(v > 0 for s in under_way for v in s.value):
        past = [_newest(seen(name, REMEMBERED)) for name in ("replica_service_seconds", "replica_compute_seconds")]
        seconds = past[0] or past[1]
    if answered is None or not seconds or not under_way:
        return None
    grown = sum(s.value[-1] - s.value[0] for s in under_way)
    span = max(s.at[-1] - s.at[0] for s in under_way)
    return Load(
        arrivals=max(answered + (grown / span if span > 0 else 0.0), 0.0),
        waiting=sum(s.value[-1] for s in under_way if now - s.at[-1] < LATE / 2),
        carried=ready(asked) / seconds,
        ready=ready(asked),
    )


def _newest(series: Sequence[Series]) -> float | None:
    """The mean of the newest LATE seconds in which there was any."""
    known = [(at, v) for s in series for at, v in zip(s.at, s.value, strict=True) if isfinite(v)]
    last = max((at for at, _ in known), default=0.0)
    values = [v for at, v in known if at > last - LATE]
    return sum(values) / len(values) if values else None


def _finite(series: Series) -> Series:
    known = [(at, v) for at, v in zip(series.at, series.value, strict=True) if isfinite(v)]
    return replace(series, at=[at for at, _ in known], value=[v for _, v in known])


def _mean(series: Sequence[Series]) -> float | None:
    values = [v for s in series for v in s.value if isfinite(v)]
    return sum(values) / len(values) if values else None
