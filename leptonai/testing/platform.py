"""What every Platform must do, as tests. Subclass, fill in the factories, and let pytest collect it.

    class TestMine(PlatformSuite):
        def platform(self) -> Platform: ...
        def good(self, tag: str = "a") -> Variant: ...
        def failing(self) -> Variant: ...
        def endless(self) -> Variant: ...

A platform object drives the same world as the one before it, which the suite has closed by then. Settings should have
short times (back-off 0.1 s, hung after 1 s); nothing here waits by sleeping for a guess: it polls until a deadline.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from leptonai.errors import NotFound
from leptonai.protocols import Platform
from leptonai.types import (
    Batching,
    Dials,
    Fault,
    Key,
    Replica,
    Rollout,
    Service,
    Slo,
    Spec,
    Start,
    Step,
    Tuning,
    Variant,
    VariantDials,
)


class PlatformSuite(ABC):
    deadline = 60.0  # seconds until a test gives up waiting
    period = 0.05  # seconds between two applies, as the reconcile loop's

    @abstractmethod
    def platform(self) -> Platform:
        """A new platform object over this test's world, not started."""

    @abstractmethod
    def good(self, tag: str = "a") -> Variant:
        """A variant that becomes ready within a few seconds; another ``tag`` gives another digest."""

    @abstractmethod
    def failing(self) -> Variant:
        """A variant whose process exits with an error before it is ready, soon."""

    @abstractmethod
    def endless(self) -> Variant:
        """A variant that is still loading after several seconds."""

    # --- the wish ----------------------------------------------------------------------------------------------------

    def wish(
        self,
        variant: Variant,
        n: int,
        *,
        name: str = "suite",
        evict: tuple[str, ...] = (),
        epoch: int = 0,
        **spec: object,
    ) -> Service:
        dials = Dials(variants={variant.name: VariantDials(replicas=n, epoch=epoch)}, evict=evict)
        made = Spec(name=name, variants=(variant,), drain=2.0, **spec)  # type: ignore[arg-type]
        return Service(spec=made, dials=dials, revision=1)

    # --- driving -----------------------------------------------------------------------------------------------------

    def drive(self, story: Callable[[Platform], Awaitable[None]]) -> None:
        """Run a story on a started platform; afterwards nothing of any service runs."""

        async def run() -> None:
            platform = self.platform()
            await platform.start()
            try:
                await story(platform)
            finally:
                await self.clear(platform)
                await platform.close()

        asyncio.run(run())

    async def clear(self, platform: Platform) -> None:
        for key in {r.service for r in platform.observe()}:
            await platform.remove(key)

    async def until(
        self,
        platform: Platform,
        service: Service | None,
        done: Callable[[list[Replica]], bool],
        *,
        watch: Watch | None = None,
    ) -> list[Replica]:
        """Apply and observe in turn until ``done``; returns what was seen then. Fails at the deadline."""
        end = time.monotonic() + self.deadline
        while True:
            steps = await platform.apply(service) if service is not None else []
            seen = platform.observe()
            if watch is not None:
                watch(steps, seen)
            if done(seen):
                return seen
            assert time.monotonic() < end, f"not reached in {self.deadline} s; last seen: {seen}"
            await asyncio.sleep(self.period)

    async def settle(self, platform: Platform, service: Service, watch: Watch | None = None) -> list[Replica]:
        """Until exactly the wished replicas are there, ready, and nothing is left to do."""
        variant = service.spec.variants[0]
        dials = service.dials.variants[variant.name]

        def done(seen: list[Replica]) -> bool:
            mine = [r for r in seen if r.service == service.key]
            return len(mine) == dials.replicas and all(
                r.state == "ready" and r.digest == variant.digest and r.epoch == dials.epoch for r in mine
            )

        await self.until(platform, service, done, watch=watch)
        assert await platform.apply(service) == [], "a world that matches needs no step"
        return [r for r in platform.observe() if r.service == service.key]

    async def hurt(self, platform: Platform, replica: Replica, kind: str) -> str:
        return await platform.inject(Fault(kind=kind, replica=replica.id, heal_after=600.0))  # type: ignore[arg-type]

    # --- what must hold ----------------------------------------------------------------------------------------------

    def test_converges_and_then_does_nothing(self) -> None:
        async def story(platform: Platform) -> None:
            seen = await self.settle(platform, self.wish(self.good(), 2))
            assert {r.variant for r in seen} == {"main"}
            assert all(r.attempt == 0 and r.since > 0 and r.started > 0 and r.address for r in seen)
            assert len({r.id for r in seen}) == len({r.address for r in seen}) == 2
            assert platform.url("suite")

        self.drive(story)

    def test_observation_is_ordered_and_covers_all_services(self) -> None:
        async def story(platform: Platform) -> None:
            for name in ("zebra", "apple"):
                await self.settle(platform, self.wish(self.good(), 1, name=name))
            seen = platform.observe()
            assert [r.service for r in seen] == ["apple", "zebra"]
            assert seen == sorted(seen, key=lambda r: (r.service, r.variant, r.id))

        self.drive(story)

    def test_a_killed_replica_is_replaced_and_the_others_stay(self) -> None:
        async def story(platform: Platform) -> None:
            service = self.wish(self.good(), 2)
            before = await self.settle(platform, service)
            await self.hurt(platform, before[0], "kill")
            await self.until(platform, service, lambda seen: before[0].id not in {r.id for r in seen if not r.gone})
            after = await self.settle(platform, service)
            assert before[1].id in {r.id for r in after}
            assert before[0].id not in {r.id for r in after}

        self.drive(story)

    def test_a_hung_replica_is_told_and_left_alone_until_evicted(self) -> None:
        async def story(platform: Platform) -> None:
            service = self.wish(self.good(), 2)
            victim = (await self.settle(platform, service))[0]
            await self.hurt(platform, victim, "stop")

            def hung(seen: list[Replica]) -> bool:
                return any(r.id == victim.id and r.state == "failed" and r.reason == "hung" for r in seen)

            seen = await self.until(platform, service, hung)
            assert not next(r for r in seen if r.id == victim.id).gone
            for _ in range(5):
                assert await platform.apply(service) == [], "sick is not for serve to repair"
            evicted = self.wish(self.good(), 2, evict=(victim.id,))
            after = await self.settle(platform, evicted)
            assert victim.id not in {r.id for r in after}

        self.drive(story)

    def test_a_stop_that_heals_is_ready_again(self) -> None:
        async def story(platform: Platform) -> None:
            service = self.wish(self.good(), 1)
            victim = (await self.settle(platform, service))[0]
            fault = await self.hurt(platform, victim, "stop")
            await self.until(platform, service, lambda seen: seen[0].reason == "hung")
            await platform.heal(fault)
            after = await self.settle(platform, service)
            assert [r.id for r in after] == [victim.id]

        self.drive(story)

    def test_a_new_revision_never_leaves_fewer_ready_than_wished(self) -> None:
        async def story(platform: Platform) -> None:
            before = await self.settle(platform, self.wish(self.good("a"), 2))
            watch = Watch(ready=2, live=3)
            after = await self.settle(platform, self.wish(self.good("b"), 2), watch)
            assert not {r.id for r in before} & {r.id for r in after}

        self.drive(story)

    def test_a_restart_replaces_every_replica_of_the_same_digest(self) -> None:
        async def story(platform: Platform) -> None:
            before = await self.settle(platform, self.wish(self.good(), 2))
            after = await self.settle(platform, self.wish(self.good(), 2, epoch=1), Watch(ready=2, live=3))
            assert {r.digest for r in before} == {r.digest for r in after}
            assert not {r.id for r in before} & {r.id for r in after}

        self.drive(story)

    def test_other_batching_is_told_to_what_runs(self) -> None:
        async def story(platform: Platform) -> None:
            before = await self.settle(platform, self.wish(self.good(), 2))
            variant = msgspec.structs.replace(self.good(), batching=Batching(policy="eager", max_size=3))
            changed = self.wish(variant, 2, slo=Slo(latency=0.7), timeout=9.0)
            want = Tuning.of(changed.spec, variant)
            assert not any(r.tuning == want for r in before)
            watch = Watch(ready=2, live=2)
            await self.until(platform, changed, lambda seen: all(r.tuning == want for r in seen), watch=watch)
            after = await self.settle(platform, changed, watch)
            assert {(r.id, r.pid) for r in before} == {(r.id, r.pid) for r in after}

        self.drive(story)

    def test_an_evicted_replica_serves_until_its_substitute_does(self) -> None:
        async def story(platform: Platform) -> None:
            before = await self.settle(platform, self.wish(self.good(), 2))
            service = self.wish(self.good(), 2, evict=(before[0].id,))
            after = await self.settle(platform, service, Watch(ready=2, live=3))
            assert before[0].id not in {r.id for r in after}
            assert before[1].id in {r.id for r in after}

        self.drive(story)

    def test_scales_up_down_to_zero_and_back(self) -> None:
        async def story(platform: Platform) -> None:
            for n in (1, 3, 2, 0, 1):
                assert len(await self.settle(platform, self.wish(self.good(), n))) == n

        self.drive(story)

    def test_scaling_down_keeps_the_oldest(self) -> None:
        async def story(platform: Platform) -> None:
            first = await self.settle(platform, self.wish(self.good(), 1))
            await self.settle(platform, self.wish(self.good(), 2))
            last = await self.settle(platform, self.wish(self.good(), 1))
            assert [r.id for r in first] == [r.id for r in last]

        self.drive(story)

    def test_a_failing_revision_backs_off_and_costs_no_healthy_replica(self) -> None:
        async def story(platform: Platform) -> None:
            before = {r.id for r in await self.settle(platform, self.wish(self.good(), 2))}
            bad = self.wish(self.failing(), 2)
            watch = Watch(ready=2, live=3)

            def third_try(seen: list[Replica]) -> bool:
                return any(r.digest == bad.spec.variants[0].digest and r.attempt >= 2 for r in seen)

            await self.until(platform, bad, third_try, watch=watch)
            attempts = [step.attempt for step in watch.started]
            assert all(later <= first + 1 for first, later in itertools.pairwise(attempts))
            assert watch.gone and all(r.reason and r.detail for r in watch.gone), watch.gone
            back = await self.settle(platform, self.wish(self.good(), 2), Watch(ready=2, live=3))
            assert {r.id for r in back} == before, "going back to what still runs starts nothing"

        self.drive(story)

    def test_a_load_that_never_ends_is_tried_again(self) -> None:
        async def story(platform: Platform) -> None:
            await self.settle(platform, self.wish(self.good(), 1))
            stuck = self.wish(self.endless(), 1, rollout=Rollout(start_timeout=1.0))
            watch = Watch(ready=1, live=2)
            await self.until(
                platform, stuck, lambda seen: any(r.attempt == 1 and r.state == "starting" for r in seen), watch=watch
            )

        self.drive(story)

    def test_remove_leaves_nothing_and_is_no_error_twice(self) -> None:
        async def story(platform: Platform) -> None:
            await self.settle(platform, self.wish(self.good(), 2))
            await self.settle(platform, self.wish(self.good(), 1, name="other"))
            await platform.remove("suite")
            assert [r.service for r in platform.observe()] == ["other"]
            await platform.remove("suite")
            await platform.remove("never-there")
            assert [r.service for r in platform.observe()] == ["other"]

        self.drive(story)

    def test_logs_are_kept_per_replica_in_order(self) -> None:
        async def story(platform: Platform) -> None:
            replica = (await self.settle(platform, self.wish(self.good(), 1)))[0]
            await self.until(platform, None, lambda _: bool(platform.logs(replica.id)))
            lines = platform.logs(replica.id)
            assert all(line.replica == replica.id for line in lines)
            assert [line.at for line in lines] == sorted(line.at for line in lines)
            assert platform.logs(replica.id, limit=1) == lines[-1:]
            assert platform.logs(replica.id, since=time.time() + 3600.0) == []
            with pytest.raises(NotFound):
                platform.logs("never-there")

        self.drive(story)

    def test_another_platform_adopts_what_runs(self) -> None:
        async def story() -> None:
            service = self.wish(self.good(), 2)
            first = self.platform()
            await first.start()
            before = await self.settle(first, service)
            await first.close()
            second = self.platform()
            await second.start()
            try:
                after = await self.settle(second, service)
                assert [(r.id, r.pid) for r in after] == [(r.id, r.pid) for r in before]
                await self.hurt(second, after[0], "kill")  # an adopted one is watched like one's own
                await self.until(second, service, lambda seen: after[0].id not in {r.id for r in seen if not r.gone})
                await self.settle(second, service)
            finally:
                await self.clear(second)
                await second.close()

        asyncio.run(story())

    def test_describes_its_gateway(self) -> None:
        async def story(platform: Platform) -> None:
            gateway = platform.describe()["gateway"]
            assert {"url", "admin", "pid", "healthy"} <= set(gateway)

        self.drive(story)


class Watch:
    """Invariants at every look: at least ``ready`` ready, at most ``live`` that are not stopping, per service."""

    def __init__(self, *, ready: int, live: int) -> None:
        self.ready, self.live = ready, live
        self.started: list[Start] = []
        self.gone: list[Replica] = []

    def __call__(self, steps: list[Step], seen: list[Replica]) -> None:
        self.started += [s for s in steps if isinstance(s, Start)]
        self.gone += [r for r in seen if r.gone]
        ready: Counter[Key] = Counter(r.service for r in seen if r.state == "ready")
        live: Counter[Key] = Counter(r.service for r in seen if not r.gone and r.state != "stopping")
        assert all(n >= self.ready for n in ready.values()) and ready, f"too few ready: {seen}"
        assert all(n <= self.live for n in live.values()), f"too many live: {seen}"
