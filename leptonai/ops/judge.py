"""Which incidents should be open: a pure decision over all that was seen of one service. One series never pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from leptonai.ops.convict import Leak, Wrong
from leptonai.ops.modeltests import Round
from leptonai.ops.slo import BurnState
from leptonai.settings import Ops
from leptonai.types import Anomaly, Key, Noun, Replica, Severity

Kind = Literal[
    "burn_errors",
    "burn_latency",
    "anomaly_rate",
    "replica_gone",
    "replica_hung",
    "replica_leak",
    "replica_test",
    "wrong_answers",
    "service_absent",
    "limit",
    "exhaustion",
    "silent",
    "declared",
]

# Seconds a condition must hold before it fires, and seconds it must be gone before it is released. The burn rules and
# the convictions carry their own statistics and fire at once; a rate of anomalies must last.
PENDING: dict[Kind, float] = {"anomaly_rate": 5.0, "service_absent": 5.0}
RELEASE = 5.0
# Golden signals that read the same few requests, the slowest: one of them in a second moves both.
SLOWEST = frozenset({"latency_p99_seconds", "slow_ratio"})
WORSE_WHEN_MORE = frozenset({"error_ratio", "latency_p50_seconds"} | SLOWEST)
RATE = "request_rate_per_second"
LASTING = 30.0  # seconds that readings of one kind must hold together, where two kinds need PENDING


class Seen(Noun, frozen=True, kw_only=True):
    """All that is known of one service at one moment."""

    service: Key
    wanted: int  # replicas wished for; 0: asleep or deleted, nothing is expected of it
    replicas: tuple[Replica, ...] = ()
    lost: Mapping[str, str] = {}  # replica id -> reason, of failures the event log told since the last look
    anomalies: tuple[Anomaly, ...] = ()
    golden: int = 0  # golden signals watched (Watcher.golden)
    burns: tuple[BurnState, ...] = ()
    leaks: tuple[Leak, ...] = ()
    wrong: tuple[Wrong, ...] = ()
    tested: tuple[Round, ...] = ()
    declared: tuple[Trigger, ...] = ()  # conditions of the rule files that have held long enough


class Trigger(Noun, frozen=True, kw_only=True):
    """A reason for an open incident. ``subject``: the replica id or digest it is about, "" for the whole service.

    ``about``: the incident's subject where it is no service's (``ops.things``); ``subject`` is a signal's name then.

    ``name``: of kind ``declared``, which condition of the rule files it is.

    ``terms`` holds every number the decision was made of.
    """

    kind: Kind
    service: Key
    about: str = ""
    subject: str = ""
    name: str = ""
    severity: Severity
    began: float
    anomalies: tuple[Anomaly, ...] = ()
    terms: dict[str, Any] = {}


class Held(Noun, frozen=True, kw_only=True):
    """A condition between two looks: since when it was true, when it was last true, and whether it fires."""

    trigger: Trigger
    since: float
    last: float
    firing: bool


Memory = dict[str, Held]  # per service; what judge returned last time, {} at first


def judge(now: float, seen: Seen, memory: Memory, settings: Ops | None = None) -> tuple[list[Trigger], Memory]:
    """The triggers that hold at ``now``, most severe and oldest first, and the memory for the next look.

    Pending -> firing after PENDING seconds (or ``terms["lasting"]``) of an unbroken condition; firing ends RELEASE
    seconds after the condition was last true. A trigger keeps the ``began`` it fired with and shows its newest terms.
    """
    return hold(now, _conditions(now, seen, memory, settings or Ops()), memory, PENDING)


def hold(
    now: float, conditions: Sequence[Trigger], memory: Memory, pending: Mapping[Kind, float]
) -> tuple[list[Trigger], Memory]:
    """``judge`` from the conditions on: which of those that are true now fire, after ``pending`` seconds each."""
    true_now = {f"{t.kind} {t.subject} {t.name}".rstrip(): t for t in conditions}
    after: Memory = {}
    for name, trigger in true_now.items():
        before = memory.get(name)
        since = before.since if before else now
        began = min(before.trigger.began, trigger.began) if before else trigger.began
        lasting = trigger.terms.get("lasting", pending.get(trigger.kind, 0.0))
        firing = bool(before and before.firing) or now - since >= lasting
        trigger = msgspec.structs.replace(trigger, began=began)
        after[name] = Held(trigger=trigger, since=since, last=now, firing=firing)
    for name, held in memory.items():
        if name not in after and held.firing and now - held.last < RELEASE:
            after[name] = held
    order = {"critical": 0, "warning": 1, "info": 2}
    firing_now = [held.trigger for held in after.values() if held.firing]
    return sorted(firing_now, key=lambda t: (order[t.severity], t.began, t.kind, t.subject)), after


def _conditions(now: float, seen: Seen, memory: Memory, settings: Ops) -> list[Trigger]:
    ready = sum(replica.state == "ready" for replica in seen.replicas)
    return [
        *_burns(seen),
        *_absent(now, seen, ready),
        *_replicas(now, seen, memory, ready),
        *_convictions(now, seen),
        *_rate(seen, settings),
        *((t for t in seen.declared) if seen.wanted else ()),
    ]


def _trigger(
    seen: Seen, kind: Kind, severity: Severity, began: float, terms: dict[str, Any], subject: str = ""
) -> Trigger:
    about = [a for a in seen.anomalies if not subject or subject in a.labels.values() or "replica" not in a.labels]
    return Trigger(
        kind=kind,
        service=seen.service,
        subject=subject,
        severity=severity,
        began=began,
        anomalies=tuple(about),
        terms=terms,
    )


def _burns(seen: Seen) -> list[Trigger]:
    kinds: dict[str, Kind] = {"errors": "burn_errors", "latency": "burn_latency"}
    return [
        _trigger(seen, kinds[burn.rule], burn.severity, burn.began or 0.0, msgspec.to_builtins(burn))
        for burn in seen.burns
        if burn.severity is not None
    ]


def _absent(now: float, seen: Seen, ready: int) -> list[Trigger]:
    """Nothing is heard of a service that is wished for and has replicas that claim to be ready."""
    silent = bool(seen.burns) and all(burn.absent for burn in seen.burns)
    missing = [a for a in seen.anomalies if a.signal.endswith(":missing") and set(a.labels) == {"service"}]
    if not (seen.wanted and ready and (silent or len(missing) >= 2)):
        return []
    began = min((a.began for a in missing), default=now)
    terms = {"wanted": seen.wanted, "ready": ready, "silent": silent, "missing": [a.signal for a in missing]}
    return [_trigger(seen, "service_absent", "critical", began, terms)]


def _replicas(now: float, seen: Seen, memory: Memory, ready: int) -> list[Trigger]:
    """Gone (serve replaces it) stays true until as many are ready as wanted; hung while it is present and hung."""
    out: list[Trigger] = []
    if not seen.wanted:
        return out  # being deleted or put to sleep: nothing is missed
    severity: Severity = "critical" if not ready else "warning"
    terms: dict[str, Any] = {"ready": ready, "wanted": seen.wanted}
    gone = {r.id: (r.since, r.reason, r.detail) for r in seen.replicas if r.gone}
    gone |= {replica: (now, reason, "") for replica, reason in seen.lost.items() if replica not in gone}
    for name, held in memory.items():
        if name.startswith("replica_gone ") and ready < seen.wanted:
            old = held.trigger
            gone.setdefault(old.subject, (old.began, old.terms["reason"], old.terms["detail"]))
    for replica, (since, reason, detail) in gone.items():
        about = {**terms, "reason": reason, "detail": detail}
        out.append(_trigger(seen, "replica_gone", severity, since, about, replica))
    for r in seen.replicas:
        if r.state == "failed" and r.reason == "hung":
            about = {**terms, "reason": r.reason, "detail": r.detail, "hung_for": now - r.since}
            out.append(_trigger(seen, "replica_hung", severity, r.since, about, r.id))
    return out


def _convictions(now: float, seen: Seen) -> list[Trigger]:
    present = {r.id for r in seen.replicas if r.state in ("ready", "starting")}
    serving = {r.digest for r in seen.replicas if r.state == "ready"}
    out = [
        _trigger(seen, "replica_leak", "warning", leak.began, msgspec.to_builtins(leak), leak.replica)
        for leak in seen.leaks
        if leak.replica in present
    ]
    for found in seen.tested:
        if (fails := found.fails) and found.replica in present:
            severity: Severity = "critical" if any(t.wrong for t in fails) else "warning"
            terms = {t.test: t.text for t in fails} | {"detail": ", ".join(t.test for t in fails)}
            out.append(_trigger(seen, "replica_test", severity, found.at, terms, found.replica))
    for wrong in seen.wrong:
        if wrong.verdict == "convicted" and wrong.digest in serving:
            out.append(_trigger(seen, "wrong_answers", "critical", now, msgspec.to_builtins(wrong), wrong.digest))
    return out


def _rate(seen: Seen, settings: Ops) -> list[Trigger]:
    """Two golden signals or more, and at least ``anomaly_share`` of them, are anomalous together.

    It began when enough of them were: one that was odd for an hour before does not backdate the incident. Of SLOWEST
    alone, three slow requests in ten seconds would do it: then it must be LASTING. More requests are no trouble by
    themselves: beside them, what became better does not count, and SLOWEST must be LASTING again, since many requests
    show more of a tail than few.
    """
    mine = [a for a in seen.anomalies if set(a.labels) == {"service"} and not a.signal.endswith(":missing")]
    more = any(a.signal == RATE and not a.fell for a in mine)
    began: dict[str, float] = {}
    for a in mine:
        if not (more and a.fell and a.signal in WORSE_WHEN_MORE):
            began[a.signal] = min(a.began, began.get(a.signal, a.began))
    needed = max(2, math.ceil(settings.anomaly_share * seen.golden - 1e-9))
    if not seen.wanted or len(began) < needed:
        return []
    terms = {
        "anomalous": sorted(began),
        "watched": seen.golden,
        "share": len(began) / seen.golden if seen.golden else 1.0,
        "limit": settings.anomaly_share,
        "needed": needed,
    }
    apart = began.keys() - SLOWEST - ({RATE} if more else set())
    if len(apart) + bool(began.keys() & SLOWEST) < 2 and not (more and apart):
        terms["lasting"] = LASTING
    return [_trigger(seen, "anomaly_rate", "warning", sorted(began.values())[needed - 1], terms)]
