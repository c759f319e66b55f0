"""Set the scene of an incident: what the telemetry says of before and after its onset."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from math import isfinite
from statistics import fmean, median

import msgspec

from leptonai.ops.diagnosis.readings import Stretch, read_signal
from leptonai.ops.diagnosis.rules import SignalFeature
from leptonai.ops.edge import HELD, REFUSED, STALE
from leptonai.ops.levels import read_levels
from leptonai.ops.load import load_of
from leptonai.ops.lookout import Lookout
from leptonai.ops.scene import Former, Scene, Users
from leptonai.ops.warned import concerning
from leptonai.protocols import TelemetryStore
from leptonai.types import Key, Series

BEFORE = 60.0  # seconds of the time before the onset that are compared with
CALM = 5.0  # seconds that a time without trouble must last at least, to be compared with ...
BACK = 600.0  # ... and before the onset that it may lie at most
BURST = 5.0  # seconds over which requests are counted at least: what stood still for one comes in the next
GAP = 1.0  # seconds just before the onset that belong to neither side: an onset is an estimate
FRESH = 10.0  # seconds a reading of memory stands for now
NOW = 1e-3  # the stretch of a read is half open


def set_scene(
    lookout: Lookout,
    unanswered: dict[str, float],
    onset: float,
    now: float,
    store: TelemetryStore,
    explained: Collection[str] = (),
    gateway: str = "",
    signals: Mapping[str, SignalFeature] | None = None,
    cores: float | None = None,
    troubled: Iterable[Stretch] = (),
) -> Scene:
    """Everything diagnosis may use about the service of ``lookout``, for a trouble that began at ``onset``.

    ``explained``: replicas whose end another incident tells of; it explains nothing else. ``gateway``: why its
    newest configuration is not in force. ``signals``: the features that the rules in force make of signals.
    ``cores``: processors of the machine; those of this one unless given. ``troubled``: when other incidents of the
    service were open; what it was like then is not what it is like when all is well.
    """
    key = lookout.service.key
    before, since = calm_before(onset, troubled), (onset - NOW, now + NOW)
    compute = store.read("replica_compute_seconds", onset - 600.0, now + NOW, {"service": key})
    errors = store.read("replica_error_ratio", onset - 600.0, now + NOW, {"service": key})
    busy, was = store.read("host_cpu_ratio", *since), store.read("host_cpu_ratio", *before)
    return Scene(
        service=lookout.service,
        revisions=lookout.revisions,
        replicas=lookout.replicas,
        exits=tuple(e for e in lookout.exits.values() if e.at >= onset - 5.0 and e.replica not in explained),
        triggers=lookout.last.triggers,
        onset=onset,
        now=now,
        before=_users(store, key, *before),
        after=msgspec.structs.replace(_users(store, key, *since), rate=_rate(store, key, *since)),
        load=load_of(store, lookout.service, lookout.replicas, now),
        unanswered=unanswered,
        leaks=lookout.last.leaks,
        tested=lookout.tested,
        wrong=lookout.last.wrong,
        compute={d: median(v) for d, v in _by_digest(compute).items()},
        errors={d: fmean(v) for d, v in _by_digest(errors).items()},
        former=_former(compute, errors, (onset - BEFORE, onset - GAP)),
        own_compute=_own(compute, before, since),
        host_cpu=_mean(v for s in busy for v in s.value),
        host_cpu_before=_mean(v for s in was for v in s.value),
        own_cpu=_own_cpu(store, key, before, since, cores),
        edge={name: top for name in (HELD, STALE, REFUSED) if (top := _top(store, name, key, *since)) > 0.0},
        gateway=gateway,
        memory=_memory(lookout, store, now),
        neighbour=_neighbour(store, key, before, since, cores),
        readings=tuple(
            reading
            for name, made in (signals or {}).items()
            for reading in read_signal(name, made, store, key, before, since)
        ),
        levels=read_levels(store, key, before, since),
        warned=concerning(lookout.warned, onset),
    )


def calm_before(onset: float, troubled: Iterable[Stretch]) -> Stretch:
    """The newest minute before the onset in which nothing else was the matter, or what there is of it.

    A stretch between troubles that is shorter than CALM says little, and one that is older than BACK is out of date:
    where there is no other, it is the minute before the onset, whatever that was like.
    """
    newest = end = onset - GAP
    for began, ended in sorted(troubled, key=lambda stretch: stretch[1], reverse=True):
        if end - ended >= CALM:
            return max(ended, end - BEFORE), end
        end = min(end, began)
        if end <= onset - BACK:
            return newest - BEFORE, newest
    return end - BEFORE, end


def _memory(lookout: Lookout, store: TelemetryStore, now: float) -> dict[str, float]:
    """Newest memory of each replica as a share of its variant's limit; of those that have one."""
    limit = {v.digest: v.resources.memory for v in lookout.service.spec.variants if v.resources.memory}
    out: dict[str, float] = {}
    if limit:
        here = {r.id: r.digest for r in lookout.replicas if r.state == "ready"}
        series = store.read("replica_rss_bytes", now - FRESH, now + NOW, {"service": lookout.service.key})
        for one in series:
            seen = [v for v in one.value if isfinite(v)]
            most = limit.get(here.get(one.labels.get("replica", ""), ""))
            if seen and most:
                out[one.labels["replica"]] = seen[-1] / most
    return out


def _neighbour(
    store: TelemetryStore,
    key: Key,
    before: tuple[float, float],
    since: tuple[float, float],
    cores: float | None = None,
) -> tuple[str, float] | None:
    """The other service whose replicas took most more of the processors since the onset than before it."""
    cores = cores or os.cpu_count() or 1
    sides = [_busy_share(store, key, *before, cores), _busy_share(store, key, *since, cores)]
    if not sides[1]:
        return None
    return max(((s, share - sides[0].get(s, 0.0)) for s, share in sides[1].items()), key=lambda found: found[1])


def _own_cpu(
    store: TelemetryStore, key: Key, before: Stretch, since: Stretch, cores: float | None
) -> tuple[float, float] | None:
    """The share of the processors that all replicas of the service took together: (before, since)."""
    sides = []
    for stretch in (before, since):
        taken: dict[float, float] = {}  # replicas come and go: their sum at each moment
        for series in store.read("replica_cpu_ratio", *stretch, {"service": key}):
            for at, value in zip(series.at, series.value, strict=True):
                taken[at] = taken.get(at, 0.0) + (value if isfinite(value) else 0.0)
        if not taken:
            return None
        sides.append(fmean(taken.values()) / (cores or os.cpu_count() or 1))
    return sides[0], sides[1]


def _busy_share(store: TelemetryStore, key: Key, start: float, end: float, cores: float) -> dict[str, float]:
    """Other service -> mean share of the machine's processors that its replicas used together."""
    used: dict[str, float] = {}
    for series in store.read("replica_cpu_ratio", start, end):
        if (other := series.labels.get("service", key)) != key and (mean := _mean(series.value)) is not None:
            used[other] = used.get(other, 0.0) + mean / cores
    return used


def _rate(store: TelemetryStore, key: Key, start: float, end: float) -> float | None:
    """Requests a second since ``start``: the median of the seconds, over the first BURST of them their mean with those
    just before. Answers are counted: a second in which nothing was answered is made up for in the next, and an onset
    may lie between the two."""
    if end - start >= BURST:
        return _median(_seen(store, "request_rate_per_second", key, start, end))
    return _mean(_seen(store, "request_rate_per_second", key, end - BURST, end))


def _users(store: TelemetryStore, key: Key, start: float, end: float) -> Users:
    def seen(name: str) -> list[float]:
        return _seen(store, name, key, start, end)

    return Users(
        rate=_median(_since_asked(seen("request_rate_per_second"))),
        error=_mean(seen("error_ratio")),
        slow=_mean(seen("slow_ratio")),
        p50=_median(seen("latency_p50_seconds")),
        p99=_median(seen("latency_p99_seconds")),
    )


def _seen(store: TelemetryStore, name: str, key: Key, start: float, end: float) -> list[float]:
    return [v for s in store.read(name, start, end, {"service": key}) for v in s.value if isfinite(v)]


def _since_asked(rates: list[float]) -> list[float]:
    """Without the time before the first request: a service that was just deployed was not asked for less."""
    first = next((i for i, rate in enumerate(rates) if rate > 0.0), 0)
    return rates[first:]


def _top(store: TelemetryStore, name: str, key: Key, start: float, end: float) -> float:
    return max(_seen(store, name, key, start, end), default=0.0)


def _by_digest(series: Iterable[Series]) -> dict[str, list[float]]:
    """Digest -> values of the newest minute of its life, over all its replicas."""
    points: dict[str, list[tuple[float, float]]] = {}
    for one in series:
        points.setdefault(one.labels.get("digest", ""), []).extend(zip(one.at, one.value, strict=True))
    newest = {digest: max(at for at, _ in found) for digest, found in points.items()}
    return {d: [v for at, v in found if at > newest[d] - BEFORE and isfinite(v)] for d, found in points.items()}


def _own(series: list[Series], before: tuple[float, float], since: tuple[float, float]) -> tuple[float, float] | None:
    """Compute of the digest that answered most before the onset: (median before, median since)."""
    sides: dict[str, tuple[list[float], list[float]]] = {}
    for one in series:
        early, late = sides.setdefault(one.labels.get("digest", ""), ([], []))
        early += [v for at, v in zip(one.at, one.value, strict=True) if before[0] <= at < before[1]]
        late += [v for at, v in zip(one.at, one.value, strict=True) if since[0] <= at < since[1]]
    usable = [(early, late) for early, late in sides.values() if early and late]
    if not usable:
        return None
    early, late = max(usable, key=lambda side: len(side[0]))
    return median(early), median(late)


def _former(compute: list[Series], errors: list[Series], before: tuple[float, float]) -> dict[str, Former]:
    """By digest: how long it had answered when ``before`` ended, and how well during ``before``."""
    first: dict[str, float] = {}
    sides: dict[str, tuple[list[float], list[float]]] = {}
    for side, series in enumerate((compute, errors)):
        for one in series:
            digest = one.labels.get("digest", "")
            for at, value in zip(one.at, one.value, strict=True):
                if at < before[1] and isfinite(value):
                    first[digest] = min(at, first.get(digest, at))
                    if at >= before[0]:
                        sides.setdefault(digest, ([], []))[side].append(value)
    return {
        digest: Former(seconds=before[1] - first[digest], compute=_median(seconds), error=_mean(failed))
        for digest, (seconds, failed) in sides.items()
    }


def _median(values: list[float]) -> float | None:
    return median(values) if values else None


def _mean(values: Iterable[float]) -> float | None:
    found = [v for v in values if isfinite(v)]
    return fmean(found) if found else None
