"""The next move of a rollout: a pure function of the wish, what runs, what was found of the new version, and the time.

The stages are the wish itself (dials ``rollout.<revision>.*``), so whoever decides may die at any moment. A move only
ever goes forward along the spec's steps, or takes the revision back; both go through the door.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from leptonai.plan.lanes import lanes
from leptonai.types import Canary, Noun, Replica, Rollout, Service

RECORDED = "recorded"  # the measure of what the new version answers to recorded requests
TESTED = "tests"  # ... and to the model tests of the spec
HALF = 0.5  # of the requests, before all of them: what answers them alone can be compared with nothing
SETTLE = 2.0  # seconds at the full share before promotion: the gateway's health checks have found the hosts by then


class Finding(Noun, frozen=True, kw_only=True):
    """What is known of one measure of the new version. ``text`` says it with its numbers.

    "convicted" takes the revision back, "disagrees" waits for a person or for labels, "not enough evidence" waits for
    more; "clear" says that a fault of the stated size would have been found.
    """

    measure: str
    verdict: Literal["clear", "convicted", "not enough evidence", "disagrees"]
    text: str
    numbers: dict[str, float] = {}


class Wait(Noun, frozen=True, kw_only=True):
    """``due``: the step has lasted long enough and something is missing. ``stalled``: a person is needed; else time
    will tell."""

    why: str
    due: bool = False
    stalled: bool = False


class Turn(Noun, frozen=True, kw_only=True):
    """Set these dials of the rollout: the next stage, or what it needs."""

    set: dict[str, float]
    why: str


class TakeBack(Noun, frozen=True, kw_only=True):
    """Wish the stable revision again."""

    why: str


Move = Wait | Turn | TakeBack


def decide(service: Service, replicas: Sequence[Replica], findings: Sequence[Finding], now: float) -> Move:
    """The next move of the rollout of ``service`` (its ``canary`` is not None).

    surge -> ready (models check their golden examples before that) -> model tests and recorded requests, where the spec
    wants some -> mirror, where every variant is idempotent -> the spec's steps, each at least ``step_seconds`` long and
    passed only on evidence -> promoted. ``findings`` are those since the rollout began. ``blue_green`` goes from the
    mirror to the full share; whoever would come to it without a mirror has half of the requests first; ``manual`` moves
    forward when a person sets the dials. Whatever convicts or crashes is taken back, in every strategy.
    """
    canary, rollout = service.canary, service.spec.rollout
    assert canary is not None
    convicted = [f.text for f in findings if f.verdict == "convicted"]
    if convicted:
        return TakeBack(why="; ".join(convicted))
    new = [lane for lane in lanes(service) if lane.only is not None]
    mine = [[r for r in replicas if r.service == service.key and lane.holds(r)] for lane in new]
    for replica in (r for here in mine for r in here):
        if replica.state == "failed":
            detail = f": {replica.detail}" if replica.detail else ""
            return TakeBack(why=f"{replica.id} {replica.reason or 'failed'}{detail}")
    ready = min((sum(r.state == "ready" for r in here) for here in mine), default=0)
    starting = any(r.state == "starting" for here in mine for r in here)
    wanted = max((lane.dials.replicas for lane in new), default=0)
    late = now - max(canary.since, canary.asked) > rollout.start_timeout
    if wanted == 0:
        return Wait(why="the service is scaled to zero")
    if ready == 0:
        if late and canary.weight == 0 and canary.mirror == 0:
            missing = "its start outlasts" if starting else "there is no room for another replica within"
            return TakeBack(why=f"{missing} start_timeout ({rollout.start_timeout:g} s)")
        return Wait(why="no replica of the new version is ready yet")
    return _forward(canary, rollout, service, findings, ready, wanted, starting, late, now)


def _forward(
    canary: Canary,
    rollout: Rollout,
    service: Service,
    findings: Sequence[Finding],
    ready: int,
    wanted: int,
    starting: bool,
    late: bool,
    now: float,
) -> Move:
    begun = canary.weight > 0 or canary.mirror > 0
    waited = now - canary.since
    if canary.weight > 0 and rollout.strategy != "manual":
        held = _capacity(canary.weight, canary, ready, wanted)
        if held is not None and not late:
            return held
    if begun and waited < max(rollout.step_seconds, SETTLE if canary.weight >= 1.0 else 0.0):
        return Wait(why=f"{_stage(canary)} for {waited:.0f} of {rollout.step_seconds:g} s")
    # Recorded requests and tests come first and decide about the first step alone; whoever went on knows of them.
    weighed = [f for f in findings if (f.measure in (RECORDED, TESTED)) != begun]
    disagrees = [f.text for f in weighed if f.verdict == "disagrees"]
    if disagrees:
        return Wait(why=f"{'; '.join(disagrees)}: waits for a person or for labels", due=True, stalled=True)
    unknown = [f.text for f in weighed if f.verdict == "not enough evidence"]
    if unknown:
        stalled = waited > rollout.step_timeout
        return Wait(why="not enough evidence: " + "; ".join(unknown), due=True, stalled=stalled)
    if rollout.strategy == "manual":
        return Wait(why=f"{_stage(canary)}: a person moves it on with `leptonai promote`", stalled=True)
    said = f"{_stage(canary)} was passed" if begun else f"{ready} ready"
    if not begun and rollout.mirror and all(v.idempotent for v in (*service.spec.variants, *canary.stable)):
        return Turn(set={"mirror": min(1.0, ready / wanted)}, why=f"{said}: requests are copied to it")
    steps = (1.0,) if rollout.strategy == "blue_green" else rollout.steps
    share = next((s for s in steps if s > canary.weight + 1e-9), None)
    if share is not None and share >= 1.0 and not begun:
        share = HALF
    if share is None:
        return Turn(set={"promoted": 1.0}, why=f"{said}: promoted")
    short = _capacity(share, canary, ready, wanted)
    if short is not None:
        asked = canary.replicas >= _need(share, wanted)
        if asked and late and not starting and canary.weight > 0:
            return Turn(
                set={"promoted": 1.0},
                why=f"{said}, and there is no room for {_need(share, wanted)} beside the old ones: "
                "promoted, the rest is replaced one by one",
            )
        if asked and late and not starting:
            return TakeBack(why=f"there is no room for {_need(share, wanted)} replicas beside the old ones")
        return short
    return Turn(set={"weight": share, "mirror": 0.0}, why=f"{said}: {share:.0%} of the requests")


def _need(share: float, wanted: int) -> int:
    """Replicas that bear ``share`` of the load that ``wanted`` bear whole."""
    return max(1, math.ceil(share * wanted - 1e-9))


def _capacity(share: float, canary: Canary, ready: int, wanted: int) -> Move | None:
    """What must happen before ``share`` can be borne; None when it can."""
    need = _need(share, wanted)
    if ready >= need:
        return None
    if canary.replicas < need:
        return Turn(set={"replicas": float(need)}, why=f"{share:.0%} of the requests need {need} replicas")
    return Wait(why=f"{ready} of {need} replicas are ready")


def _stage(canary: Canary) -> str:
    if canary.weight > 0:
        return f"{canary.weight:.0%} of the requests"
    return "the mirror" if canary.mirror > 0 else "ready"
