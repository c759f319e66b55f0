"""Telemetry, once per period: replicas over their sockets, what users see from the gateway, the host."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Hashable, Sequence
from math import inf

from leptonai.errors import TelemetryError
from leptonai.ops import gpu
from leptonai.ops.counters import Counters, buckets
from leptonai.ops.exposition import parse
from leptonai.ops.gpu import Gpus, Nvml
from leptonai.ops.host import Host
from leptonai.ops.http import Gone, Peer, Unanswered
from leptonai.ops.world import wished_replicas
from leptonai.plan import cluster_name
from leptonai.plan.lanes import lanes
from leptonai.platforms.local.process import Starved
from leptonai.series.histogram import quantile, share_above
from leptonai.types import Key, Noun, Replica, Service, Signal

# Only clusters of services (their names carry "@"), and of those only what becomes a signal.
GATEWAY_PAGE = (
    "/stats/prometheus?usedonly&filter=%5Ecluster%5C.%5B%5E%40%5D%2B%40%5B%5E.%5D%2B%5C.upstream_rq_"
    "(%5B2345%5Dxx%7Ctime%7Cretry)%24"
)
_REPLICA_GAUGES = {
    "process_resident_memory_bytes": "replica_rss_bytes",
    "leptonai_in_flight": "replica_in_flight_count",
    "leptonai_queued": "replica_queued_count",
}
_KINDS = frozenset({"nan_output", "model_failed", "quarantined"})  # of leptonai_errors_total
_PROCESSOR = ("process_cpu_seconds_total", "process_cpu_wait_seconds_total")  # had, and waited for
FEWEST_RUN = 0.02  # of the time that a replica wants to run, until the share of it in which it waits says anything
_REPLICA_MEANS = {
    "leptonai_compute_seconds": "replica_compute_seconds",
    "leptonai_queue_seconds": "replica_queue_seconds",
}


class Traffic(Noun, frozen=True, kw_only=True):
    """What the gateway answered for one service in one interval. ``slow``: above ``slo.latency``."""

    requests: float = 0.0
    errors: float = 0.0
    slow: float = 0.0
    retried: float = 0.0


class Collected(Noun, frozen=True, kw_only=True):
    """One collection. ``unanswered``: replica id -> seconds from the last question it answered to this one, for those
    that hold their socket open and stay silent; a replica whose process is gone is not among them."""

    at: float
    seconds: float  # since the collection before; 0 at the first
    signals: list[Signal] = []
    traffic: dict[Key, Traffic] = {}
    lanes: dict[Key, dict[str, tuple[int, int]]] = {}  # of rollouts, by lane: final answers at the gateway, 5xx of them
    unanswered: dict[str, float] = {}
    answered: dict[str, float] = {}  # replica id -> requests it answered since the collection before
    gateway: bool = False  # the gateway answered
    resting: frozenset[Key] = frozenset()  # at zero for a while, and nobody asks: no signals, since all would be 0


class _Target:
    def __init__(self, address: str) -> None:
        self.peer = Peer(address)
        self.counters = Counters()
        self.answered: float | None = None  # when the last question that got an answer was asked
        self.asked: float | None = None  # the same, kept over silence: what rates are taken over
        self.missed = 0  # questions in a row without an answer
        self.starved: list[Starved] = []  # of the process and of ours, since the first of those


class Collector:
    """Remembers the last counters of every process it reads. ``timeout``: seconds one page may take.

    ``folder``: whose disk is watched whatever it is called. ``gpus``: NVML's unless given.
    """

    def __init__(self, timeout: float, folder: str = "/", gpus: Gpus | None = None) -> None:
        self._timeout = timeout
        self._targets: dict[str, _Target] = {}
        self._gateways: dict[str, _Target] = {}
        self._host = Host(folder=folder)
        self._gpus = gpus or Nvml()
        self._last: float | None = None
        self._at_zero: frozenset[Key] = frozenset()  # as last seen; their zeros have been told

    async def collect(
        self, services: Sequence[Service], replicas: Sequence[Replica], gateways: Sequence[str], now: float
    ) -> Collected:
        """Everything seen at ``now``. A process that does not answer costs at most ``timeout`` and is left out.

        ``gateways``: where each of them is asked; what users saw is what all of them answered.
        """
        seconds = now - self._last if self._last is not None else 0.0
        self._last = now
        live = [r for r in replicas if r.address and r.state in ("ready", "failed", "starting") and not r.gone]
        self._forget({r.id: r.address for r in live})
        at_zero = frozenset(s.key for s in services if not wished_replicas(s)) - {r.service for r in replicas}
        told, self._at_zero = self._at_zero & at_zero, at_zero
        pages, (users, traffic, asked, versions) = await asyncio.gather(
            asyncio.gather(*(self._page(r, now) for r in live)), self._users(services, told, gateways, now)
        )
        resting = told - asked
        signals: list[Signal] = []
        answered = {}
        for replica, found in zip(live, pages, strict=True):
            signals += found
            rates = [s.value for s in found if s.name == "replica_request_rate_per_second"]
            if rates:
                answered[replica.id] = rates[0] * seconds
        signals += users
        signals += self._ready([s for s in services if s.key not in resting], replicas, now)
        signals += self._host.read(now)
        signals += gpu.signals(self._gpus.read(), now)
        return Collected(
            at=now,
            seconds=seconds,
            signals=signals,
            traffic=traffic or {},
            lanes=versions,
            unanswered=self._unanswered(live, now),
            answered=answered,
            gateway=traffic is not None,
            resting=resting,
        )

    def close(self) -> None:
        self._forget({})
        for target in self._gateways.values():
            target.peer.close()

    def _forget(self, addresses: dict[str, str]) -> None:
        for id in [i for i, t in self._targets.items() if addresses.get(i) != t.peer.address]:
            self._targets.pop(id).peer.close()

    async def _page(self, replica: Replica, now: float) -> list[Signal]:
        target = self._targets.get(replica.id)
        if target is None:
            target = self._targets[replica.id] = _Target(replica.address)
        try:
            body = await target.peer.get("/metrics", self._timeout)
        except Gone:
            target.answered = None  # nobody is there to be hung
            return []
        except Unanswered:
            target.missed += 1
            if not target.starved and replica.pid is not None:
                target.starved = [Starved(replica.pid), Starved(os.getpid())]
            return []
        except TelemetryError:
            target.answered, target.missed, target.starved = now, 0, []
            return []
        elapsed = now - target.asked if target.asked is not None else 0.0
        target.answered = target.asked = now
        target.missed, target.starved = 0, []
        labels = {"service": replica.service, "replica": replica.id, "digest": replica.digest}
        return [
            Signal(name=name, labels=labels, at=now, value=value)
            for name, value in _replica(body.decode("utf-8", "replace"), target.counters, elapsed).items()
        ]

    def _unanswered(self, live: Sequence[Replica], now: float) -> dict[str, float]:
        """Two misses in a row at least: one late answer, or a gap in our own clock, is no silence. Seconds in which
        the process or we had no processor to run on are none either."""
        return {
            replica.id: now - target.answered - max((s.seconds() for s in target.starved), default=0.0)
            for replica in live
            if (target := self._targets[replica.id]).answered is not None and target.missed >= 2
        }

    async def _users(
        self, services: Sequence[Service], told: frozenset[Key], addresses: Sequence[str], now: float
    ) -> tuple[list[Signal], dict[Key, Traffic] | None, set[Key], dict[Key, dict[str, tuple[int, int]]]]:
        """What users saw, those of ``told`` that were asked (others of them are left out), and rollouts' lanes."""
        for gone in self._gateways.keys() - set(addresses):
            self._gateways.pop(gone).peer.close()
        for new in [a for a in addresses if a not in self._gateways]:
            self._gateways[new] = _Target(new)
        told_by = await asyncio.gather(*(self._counted(target, now) for target in self._gateways.values()))
        found = [one for one in told_by if one is not None]
        if not found:
            return [], None, set(), {}
        rose: dict[Hashable, float] = {}
        rates: dict[Hashable, float] = {}  # each over its own time: one that missed a look tells of both at the next
        for one, elapsed in found:
            for key, rise in one.items():
                rose[key] = rose.get(key, 0.0) + rise
                if elapsed > 0:
                    rates[key] = rates.get(key, 0.0) + rise / elapsed
        moved = {str(k[1]).partition("@")[0] for k, rise in rose.items() if isinstance(k, tuple) and rise > 0}
        asked = {key for key in told if key.replace("/", ".") in moved}
        compared = any(elapsed > 0 for _, elapsed in found)
        shown = [s for s in services if s.key not in told or s.key in asked] if compared else []
        signals, traffic = _users(shown, rose, rates, now)
        return signals, traffic, asked, _versions(services, rose)

    async def _counted(self, target: _Target, now: float) -> tuple[dict[Hashable, float], float] | None:
        """What the counters of one gateway rose by, and in how many seconds (0 at the first look)."""
        try:
            body = await target.peer.get(GATEWAY_PAGE, self._timeout)
        except TelemetryError:
            return None
        elapsed = now - target.asked if target.asked is not None else 0.0
        target.asked = now
        return target.counters.rise(_gateway_counters(body.decode("utf-8", "replace"))), elapsed

    def _ready(self, services: Sequence[Service], replicas: Sequence[Replica], now: float) -> list[Signal]:
        states = {s.key: Counter[str]() for s in services}
        for replica in replicas:
            if replica.service in states:
                states[replica.service][replica.state] += 1
        return [
            Signal(name=f"{state}_count", labels={"service": key}, at=now, value=float(count[state]))
            for key, count in states.items()
            for state in ("ready", "starting")
        ]


def _replica(page: str, counters: Counters, elapsed: float) -> dict[str, float]:
    """The signals of one replica's page. Means over the interval are left out when nothing was observed in it."""
    out: dict[str, float] = {}
    shown: dict[Hashable, float] = {}
    for name, labels, value in parse(page):
        if name in _REPLICA_GAUGES:
            out[_REPLICA_GAUGES[name]] = value
        elif name == "leptonai_errors_total" and labels.get("kind") in _KINDS:
            shown[labels["kind"]] = value
        elif name == "leptonai_prediction_log_dropped_total":
            shown["unwritten"] = value
        elif name == "leptonai_requests_total":
            shown[name, labels.get("code", "")] = value
        elif name in _PROCESSOR or name.endswith(("_seconds_sum", "_seconds_count", "_batch_size_count")):
            shown[name] = value
    rose = counters.rise(shown.items())
    if rose and elapsed > 0:
        ran, waited = (rose.get(name, 0.0) for name in _PROCESSOR)
        out["replica_cpu_ratio"] = ran / elapsed
        if _PROCESSOR[1] in rose and ran + waited >= FEWEST_RUN * elapsed:
            out["replica_cpu_wait_ratio"] = waited / (ran + waited)
        answered = sum(v for k, v in rose.items() if isinstance(k, tuple))
        failed = sum(v for k, v in rose.items() if isinstance(k, tuple) and str(k[1]).startswith("5"))
        out["replica_request_rate_per_second"] = answered / elapsed
        if answered > 0:
            out["replica_error_ratio"] = failed / answered
            if "model_failed" in rose:
                out["replica_model_failed_ratio"] = min(rose["model_failed"] / answered, 1.0)
            if "nan_output" in rose:
                out["replica_nan_ratio"] = min(rose["nan_output"] / answered, 1.0)
            if shown.get("quarantined") and "quarantined" in rose:  # once there was any
                out["replica_quarantined_ratio"] = min(rose["quarantined"] / answered, 1.0)
        if "unwritten" in rose:
            out["replica_unwritten_per_second"] = rose["unwritten"] / elapsed
        out["replica_concurrency_count"] = rose.get("leptonai_request_seconds_sum", 0.0) / elapsed
        computed = rose.get("leptonai_compute_seconds_count", 0.0)
        if computed > 0:  # compute is told per request, also of those that shared a batch
            batches = min(rose.get("leptonai_batch_size_count", 0.0) or computed, computed)
            out["replica_service_seconds"] = rose.get("leptonai_compute_seconds_sum", 0.0) * batches / computed**2
        for histogram, signal in _REPLICA_MEANS.items():
            if (count := rose.get(f"{histogram}_count", 0.0)) > 0:
                out[signal] = rose.get(f"{histogram}_sum", 0.0) / count
    return out


def _gateway_counters(page: str) -> list[tuple[Hashable, float]]:
    found: list[tuple[Hashable, float]] = []
    for name, labels, value in parse(page):
        cluster = labels.get("envoy_cluster_name", "")
        if name == "envoy_cluster_upstream_rq_xx":
            found.append((("code", cluster, labels.get("envoy_response_code_class", "")), value))
        elif name == "envoy_cluster_upstream_rq_time_bucket":
            bound = labels.get("le", "+Inf")
            found.append((("time", cluster, inf if bound == "+Inf" else float(bound)), value))
        elif name == "envoy_cluster_upstream_rq_retry":
            found.append((("retry", cluster), value))
    return found


def _users(
    services: Sequence[Service], rose: dict[Hashable, float], rates: dict[Hashable, float], now: float
) -> tuple[list[Signal], dict[Key, Traffic]]:
    """What users saw of each service, all its variants together. Ratios and quantiles need at least one answer.

    ``rates``: what ``rose`` is a second.
    """
    signals: list[Signal] = []
    traffic: dict[Key, Traffic] = {}
    for service in services:
        asked = [
            lane for lane in lanes(service) if lane.share > 0 or lane.only is None
        ]  # copies are not users' requests
        clusters = [cluster_name(service.key, lane.name) for lane in asked]
        codes = {c: sum(rose.get(("code", cluster, c), 0.0) for cluster in clusters) for c in "2345"}
        total = sum(codes.values())
        merged: dict[float, float] = {}
        for cluster in clusters:
            for bound, count in buckets(rose, ("time", cluster), scale=1e-3):
                merged[bound] = merged.get(bound, 0.0) + count
        times = sorted(merged.items())
        rate = sum(rates.get(("code", cluster, c), 0.0) for cluster in clusters for c in codes)
        values = {"request_rate_per_second": rate}
        if total > 0:
            values["error_ratio"] = codes["5"] / total
            values["client_error_ratio"] = codes["4"] / total
            values["retry_ratio"] = sum(rose.get(("retry", cluster), 0.0) for cluster in clusters) / total
        slow = 0.0  # of those timed: Envoy's histogram is a reading behind its counters
        if times and times[-1][1] > 0:
            bounds, counts = zip(*times, strict=True)
            values["slow_ratio"] = float(share_above(service.spec.slo.latency, bounds, counts)[0])
            slow = values["slow_ratio"] * times[-1][1]
            values["latency_p50_seconds"] = float(quantile(0.5, bounds, counts)[0])
            values["latency_p99_seconds"] = float(quantile(0.99, bounds, counts)[0])
        labels = {"service": service.key}
        signals += [Signal(name=n, labels=labels, at=now, value=v) for n, v in values.items()]
        traffic[service.key] = Traffic(
            requests=total,
            errors=codes["5"],
            slow=slow,
            retried=sum(rose.get(("retry", cluster), 0.0) for cluster in clusters),
        )
    return signals, traffic


def _versions(services: Sequence[Service], rose: dict[Hashable, float]) -> dict[Key, dict[str, tuple[int, int]]]:
    """What Envoy answered in each lane of the rollouts, with what it answered itself: timeouts, lost connections.

    A request that was repeated counts once, as it ended: Envoy counts tries that it repeats elsewhere.
    """
    found: dict[Key, dict[str, tuple[int, int]]] = {}
    for service in services:
        if service.canary is None:
            continue
        for lane in lanes(service):
            codes = {c: rose.get(("code", cluster_name(service.key, lane.name), c), 0.0) for c in "2345"}
            found.setdefault(service.key, {})[lane.name] = (round(sum(codes.values())), round(codes["5"]))
    return found
