"""Which incidents of what we do not serve should be open: pure, as ``judge`` is for services."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from leptonai.ops.detect.watcher import EXHAUSTION, MISSING
from leptonai.ops.judge import Kind, Memory, Trigger, hold
from leptonai.settings import Watch
from leptonai.types import Anomaly, Cause, Evidence, Noun

LASTING = 3.0  # times ``watch.hold`` that a climb must go on before it is told


class Thing(Noun, frozen=True, kw_only=True):
    """What is seen of one thing at one moment. ``watched``: its signals that are watched."""

    subject: str  # workspace/external/name
    watched: int
    anomalies: tuple[Anomaly, ...] = ()


def judge_thing(now: float, thing: Thing, memory: Memory, settings: Watch) -> tuple[list[Trigger], Memory]:
    """The triggers that hold at ``now``, and the memory for the next look.

    ``anomaly_rate``: two signals and more, and ``watch.share`` of them, are anomalous together. ``limit``: one is
    beyond what was stated. ``exhaustion``: one will be. ``silent``: all of them stopped coming. Each must last
    ``watch.hold`` seconds, a climb three times that. One signal that is only unusual never does it.
    """
    pending: Mapping[Kind, float] = {
        "anomaly_rate": settings.hold,
        "limit": settings.hold,
        "silent": settings.hold,
        "exhaustion": LASTING * settings.hold,
    }
    return hold(now, _conditions(thing, settings), memory, pending)


def _conditions(thing: Thing, settings: Watch) -> list[Trigger]:
    gone = [a for a in thing.anomalies if a.signal.endswith(MISSING)]
    fills = [a for a in thing.anomalies if a.signal.endswith(EXHAUSTION)]
    odd = [a for a in thing.anomalies if a not in gone and a not in fills]
    beyond = [a for a in odd if any(r.detector == "threshold" for r in a.reasons)]
    out = [_trigger(thing, "limit", [a], a.signal) for a in beyond]
    out += [_trigger(thing, "exhaustion", [a], a.signal.removesuffix(EXHAUSTION)) for a in fills]
    if len(gone) >= max(2, thing.watched):
        out.append(_trigger(thing, "silent", gone))
    names = {(a.signal, *sorted(a.labels.items())) for a in odd}
    needed = max(2, math.ceil(settings.share * thing.watched - 1e-9))
    if len(names) >= needed:
        began = sorted(a.began for a in odd)[needed - 1]
        out.append(_trigger(thing, "anomaly_rate", odd, began=began, limit=settings.share, needed=needed))
    return out


def _trigger(
    thing: Thing, kind: Kind, about: Sequence[Anomaly], subject: str = "", began: float | None = None, **terms: float
) -> Trigger:
    return Trigger(
        kind=kind,
        service="",
        about=thing.subject,
        subject=subject,
        severity="warning",
        began=min(a.began for a in about) if began is None else began,
        anomalies=tuple(about),
        terms={
            "anomalous": sorted(a.signal for a in about),
            "watched": thing.watched,
            "share": len(about) / thing.watched if thing.watched else 1.0,
            "score": max(a.score for a in about),
            "detail": "; ".join(a.detail for a in about[:3]),
            **terms,
        },
    )


def explained(triggers: Sequence[Trigger]) -> tuple[tuple[Evidence, ...], tuple[Cause, ...]]:
    """The facts of a thing's triggers, one per signal, and that no rule of ours knows their cause."""
    facts: list[Evidence] = []
    for trigger in triggers:
        for a in sorted(trigger.anomalies, key=lambda a: -a.score)[:8]:
            text = f"{name_of(a)}: {a.detail}."
            if all(f.text != text for f in facts):
                data = {"signal": a.signal, "labels": a.labels, "score": a.score}
                facts.append(Evidence(id=f"e{len(facts) + 1}", kind="anomaly", at=a.began, text=text, data=data))
    cited = tuple(f.id for f in facts)
    return tuple(facts), (Cause(name="unknown", subject=triggers[0].about, confidence=0.0, evidence=cited),)


def name_of(anomaly: Anomaly) -> str:
    """Signal and labels as people write them."""
    labels = ", ".join(f"{k}={v}" for k, v in sorted(anomaly.labels.items()) if k not in ("service", "workspace"))
    return f"{anomaly.signal}{{{labels}}}" if labels else anomaly.signal
