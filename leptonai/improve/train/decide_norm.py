"""What is wrong with batch normalisation, and what to do: pure functions, part of ``decide``.

Sources: Ioffe & Szegedy 2015 (running statistics stand for the batch's in eval mode); Wu & He 2018 (Group
Normalization, figure 1: the error of a batch-normalised net rises below 8 values for each statistic and grows steeply
from there; below that the sampling error of a variance, sqrt(2 / (n - 1)), is over half of it); Wu & Johnson 2021
(Rethinking "Batch" in BatchNorm, section 3: running statistics by exponential average mislead, a plain mean over
recent batches under the present weights does not).
"""

from __future__ import annotations

from math import isfinite, isnan, sqrt

from leptonai.improve.train.observed import Act, History, Kind, Norm, Rules, Validation

FEW = "too few values per channel"
LEFT = "batch norm in eval mode during training"
BROKEN = "running statistics are not finite"
COLLAPSED = "running variance collapsed"
ASTRAY = "running statistics exploded"
COUNTED = "batch norm in train mode during validation"
MISLED = "running statistics mislead validation"

Found = tuple[str, Kind, Norm, dict[str, float | str]]


def found(normed: tuple[Norm, ...], r: Rules) -> list[Found]:
    """Every fault of every layer at one close look, the gravest of a layer's first."""
    out: list[Found] = []
    for n in normed:
        if not n.training:
            if not n.frozen:
                out.append((LEFT, "note", n, {"values": n.values}))
            continue
        if 0 < n.values < r.few:
            out.append((FEW, "note", n, {"values": n.values, "limit": r.few, "error": sqrt(2 / max(n.values - 1, 1))}))
        if not n.finite:
            out.append((BROKEN, "recalibrate", n, {}))
        elif n.flat >= r.dead:  # the batch says the same: what comes to the layer has died, not its statistics
            kind: Kind = "note" if n.flat_batch >= r.dead else "recalibrate"
            out.append((COLLAPSED, kind, n, {"flat": n.flat, "of_batch": n.flat_batch, "limit": r.dead}))
        elif n.ratio * r.astray < 1:
            out.append((COLLAPSED, "recalibrate", n, {"ratio": n.ratio, "limit": 1 / r.astray}))
        elif max(n.ratio, n.apart) > r.astray:
            out.append((ASTRAY, "recalibrate", n, {"ratio": n.ratio, "apart": n.apart, "limit": r.astray}))
    return out


def looked(h: History, normed: tuple[Norm, ...], r: Rules) -> list[Act]:
    """One act for each fault that was not noted before, told by its first layer and how many have it."""
    acts: dict[tuple[str, Kind], Act] = {}
    for cause, kind, n, terms in found(normed, r):
        if _key(cause, n.name) in h.noted:
            continue
        known = acts.get((cause, kind))
        count = 1 + (int(known.terms["layers"]) if known else 0)
        told = known.terms if known else {"layer": n.name, **terms, "momentum": n.momentum}
        acts[cause, kind] = Act(kind=kind, cause=cause, terms={**told, "layers": count})
    return list(acts.values())


def counted(h: History, v: Validation) -> list[Act]:
    """The note about layers that took what they were shown between two steps into their running statistics."""
    new = [name for name in v.counted if _key(COUNTED, name) not in h.noted]
    if not new:
        return []
    return [Act(kind="note", cause=COUNTED, terms={"layer": new[0], "layers": len(new)})]


def suspicious(h: History, v: Validation) -> bool:
    """Whether it is worth another pass over validation: it is worse than training, and the last such passes, if they
    found nothing, are long enough ago (1, 2, 4, ... validations), so that a healthy run pays for a few only."""
    return not v.loss <= v.training and h.unchecked + 1 >= 1 << h.fruitless


def misled(h: History, v: Validation, r: Rules) -> Act | None:
    """To recalibrate, when eval mode loses a large part of what the same weights have learnt.

    ``v.by_batch`` is the loss of the same data by batch statistics; nan: not looked at.
    """
    if not isfinite(v.by_batch):
        return None
    way = max(h.first - v.by_batch, abs(v.by_batch)) if isfinite(h.first) else abs(v.by_batch)
    if v.loss - v.by_batch <= r.misled * way:
        return None
    terms: dict[str, float | str] = {"loss": v.loss, "by_batch": v.by_batch, "limit_loss": v.by_batch + r.misled * way}
    return Act(kind="recalibrate", cause=MISLED, terms=terms)


def better(v: Validation, recalibrated: float) -> bool:
    """Whether that loss wins back at least half of what eval mode had lost; less may be chance, or another cause."""
    return not recalibrated - v.by_batch > (v.loss - v.by_batch) / 2


def noted(h: History, acts: list[Act], seen: tuple[Norm, ...] | Validation, r: Rules) -> History:
    """The history that knows what has been told once, and how often validation was checked in vain."""
    from msgspec.structs import replace

    told = {a.cause for a in acts if a.kind == "note"}
    if isinstance(seen, Validation):
        keys = {_key(COUNTED, name) for name in seen.counted}
        if isnan(seen.by_batch):
            h = replace(h, unchecked=h.unchecked + 1)
        else:
            mended = any(a.cause == MISLED and a.kind == "recalibrate" for a in acts)
            h = replace(h, unchecked=0, fruitless=0 if mended else h.fruitless + 1)
    else:
        keys = {_key(cause, n.name) for cause, _, n, _ in found(seen, r) if cause in told}
    return replace(h, noted=tuple(sorted({*h.noted, *keys}))) if keys else h


def _key(cause: str, layer: str) -> str:
    return f"{cause}: {layer}"
