"""Deciding what to do about what training shows: pure functions of (history, observation, rules).

Sources of the rules: spikes and skipped batches: Chowdhery et al. 2022 (PaLM, section 5.1: restart before the spike,
skip the data); clipping at what the run itself has shown to be healthy: Seetharaman et al. 2020 (AutoClip); update
over weights near 1e-3: a rule of thumb of practice; initialising by layer: Mishkin & Matas 2016 (LSUV);
early stopping: Prechelt 1998.
"""

from __future__ import annotations

from math import isfinite, isnan, log
from statistics import median

from leptonai.improve.train import decide_norm
from leptonai.improve.train.observed import Act, Batch, Gradient, History, Layer, Observation, Rules, Validation

BAD = {"skip", "restore", "reinitialise", "stop"}  # after these the optimizer does not step on this batch


def decide(history: History, observation: Observation, rules: Rules) -> list[Act]:
    """What to do, in order; empty when all is well. Same arguments, same answer."""
    match observation:
        case Batch():
            return _batch(history, observation, rules)
        case Gradient():
            acts = _gradient(history, observation, rules)
            if observation.normed and not bad(acts):
                acts += decide_norm.looked(history, observation.normed, rules)
            return acts
        case Validation():
            return _validation(history, observation, rules) + decide_norm.counted(history, observation)


def bad(acts: list[Act]) -> bool:
    return any(a.kind in BAD for a in acts)


def deviation(values: tuple[float, ...], value: float, floor: float) -> float:
    """Robust deviations of ``value`` from the median of ``values``; one of them is at least ``floor``."""
    middle = median(values)
    spread = 1.4826 * median([abs(v - middle) for v in values])
    return (value - middle) / max(spread, floor, 1e-12)


def _put_back(
    h: History, r: Rules, cause: str, lower: bool, terms: dict[str, float | str], factor: float = 1.0
) -> list[Act]:
    if h.restores >= r.restores:
        return [
            Act(kind="restore", cause=cause, terms=terms),
            Act(kind="stop", cause="no recovery", terms={"restores": h.restores, "limit": r.restores}),
        ]
    again = h.restored_at >= 0 and h.seen - h.restored_at < 3 * r.settle  # the last restore did not help for long
    acts = [Act(kind="restore", cause=cause, terms={**terms, "restores": h.restores + 1})]
    untouched = h.restored_at >= 0 and h.restored_at >= h.seen - h.bad  # no update since: the rate is not to blame
    if (lower or again) and not untouched:
        told: dict[str, float | str] = {"factor": min(r.lower, factor), "repeated": str(again).lower()}
        acts.append(Act(kind="lower_rate", cause=cause, terms=told))
    return acts


def _batch(h: History, b: Batch, r: Rules) -> list[Act]:
    if not (isfinite(b.location) and isfinite(b.scale)):
        return _skip(h, r, "input is not finite", {"location": b.location, "scale": b.scale})
    if len(h.locations) >= r.enough and not (
        min(h.locations) <= b.location <= max(h.locations) and min(h.scales) <= b.scale <= max(h.scales)
    ):  # the medians are looked at only for what has not been seen before: most steps pay nothing
        usual = max(median(h.scales), 1e-12)
        moved = abs(b.location - median(h.locations)) / usual
        stretched = abs(log(max(b.scale, 1e-12) / usual))
        unusual = max(
            abs(deviation(h.locations, b.location, 0.01 * usual)), abs(deviation(h.scales, b.scale, 0.01 * usual))
        )
        if unusual > r.shift and max(moved, stretched) > r.shift_size:
            terms: dict[str, float | str] = {"deviations": unusual, "limit": r.shift, "moved": moved}
            return _skip(h, r, "shifted batch", {**terms, "e_folds": stretched, "size_limit": r.shift_size})
    if not isfinite(b.loss):
        if not b.weights_finite:
            return _put_back(h, r, "weights are not finite", True, {"loss": b.loss})
        if h.bad + 1 >= r.suspect:
            return _put_back(h, r, "loss stays not finite", True, {"loss": b.loss, "in_a_row": h.bad + 1})
        return _skip(h, r, "loss is not finite", {"loss": b.loss})
    if len(h.losses) >= r.enough:
        start = h.start if isfinite(h.start) else b.loss
        recent = max(h.losses)
        odd = b.loss > start and b.loss > r.jump * recent
        if odd and (size := deviation(h.losses, b.loss, 0.02 * abs(start))) > r.spike:
            terms = {"loss": b.loss, "deviations": size, "limit": r.spike, "start": start, "recent_largest": recent}
            # The first few may be the data's fault; then the weights are put back once, which costs little either way.
            if h.bad + 1 == r.suspect:
                return _put_back(h, r, "loss diverged", False, {**terms, "in_a_row": h.bad + 1})
            return _skip(h, r, "loss spike", terms)
    elif b.update > r.rough and b.loss > r.diverged * abs(h.first):
        terms = {"loss": b.loss, "first": h.first, "limit": r.diverged, "update": b.update, "rough": r.rough}
        if h.bad + 1 >= r.suspect - 1:
            return _put_back(h, r, "loss diverged at the start", True, terms)
        return _skip(h, r, "loss rises at the start", terms)
    return []


def _skip(h: History, r: Rules, cause: str, terms: dict[str, float | str]) -> list[Act]:
    if h.bad + 1 >= r.give_up:
        stop = Act(kind="stop", cause=f"{cause}, for too long", terms={"in_a_row": h.bad + 1, "limit": r.give_up})
        return [Act(kind="restore", cause=cause, terms=terms), stop]
    return [Act(kind="skip", cause=cause, terms=terms)]


def _gradient(h: History, g: Gradient, r: Rules) -> list[Act]:
    if not isfinite(g.norm):
        if g.loss_scale > 1:
            terms: dict[str, float | str] = {"loss_scale": g.loss_scale, "norm": g.norm}
            return [Act(kind="skip", cause="overflow", terms=terms), Act(kind="lower_scale", cause="overflow")]
        if h.bad + 1 >= r.suspect:
            return _put_back(h, r, "gradient stays not finite", True, {"norm": g.norm, "in_a_row": h.bad + 1})
        return _skip(h, r, "gradient is not finite", {"norm": g.norm})
    if g.layers and (acts := _layers(h, g, r)):
        return acts
    if len(h.losses) >= 2 * r.enough and g.update > r.rough and median(h.losses[-r.enough :]) > h.start:
        terms = {"update": g.update, "limit": r.rough, "loss": median(h.losses[-r.enough :]), "start": h.start}
        return _put_back(h, r, "violent updates without progress", True, terms)
    if len(h.norms) >= r.enough:
        limit = r.explode * h.peak
        if g.norm > limit > 0:
            return [Act(kind="clip", cause="gradient explosion", terms={"norm": g.norm, "over": limit, "to": h.peak})]
    elif not g.adaptive and g.weight > 0 and g.rate * g.norm > r.violent * g.weight:
        to = r.gentle * g.weight / g.rate
        terms = {"norm": g.norm, "update": g.rate * g.norm / g.weight, "limit": r.violent, "to": to}
        if h.violent + 1 >= r.suspect:  # one may be a hard batch; each clipped one still moves the momentum
            terms["in_a_row"] = h.violent + 1
            cause, share = "every first gradient is violent", max(h.milder, to / g.norm)
            return _put_back(h, r, cause, True, terms, share)  # the rate at which the mildest would have been gentle
        return [Act(kind="clip", cause="violent first gradient", terms=terms)]
    return []


def _layers(h: History, g: Gradient, r: Rules) -> list[Act]:
    hidden = [x for x in g.layers if not x.last]
    young = h.healthy < r.young and h.initialised < 2 and h.lowered == 0
    if young:
        size = g.input_magnitude if isfinite(g.input_magnitude) and g.input_magnitude > 0 else 1.0
        for x in g.layers:
            terms: dict[str, float | str] = {"layer": x.name, "magnitude": x.magnitude, "spread": x.spread}
            if isnan(x.magnitude):
                continue
            if x.magnitude > r.huge * size:
                return [Act(kind="reinitialise", cause="activations explode", terms={**terms, "input": size})]
            if not x.last and (x.magnitude == 0 or x.spread < r.collapse * x.magnitude):
                return [Act(kind="reinitialise", cause="activations collapse", terms={**terms, "limit": r.collapse})]
    gone = _gone(g, r)
    if gone and h.dying + 1 >= r.suspect:  # once may be a small batch's fault
        terms = {"layer": gone[0].name, "dead": gone[0].dead, "limit": r.dead, "in_a_row": h.dying + 1}
        if young and not h.alive:
            return [Act(kind="reinitialise", cause="dead units", terms=terms)]
        return _put_back(h, r, "dead units", True, terms)
    if len(hidden) >= 2 and h.healthy >= 3:
        relative = [x.gradient / x.weight for x in g.layers if x.weight > 0 and x.gradient > 0]
        if relative and relative[0] < r.vanish * relative[-1]:
            terms = {"first": relative[0], "last": relative[-1], "limit": r.vanish}
            kind = "reinitialise" if young else "note"
            return [Act(kind=kind, cause="vanishing gradient", terms=terms)]  # type: ignore[arg-type]
    return []


def _gone(g: Gradient, r: Rules) -> list[Layer]:
    """Hidden layers that are dead: the loss asks something of them, and their own activation lets nothing through.

    A gradient that is zero says less: an expert without tokens, a masked head, a margin that is kept have none either.
    """
    return [x for x in g.layers if not x.last and x.dead >= r.dead and x.passed <= 1 - r.dead]


def _validation(h: History, v: Validation, r: Rules) -> list[Act]:
    if v.loss < h.best or h.stale + 1 < r.patience:
        return []
    terms: dict[str, float | str] = {"loss": v.loss, "best": h.best, "validations": h.stale + 1, "limit": r.patience}
    risen = min((*h.since, v.loss)[-r.patience :]) - h.best  # one bad validation says nothing
    terms["risen"] = risen
    fell = isnan(v.training) or v.training < h.best_training
    way = max(h.first - h.best, abs(h.best)) if isfinite(h.first) else abs(h.best)
    if risen > r.worse * way and fell:
        stop = Act(kind="stop", cause="over-fitting", terms={**terms, "training": v.training})
        return [Act(kind="restore", cause="over-fitting", terms=terms), stop]
    lost = min(risen, v.training - h.best_training)  # on both sides: the rate is too high to keep it
    if h.restores < r.restores and (lost > r.worse * way or (h.lowered and lost >= 0)):
        cause = "skill is lost" if lost > r.worse * way else "no progress at a rate that was too high before"
        terms |= {"training": v.training, "best_training": h.best_training, "limit_loss": h.best + r.worse * way}
        lower = Act(kind="lower_rate", cause=cause, terms={"factor": r.lower})
        return [Act(kind="restore", cause=cause, terms=terms), lower]
    if (h.stale + 1) % r.patience == 0:
        return [Act(kind="note", cause="plateau", terms=terms)]
    return []


def remember(
    h: History, observation: Observation, acts: list[Act], rules: Rules, batch: Batch | None = None
) -> History:
    """The history after ``observation`` was answered by ``acts``. Only healthy steps shape what is normal.

    A step is told once: a Batch when it was skipped, else its Gradient together with its ``batch``.
    """
    from msgspec.structs import replace

    if isinstance(observation, Validation):
        h = decide_norm.noted(h, acts, observation, rules)
        if observation.loss < h.best:
            return replace(h, best=observation.loss, best_training=observation.training, stale=0, since=())
        if any(a.kind == "restore" for a in acts):
            lowered, restores = h.lowered + 1, h.restores + 1
            new = replace(h, stale=0, since=(), restores=restores, restored_at=h.seen, lowered=lowered)
            return replace(new, streak=0, troubled=h.seen)
        return replace(h, stale=h.stale + 1, since=(*h.since, observation.loss)[-rules.patience :])
    restored = any(a.kind in ("restore", "reinitialise") for a in acts)
    first = h.first if isfinite(h.first) or not isfinite(observation.loss) else observation.loss
    if bad(acts):
        new = replace(h, first=first, seen=h.seen + 1, bad=h.bad + 1, streak=0, troubled=h.seen + 1)
        if restored:
            fresh = any(a.kind == "reinitialise" for a in acts)
            new = replace(
                new,
                restores=h.restores + (not fresh),
                restored_at=h.seen,
                initialised=h.initialised + fresh,
                lowered=h.lowered + any(a.kind == "lower_rate" for a in acts),
                dying=0,
                **({"first": float("nan")} if fresh else {}),
                **(_UNLEARNT if fresh or h.healthy < rules.enough + rules.settle else {}),
            )
        return new
    assert isinstance(observation, Gradient)
    assert batch is not None
    clip = next((a for a in acts if a.kind == "clip"), None)
    limit = float(clip.terms["to"]) if clip is not None else observation.norm
    early = clip is not None and len(h.norms) < rules.enough
    keep = rules.window - 1
    healthy = h.healthy + 1
    losses = (*h.losses[-keep:], observation.loss)
    lasting = h.streak + 1 >= 3 * rules.settle
    gone = bool(_gone(observation, rules))
    if observation.normed:
        h = decide_norm.noted(h, acts, observation.normed, rules)
    return replace(
        h,
        losses=losses,
        norms=(*h.norms[-keep:], min(limit, observation.norm)),
        locations=(*h.locations[-keep:], batch.location),
        scales=(*h.scales[-keep:], batch.scale),
        first=first,
        start=max(losses) if healthy <= rules.enough else h.start,
        peak=max(h.peak, min(limit, observation.norm)),
        healthy=healthy,
        streak=h.streak + 1,
        violent=h.violent + 1 if early else 0,
        milder=max(h.milder, limit / observation.norm) if early else 0.0,
        bad=0,
        seen=h.seen + 1,
        restores=0 if lasting else h.restores,
        alive=h.alive or bool(observation.layers and not acts and not gone),
        dying=h.dying + 1 if gone else 0 if observation.layers else h.dying,
    )


# After a fresh start the numbers of the broken one are no measure of health; the first loss is kept unless it was odd.
_UNLEARNT: dict[str, object] = {
    "losses": (),
    "norms": (),
    "peak": 0.0,
    "healthy": 0,
    "violent": 0,
    "milder": 0.0,
    "start": float("nan"),
}
