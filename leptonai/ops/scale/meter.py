"""From one collection to what a policy reads: concurrency, demand, what waits, and how long a start takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from statistics import median

from leptonai.ops.collect import Collected
from leptonai.plan.scale import Reading
from leptonai.types import Auto, Noun, Replica

UNKNOWN_STARTUP = 30.0  # seconds until one was measured: as in the replay
STARTS = 9  # of which the median counts: one slow start is no trend
MEMORY = 60.0  # seconds over which the service time is averaged
Values = Mapping[str, float]  # signal -> value, of one replica


class Held(Noun, frozen=True, kw_only=True):
    """Requests of one service that the edge holds until a replica is ready. ``held``: now; ``oldest``: seconds."""

    held: int = 0
    oldest: float = 0.0


def by_replica(found: Collected) -> dict[str, dict[str, float]]:
    """The signals of a collection by the replica they are of."""
    out: dict[str, dict[str, float]] = {}
    for signal in found.signals:
        if "replica" in signal.labels:
            out.setdefault(signal.labels["replica"], {})[signal.name] = signal.value
    return out


class Meter:
    """Of one variant. Remembers what differences and averages need."""

    def __init__(self) -> None:
        self.at: float | None = None  # of the newest reading
        self.service_time: float | None = None  # seconds of a replica's compute that one request takes
        self._inside: dict[str, float] = {}  # replica -> requests in it at the newest reading
        self._held = 0
        self._work = self._computed = 0.0
        self._states: dict[str, str] = {}
        self._starts: deque[float] = deque(maxlen=STARTS)

    @property
    def startup(self) -> float:
        """Seconds from the start of a replica until it was ready: the median of the newest."""
        return median(self._starts) if self._starts else UNKNOWN_STARTUP

    def look(self, replicas: Sequence[Replica]) -> None:
        """Learn from replicas that became ready since the last look, and once from those that were ready before it."""
        for replica in replicas:
            was = self._states.get(replica.id)
            new = was == "starting" or (was is None and not self._starts)
            if replica.state == "ready" and new and replica.started and replica.since > replica.started:
                self._starts.append(replica.since - replica.started)
        self._states = {r.id: r.state for r in replicas}

    def read(
        self,
        found: Collected,
        values: Mapping[str, Values],
        replicas: Sequence[Replica],
        auto: Auto,
        least: int,
        most: int,
        held: Held = Held(),  # noqa: B008 - frozen
    ) -> Reading | None:
        """What the variant did since the reading before; None when its ready replicas showed nothing.

        ``replicas``: those of the variant. Arrivals are answers plus what the requests inside rose by, so that a queue
        is seen as it grows. Demand is arrivals x service time (Little's law); until a service time is known, it is the
        concurrency. Concurrency is the larger of answers x time in the system and of what is inside now: the first
        knows nothing of requests that never end, the second nothing of those shorter than a period.
        """
        ready = [r for r in replicas if r.state == "ready"]
        shown = {r.id: values[r.id] for r in replicas if r.id in values and r.state in ("ready", "stopping")}
        missing = sum(r.id not in values for r in ready)
        if ready and missing == len(ready):
            return None
        before, self.at = self.at, found.at
        inside = {id: seen.get("replica_in_flight_count", 0.0) for id, seen in shown.items()}
        was = {id: n for id, n in self._inside.items() if id in inside}
        held_before, self._held, self._inside = self._held, held.held, inside
        if before is None or found.at <= before:
            return None
        seconds = found.at - before
        rates = {id: seen.get("replica_request_rate_per_second", 0.0) for id, seen in shown.items()}
        self._learn(shown, rates, seconds)
        rising = sum(inside.values()) - sum(was.values()) + held.held - held_before
        arrivals = max(0.0, sum(rates.values()) + rising / seconds)
        through = sum(seen.get("replica_concurrency_count", 0.0) for seen in shown.values())
        concurrency = max(through, (sum(inside.values()) + sum(was.values())) / 2) + held.held
        time = self.service_time
        queue = max(0.0, sum(inside.values()) - len(ready) * auto.concurrency) + held.held
        return Reading(
            at=found.at,
            seconds=seconds,
            demand=concurrency if time is None else arrivals * time,
            concurrency=concurrency,
            waiting=queue * (time if time is not None else 0.0),
            ready=len(ready),
            starting=sum(r.state == "starting" for r in replicas),
            least=least,
            most=most,
            startup=self.startup,
            missing=missing,
        )

    def _learn(self, shown: Mapping[str, Values], rates: Mapping[str, float], seconds: float) -> None:
        fade = max(0.0, 1 - seconds / MEMORY)
        computed = [
            (seen["replica_service_seconds"], rates[id] * seconds)
            for id, seen in shown.items()
            if "replica_service_seconds" in seen
        ]
        self._work = self._work * fade + sum(time * count for time, count in computed)
        self._computed = self._computed * fade + sum(count for _, count in computed)
        if self._computed > 0:
            self.service_time = self._work / self._computed


def idlest(replicas: Sequence[Replica], values: Mapping[str, Values], count: int) -> list[str]:
    """The ids of ``count`` ready replicas with the least inside, then the least to do, then the youngest."""

    def busy(replica: Replica) -> tuple[float, float, float, str]:
        seen = values.get(replica.id, {})
        inside = seen.get("replica_in_flight_count", 0.0)
        return inside, seen.get("replica_request_rate_per_second", 0.0), -(replica.started or replica.since), replica.id

    return [r.id for r in sorted((r for r in replicas if r.state == "ready"), key=busy)[: max(0, count)]]
