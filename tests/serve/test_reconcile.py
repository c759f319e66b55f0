"""The loop over the memory platform on a simulated clock: what it does, what it tells, and that nothing stops it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from leptonai.errors import PlatformError
from leptonai.platforms.memory import Behaviour, MemoryPlatform, World
from leptonai.serve.reconcile import Reconciler
from leptonai.settings import Local, Settings
from leptonai.types import Dials, Fault, Key, Service, Spec, Step, Variant, VariantDials


def wish(name: str = "s", n: int = 2, model: str = "m", evict: tuple[str, ...] = ()) -> Service:
    spec = Spec(name=name, variants=(Variant(model=model),))
    return Service(spec=spec, dials=Dials(variants={"main": VariantDials(replicas=n)}, evict=evict), revision=7)


class Scene:
    """A loop over a memory platform whose time stands still until it is told to go on."""

    def __init__(self, platform: MemoryPlatform | None = None) -> None:
        self.now = 1000.0
        self.wishes: dict[Key, Service] = {}
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        self.dropped: list[tuple[Key, list[str]]] = []
        self.world = World(clock=lambda: self.now, behaviour=self.behave)
        self.platform = platform or MemoryPlatform(self.world, Settings(local=Local(backoff_first=4.0)))
        self.platform.world = self.world
        self.loop = self.another()

    def behave(self, variant: Variant) -> Behaviour:
        return Behaviour(start_delay=1.0, exit_after=0.5 if variant.model == "bad" else None)

    def another(self) -> Reconciler:
        return Reconciler(
            self.platform,
            lambda now: list(self.wishes.values()),
            lambda kind, subject, detail: self.events.append((kind, subject, detail)),
            clock=lambda: self.now,
            drop_evictions=lambda key, ids: self.dropped.append((key, ids)),
        )

    async def passes(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.loop.once()
            await self.loop.settled()
            self.now += 0.5

    def told(self, kind: str, subject: str = "s") -> list[dict[str, Any]]:
        return [detail for k, s, detail in self.events if k == kind and s == subject]

    def ready(self, key: Key = "s") -> list[str]:
        return [r.id for r in self.platform.observe() if r.service == key and r.state == "ready"]


def play(story: Callable[[Scene], Awaitable[None]], platform: MemoryPlatform | None = None) -> Scene:
    async def run() -> Scene:
        scene = Scene(platform)
        await story(scene)
        return scene

    return asyncio.run(run())


def test_reaches_the_wish_and_tells_the_terms_of_each_step() -> None:
    async def story(scene: Scene) -> None:
        scene.wishes["s"] = wish(n=2)
        await scene.passes(3)
        assert len(scene.ready()) == 2
        first = scene.told("plan.start")[0]
        assert {k: first[k] for k in ("wanted", "ready", "live", "room", "revision", "attempt")} == {
            "wanted": 2, "ready": 0, "live": 0, "room": None, "revision": 7, "attempt": 0,
        }  # fmt: skip
        assert [len(scene.told(f"replica.{s}")) for s in ("starting", "ready", "failed")] == [2, 2, 0]
        scene.wishes["s"] = wish(n=1)
        await scene.passes(1)
        assert scene.told("plan.retire")[0]["reason"] == "scaled down"
        assert len(scene.told("replica.stopped")) == 1

    play(story)


def test_a_killed_replica_is_told_with_its_signal_before_it_is_replaced() -> None:
    async def story(scene: Scene) -> None:
        scene.wishes["s"] = wish(n=2)
        await scene.passes(3)
        victim = scene.ready()[0]
        await scene.platform.inject(Fault(kind="kill", replica=victim))
        await scene.passes(3)
        assert len(scene.ready()) == 2
        [failed] = scene.told("replica.failed")
        assert (failed["replica"], failed["reason"], failed["was"]) == (victim, "killed", "ready")
        assert "SIGKILL" in failed["detail"] and failed["pid"]
        kinds = [k for k, _, d in scene.events if d.get("replica") == victim or k == "plan.start"]
        assert kinds.index("replica.failed") < len(kinds) - 1 - kinds[::-1].index("plan.start")

    play(story)


def test_what_nobody_wishes_is_removed_and_the_others_stay() -> None:
    async def story(scene: Scene) -> None:
        scene.wishes = {"s": wish("s"), "t": wish("t")}
        await scene.passes(3)
        del scene.wishes["s"]
        await scene.passes(1)
        assert {r.service for r in scene.platform.observe()} == {"t"}
        assert scene.told("plan.removed")
        scene.wishes = {}
        scene.loop = scene.another()  # a new control over a world it never touched
        await scene.passes(1)
        assert scene.platform.observe() == []

    play(story)


def test_a_service_wished_again_while_it_is_removed_comes_back() -> None:
    async def story(scene: Scene) -> None:
        scene.wishes["s"] = wish(n=1)
        await scene.passes(3)
        scene.wishes = {}
        scene.loop.once()
        scene.wishes["s"] = wish(n=1)
        await scene.passes(4)
        assert len(scene.ready()) == 1

    play(story)


class Broken(MemoryPlatform):
    """A platform that fails for one service."""

    async def apply(self, service: Service) -> list[Step]:
        if service.key == "a-broken-one":
            raise PlatformError("no such machine", hint="plug it in")
        if service.key == "a-buggy-one":
            raise ZeroDivisionError("never")
        return await super().apply(service)


def test_an_error_of_one_service_is_told_once_and_stops_no_other() -> None:
    async def story(scene: Scene) -> None:
        scene.wishes = {n: wish(n) for n in ("a-broken-one", "a-buggy-one", "s")}
        await scene.passes(5)
        assert len(scene.ready()) == 2
        [told] = scene.told("plan.failed", "a-broken-one")
        assert told["error"] == "no such machine" and told["hint"] == "plug it in"
        assert len(scene.told("plan.failed", "a-buggy-one")) == 1

    play(story, Broken())


def test_an_evict_dial_is_dropped_once_its_replica_is_gone_and_not_before() -> None:
    async def story(scene: Scene) -> None:
        scene.wishes["s"] = wish(n=2)
        await scene.passes(3)
        victim = scene.ready()[0]
        scene.wishes["s"] = wish(n=2, evict=(victim, "never-there"))
        await scene.passes(0.5)
        assert victim in scene.ready() and scene.dropped == [("s", ["never-there"])]
        await scene.passes(3)
        assert victim not in scene.ready() and len(scene.ready()) == 2
        assert ("s", [victim, "never-there"]) in scene.dropped

    play(story)


def test_a_new_control_tells_only_what_has_failed() -> None:
    async def story(scene: Scene) -> None:
        scene.wishes["s"] = wish(n=2)
        await scene.passes(3)
        await scene.platform.inject(Fault(kind="stop", replica=scene.ready()[0]))
        scene.now += 10.0
        scene.events.clear()
        scene.loop = scene.another()
        await scene.passes(2)
        assert [(k, d["reason"]) for k, _, d in scene.events] == [("replica.failed", "hung")]

    play(story)


def test_a_crash_loop_backs_off_as_told() -> None:
    async def story(scene: Scene) -> None:
        scene.wishes["s"] = wish(n=1, model="bad")
        await scene.passes(33)
        attempts = [d["attempt"] for d in scene.told("plan.start")]
        assert attempts == [0, 1, 2, 3, 4], "at once, then 4, 8, 16 s apart"

    play(story)


def test_wishes_that_cannot_be_read_are_told_and_survived() -> None:
    async def story(scene: Scene) -> None:
        def broken(now: float) -> list[Service]:
            raise PlatformError("store is locked")

        scene.wishes["s"] = wish(n=1)
        await scene.passes(3)
        loop = Reconciler(
            scene.platform, broken, lambda k, s, d: scene.events.append((k, s, d)), clock=lambda: scene.now
        )
        loop.once()
        assert len(scene.ready()) == 1, "no wish known is not a wish for nothing"
        assert scene.told("plan.failed", "")

    play(story)


def test_the_loop_looks_at_once_when_woken_and_by_itself_otherwise() -> None:
    async def story(scene: Scene) -> None:
        loop = Reconciler(
            scene.platform,
            lambda now: list(scene.wishes.values()),
            lambda k, s, d: None,
            clock=lambda: scene.now,
            period=3600.0,
        )
        task = asyncio.create_task(loop.run())
        try:
            await asyncio.sleep(0)
            for name in ("s", "t"):
                scene.wishes[name] = wish(name, n=1)
            loop.wake("s")
            async with asyncio.timeout(30):
                while not scene.platform.observe():  # noqa: ASYNC110
                    await asyncio.sleep(0)
            assert {r.service for r in scene.platform.observe()} == {"s"}, "only the one that was named"
        finally:
            task.cancel()
        quick = Reconciler(scene.platform, lambda now: list(scene.wishes.values()), lambda k, s, d: None, period=0.01)
        task = asyncio.create_task(quick.run())
        try:
            async with asyncio.timeout(30):
                while {r.service for r in scene.platform.observe()} != {"s", "t"}:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        finally:
            task.cancel()

    play(story)


def test_serving_goes_on_when_nothing_can_be_recorded() -> None:
    async def story(scene: Scene) -> None:
        def full(kind: str, subject: str, detail: dict[str, Any]) -> None:
            raise OSError(28, "No space left on device")

        scene.wishes["s"] = wish(n=2)
        scene.loop = Reconciler(scene.platform, lambda now: list(scene.wishes.values()), full, clock=lambda: scene.now)
        await scene.passes(3)
        assert len(scene.ready()) == 2
        assert scene.loop.unrecorded >= 4

    play(story)
