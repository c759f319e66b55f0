"""An incident in numbers, for classifiers and for finding its like: what moved, by how much, against what. Pure.

No feature names a service, a replica or a revision, and none says how a trouble came about: shifts are relative to the
service's own past, to the siblings of a replica or to the version before. A number that was not seen is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite, log2, log10

from leptonai.ops.edge import HELD, REFUSED
from leptonai.ops.evidence import Facts
from leptonai.ops.scene import Level, Scene, latest_change
from leptonai.ops.world import wished_replicas
from leptonai.types import Incident

# name -> what it says. Shifts are log2 of since / before, -6..6; rises are since - before; shares are 0..1.
FEATURES: Mapping[str, str] = {
    # what users see
    "rate_shift": "requests a second",
    "p50_shift": "median latency",
    "p99_shift": "99th percentile of latency",
    "error_share": "share of answers that are errors",
    "error_rise": "the same, rise",
    "slow_share": "share of answers later than promised",
    "slow_rise": "the same, rise",
    "client_error_rise": "share of answers that blame the request, rise",
    "retry_share": "repeated attempts by the gateway, per answer",
    "retry_rise": "the same, rise",
    # the newest change of what runs
    "change_recent": "1: made at most ten minutes before the onset",
    "change_age": "log10 of its age in seconds at the onset",
    "change_verified": "1: it had proved itself before the onset",
    "change_compute": "its compute against that of the version before, log2",
    "change_errors": "its share of errors less that of the version before",
    "own_compute_shift": "compute of the version that served before",
    "former_compute": "its compute before the onset against that of the version before, log2",
    "former_errors": "its share of errors before the onset",
    "failed_starts": "its replicas that ended by themselves, log2(1 + n)",
    "load_failures": "... that could not load it, log2(1 + n)",
    # labels
    "label_error_share": "share of labelled answers that are wrong, of what runs",
    "labels_convict": "1: beyond chance and what is tolerable",
    # the replicas
    "lost_share": "replicas that ended unasked, per replica wished for",
    "killed_share": "of those, ended by SIGKILL",
    "out_of_memory_share": "of those, for want of memory",
    "crashes": "most crashes in a row, log2(1 + n)",
    "ready_missing": "share of the replicas wished for that are not ready",
    "starting_share": "share of those present that are starting",
    "silent_share": "share of those present that do not answer us",
    "silent_seconds": "log2(1 + the longest silence)",
    "leaking_share": "share of those present whose memory leaks",
    "leak_rate": "log2(1 + megabytes a second of the fastest)",
    "rss_shift": "memory",
    "rss_apart": "one replica's memory against its siblings, relative",
    "cpu_rise": "processors used by a replica, rise",
    "cpu_apart": "one replica's against its siblings",
    "cpu_times": "the same, log2 of the ratio",
    "compute_shift": "seconds of compute of a request",
    "compute_apart": "one replica's against its siblings, relative",
    "compute_times": "the same, log2 of the ratio",
    "queue_shift": "seconds in the queue",
    "queue_share": "of the time in queue and compute, the queue's",
    "in_flight_shift": "requests in flight",
    "in_flight_apart": "one replica's against its siblings, relative",
    "load_shift": "requests a second of a replica",
    "asked_times": "one replica's against its siblings, log2 of the ratio",
    "replica_error_rise": "share of a replica's answers that are errors, rise",
    "replica_error_apart": "one replica's against its siblings",
    "nan_share": "share of answers with NaN",
    "model_fails": "share of a replica's requests on which the model itself raises",
    "unwritten": "log2(1 + lines a second that a replica cannot write to its disk)",
    # what comes in and goes out
    "poisoned_share": "share of failed requests that failed on two replicas or more",
    "poisoned_requests": "share of all requests that failed on two replicas or more",
    "repeated_share": "share of the good answers that were given before, to somebody who did not wait",
    "output_shift": "newest answers against those before, Kolmogorov-Smirnov",
    "input_shift": "the same of inputs, where they are sent",
    # what it calls
    "dependency_errors": "share of calls to the worst dependency that fail",
    "dependency_denied": "share refused for certificate or token",
    "dependency_shift": "seconds of a call, log2",
    "dependency_delay": "log10(1 + milliseconds more of a call)",
    "credential_left": "log10(1 + seconds) until a certificate or token ends, at most 8",
    # the machine
    "host_cpu": "share of its processors that is busy",
    "host_cpu_rise": "the same, rise",
    "neighbour_rise": "share of its processors that another service takes, rise",
    "host_memory_rise": "share of its memory in use, rise",
    "disk_used": "share of the fullest disk",
    "disk_rise": "the same, rise",
    "inodes_used": "share of inodes of the worst disk",
    "gpu_xids": "log2(1 + Xid errors since the onset)",
    "gpu_ecc_errors": "log2(1 + uncorrected memory errors)",
    "gpu_hot": "share of time a GPU was held back by heat",
    "gpu_celsius": "hottest GPU, degrees / 100",
    "gpu_gone": "share of time a GPU did not answer its driver",
    "gpu_busy_rise": "share of time a GPU computes, rise",
    # its log
    "log_new_errors": "kinds of error lines never seen before",
    "log_new": "kinds of other lines never seen before",
    "log_more": "kinds of lines that became more frequent",
    "log_silent": "kinds of lines that stopped",
    # who says so
    "by_errors": "1: the budget of errors burns",
    "by_latency": "1: the budget of slow answers burns",
    "by_anomalies": "share of golden signals that are anomalous",
    "by_absence": "1: nothing is heard of it",
    "by_condition": "1: a condition that a rule file declares holds",
    "edge_held": "log2(1 + requests held at once while none was ready)",
    "edge_refused": "1: requests were refused because nobody could take them",
}
LIMIT = 6.0  # of a log2 shift: 64-fold says as much as more
ERROR = 17  # severity from which a line is an error (OpenTelemetry)
NEVER = 8.0  # log10 of seconds: three years

# Taken over from the facts as they are, of the service or the largest of its replicas and revisions.
_AS_TOLD = {
    "label_error_share": "label_error_share",
    "starting_share": "starting_share",
    "leaking_share": "leaking_share",
    "nan_share": "nan_share",
    "poisoned_share": "poisoned_share",
    "poisoned_requests": "poisoned_requests",
    "repeated_share": "repeated_share",
    "model_fails": "model_fails",
    "change_verified": "change_verified",
    "former_errors": "former_error_share",
    "output_shift": "output_shift",
    "input_shift": "input_shift",
    "dependency_errors": "dependency_errors",
    "dependency_denied": "dependency_denied",
    "retry_share": "retry_share",
    "retry_rise": "retry_rise",
    "neighbour_rise": "neighbour_cpu_rise",
    "disk_used": "disk_used",
    "inodes_used": "inodes_used",
    "gpu_hot": "gpu_hot",
    "gpu_gone": "gpu_gone",
    "change_errors": "error_excess",
}
_COUNTS = {
    "failed_starts": "failed_starts",
    "load_failures": "load_failures",
    "crashes": "crashes",
    "silent_seconds": "unanswered_seconds",
    "unwritten": "unwritten",
    "gpu_xids": "gpu_xids",
    "gpu_ecc_errors": "gpu_ecc_errors",
}
_RATIOS = {
    "change_compute": "compute_ratio",
    "own_compute_shift": "own_compute_ratio",
    "former_compute": "former_compute_ratio",
    "cpu_times": "cpu_times",
    "compute_times": "compute_times",
    "asked_times": "asked_times",
    "dependency_shift": "dependency_slowdown",
}
# Numbers that incidents of before do not carry: their evidence tells of them where they mattered.
_LATER = frozenset(
    ("change_verified", "former_compute", "former_errors", "cpu_times", "compute_times", "asked_times", "model_fails",
     "unwritten", "poisoned_requests", "repeated_share")
)  # fmt: skip


def features(scene: Scene, facts: Facts) -> dict[str, float]:
    """The numbers of FEATURES that could be told, in its order, each finite."""
    return _ordered({**dict(_of_facts(_told(facts))), **dict(_of_scene(scene))})


def completed(incident: Incident) -> dict[str, float]:
    """The numbers that were kept with it, and of those that nobody knew then what its evidence tells: of the newest
    diagnosis the facts that mattered."""
    told: dict[str, float] = {}
    for fact in incident.evidence:
        for name, value in fact.data.items():
            if isinstance(value, bool | int | float):
                told[name] = max(float(value), told.get(name, float("-inf")))
    found = {name: value for name, value in _of_facts(told) if name in _LATER}
    if any(e.kind == "condition" for e in incident.evidence):
        found["by_condition"] = 1.0
    return _ordered({**found, **incident.features})


def _ordered(found: Mapping[str, float]) -> dict[str, float]:
    return {name: round(found[name], 6) for name in FEATURES if name in found and isfinite(found[name])}


def _told(facts: Facts) -> dict[str, float]:
    """Feature of a fact -> its largest value over all it was told of."""
    out: dict[str, float] = {}
    for own in facts.features.values():
        for name, told in own.items():
            out[name] = max(float(told.value), out.get(name, float("-inf")))
    return out


def _of_facts(told: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    yield from ((name, told[fact]) for name, fact in _AS_TOLD.items() if fact in told)
    yield from ((name, _count(told[fact])) for name, fact in _COUNTS.items() if fact in told)
    yield from ((name, _log(told[fact])) for name, fact in _RATIOS.items() if fact in told)
    yield "labels_convict", told.get("convicted_answers", 0.0)
    yield "leak_rate", _count(told.get("rss_slope_bytes_per_second", 0.0) / 1e6)
    if "dependency_delay" in told:
        yield "dependency_delay", log10(1.0 + max(told["dependency_delay"], 0.0) * 1e3)
    if "gpu_celsius" in told:
        yield "gpu_celsius", told["gpu_celsius"] / 100.0
    if "credential_left" in told:
        yield "credential_left", min(log10(1.0 + max(told["credential_left"], 0.0)), NEVER)


def _of_scene(scene: Scene) -> Iterator[tuple[str, float]]:
    yield from _users(scene)
    yield from _change(scene)
    yield from _replicas(scene)
    yield from _moved(scene.levels)
    yield from _log_lines(scene)
    yield from _triggers(scene)


def _users(scene: Scene) -> Iterator[tuple[str, float]]:
    before, after = scene.before, scene.after
    for name, was, now in (("rate_shift", before.rate, after.rate), ("p50_shift", before.p50, after.p50)):
        if was is not None and now is not None:
            yield name, _shift(was, now)
    for share, rise, was, now in (
        ("error_share", "error_rise", before.error, after.error),
        ("slow_share", "slow_rise", before.slow, after.slow),
    ):
        if now is not None:
            yield share, now
            yield rise, now - (was or 0.0)


def _change(scene: Scene) -> Iterator[tuple[str, float]]:
    change = latest_change(scene.revisions)
    if change is None:
        return
    age = scene.onset - change.revision.at
    yield "change_recent", float(change.previous is not None and -10.0 <= age <= 600.0)
    yield "change_age", log10(1.0 + max(age, 0.0))


def _replicas(scene: Scene) -> Iterator[tuple[str, float]]:
    wished = max(wished_replicas(scene.service), 1)
    lost = len(scene.exits)
    yield "lost_share", min(lost / wished, 4.0)
    if lost:
        yield "killed_share", sum(e.killed for e in scene.exits) / lost
        yield "out_of_memory_share", sum(e.out_of_memory for e in scene.exits) / lost
    ready = sum(r.state == "ready" for r in scene.replicas)
    yield "ready_missing", max(wished - ready, 0) / wished
    present = [r for r in scene.replicas if not r.gone and r.state != "stopping"]
    if present:
        silent = [r for r in present if scene.unanswered.get(r.id, 0.0) > 0.0 or r.reason == "hung"]
        yield "silent_share", len(silent) / len(present)


def _moved(levels: Mapping[str, Level]) -> Iterator[tuple[str, float]]:
    for name, signal in (
        ("p99_shift", "latency_p99_seconds"),
        ("rss_shift", "replica_rss_bytes"),
        ("compute_shift", "replica_compute_seconds"),
        ("queue_shift", "replica_queue_seconds"),
        ("in_flight_shift", "replica_in_flight_count"),
        ("load_shift", "replica_request_rate_per_second"),
    ):
        level = levels.get(signal)
        if level is not None and level.before is not None:
            yield name, _shift(level.before, level.since)
    for name, signal in (
        ("client_error_rise", "client_error_ratio"),
        ("cpu_rise", "replica_cpu_ratio"),
        ("replica_error_rise", "replica_error_ratio"),
        ("host_cpu_rise", "host_cpu_ratio"),
        ("host_memory_rise", "host_memory_used_ratio"),
        ("disk_rise", "host_disk_used_ratio"),
        ("gpu_busy_rise", "gpu_busy_ratio"),
    ):
        level = levels.get(signal)
        if level is not None and level.before is not None:
            yield name, level.since - level.before
    for name, signal in (
        ("rss_apart", "replica_rss_bytes"),
        ("compute_apart", "replica_compute_seconds"),
        ("in_flight_apart", "replica_in_flight_count"),
    ):
        if (level := levels.get(signal)) is not None and level.since > 0:
            yield name, max(-LIMIT, min(level.apart / level.since, LIMIT))
    for name, signal in (("cpu_apart", "replica_cpu_ratio"), ("replica_error_apart", "replica_error_ratio")):
        if (level := levels.get(signal)) is not None:
            yield name, level.apart
    if (level := levels.get("host_cpu_ratio")) is not None:
        yield "host_cpu", level.since
    queue, compute = levels.get("replica_queue_seconds"), levels.get("replica_compute_seconds")
    if queue is not None and compute is not None and queue.since + compute.since > 0:
        yield "queue_share", queue.since / (queue.since + compute.since)


def _log_lines(scene: Scene) -> Iterator[tuple[str, float]]:
    new = [s for s in scene.logs if s.kind == "new"]
    yield "log_new_errors", float(sum(s.severity >= ERROR for s in new))
    yield "log_new", float(sum(s.severity < ERROR for s in new))
    for kind in ("more", "silent"):
        yield f"log_{kind}", float(sum(s.kind == kind for s in scene.logs))


def _triggers(scene: Scene) -> Iterator[tuple[str, float]]:
    kinds = {t.kind for t in scene.triggers}
    yield "by_errors", float("burn_errors" in kinds)
    yield "by_latency", float("burn_latency" in kinds)
    yield "by_absence", float("service_absent" in kinds)
    yield "by_condition", float("declared" in kinds)
    yield (
        "by_anomalies",
        max((float(t.terms.get("share", 0)) for t in scene.triggers if t.kind == "anomaly_rate"), default=0.0),
    )
    yield "edge_held", _count(scene.edge.get(HELD, 0.0))
    yield "edge_refused", float(scene.edge.get(REFUSED, 0.0) > 0.0)


def _count(n: float) -> float:
    return log2(1.0 + max(n, 0.0))


def _log(ratio: float) -> float:
    return max(-LIMIT, min(log2(ratio), LIMIT)) if ratio > 0 else -LIMIT


def _shift(before: float, since: float) -> float:
    if before <= 0 and since <= 0:
        return 0.0
    return LIMIT if before <= 0 else _log(since / before)
