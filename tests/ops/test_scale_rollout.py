"""One variant, two digests: what the scaler counts and whom it lets go while a new version is on probation."""

from __future__ import annotations

from typing import Any

import pytest

from leptonai.ops.scale.scaler import bearing, may_leave
from leptonai.plan import plan
from leptonai.settings import Local
from leptonai.types import (
    Auto,
    Canary,
    Dials,
    Replica,
    Retire,
    Rollout,
    Scale,
    Service,
    Spec,
    Start,
    Variant,
    VariantDials,
)

OLD, NEW = Variant(model="old", idempotent=True), Variant(model="new", idempotent=True)


def service(wanted: int, evict: tuple[str, ...] = (), **canary: Any) -> Service:
    spec = Spec(
        name="s",
        variants=(NEW,),
        scale=Scale(min=1, max=9, auto=Auto()),
        rollout=Rollout(strategy="canary"),
    )
    dials = Dials(variants={"main": VariantDials(replicas=wanted)}, evict=evict)
    return Service(spec=spec, dials=dials, revision=2, canary=Canary(stable=(OLD,), revision=1, **canary))


def replica(id: str, variant: Variant) -> Replica:
    return Replica(id=id, service="s", variant="main", digest=variant.digest, state="ready", since=0.0)


REPLICAS = [replica("o1", OLD), replica("o2", OLD), replica("o3", OLD), replica("n1", NEW)]


@pytest.mark.parametrize(
    ("canary", "counted"),
    [({"mirror": 1.0}, ["o1", "o2", "o3"]), ({}, ["o1", "o2", "o3"]), ({"weight": 0.05}, ["o1", "o2", "o3", "n1"])],
)
def test_copies_are_no_load_that_is_scaled_for(canary: dict[str, Any], counted: list[str]) -> None:
    assert [r.id for r in bearing(service(3, **canary), REPLICAS)] == counted


def test_scaling_down_lets_old_ones_go_and_never_restarts_the_new_one() -> None:
    wish = service(3, weight=0.05)
    leaving = [r.id for r in REPLICAS if may_leave(wish, r)]
    assert leaving == ["o1", "o2", "o3"]
    steps = plan(service(2, evict=(leaving[1],), weight=0.05), REPLICAS, {}, 100.0, Local())
    assert [s.replica for s in steps if isinstance(s, Retire)] == ["o2"] and not [
        s for s in steps if isinstance(s, Start)
    ]


def test_scaling_up_in_a_rollout_adds_to_the_old_version_and_keeps_the_share_of_the_new_one() -> None:
    steps = plan(service(5, weight=0.05), REPLICAS, {}, 100.0, Local())
    assert {s.digest for s in steps if isinstance(s, Start)} == {OLD.digest}
    assert not [s for s in steps if isinstance(s, Retire)]
