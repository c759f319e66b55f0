"""What ops sees of a second: signals by their names, what users got, replicas and how they ended, log lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from leptonai.ops.collect import Collected, Traffic
from leptonai.ops.exits import Exit
from leptonai.ops.simulate.flow import PROBED, Flow
from leptonai.types import (
    Dials,
    Replica,
    Resources,
    Revision,
    Scale,
    Service,
    Signal,
    Slo,
    Spec,
    State,
    Variant,
    VariantDials,
)

SILENT_AFTER = 2.0  # seconds: two questions without an answer
CELSIUS = 62.0


@lru_cache(maxsize=4096)
def _variant(model: int, memory: int) -> tuple[Variant, str]:
    found = Variant(model=f"sha256:{model:064x}", resources=Resources(memory=memory))
    return found, found.digest


def variant(flow: Flow, s: int, number: int) -> Variant:
    """What revision ``number`` of a service runs."""
    return _variant(flow.models[s][number], int(flow.system.limit[s]))[0]


def digest(flow: Flow, s: int, number: int) -> str:
    """Of what revision ``number`` of a service runs."""
    return _variant(flow.models[s][number], int(flow.system.limit[s]))[1]


def spec(flow: Flow, s: int, number: int) -> Spec:
    world = flow.system
    return Spec(
        name=world.names[s],
        variants=(variant(flow, s, number),),
        slo=Slo(latency=float(world.slo[s])),
        scale=Scale(replicas=int(world.replicas[s])),
        timeout=float(world.timeout[s]),
    )


def service(flow: Flow, s: int) -> Service:
    """The wish for it now."""
    number = int(flow.head[s])
    dials = Dials(variants={"main": VariantDials(replicas=int(flow.system.replicas[s]))})
    return Service(spec=spec(flow, s, number), dials=dials, revision=number)


def revisions(flow: Flow, s: int) -> tuple[Revision, ...]:
    return tuple(
        Revision(
            service=flow.system.names[s],
            number=made.number,
            by="human:ana",
            why=made.why,
            at=made.at,
            spec=spec(flow, s, made.number),
        )
        for made in flow.made
        if made.service == s
    )


def replicas(flow: Flow, s: int) -> list[Replica]:
    """As the platform tells: those that ended are failed until their successors start."""
    key, out = flow.system.names[s], []
    for r in range(int(flow.wanted[s])):
        if not flow.alive[s, r]:
            continue
        state: State = "ready" if flow.at >= flow.ready_at[s, r] else "starting"
        since = float(flow.ready_at[s, r]) if state == "ready" else float(flow.since[s, r])
        hangs = flow.at - float(flow.hung_at[s, r]) >= PROBED
        if hangs:
            state, since = "failed", float(flow.hung_at[s, r]) + PROBED
        out.append(
            Replica(
                id=flow.id(s, r),
                service=key,
                variant="main",
                digest=digest(flow, s, int(flow.runs[s, r])),
                epoch=int(flow.of_epoch[s, r]),
                state=state,
                reason="hung" if hangs else "",
                since=since,
                attempt=int(flow.attempt[s, r]),
            )
        )
    return out


def exits(flow: Flow) -> Iterator[tuple[int, Exit]]:
    """(service, how one of its replicas ended) of this second."""
    for e in flow.ended:
        code = int(e.detail.split("exit code ")[1].split(":")[0]) if "exit code" in e.detail else None
        number = 9 if "SIGKILL" in e.detail or e.reason == "oom" else 11 if "SIGSEGV" in e.detail else None
        yield e.service, Exit(
            replica=e.replica, digest=digest(flow, e.service, e.revision), at=flow.at, signal=number, code=code,
            reason=e.reason, detail=e.detail, attempt=e.attempt,
        )  # fmt: skip


def unanswered(flow: Flow, s: int) -> dict[str, float]:
    out = {}
    for r in np.flatnonzero(np.isfinite(flow.hung_at[s])).tolist():
        seconds = flow.at - float(flow.hung_at[s, r])
        if flow.alive[s, r] and seconds >= SILENT_AFTER:
            out[flow.id(s, r)] = seconds
    return out


def of_users(flow: Flow, s: int) -> list[Signal]:
    """What the gateway saw; ratios and quantiles need at least one answer."""
    key, n = {"service": flow.system.names[s]}, float(flow.answered[s])
    values = {
        "request_rate_per_second": n, "ready_count": float(flow.ready[s].sum()),
        "starting_count": float((flow.alive[s] & (flow.at < flow.ready_at[s])).sum()),
    }  # fmt: skip
    if n > 0:
        values["error_ratio"] = float(flow.errors[s]) / n
        values["client_error_ratio"] = float(flow.refused[s]) / n
        values["retry_ratio"] = float(flow.retried[s]) / n
    if n > 0 and np.isfinite(flow.p50[s]):
        values["slow_ratio"] = min(float(flow.slow[s]) / n, 1.0)
        values["latency_p50_seconds"] = float(flow.p50[s])
        values["latency_p99_seconds"] = float(flow.p99[s])
    if np.isfinite(flow.shifted[s]):
        values["output_shift_ratio"] = float(flow.shifted[s])
    return [Signal(name=name, labels=key, at=flow.at, value=value) for name, value in values.items()]


def of_replicas(flow: Flow, s: int) -> list[Signal]:
    out = []
    for r in range(int(flow.wanted[s])):
        if not flow.alive[s, r] or np.isfinite(flow.hung_at[s, r]):
            continue
        done = float(flow.done[s, r])
        values = {
            "replica_rss_bytes": float(flow.rss[s, r]),
            "replica_cpu_ratio": float(flow.processor[s, r]),
            "replica_cpu_wait_ratio": float(flow.starved[s]),
            "replica_in_flight_count": float(np.floor(flow.queue[s, r] + flow.rng.random())),
            "replica_request_rate_per_second": done,
        }
        if done > 0:
            values["replica_error_ratio"] = float(flow.done_errors[s, r]) / done
            values["replica_nan_ratio"] = min(float(flow.nans[s, r]) / done, 1.0)
            if np.isfinite(flow.compute[s, r]):
                values["replica_compute_seconds"] = float(flow.compute[s, r])
                values["replica_queue_seconds"] = float(flow.waited[s, r])
        labels = {
            "service": flow.system.names[s],
            "replica": flow.id(s, r),
            "digest": digest(flow, s, int(flow.runs[s, r])),
        }
        out += [Signal(name=name, labels=labels, at=flow.at, value=value) for name, value in values.items()]
    return out


def of_neighbour(flow: Flow, s: int) -> list[Signal]:
    """The processors that a service which is not watched takes."""
    used = float(flow.processor[s].sum()) + float(flow.extra[s])
    labels = {"service": flow.system.names[s], "replica": flow.id(s, 0), "digest": digest(flow, s, 1)}
    return [Signal(name="replica_cpu_ratio", labels=labels, at=flow.at, value=used)]


def of_calls(flow: Flow, s: int) -> list[Signal]:
    """What the spans of its calls say, where it sends any."""
    if not flow.system.traced[s]:
        return []
    out = []
    for e in np.flatnonzero(flow.system.caller == s).tolist():
        calls = float(flow.calls[e])
        if calls < 1:
            continue
        labels = {"service": flow.system.names[s], "dependency": flow.system.names[int(flow.system.callee[e])]}
        failed = float(flow.rng.binomial(int(calls), float(flow.call_errors[e])))
        denied = float(flow.rng.binomial(int(calls), float(flow.forces.denied[e])))
        noisy = float(flow.call_seconds[e]) * float(np.exp(flow.rng.normal(0.0, 0.3 / np.sqrt(calls))))
        for name, value in (
            ("dependency_error_ratio", min(max(failed, denied) / calls, 1.0)),
            ("dependency_denied_ratio", denied / calls),
            ("dependency_seconds", noisy),
        ):
            out.append(Signal(name=name, labels=labels, at=flow.at, value=value))
    return out


def of_machine(flow: Flow, m: int, gpu: bool) -> list[Signal]:
    force = flow.forces
    here = flow.system.machine == m
    used = float(flow.rss[here].sum()) / float(flow.system.memory[m]) + 0.2 + float(force.memory[m])
    values = {
        "host_cpu_ratio": float(flow.busy[m]),
        "host_memory_used_ratio": min(used, 1.0),
        "host_disk_used_ratio": float(flow.disk[m]),
        "host_disk_inodes_used_ratio": 0.1,
    }
    if gpu:
        hot, lost = float(force.heat[m]), float(force.lost[m])
        values |= {
            "gpu_xid_errors_count": float(flow.xids[m]),
            "gpu_lost_ratio": lost,
        }
        if not lost:
            busy = float(np.clip((flow.done[here] * np.nan_to_num(flow.compute[here])).sum() / 4.0, 0.0, 1.0))
            values |= {
                "gpu_ecc_errors_count": float(flow.ecc[m]),
                "gpu_thermal_slowdown_ratio": min(hot * (0.5 + float(flow.rng.random())), 1.0),
                "gpu_temperature_celsius": CELSIUS + 25.0 * hot + float(flow.rng.normal(0, 2)) + 8.0 * busy,
                "gpu_busy_ratio": busy,
            }
    return [Signal(name=name, labels={}, at=flow.at, value=value) for name, value in values.items()]


def collected(flow: Flow, watched: Sequence[int]) -> Collected:
    """What a collection of these services would have brought besides signals."""
    names = flow.system.names
    traffic = {
        names[s]: Traffic(
            requests=float(flow.answered[s]), errors=float(flow.errors[s]), slow=float(flow.slow[s]),
            retried=float(flow.retried[s]),
        )
        for s in watched
    }  # fmt: skip
    ready = [
        Signal(name="ready_count", labels={"service": names[s]}, at=flow.at, value=float(flow.ready[s].sum()))
        for s in watched
    ]
    silent = {id: seconds for s in watched for id, seconds in unanswered(flow, s).items()}
    return Collected(at=flow.at, seconds=1.0, signals=ready, traffic=traffic, unanswered=silent, gateway=True)
