"""The moves of a rollout, and who gets which requests meanwhile."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest

from leptonai.plan import plan
from leptonai.plan.gateway import routes
from leptonai.plan.lanes import lanes, shares
from leptonai.plan.rollout import Finding, Move, TakeBack, Turn, Wait, decide
from leptonai.settings import Gateway, Local
from leptonai.types import Canary, Dials, Replica, Retire, Rollout, Scale, Service, Spec, Start, Variant, VariantDials

OLD, NEW = Variant(model="a", idempotent=True), Variant(model="b", idempotent=True)
CLEAR = [Finding(measure="errors", verdict="clear", text="errors: 0 of 500")]


def service(n: int = 4, rollout: Rollout | None = None, idempotent: bool = True, **canary: Any) -> Service:
    new = msgspec.structs.replace(NEW, idempotent=idempotent)
    spec = Spec(name="d", variants=(new,), scale=Scale(replicas=n), rollout=rollout or Rollout(strategy="canary"))
    probation = Canary(stable=(OLD,), revision=1, **canary)
    return Service(spec=spec, dials=Dials(variants={"main": VariantDials(replicas=n)}), revision=2, canary=probation)


def replica(id: str, variant: Variant, state: Any = "ready", since: float = 0.0, reason: str = "") -> Replica:
    address = f"unix:/{id}"
    return Replica(
        id=id, service="d", variant="main", digest=variant.digest, state=state, since=since, address=address,
        reason=reason,
    )  # fmt: skip


def world(old: int, new: int, **more: Any) -> list[Replica]:
    fresh = msgspec.structs.replace(NEW, idempotent=more.pop("idempotent", True))
    return [replica(f"o{i}", OLD) for i in range(old)] + [replica(f"n{i}", fresh, **more) for i in range(new)]


def move(s: Service, replicas: list[Replica], findings: list[Finding] = CLEAR, now: float = 1000.0) -> Move:
    return decide(s, replicas, findings, now)


def turned(found: Move) -> dict[str, float]:
    assert isinstance(found, Turn), found
    return found.set


def test_the_way_of_a_good_version() -> None:
    assert turned(move(service(), world(4, 1))) == {"mirror": 0.25}, "copies as one of four replicas can bear"
    assert turned(move(service(mirror=0.25), world(4, 1))) == {"weight": 0.01, "mirror": 0.0}
    assert turned(move(service(weight=0.05), world(4, 1))) == {"weight": 0.25, "mirror": 0.0}
    assert turned(move(service(weight=0.25), world(4, 1))) == {"replicas": 2.0}, "room first, requests then"
    assert isinstance(move(service(weight=0.25, replicas=2, asked=999.0), world(4, 1)), Wait)
    assert turned(move(service(weight=0.25, replicas=2), world(4, 2))) == {"weight": 0.5, "mirror": 0.0}
    assert turned(move(service(weight=1.0, replicas=4), world(4, 4))) == {"promoted": 1.0}


def test_what_must_not_be_done_twice_is_not_copied() -> None:
    found = move(service(idempotent=False), world(4, 1, idempotent=False))
    assert turned(found) == {"weight": 0.01, "mirror": 0.0}


def test_blue_green_goes_at_once_and_only_with_all_its_replicas() -> None:
    rollout = Rollout(strategy="blue_green")
    assert turned(move(service(rollout=rollout, mirror=0.25), world(4, 1))) == {"replicas": 4.0}
    assert turned(move(service(rollout=rollout, mirror=0.25, replicas=4), world(4, 4))) == {"weight": 1.0, "mirror": 0}


@pytest.mark.parametrize("rollout", [Rollout(strategy="blue_green"), Rollout(strategy="canary", steps=(1.0,))])
def test_without_a_mirror_half_comes_before_all_or_nothing_could_be_compared(rollout: Rollout) -> None:
    made = {"rollout": rollout, "idempotent": False}
    assert turned(move(service(**made), world(4, 1, idempotent=False))) == {"replicas": 2.0}
    assert turned(move(service(**made, replicas=2), world(4, 2, idempotent=False))) == {"weight": 0.5, "mirror": 0.0}
    half = service(**made, weight=0.5, replicas=4)
    unsure = [Finding(measure="errors", verdict="not enough evidence", text="3 of 5")]
    assert isinstance(move(half, world(4, 4, idempotent=False), unsure), Wait)
    assert turned(move(half, world(4, 4, idempotent=False))) == {"weight": 1.0, "mirror": 0.0}


def test_manual_moves_nothing_forward_and_still_takes_back() -> None:
    manual = service(rollout=Rollout(strategy="manual"))
    assert isinstance(move(manual, world(4, 1)), Wait)
    bad = [Finding(measure="errors", verdict="convicted", text="errors: 50 of 500")]
    assert isinstance(move(manual, world(4, 1), bad), TakeBack)


@pytest.mark.parametrize("verdict", ["not enough evidence", "disagrees"])
def test_without_evidence_it_waits_for_ever_and_says_so(verdict: Any) -> None:
    found = move(service(weight=0.01), world(4, 1), [Finding(measure="errors", verdict=verdict, text="3 of 5")], 1e9)
    assert isinstance(found, Wait) and found.stalled and "3 of 5" in found.why


def test_a_step_lasts_its_time() -> None:
    assert isinstance(move(service(weight=0.01, since=950.0), world(4, 1)), Wait)


def test_one_that_never_becomes_ready_is_taken_back_after_start_timeout() -> None:
    late = service(since=900.0, asked=900.0)
    for fresh in (world(4, 0), world(4, 1, state="starting")):
        assert isinstance(move(late, fresh, [], 959.0), Wait)
        assert isinstance(move(late, fresh, [], 961.0), TakeBack)


def test_one_that_crashes_is_taken_back_at_once() -> None:
    found = move(service(weight=0.01), world(4, 1, state="failed", reason="exited"))
    assert isinstance(found, TakeBack) and "exited" in found.why


def test_where_there_is_no_room_for_more_the_rest_is_replaced_one_by_one() -> None:
    assert turned(move(service(weight=0.25, replicas=2), world(4, 1))) == {"promoted": 1.0}


def test_a_version_on_probation_gets_no_more_than_its_ready_replicas_can_bear() -> None:
    s = service(weight=0.5, replicas=2)
    assert [round(w, 3) for _, w in shares(s, world(4, 2))] == [0.5, 0.5]
    assert [round(w, 3) for _, w in shares(s, world(4, 1))] == [0.75, 0.25]
    assert [round(w, 3) for _, w in shares(s, world(4, 0))] == [1.0, 0.0]


@pytest.mark.parametrize("owner", ["kubernetes", "keda"])
def test_what_a_stage_asks_for_is_wished_for_where_somebody_else_sets_the_replicas(
    owner: Literal["kubernetes", "keda"],
) -> None:
    """Four run by an autoscaler's word, which whoever decides is told; the wish knows of its own dial alone."""
    seen = service(weight=0.25)
    asked = turned(move(seen, world(4, 1)))
    own = service(1, weight=0.25, replicas=int(asked["replicas"]))
    own = msgspec.structs.replace(own, spec=msgspec.structs.replace(own.spec, scale=Scale(max=9, owner=owner)))
    assert [lane.wanted for lane in lanes(own)] == [1, 2]
    assert [round(w, 3) for _, w in shares(own, world(4, 2))] == [0.75, 0.25]
    full = msgspec.structs.replace(own, canary=Canary(stable=(OLD,), revision=1, weight=1.0, replicas=4))
    assert [round(w, 3) for _, w in shares(full, world(4, 1))] == [0.75, 0.25], "as one of four can bear"


def test_the_two_versions_never_share_a_cluster_until_nobody_asks_the_old_one() -> None:
    def hosts(s: Service, name: str) -> set[str]:
        made = routes([s], world(2, 2), Gateway(), folder="/x")[f"eds/d@{name}.json"]
        return {e["endpoint"]["hostname"] for e in made["resources"][0]["endpoints"][0]["lb_endpoints"]}

    early, full = service(2, weight=0.5, replicas=2), service(2, weight=1.0, replicas=2)
    assert (hosts(early, "main"), hosts(early, "main-new")) == ({"o0", "o1"}, {"n0", "n1"})
    assert hosts(full, "main") == {"o0", "o1", "n0", "n1"}, "known before they take the name over"
    assert hosts(msgspec.structs.replace(full, canary=None), "main") == {"o0", "o1", "n0", "n1"}


def test_the_plan_keeps_the_old_ones_whole_until_the_promotion_and_starts_only_what_is_asked() -> None:
    s = service(4, replicas=2)
    assert [type(x) for x in plan(s, world(4, 0), lambda v: None, 100.0, Local())] == [Start, Start]
    assert plan(s, world(4, 2), lambda v: None, 100.0, Local()) == []
    assert plan(s, world(4, 0), lambda v: 0, 100.0, Local()) == [], "no old one makes room for a try"
    done = msgspec.structs.replace(s, canary=None)
    retired = [x for x in plan(done, world(4, 4), lambda v: None, 100.0, Local()) if isinstance(x, Retire)]
    assert {x.replica for x in retired} == {"o0", "o1", "o2", "o3"}


def test_a_rejected_version_answers_nobody_and_goes_even_when_the_old_ones_are_short() -> None:
    back = Service(
        spec=Spec(name="d", variants=(OLD,)),
        dials=Dials(variants={"main": VariantDials(replicas=3)}),
        revision=3,
        rejected=(NEW.digest,),
    )
    steps = plan(back, world(1, 2), lambda v: None, 100.0, Local())
    assert {s.replica for s in steps if isinstance(s, Retire)} == {"n0", "n1"}
    assert sum(isinstance(s, Start) for s in steps) == 2
    assert [lane.name for lane in lanes(back) if any(lane.holds(r) for r in world(0, 2))] == []
