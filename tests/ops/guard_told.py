"""What the stage of random histories tells the engine: settings, evidence, and the load of a service."""

from __future__ import annotations

from typing import Any

from leptonai.settings import Admit, Ops, Settings
from leptonai.types import Evidence, Key, Signal

COMPUTE = 0.05  # seconds of a request


def load(key: Key, come: float, at: float) -> list[Signal]:
    """``come``: requests a second that are let in."""
    by = {"service": key, "replica": "r"}
    return [
        Signal(name="request_rate_per_second", labels={"service": key}, at=at, value=come),
        Signal(name="replica_in_flight_count", labels=by, at=at, value=1.0),
        Signal(name="replica_compute_seconds", labels=by, at=at, value=COMPUTE),
    ]


def evidence(at: float, serving: list[str], refused: float) -> tuple[Any, ...]:
    data: list[tuple[str, dict[str, Any]]] = [
        ("signal", {"traffic_ratio": 2.0, "neighbour": "pair"}),
        (
            "load",
            {"arrivals_per_second": 50.0, "arrivals_ratio": 5.0, "waiting_count": 9.0, "carried_per_second": 40.0},
        ),
        ("marked", {"rules": "image.high>508 image.low<-3", "refused_share": refused}),
        *(("memory_share", {"subject": r, "memory_share": 0.9}) for r in serving[:1]),
    ]
    return tuple(Evidence(id=f"e{n}", kind=kind, at=at, text="", data=found) for n, (kind, found) in enumerate(data, 1))


def settings_of(attempts: int, concurrent: int, shadow: bool, pace: int) -> Settings:
    return Settings(
        ops=Ops(attempts=attempts, concurrent=concurrent, shadow=shadow),
        admit=Admit(pace_count=pace, pace_seconds=60.0, cooldown=10.0),
    )
