"""When a service goes to zero and when it wakes, as pure decisions."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import count

import pytest

from leptonai.platforms.memory import MemoryPlatform, World
from leptonai.serve.idle import IdleLoop, Quiet, wake
from leptonai.types import DialChange, Dials, Scale, Service, Spec, Variant, VariantDials

AT = ("digits", "main")


def service(replicas: int, idle: float | None = 60.0, first: int = 1) -> Service:
    variant = Variant(model="sha256:" + "0" * 64)
    spec = Spec(name="digits", variants=(variant,), scale=Scale(idle=idle, replicas=first, max=3))
    return Service(spec=spec, dials=Dials(variants={"main": VariantDials(replicas=replicas)}), revision=1)


@pytest.mark.parametrize(
    ("given", "held", "wanted"),
    [
        (service(0), {AT: 3}, 1.0),
        (service(0, first=2), {AT: 3}, 2.0),
        (service(0, first=0), {AT: 3}, 1.0),
        (service(0), {}, None),
        (service(0), {("other", "main"): 3}, None),
        (service(0, idle=None), {AT: 3}, None),  # a person set it to zero: nothing else wakes it
        (service(1), {AT: 3}, None),  # it is being started already
    ],
)
def test_requests_that_wait_wake_a_service_at_zero(
    given: Service, held: dict[tuple[str, str], int], wanted: float | None
) -> None:
    found = wake(given, held)
    assert (found.change.set if found else None) == ({"main.replicas": wanted} if wanted else None)
    assert found is None or "3 requests wait" in found.why


def test_only_a_service_that_nobody_asked_for_so_long_sleeps() -> None:
    quiet, mine = Quiet(), service(2)
    asked: dict[tuple[str, str], tuple[int, int]] = {AT: (7, 0)}
    assert quiet.sleep([mine], asked, {}, 0.0) == []
    assert quiet.sleep([mine], asked, {}, 59.0) == []
    (found,) = quiet.sleep([mine], asked, {}, 60.0)
    assert found.change.set == {"main.replicas": 0.0} and "scale.idle is 60 s" in found.why
    for busy, held in (({AT: (8, 0)}, {}), ({AT: (8, 1)}, {}), ({AT: (8, 0)}, {AT: 1}), ({}, {})):
        assert quiet.sleep([mine], busy, held, 1000.0) == [], "a new count, one under way, one held, a new gateway"
    assert quiet.sleep([mine], {}, {}, 1059.0) == []
    assert len(quiet.sleep([mine], {}, {}, 1060.0)) == 1
    assert quiet.sleep([service(2, idle=None)], asked, {}, 5000.0) == []
    assert quiet.sleep([service(0)], asked, {}, 5000.0) == []


@pytest.mark.parametrize("theirs", [True, False])
def test_a_service_whose_replicas_somebody_else_sets_is_not_sent_to_sleep(theirs: bool) -> None:
    world, made, looks = World(scaled={"digits": {"main": 2}} if theirs else {}), [], []
    enough = asyncio.Event()

    def services(now: float) -> list[Service]:
        looks.append(now)
        if len(looks) == 5:
            enough.set()
        return [service(2)]

    def propose(change: DialChange, why: str) -> bool:
        made.append(change.set)
        return True

    async def look() -> None:
        loop = IdleLoop(MemoryPlatform(world), services, propose, clock=partial(next, count(0.0, 100.0)), period=1e-3)
        task = asyncio.create_task(loop.run())
        await enough.wait()
        task.cancel()

    asyncio.run(look())
    assert bool(made) != theirs and all(m == {"main.replicas": 0.0} for m in made)
