"""Rollouts on random histories: whatever happens, users keep their replicas and every rollout comes to an end."""

from __future__ import annotations

from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leptonai.plan.gateway import routes
from leptonai.plan.rollout import Finding, TakeBack, Turn, decide
from leptonai.platforms.memory import Behaviour, MemoryPlatform, World
from leptonai.settings import Gateway, Settings
from leptonai.store.probation import probation
from leptonai.types import (
    Dial,
    Fault,
    Replica,
    Revision,
    Rollout,
    Scale,
    Service,
    Spec,
    Variant,
    effective_dials,
)

BEHAVIOURS = {
    "old": Behaviour(start_delay=1.0),
    "good": Behaviour(start_delay=2.0),
    "bad": Behaviour(start_delay=1.0),
    "endless": Behaviour(start_delay=1e9),
    "failing": Behaviour(start_delay=1.0, exit_after=0.5),
}
CONVICTED = [Finding(measure="errors", verdict="convicted", text="all of them")]


def at_once(work: Coroutine[Any, Any, Any]) -> None:
    """The memory platform never waits, so no event loop is needed to run it."""
    with suppress(StopIteration):
        work.send(None)


class History:
    """One service under rollouts: the wish in a log of revisions and dials, the world in the memory platform."""

    def __init__(self, n: int, capacity: int | None, rollout: Rollout) -> None:
        self.now, self.n = 1000.0, n
        behaviour = lambda v: BEHAVIOURS[v.model.partition("-")[0]]  # noqa: E731
        self.platform = MemoryPlatform(
            World(clock=lambda: self.now, capacity=capacity, behaviour=behaviour), Settings()
        )
        self.rollout = rollout
        self.revisions: list[Revision] = []
        self.dials: list[Dial] = []
        self.scale(n)
        self.deploy("old")
        self.faults = 0.0  # when a fault last hit a replica

    def scale(self, n: int) -> None:
        self.n = n
        self.dials.append(Dial(path="main.replicas", value=n, owner="human:ana", reason="", at=self.now))

    def wish_spec(self, spec: Spec) -> None:
        number = len(self.revisions) + 1
        self.revisions.append(Revision(service="d", number=number, by="x", why="", at=self.now, spec=spec))

    def deploy(self, model: str) -> None:
        self.wish_spec(
            Spec(
                name="d",
                variants=(Variant(model=f"{model}-{len(self.revisions)}", idempotent=True),),
                rollout=self.rollout,
                scale=Scale(min=1),
            )
        )

    def service(self) -> Service:
        spec = self.revisions[-1].spec
        assert spec is not None
        canary, rejected = probation(self.revisions, self.dials, self.now)
        dials = effective_dials(spec, self.dials, self.now)
        return Service(spec=spec, dials=dials, revision=len(self.revisions), canary=canary, rejected=rejected)

    def tick(self, decides: bool = True) -> None:
        self.now += 0.5
        service = self.service()
        if decides and service.canary is not None:
            new = service.spec.variants[0]
            seen = service.canary.mirror > 0 or service.canary.weight > 0
            bad = new.model.startswith("bad") and seen
            move = decide(service, self.platform.observe(), CONVICTED if bad else [], self.now)
            if isinstance(move, TakeBack):
                stable = self.revisions[service.canary.revision - 1].spec
                assert stable is not None
                self.wish_spec(stable)
            elif isinstance(move, Turn):
                for name, value in move.set.items():
                    path = f"rollout.{service.revision}.{name}"
                    self.dials.append(Dial(path=path, value=value, owner="rollout", reason=move.why, at=self.now))
        before = self.platform.observe()
        at_once(self.platform.apply(self.service()))
        self.check(before)

    def check(self, before: list[Replica]) -> None:
        service, after = self.service(), self.platform.observe()
        hosts = [h for h in self.asked(service, after)]
        assert not {h.digest for h in hosts} & set(service.rejected), "who did not get through answers nobody"
        if service.canary is not None:
            stable = service.canary.stable[0].digest
            serving = sum(r.state == "ready" and r.digest == stable for r in after)
            had = sum(r.state == "ready" and r.digest == stable for r in before)
            assert serving >= min(self.n, had), "a rollout costs no healthy replica"
            if service.canary.weight == 0:
                assert all(h.digest == stable for h in hosts), "nobody is asked of a version before its time"

    def asked(self, service: Service, replicas: list[Replica]) -> list[Replica]:
        """The hosts that users' requests go to first."""
        made = routes([service], replicas, Gateway(), folder="/x")
        weighed = {
            name: part["resources"][0]["endpoints"][0]["lb_endpoints"]
            for name, part in made.items()
            if name.startswith("eds/")
        }
        new_asked = service.canary is not None and service.canary.weight > 0
        ids = {
            h["endpoint"]["hostname"]
            for name, hosts in weighed.items()
            for h in hosts
            if new_asked or not name.endswith("-new.json")
        }
        return [r for r in replicas if r.id in ids]

    def calm(self) -> None:
        for _ in range(400):
            self.tick()
            if self.service().canary is None and self.whole():
                return
        raise AssertionError(f"no end: {self.service()} {self.platform.observe()}")

    def whole(self) -> bool:
        seen, service = self.platform.observe(), self.service()
        capacity = self.platform.world.capacity
        wanted = min(self.n, capacity) if capacity is not None else self.n
        if wanted < self.n:
            seen = [r for r in seen if not r.gone]  # what went and has no room to come back is told, and stays
        digest = service.spec.variants[0].digest
        return len(seen) == wanted and all(r.state == "ready" and r.digest == digest for r in seen)


acts = st.one_of(
    st.tuples(st.just("wait"), st.integers(1, 12)),
    st.tuples(st.just("deploy"), st.sampled_from(["good", "bad", "endless", "failing"])),
    st.tuples(st.just("scale"), st.integers(1, 4)),
    st.tuples(st.just("undo"), st.just(0)),
    st.tuples(st.just("away"), st.integers(1, 12)),  # control serves, nobody decides: ops is dead
    st.tuples(st.just("kill"), st.integers(0, 5)),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(acts, max_size=10),
    st.integers(1, 4),
    st.sampled_from([None, None, 1, 2, 3, 5]),
    st.sampled_from(["canary", "canary", "blue_green"]),
)
def test_no_history_of_rollouts_costs_users_a_replica_and_all_end(
    story: list[tuple[str, Any]], n: int, capacity: int | None, strategy: Any
) -> None:
    history = History(n, capacity, Rollout(strategy=strategy, step_seconds=1.0, start_timeout=5.0))
    for _ in range(12):
        history.tick()
    for what, how in story:
        match what:
            case "deploy":
                history.deploy(how)
            case "scale":
                history.scale(how)
            case "undo" if len(history.revisions) > 1:
                spec = history.revisions[-2].spec
                assert spec is not None
                history.wish_spec(spec)
            case "kill":
                alive = [r for r in history.platform.observe() if not r.gone]
                if alive:
                    victim = alive[how % len(alive)].id
                    at_once(history.platform.inject(Fault(kind="kill", replica=victim)))
            case "wait" | "away":
                for _ in range(how):
                    history.tick(decides=what == "wait")
        history.tick()
    model = history.service().spec.variants[0].model
    if history.service().canary is None and not model.startswith(("old", "good")):
        history.deploy("good")  # somebody went back to a version that was never any good: nothing could ever be whole
    history.calm()


def test_one_slot_machines_refuse_a_canary_and_keep_what_serves() -> None:
    history = History(1, 1, Rollout(strategy="canary", step_seconds=1.0, start_timeout=5.0))
    for _ in range(12):
        history.tick()
    before = history.platform.observe()
    history.deploy("good")
    history.calm()
    assert [msgspec.structs.replace(r) for r in history.platform.observe()] == before
    assert history.service().rejected


def test_the_replicas_of_the_canary_are_those_that_serve_after_its_promotion() -> None:
    history = History(3, None, Rollout(strategy="canary", step_seconds=1.0))
    for _ in range(12):
        history.tick()
    history.deploy("good")
    full: set[str] = set()
    while (service := history.service()).canary is not None:
        history.tick()
        if service.canary.weight >= 1.0:
            full = {r.id for r in history.platform.observe() if r.digest == service.spec.variants[0].digest}
    history.calm()
    assert {r.id for r in history.platform.observe()} == full and len(full) == 3
