"""The kinds of faults, as data: what is broken, which answers are right, within how many seconds.

A cause or a remedy is a tuple of those that are right. ``person``: somebody is called and nothing is done, which is the
right answer where no wish of ours repairs anything (a dependency, the data, a card).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from leptonai.types import Noun, Severity

RECONCILED = "none: reconciled"
PERSON = "person"

What = Literal["replica", "revision", "traffic", "dependency", "machine", "gpu", "nothing"]


class Fault(Noun, frozen=True, kw_only=True):
    """One kind. ``causes`` is empty for a control: nothing is broken, and nothing may be said or done.

    ``detect``: seconds until an incident is open. ``recover``: seconds until the service is whole again, or, where a
    person is the remedy, until one was called with the cause. ``lasts``: seconds after which the fault is healed and
    waiting ends. ``restart`` says whether a fresh process is free of it. ``lossless``: no idempotent request may fail.
    """

    kind: str
    title: str
    breaks: What
    causes: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()
    severity: Severity = "info"
    detect: float = 0.0
    recover: float = 0.0
    lasts: float = 60.0
    restart: bool = False
    lossless: bool = False
    heavy: bool = False  # felt only where the model computes; a service that mostly waits for others hardly notices
    # All it does is to make answers late, and its answer is a person: where nobody waits longer, none is to be called.
    only_late: bool = False
    live: bool = False  # touches one replica, heals by itself: may be done to a service that people use

    @property
    def control(self) -> bool:
        return not self.causes

    @property
    def called(self) -> bool:
        """Whether calling a person is a right answer."""
        return PERSON in self.remedies


def _of_replica(kind: str, title: str, cause: str, *others: str, **given: float) -> Fault:
    """A process is sick: its siblings carry on, and a fresh one is the answer."""
    return Fault(
        kind=kind,
        title=title,
        breaks="replica",
        causes=(cause, *others),
        remedies=("evict",),
        severity="warning",
        detect=given.get("detect", 3.0),
        recover=given.get("recover", 15.0),
        restart=True,
        lossless=True,
        live=True,
    )


def _of_revision(kind: str, title: str, cause: str, *others: str, **given: float) -> Fault:
    return Fault(
        kind=kind,
        title=title,
        breaks="revision",
        causes=(cause, *others),
        remedies=("rollback",),
        severity="critical",
        detect=given.get("detect", 15.0),
        recover=given.get("recover", 45.0),
        lasts=given.get("lasts", 60.0),
    )


def _outside(kind: str, title: str, breaks: What, *causes: str, **given: float) -> Fault:
    """Nothing of the service is wrong: a person is told what is."""
    return Fault(
        kind=kind,
        title=title,
        breaks=breaks,
        causes=causes,
        remedies=(PERSON, *_LATER.get(causes[0], ())),
        severity="warning",
        detect=given.get("detect", 15.0),
        recover=given.get("recover", 30.0),
        lasts=given.get("lasts", 45.0),
        only_late=causes[0] in _LATE,
    )


def _heavy(kind: str, title: str, *causes: str) -> Fault:
    made = _outside(kind, title, "machine", *causes, recover=40.0)
    return msgspec.structs.replace(made, heavy=True)


_LATE = frozenset(
    {"traffic_surge", "slow_dependency", "cpu_starvation", "noisy_neighbour", "cold_start_storm", "gpu_thermal"}
)
# What else is right where a runbook has it: more replicas, less work, the last good answers.
_LATER: dict[str, tuple[str, ...]] = {
    "traffic_surge": ("scale", "shed", "degrade"),
    "retry_storm": ("shed", "scale"),
    "poisoned_input": ("quarantine",),
    "slow_dependency": ("fallback_on", "shed", "degrade"),
    "dead_dependency": ("fallback_on", "degrade"),
    "credential_expired": ("fallback_on",),
    "cpu_starvation": ("scale", "shed", "preempt", "degrade"),
    "noisy_neighbour": ("preempt", "scale", "shed", "degrade"),
    "gpu_xid": ("evict", "restart"),
    "gpu_ecc": ("evict", "restart"),
    "gpu_lost": ("evict", "restart"),
    "gpu_thermal": ("shed", "degrade"),
    "disk_full": ("evict", "restart"),
    "data_drift": (),
    "cold_start_storm": ("shed",),
}

FAULTS: tuple[Fault, ...] = (
    Fault(
        kind="kill",
        title="kill -9",
        breaks="replica",
        causes=("replica_killed",),
        remedies=(RECONCILED,),
        severity="warning",
        detect=3.0,
        recover=15.0,
        restart=True,
        lossless=True,
        live=True,
    ),
    _of_replica("stop", "SIGSTOP", "hung_replica", detect=3.0),
    _of_replica("leak", "memory leak", "memory_leak", detect=20.0, recover=40.0),
    Fault(
        kind="oom",
        title="out of memory",
        breaks="replica",
        causes=("out_of_memory",),
        remedies=(RECONCILED,),
        severity="warning",
        detect=15.0,  # the memory has to be filled first
        recover=30.0,
        restart=True,
        lossless=True,
    ),
    _of_replica("hog", "a replica burns the CPU", "runaway_replica", detect=20.0, recover=45.0),
    msgspec.structs.replace(  # the gateway repeats no answer of the model itself: some are lost until it is replaced
        _of_replica("sick", "a replica fails", "failing_replica", detect=15.0, recover=30.0), lossless=False
    ),
    _of_replica("sluggish", "a replica is slow", "slow_replica", detect=15.0, recover=40.0),
    _of_revision("crash", "crash loop", "crash_loop"),
    _of_revision("config", "bad config", "bad_config"),
    _of_revision("slow", "slow revision", "bad_revision_latency", detect=20.0),
    _of_revision("errors", "failing revision", "bad_revision_errors"),
    _of_revision("wrong", "wrong answers", "bad_revision_wrong_answers"),
    _of_revision("nan", "NaN outputs", "nan_outputs"),
    _outside("surge", "traffic surge", "traffic", "traffic_surge"),
    _outside("flash", "flash crowd", "traffic", "traffic_surge"),
    _outside("poison", "poisoned input", "traffic", "poisoned_input"),
    _outside("drift", "data drift", "traffic", "data_drift", detect=25.0, recover=40.0),
    _outside("retries", "retry storm", "traffic", "retry_storm"),
    _outside("slow-dependency", "slow dependency", "dependency", "slow_dependency"),
    _outside("dead-dependency", "dead dependency", "dependency", "dead_dependency"),
    _outside("latency", "a slow network below", "dependency", "slow_dependency"),
    _outside("loss", "a lossy network below", "dependency", "slow_dependency", "dead_dependency"),
    _outside("credential", "expired credential", "dependency", "credential_expired"),
    _heavy("starve", "CPU taken by another process", "cpu_starvation", "noisy_neighbour"),
    _heavy("neighbour", "noisy neighbour", "noisy_neighbour", "cpu_starvation"),
    _heavy("cold-start", "cold-start storm", "cold_start_storm"),
    _outside("disk", "disk full", "machine", "disk_full"),
    _outside("gpu-xid", "GPU: Xid error", "gpu", "gpu_xid"),
    _outside("gpu-ecc", "GPU: memory errors", "gpu", "gpu_ecc"),
    _outside("gpu-thermal", "GPU: too hot", "gpu", "gpu_thermal"),
    _outside("gpu-lost", "GPU: off the bus", "gpu", "gpu_lost"),
)
CONTROLS: tuple[Fault, ...] = (
    Fault(kind="calm", title="nothing at all", breaks="nothing", lasts=20.0),
    Fault(kind="deploy", title="a good deploy", breaks="nothing", lasts=20.0),
    Fault(kind="scale", title="a scale by hand", breaks="nothing", lasts=20.0),
    Fault(kind="restart", title="a restart by hand", breaks="nothing", lasts=25.0),
    Fault(kind="busy", title="half as much traffic again", breaks="nothing", lasts=20.0),
)
KINDS: dict[str, Fault] = {fault.kind: fault for fault in (*FAULTS, *CONTROLS)}
