"""Random histories over the memory platform: whatever people, faults and bad revisions do, in any order and pace.

What must hold after every single apply, and what must be reached once the world calms down, is said in words below
and computed from what was observed, not by the planner's own terms.
"""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from leptonai.plan import delay
from leptonai.platforms.memory import Behaviour, MemoryPlatform, World
from leptonai.settings import Local, Settings
from leptonai.types import (
    Dials,
    Fault,
    Forget,
    Replica,
    Retire,
    Rollout,
    Service,
    Spec,
    Start,
    Step,
    Variant,
    VariantDials,
)

BEHAVIOURS = {
    "good": Behaviour(start_delay=1.0, jitter=3.0, drain=2.0),
    "better": Behaviour(start_delay=0.0),
    "failing": Behaviour(start_delay=9.0, exit_after=1.0),
    "endless": Behaviour(start_delay=1e9),
    "flaky": Behaviour(start_delay=1.0, exit_after=4.0),  # becomes ready, then crashes
}
T = TypeVar("T")
LOCAL = Local(hung_after=2.0, stable_after=5.0, backoff_max=8.0)
TICK = 0.5


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing: an event loop for each apply would take most of the time."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    raise AssertionError("it waits for something")


@dataclass
class History:
    capacity: int | None
    surge: int
    now: float = 1000.0
    model: dict[str, str] = field(default_factory=lambda: {"main": "good"})
    wanted: dict[str, int] = field(default_factory=lambda: {"main": 2})
    epoch: int = 0
    evicted: set[str] = field(default_factory=set)
    revision: int = 1

    def __post_init__(self) -> None:
        world = World(
            clock=lambda: self.now,
            capacity=self.capacity,
            behaviour=lambda variant: BEHAVIOURS[variant.model],
        )
        self.platform = MemoryPlatform(world, Settings(local=LOCAL))

    def service(self) -> Service:
        variants = tuple(Variant(name=n, model=m) for n, m in sorted(self.model.items()))
        rollout = Rollout(surge=self.surge, start_timeout=6.0)
        dials = {n: VariantDials(replicas=self.wanted[n], epoch=self.epoch) for n in self.model}
        return Service(
            spec=Spec(name="s", variants=variants, rollout=rollout),
            dials=Dials(variants=dials, evict=tuple(sorted(self.evicted))),
            revision=self.revision,
        )

    def apply(self) -> list[Step]:
        before = self.platform.observe()
        steps = at_once(self.platform.apply(self.service()))
        self.check(before, steps, self.platform.observe())
        self.evicted &= {r.id for r in self.platform.observe()}  # as the loop does
        return steps

    def wait(self, seconds: float, tick: float = TICK) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += tick
            self.apply()

    # --- what holds after every apply --------------------------------------------------------------------------------

    def check(self, before: list[Replica], steps: list[Step], after: list[Replica]) -> None:
        kinds = [type(s) for s in steps]
        assert kinds == sorted(kinds, key=[Start, Forget, Retire].index), "starts first, retires last"
        retired = {s.replica: s.reason for s in steps if isinstance(s, Retire)}
        assert len(retired) == sum(k is Retire for k in kinds)
        was = {r.id: r for r in before}
        assert all(was[s.replica].gone for s in steps if isinstance(s, Forget)), "only what is gone is forgotten"
        assert all(was[id].state != "stopping" and not was[id].gone for id in retired)
        making_room = [id for id, reason in retired.items() if reason == "making room"]
        assert len(making_room) <= 1, "one at a time"
        if making_room:
            self.check_making_room(was, steps)
        for name in {r.variant for r in before} | set(self.model):
            self.check_variant(name, before, after, retired, bool(making_room))
        self.check_starts(before, steps)

    def check_variant(
        self, name: str, before: list[Replica], after: list[Replica], retired: dict[str, str], made_room: bool
    ) -> None:
        def ready(seen: list[Replica]) -> int:
            return sum(r.variant == name and r.state == "ready" for r in seen)

        def live(seen: list[Replica]) -> int:
            return sum(r.variant == name and not r.gone and r.state != "stopping" for r in seen)

        wanted = self.wanted[name] if name in self.model else 0
        if name not in self.model:
            # A variant that left the spec serves until all that are wished for do.
            if any(reason == "variant removed" for id, reason in retired.items()):
                for r in before:
                    if r.id in retired and r.state == "ready" and retired[r.id] == "variant removed":
                        for n in self.model:
                            serving = sum(x.variant == n and x.state == "ready" for x in before)
                            assert serving >= self.wanted[n], "its successors serve"
            return
        assert ready(after) >= min(wanted, ready(before)) - made_room, "our own steps lose no ready replica in need"
        hung = sum(r.variant == name and r.reason == "hung" for r in before)
        assert live(after) <= max(wanted + self.surge, ready(before)) + hung, "no more live than wished and surge"
        if live(after) > live(before):
            assert live(after) <= wanted + self.surge
        # A healthy old replica goes only for as many others, not counting those that crashed and did not prove
        # themselves since.
        variant = next(v for v in self.service().spec.variants if v.name == name)
        if "replaced" in [retired.get(r.id) for r in before if r.variant == name and r.state == "ready"]:
            reliable = sum(
                r.variant == name
                and r.state == "ready"
                and r.id not in retired
                and (
                    (r.digest, r.epoch) != (variant.digest, self.epoch)
                    or r.attempt == 0
                    or self.now - r.since >= LOCAL.stable_after
                )
                for r in before
            )
            assert reliable >= wanted, "a failed rollout costs no healthy replica"
        # Sick replicas that are wished for and not evicted are for ops to judge.
        for r in before:
            if r.id in retired and r.reason == "hung" and r.variant == name and r.id not in self.evicted:
                wished_for = r.digest == variant.digest and r.epoch == self.epoch
                assert not wished_for or retired[r.id] == "scaled down"

    def check_making_room(self, was: dict[str, Replica], steps: list[Step]) -> None:
        """One old replica goes first only when nothing can start, nothing is on its way, and no new one is failing."""
        service = self.service()
        assert not any(isinstance(s, Start) for s in steps)
        assert not any(r.state == "stopping" for r in was.values())
        full = self.capacity is not None and sum(not r.gone for r in was.values()) >= self.capacity
        assert full or self.surge == 0
        lacking = [
            v
            for v in service.spec.variants
            if all(
                r.state == "ready"
                for r in was.values()
                if (r.variant, r.digest, r.epoch) == (v.name, v.digest, self.epoch) and r.id not in self.evicted
            )
        ]
        assert lacking, "no revision that fails or loads is given a second place"

    def check_starts(self, before: list[Replica], steps: list[Step]) -> None:
        forgotten = {s.replica for s in steps if isinstance(s, Forget)}
        successors = sorted(s.attempt for s in steps if isinstance(s, Start) and s.attempt > 0)
        late = [r.attempt + 1 for r in before if r.state == "starting"]
        crashed = [r for r in before if r.gone and r.id in forgotten]
        due = [r.attempt + 1 for r in crashed if r.since + delay(r.attempt, LOCAL) <= self.now]
        for attempt in successors:
            assert attempt in due or attempt in late, "nothing comes back before its back-off is over"

    # --- what is reached in the end ----------------------------------------------------------------------------------

    def calm(self) -> None:
        """No more faults, a good revision, the sick evicted: the wish is reached, and then nothing is done."""
        self.model = {n: "good" for n in self.model}
        for _ in range(3):
            self.evicted |= {r.id for r in self.platform.observe() if r.reason == "hung"}
            self.wait(60.0, tick=2.0)
        assert self.apply() == []
        seen = self.platform.observe()
        wanted = sum(self.wanted[n] for n in self.model)
        if self.capacity is not None and self.capacity < wanted:  # what went and has no room to come back is told
            seen = [r for r in seen if not r.gone]
        assert all(r.state == "ready" for r in seen)
        assert len(seen) == min(wanted, self.capacity if self.capacity is not None else wanted)
        digests = {v.name: v.digest for v in self.service().spec.variants}
        assert all(r.digest == digests.get(r.variant) and r.epoch == self.epoch for r in seen)
        assert not self.evicted & {r.id for r in seen}


index = st.integers(0, 5)
acts = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([8.0, 20.0])),  # most should meet a world that has settled
    st.tuples(st.just("wait"), st.sampled_from([0.5, 1.0, 3.0, 8.0, 20.0])),
    st.tuples(st.just("deploy"), st.sampled_from(sorted(BEHAVIOURS))),
    st.tuples(st.just("scale"), st.integers(0, 5)),
    st.tuples(st.just("kill"), index),
    st.tuples(st.just("hang"), index),
    st.tuples(st.just("evict"), index),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("rename"), st.sampled_from(["main", "other", "both"])),
)


def act(history: History, what: str, how: object) -> None:
    present = [r for r in history.platform.observe() if not r.gone]
    match what, how:
        case "wait", float(seconds):
            history.wait(seconds)
        case "deploy", str(model):
            history.model = dict.fromkeys(history.model, model)
            history.revision += 1
        case "scale", int(n):
            history.wanted = dict.fromkeys(history.model, n)
        case "restart", _:
            history.epoch += 1
        case "rename", str(name):
            model, n = next(iter(history.model.values())), next(iter(history.wanted.values()))
            names = ["main", "other"] if name == "both" else [name]
            history.model, history.wanted = dict.fromkeys(names, model), dict.fromkeys(names, n)
        case _, int(i) if present:
            replica = present[i % len(present)].id
            if what == "evict":
                history.evicted.add(replica)
            else:
                kind = "kill" if what == "kill" else "stop"
                at_once(history.platform.inject(Fault(kind=kind, replica=replica, heal_after=1e9)))
    history.apply()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(acts, min_size=1, max_size=25),
    st.sampled_from([None, None, 1, 2, 3, 4]),
    st.sampled_from([1, 1, 0, 2]),
)
def test_no_history_breaks_a_rule_and_every_calm_reaches_the_wish(
    story: list[tuple[str, object]], capacity: int | None, surge: int
) -> None:
    history = History(capacity, surge)
    history.apply()
    history.wait(6.0)
    for what, how in story:
        act(history, what, how)
    event(f"capacity {capacity}, surge {surge}")
    history.calm()


def settled(capacity: int | None = None, n: int = 2, surge: int = 1) -> History:
    history = History(capacity, surge, wanted={"main": n})
    history.wait(30.0)
    assert [r.state for r in history.platform.observe()] == ["ready"] * n
    return history


def test_a_failing_revision_never_costs_a_healthy_replica_however_long_it_fails() -> None:
    for bad in ("failing", "endless"):
        history = settled(n=3)
        healthy = {r.id for r in history.platform.observe()}
        history.model = {"main": bad}
        for _ in range(600):
            history.wait(TICK)
            assert healthy <= {r.id for r in history.platform.observe() if r.state == "ready"}


def test_one_slot_machines_change_revisions_and_come_back_from_a_bad_one() -> None:
    history = settled(capacity=1, n=1)
    for model in ("better", "failing", "good", "endless", "better"):
        history.model = {"main": model}
        history.wait(30.0)
        if model in ("good", "better"):
            [replica] = history.platform.observe()
            assert replica.state == "ready" and replica.digest == Variant(model=model).digest


def test_a_full_machine_gives_a_failing_revision_one_place_and_keeps_the_rest() -> None:
    history = settled(capacity=3, n=3)
    history.model = {"main": "failing"}
    history.wait(120.0)
    assert sum(r.state == "ready" for r in history.platform.observe()) == 2
    history.calm()


def test_a_full_machine_renames_its_variant() -> None:
    history = settled(capacity=2, n=2)
    history.model, history.wanted = {"other": "good"}, {"other": 2}
    history.calm()


def test_scaling_back_at_once_stops_only_what_was_not_ready() -> None:
    history = settled(n=2)
    before = history.platform.observe()
    for n in (5, 2):
        history.wanted = {"main": n}
        history.apply()
    history.calm()
    assert history.platform.observe() == before


def test_scale_to_zero_and_back() -> None:
    history = settled(n=3)
    for n in (0, 1, 0, 4):
        history.wanted = {"main": n}
        history.wait(30.0)
        assert [r.state for r in history.platform.observe()] == ["ready"] * n


def test_a_crash_loop_starts_ever_more_rarely() -> None:
    history = History(None, 1, model={"main": "failing"}, wanted={"main": 1})
    starts = 0
    for _ in range(int(100 / TICK)):
        history.now += TICK
        starts += sum(isinstance(s, Start) for s in history.apply())
    assert 10 <= starts <= 14, "after 1 s each: at once, 1, 2, 4, then every 8 s"
