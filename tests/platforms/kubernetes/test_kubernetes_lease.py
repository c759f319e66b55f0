"""Who leads a namespace, without a cluster: what is decided, and copies with wrong clocks on a bad network."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leptonai.errors import Conflict, NotFound, PlatformError
from leptonai.platforms.kubernetes import lease
from leptonai.platforms.kubernetes.cluster import Cluster
from leptonai.platforms.kubernetes.lead import Leader, identity, own_store
from leptonai.platforms.kubernetes.lease import Held, Me, Standing, decide, looked, wrote

ME = Me("ana", "s1", "http://ana")
LEASE = 15.0


def held(holder: str = "bob", store: str = "s1", version: str = "7") -> Held:
    return Held(holder, store, f"http://{holder}", LEASE, "2026-01-01T00:00:00.000000Z", 3, version)


def standing(seen: Held | None, since: float = 0.0, alive: bool = False) -> Standing:
    return Standing(seen, since, alive)


# --- what is decided -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "alive", "now", "occupied", "act"),
    [
        (None, False, 0.0, False, "take"),
        (None, False, 0.0, True, "mark"),
        (held(""), False, 0.0, True, "take"),
        (held(), False, 14.9, True, "wait"),
        (held(), True, 14.9, True, "wait"),
        (held(), True, 15.0, True, "take"),
        (held("ana"), False, 99.0, True, "renew"),
        # the wishes of another store
        (held(store="s2"), False, 1.0, False, "wait"),
        (held(store="s2"), True, 1.0, False, "refuse"),
        (held(store="s2"), False, 15.0, False, "take"),
        (held(store="s2"), False, 1.0, True, "refuse"),
        (held(store="s2"), False, 99.0, True, "refuse"),
        (held("", store="s2"), False, 0.0, True, "refuse"),
        (held("", store="s2"), False, 0.0, False, "take"),
        # a home that was deleted and made again at the same place
        (held("ana", store="s2"), False, 0.0, True, "refuse"),
        (held("ana", store="s2"), False, 0.0, False, "take"),
    ],
)
def test_what_a_copy_does_next(seen: Held | None, alive: bool, now: float, occupied: bool, act: str) -> None:
    assert decide(ME, standing(seen, 0.0, alive), now, occupied) == act


def test_time_counts_from_when_a_state_was_first_seen_and_begins_anew_with_each_renewal() -> None:
    first = looked(ME, Standing(), held(version="7"), 100.0)
    assert (first.since, first.alive) == (100.0, False), "found done: nobody knows when"
    assert looked(ME, first, held(version="7"), 109.0) == first
    renewed = looked(ME, first, held(version="8"), 110.0)
    assert (renewed.since, renewed.alive) == (110.0, True)
    assert not looked(ME, renewed, held("eve", version="9"), 111.0).alive, "another holder has shown no renewal yet"


def test_a_holder_acts_for_less_than_the_lease_counted_from_before_it_sent() -> None:
    made = wrote(held("ana", version="8"), sent=100.0, now=104.0)
    assert made.holds(104.0) and made.holds(109.9)
    assert not made.holds(110.0), "10 s of 15 s, from when it was sent"


def test_who_finds_the_lease_another_s_or_gone_acts_no_more() -> None:
    mine = wrote(held("ana", version="8"), 100.0, 100.1)
    assert mine.holds(101.0)
    assert not looked(ME, mine, held("bob", version="9"), 101.0).holds(101.0)
    assert not looked(ME, mine, None, 101.0).holds(101.0)
    assert looked(ME, mine, held("ana", version="9"), 101.0).holds(101.0), "our own renewal whose answer was lost"
    assert not looked(ME, mine, held("ana", "s2", "9"), 101.0).holds(101.0)


def test_the_lease_says_who_and_counts_changes_of_holder() -> None:
    new = lease.spelled(ME, "models", 2.5, None, 1767225600.25)
    assert new["spec"] == {
        "holderIdentity": "ana", "leaseDurationSeconds": 3, "renewTime": "2026-01-01T00:00:00.250000Z",
        "leaseTransitions": 0,
    }  # fmt: skip
    assert "resourceVersion" not in new["metadata"], "it is to be made"
    assert lease.spelled(ME, "models", 15.0, held("bob"), 0.0)["spec"]["leaseTransitions"] == 4
    assert lease.spelled(ME, "models", 15.0, held("ana"), 0.0)["spec"]["leaseTransitions"] == 3
    gone = lease.let_go(ME, "models", held("ana"), 0.0)
    assert gone["spec"]["holderIdentity"] == "" and gone["metadata"]["resourceVersion"] == "7"
    assert lease.read(gone).store == "s1", "whose services these are stays said"
    assert lease.read({"metadata": {"name": "leptonai"}}).duration == 1.0, "somebody else's, with nothing in it"


def test_a_home_keeps_its_store_and_a_killed_control_s_successor_is_the_same_holder(tmp_path: Any) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert own_store(tmp_path / "a") == own_store(tmp_path / "a") != own_store(tmp_path / "b")
    assert identity(tmp_path / "a") == identity(tmp_path / "a") != identity(tmp_path / "b")


# --- copies on a bad network -----------------------------------------------------------------------------------------


class Simulated(asyncio.SelectorEventLoop):
    """A loop in which waiting takes no time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self.now = max(self.now, self._scheduled[0]._when)  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


def simulate(story: Callable[[Simulated], Coroutine[Any, Any, None]]) -> None:
    loop = Simulated()
    try:
        loop.run_until_complete(story(loop))
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
            loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.close()


class ApiServer:
    """The one Lease of an API server: atomic changes, each under another version."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0

    def get(self) -> dict[str, Any] | None:
        return copy.deepcopy(self.lease)

    def put(self, wish: dict[str, Any]) -> dict[str, Any]:
        version = wish["metadata"].get("resourceVersion")
        if version is None and self.lease is not None:
            raise Conflict("already exists")
        if version is not None and self.lease is None:
            raise NotFound("gone")
        if version is not None and self.lease is not None and version != self.lease["metadata"]["resourceVersion"]:
            raise Conflict("changed")
        self.version += 1
        self.lease = copy.deepcopy(wish)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.lease)


class Line:
    """One copy's way to the API server: it delays, loses questions, and loses answers of what was done."""

    namespace = "models"

    def __init__(self, server: ApiServer, chance: random.Random, bad: float) -> None:
        self.server, self.chance, self.bad, self.cut = server, chance, bad, False

    async def get(self, *what: str) -> dict[str, Any] | None:
        return await self._call(self.server.get)

    async def create(self, wish: dict[str, Any]) -> dict[str, Any]:
        return await self._call(lambda: self.server.put(wish))

    replace = create

    async def delete(self, *what: str) -> bool:
        self.server.lease = None
        return True

    async def close(self) -> None:
        return

    async def _call(self, act: Callable[[], Any]) -> Any:
        await asyncio.sleep(self._delay())
        if self.cut or self.chance.random() < self.bad / 2:
            raise PlatformError("no answer", code="unreachable")
        done = act()
        await asyncio.sleep(self._delay())
        if self.cut or self.chance.random() < self.bad / 2:
            raise PlatformError("no answer", code="unreachable")
        return done

    def _delay(self) -> float:
        return self.chance.choice([0.0, 0.01, 0.01, 0.5, 2.0, 6.0 * self.bad]) if self.bad else 0.01


def copies(server: ApiServer, loop: Simulated, chance: random.Random, bad: float, stores: str) -> list[Leader]:
    made = []
    for n, store in enumerate(stores):
        ahead, speed = chance.uniform(-1e6, 1e6), chance.uniform(0.85, 1.15)

        def clock(ahead: float = ahead, speed: float = speed) -> float:
            return ahead + speed * loop.time()

        line = cast("Cluster", Line(server, chance, bad))
        made.append(Leader(line, Me(f"copy-{n}", store), LEASE, lambda: True, clock=clock))
    return made


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), bad=st.sampled_from([0.0, 0.2, 0.6]))
def test_no_two_copies_ever_lead_at_once_and_one_does_when_it_can(seed: int, bad: float) -> None:
    """Whatever their clocks say and the network does, copies are killed or end, and the Lease is deleted by hand."""

    async def story(loop: Simulated) -> None:
        chance, server = random.Random(seed), ApiServer()
        made = copies(server, loop, chance, bad, "aaa")
        runs = {n: asyncio.create_task(leader.run()) for n, leader in enumerate(made)}
        led = set()
        for _ in range(1500):
            await asyncio.sleep(0.2)
            leading = [n for n, leader in enumerate(made) if leader.leads]
            assert len(leading) <= 1, f"{leading} lead at {loop.time()}"
            led.update(leading)
            event, who = chance.random(), chance.randrange(len(made))
            if event < 0.004:
                server.lease = None  # kubectl delete lease
            elif event < 0.012:
                cast("Line", made[who]._cluster).cut ^= True
            elif event < 0.020 and who in runs:
                runs.pop(who).cancel()  # killed: what it believes runs out by itself
            elif event < 0.028 and who in runs:
                runs.pop(who).cancel()
                await made[who].release()
            elif event < 0.044 and who not in runs:
                runs[who] = asyncio.create_task(made[who].run())
        for n, leader in enumerate(made):  # all is well again
            cast("Line", leader._cluster).cut, cast("Line", leader._cluster).bad = False, 0.0
            runs.setdefault(n, asyncio.create_task(leader.run()))
        for _ in range(600):
            await asyncio.sleep(0.1)
            leading = [n for n, leader in enumerate(made) if leader.leads]
            assert len(leading) <= 1
        assert leading, "after a minute without trouble somebody leads"

    simulate(story)


def play(stores: str, story: Callable[[Simulated, ApiServer, list[Leader]], Coroutine[Any, Any, None]]) -> None:
    async def whole(loop: Simulated) -> None:
        server = ApiServer()
        await story(loop, server, copies(server, loop, random.Random(1), 0.0, stores))

    simulate(whole)


def test_a_second_copy_of_the_same_store_stands_by_names_the_first_and_takes_over() -> None:
    async def story(loop: Simulated, server: ApiServer, made: list[Leader]) -> None:
        first, second = made
        await first.start()
        assert loop.time() > LEASE / 1.15, "services run and there was no Lease"
        assert first.leads and first.closed() is None
        running = asyncio.create_task(first.run())
        await second.start()
        assert not second.leads
        with pytest.raises(Conflict, match="copy-0 leads namespace models") as refused:
            second.left()
        assert (refused.value.code, refused.value.detail["holder"]) == ("not_leading", "copy-0")
        assert second.about()["standby"] and not first.about()["standby"]
        following = asyncio.create_task(second.run())
        await asyncio.sleep(60.0)
        assert first.leads and not second.leads
        killed = loop.time()
        running.cancel()
        await asyncio.gather(first.lost(), second.gained())
        assert LEASE / 1.15 - 4 < loop.time() - killed < LEASE / 0.85 + 6
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await second.release()
        let_go = loop.time()
        await first.start()
        assert first.leads and loop.time() - let_go < 3.0, "what was let go is taken at once"

    play("aa", story)


def test_a_copy_with_other_wishes_is_refused_and_learns_whether_the_first_lives() -> None:
    async def story(loop: Simulated, server: ApiServer, made: list[Leader]) -> None:
        first, other, later = made
        first._occupied = other._occupied = later._occupied = lambda: False
        await first.start()
        running = asyncio.create_task(first.run())
        with pytest.raises(Conflict, match="namespace models is led by copy-0") as refused:
            await other.start()
        assert refused.value.code == "other_platform" and "delete lease" in refused.value.hint
        running.cancel()
        await asyncio.sleep(0)
        await later.start()
        assert later.leads, "the first is dead, and nothing runs"

    play("abb", story)


def test_services_of_a_platform_that_is_down_are_not_taken_by_another_until_it_forgets_them() -> None:
    async def story(loop: Simulated, server: ApiServer, made: list[Leader]) -> None:
        first, other = made
        first._occupied = lambda: False
        await first.start()
        await first.release()
        with pytest.raises(Conflict, match="holds the services of another platform"):
            await other.start()
        await first.start()
        await first.release(forget=True)
        other._occupied = lambda: False
        await other.start()
        assert other.leads

    play("ab", story)


def test_wishes_are_taken_while_the_api_server_is_away_and_nothing_is_done() -> None:
    async def story(loop: Simulated, server: ApiServer, made: list[Leader]) -> None:
        leader = made[0]
        leader._occupied = lambda: False
        await leader.start()
        running = asyncio.create_task(leader.run())
        cast("Line", leader._cluster).cut = True
        await leader.lost()
        assert leader.closed() is None
        with pytest.raises(PlatformError, match="does not lead namespace models now") as refused:
            leader.left()
        assert (refused.value.status, refused.value.retry) == (503, True)
        cast("Line", leader._cluster).cut = False
        await leader.gained()
        running.cancel()

    play("a", story)
