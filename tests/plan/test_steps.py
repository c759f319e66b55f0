"""The planner's rules, one small table each. Random histories are in test_histories.py."""

from __future__ import annotations

from typing import Any

import pytest

from leptonai.plan import delay, plan
from leptonai.settings import Local
from leptonai.types import (
    Dials,
    Forget,
    Replica,
    Retire,
    Rollout,
    Service,
    Spec,
    Start,
    Step,
    Tune,
    Tuning,
    Variant,
    VariantDials,
)

NEW, OLD = Variant(model="new"), Variant(model="old")
LOCAL = Local()


def wish(n: int = 2, evict: tuple[str, ...] = (), epoch: int = 0, **rollout: Any) -> Service:
    dials = Dials(variants={"main": VariantDials(replicas=n, epoch=epoch)}, evict=evict)
    return Service(spec=Spec(name="s", variants=(NEW,), rollout=Rollout(**rollout)), dials=dials, revision=1)


def replica(id: str, state: Any = "ready", variant: Variant = NEW, **more: Any) -> Replica:
    fields: dict[str, Any] = {"service": "s", "variant": variant.name, "digest": variant.digest, "since": 0.0}
    return Replica(id=id, state=state, **(fields | more))


def crashed(id: str, since: float, attempt: int = 0, variant: Variant = NEW) -> Replica:
    return replica(id, "failed", variant, reason="exited", since=since, attempt=attempt)


def steps(service: Service, *replicas: Replica, room: int | None = None, now: float = 100.0) -> list[Step]:
    return plan(service, replicas, {"main": room}, now, LOCAL)


def start(attempt: int = 0, epoch: int = 0) -> Start:
    return Start(service="s", variant="main", digest=NEW.digest, epoch=epoch, attempt=attempt)


SAME, OTHER = Tuning(), Tuning(latency=9.0)
hung = {"state": "failed", "reason": "hung"}
CASES: dict[str, tuple[list[Step], list[Step]]] = {
    "an empty world is filled": (steps(wish(2)), [start(), start()]),
    "a matching world needs nothing": (steps(wish(2), replica("a"), replica("b")), []),
    "what batches by other rules is told, and keeps running": (
        steps(
            wish(3),
            replica("a", tuning=OTHER),
            replica("b", tuning=SAME),
            replica("c", "starting", since=99.0, tuning=OTHER),
        ),
        [Tune(replica="a", tuning=SAME), Tune(replica="c", tuning=SAME)],
    ),
    "who does not say how it batches, hangs or goes is not told": (
        steps(
            wish(2),
            replica("a"),
            replica("b", **hung, tuning=OTHER),
            replica("c", "stopping", tuning=OTHER),
        ),
        [],
    ),
    "only as many as there is room for": (steps(wish(3), room=1), [start()]),
    "what is stopping does not count": (steps(wish(1), replica("a", "stopping")), [start()]),
    "another service's replicas are nobody's business": (steps(wish(0), replica("a", service="t")), []),
    "a first crash is replaced at once": (
        steps(wish(1), crashed("a", since=100.0)),
        [start(attempt=1), Forget(replica="a")],
    ),
    "a second crash waits": (steps(wish(1), crashed("a", since=99.5, attempt=1)), []),
    "until its back-off is over": (
        steps(wish(1), crashed("a", since=99.0, attempt=1)),
        [start(attempt=2), Forget(replica="a")],
    ),
    "a hung one is for ops to judge": (steps(wish(2), replica("a"), replica("b", **hung)), []),
    "once evicted it goes at once": (
        steps(wish(2, evict=("b",)), replica("a"), replica("b", **hung)),
        [start(), Retire(replica="b", reason="evicted")],
    ),
    "an evicted one that serves waits for its substitute": (
        steps(wish(2, evict=("b",)), replica("a"), replica("b")),
        [start()],
    ),
    "and for it to be ready": (
        steps(wish(2, evict=("b",)), replica("a"), replica("b"), replica("c", "starting", since=99.0)),
        [],
    ),
    "then it goes": (
        steps(wish(2, evict=("b",)), replica("a"), replica("b"), replica("c")),
        [Retire(replica="b", reason="evicted")],
    ),
    "a rollout surges": (steps(wish(2), replica("a", variant=OLD), replica("b", variant=OLD)), [start()]),
    "by as much as it may": (
        steps(wish(2, surge=5), replica("a", variant=OLD), replica("b", variant=OLD)),
        [start(), start()],
    ),
    "a failing rollout keeps every healthy old one": (
        steps(wish(2), replica("a", variant=OLD), replica("b", variant=OLD), crashed("c", since=99.9, attempt=3)),
        [],
    ),
    "one that crashed before must prove itself first": (
        steps(wish(1), replica("a", variant=OLD), replica("c", attempt=1, since=95.0)),
        [],
    ),
    "by being ready for long enough": (
        steps(wish(1), replica("a", variant=OLD), replica("c", attempt=1, since=85.0)),
        [Retire(replica="a", reason="replaced")],
    ),
    "a restart is a rollout of the same digest": (
        steps(wish(1, epoch=1), replica("a")),
        [start(epoch=1)],
    ),
    "an old one that does not serve makes way at once": (
        steps(wish(1), replica("a", "starting", variant=OLD)),
        [start(), Retire(replica="a", reason="replaced")],
    ),
    "an old one that is gone is forgotten": (steps(wish(0), crashed("a", 0.0, variant=OLD)), [Forget(replica="a")]),
    "scaling down takes what does not serve": (
        steps(wish(1), replica("a"), replica("b", "starting")),
        [Retire(replica="b", reason="scaled down")],
    ),
    "then the youngest": (
        steps(wish(1), replica("a", started=5.0), replica("b", started=6.0)),
        [Retire(replica="b", reason="scaled down")],
    ),
    "a scale-down in mid-rollout stops what is not ready yet": (
        steps(
            wish(1),
            replica("a", variant=OLD),
            replica("b", "starting", since=98.0),
            replica("c", "starting", since=99.0),
        ),
        [Retire(replica="c", reason="scaled down")],
    ),
    "even when wished, if it would be more than the surge allows": (
        steps(
            wish(2, surge=0), replica("a", variant=OLD), replica("b", variant=OLD), replica("c", "starting", since=99.0)
        ),
        [Retire(replica="c", reason="scaled down")],
    ),
    "zero is a number": (
        steps(wish(0), replica("a"), replica("b", variant=OLD)),
        [Retire(replica="a", reason="scaled down"), Retire(replica="b", reason="replaced")],
    ),
    "a load that takes too long is tried again": (
        steps(wish(1, start_timeout=60.0), replica("a", "starting", since=30.0)),
        [start(attempt=1), Retire(replica="a", reason="start_timeout")],
    ),
    "with more patience each time": (
        steps(wish(1, start_timeout=60.0), replica("a", "starting", since=30.0, attempt=5)),
        [],
    ),
    "a full machine gives one place": (
        steps(wish(2), replica("a", variant=OLD), replica("b", variant=OLD), room=0),
        [Retire(replica="a", reason="making room")],
    ),
    "and waits for it": (
        steps(wish(2), replica("a", "stopping", variant=OLD), replica("b", variant=OLD), room=0),
        [],
    ),
    "and gives no second one to a revision that fails": (
        steps(wish(2), crashed("a", since=99.9, attempt=1), replica("b", variant=OLD), room=0),
        [],
    ),
    "nor to one that is still loading": (
        steps(wish(2), replica("a", "starting", since=99.0), replica("b", variant=OLD), room=0),
        [],
    ),
    "no surge means one at a time, the old one first": (
        steps(wish(2, surge=0), replica("a", variant=OLD), replica("b", variant=OLD)),
        [Retire(replica="a", reason="making room")],
    ),
    "a variant that left serves until the others do": (
        steps(wish(1), replica("a", variant=Variant(name="was", model="m"))),
        [start()],
    ),
    "and then goes": (
        steps(wish(1), replica("a", variant=Variant(name="was", model="m")), replica("b")),
        [Retire(replica="a", reason="variant removed")],
    ),
    "or goes first on a full machine": (
        steps(wish(1), replica("a", variant=Variant(name="was", model="m")), room=0),
        [Retire(replica="a", reason="making room")],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_plan(case: str) -> None:
    got, wanted = CASES[case]
    assert got == wanted


def test_back_off_doubles_from_at_once_to_the_limit() -> None:
    assert [delay(n, LOCAL) for n in range(10)] == [0, 1, 2, 4, 8, 16, 32, 64, 64, 64]
    assert delay(10_000, LOCAL) == 64
