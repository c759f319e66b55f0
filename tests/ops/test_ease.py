"""Refusals end with what they were for: as soon as what comes is carried, step by step, and without swinging."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leptonai.ops.load import ROOM, Load, load_of
from leptonai.ops.respond.ease import HOLD, MOST_HOLD, STEP, Moment, eased, hold_after
from leptonai.platforms.telemetry import Memory
from leptonai.types import Canary, Dials, Replica, Service, Signal, Spec, Variant, VariantDials

OLD = Variant(model="main")


def service(name: str, **weights: float) -> Service:
    """Of two replicas of each variant, one variant of weight 1 unless told."""
    variants = {n: VariantDials(replicas=2, weight=w) for n, w in (weights or {"main": 1.0}).items()}
    spec = Spec(name=name, variants=tuple(Variant(name=n, model=n) for n in variants))
    return Service(spec=spec, dials=Dials(variants=variants), revision=1)


def replicas(name: str, *ids: str, variant: str = "main", digest: str = OLD.digest) -> list[Replica]:
    return [
        Replica(id=id, service=name, variant=variant, digest=digest, epoch=0, state="ready", since=0.0) for id in ids
    ]


def tell(store: Memory, at: float, rate: float, of: Mapping[str, tuple[float, float | None]]) -> None:
    """A second of digits: answers, and of each replica what is in flight and what one took to compute, if one did."""
    values = [("request_rate_per_second", {"service": "digits"}, rate)]
    for id, (inside, took) in of.items():
        labels = {"service": "digits", "replica": id}
        values.append(("replica_in_flight_count", labels, inside))
        if took is not None:
            values.append(("replica_compute_seconds", labels, took))
    store.write([Signal(name=name, labels=labels, at=at, value=value) for name, labels, value in values])


def course(arrivals: float, carried: float, waiting: float = 0.0, seconds: int = 6) -> list[Moment]:
    return [Moment(float(t), Load(arrivals, waiting, carried)) for t in range(seconds)]


@pytest.mark.parametrize(
    ("let_in", "share", "carried", "waiting", "seconds", "wanted"),
    [
        (20.0, 0.8, 200.0, 0.0, 6, 0.0),  # 100 come by now, 200 are carried
        (40.0, 0.8, 100.0, 0.0, 6, pytest.approx(0.66, abs=0.06)),  # 200 come, 80 of them may
        (40.0, 0.8, 60.0, 0.0, 6, None),  # 48 may: that is what comes through
        (20.0, 0.8, 200.0, 300.0, 6, None),  # those that wait come first
        (20.0, 0.8, 200.0, 0.0, 4, None),  # not long enough
        (20.0, 0.8, 200.0, 0.0, 0, None),  # nothing seen
        (0.4, 0.9, 8.0, 0.0, 6, 0.42),  # four a second would come; but two requests say little, so it may be eleven
        (0.0, 0.9, 50.0, 0.0, 6, 0.0),  # nobody comes any more
        (20.0, 0.8, 0.0, 0.0, 6, None),  # nobody is ready
    ],
)
def test_what_is_refused_follows_what_is_carried(
    let_in: float, share: float, carried: float, waiting: float, seconds: int, wanted: object
) -> None:
    assert eased(course(let_in, carried, waiting, seconds), share, float(max(seconds - 1, 0)), HOLD) == wanted


def test_one_bad_second_of_the_last_ones_is_enough_to_wait() -> None:
    seen = course(20.0, 200.0)
    assert eased(seen, 0.8, 5.0, HOLD) == 0.0
    assert eased([*seen[:-2], Moment(4.0, Load(20.0, 500.0, 200.0)), seen[-1]], 0.8, 5.0, HOLD) is None
    assert eased([*seen[:-2], Moment(4.0, Load(20.0, 0.0, 20.0)), seen[-1]], 0.8, 5.0, HOLD) is None


def test_what_ended_early_of_late_makes_the_next_wait_twice_as_long() -> None:
    holds = [hold_after(n) for n in range(12)]
    assert holds[:4] == [HOLD, 2 * HOLD, 4 * HOLD, 8 * HOLD] and max(holds) == MOST_HOLD == holds[-1]


@settings(max_examples=150, deadline=None)
@given(
    levels=st.lists(st.tuples(st.integers(3, 90), st.floats(0.0, 400.0)), min_size=1, max_size=25),
    carried=st.floats(5.0, 200.0),
    seed=st.integers(0, 1000),
)
def test_whatever_the_traffic_does_refusals_do_not_swing(
    levels: list[tuple[int, float]], carried: float, seed: int
) -> None:
    """Requests come as any course of levels; who is overloaded refuses what is too much. A refusal only falls, by a
    tenth each time; it never ends while what comes is beyond what is carried; and in ten minutes there are at most as
    many ends as doubling holds allow."""
    rng = np.random.default_rng(seed)
    share, since, seen, ends, now = 0.0, 0.0, list[Moment](), list[float](), 0.0
    for seconds, level in levels:
        for _ in range(seconds):
            now += 1.0
            come = float(rng.poisson(level * (1.0 - share)))
            if share == 0.0 and level > carried:
                share, since, seen = min(1.0 - ROOM * carried / level + 0.05, 0.9), now, []
                continue
            if share == 0.0:
                continue
            seen.append(Moment(now, Load(come, 0.0, carried)))
            hold = hold_after(sum(now - at < 600.0 for at in ends))
            less = eased(seen, share, now, hold)
            if less is None:
                continue
            assert 0.0 <= less <= share - STEP + 1e-6, "what is refused never rises"
            late = [m.load.arrivals for m in seen if m.at > now - hold]
            assert less > 0.0 or sum(late) / len(late) / (1.0 - share) <= carried, "let in what is too much"
            assert now - since >= hold - 1.0, "eased before it had fitted for long enough"
            ends += [now] if less == 0.0 else []
            share, since, seen = less, now, []
    for at in ends:
        assert sum(at <= other < at + 600.0 for other in ends) <= 4 + 600.0 / MOST_HOLD


def test_the_load_counts_who_comes_to_wait_and_not_only_who_is_answered() -> None:
    store = Memory()
    for second in range(10):
        tell(store, float(second), 20.0, dict.fromkeys(("a", "b"), (15.0 * second, 0.1)))
    load = load_of(store, service("digits"), replicas("digits", "a", "b"), 9.0)
    assert load is not None and load.too_much
    assert (load.arrivals, load.waiting, load.carried) == (50.0, 270.0, 20.0)
    assert load_of(store, service("other"), replicas("other", "a", "b"), 9.0) is None


def test_where_nobody_asks_a_request_takes_as_long_as_the_last_ones_did() -> None:
    """Ten slow minutes and ten quick seconds, then nobody asks: the ten minutes are past."""
    store = Memory()
    for second in range(620):
        rate, compute = (0.0, None) if second >= 600 else (5.0, 1.0 if second < 590 else 0.1)
        tell(store, float(second), rate, {"a": (0.0, compute)})
    load = load_of(store, service("digits"), replicas("digits", "a"), 619.0)
    assert load is not None and load.carried == pytest.approx(10.0)


def test_a_replica_that_tells_no_number_is_left_out_of_the_load() -> None:
    store = Memory()
    for second in range(5):
        tell(store, float(second), 20.0, {"a": (float("nan"), 0.1), "b": (3.0, 0.1)})
    load = load_of(store, service("digits"), replicas("digits", "a", "b"), 4.0)
    assert load == Load(20.0, 3.0, 20.0, 2)


@pytest.mark.parametrize(
    ("weights", "canary", "carried"),
    [
        ({"main": 1.0, "small": 0.0}, None, 20.0),  # the spare answers nobody, and its one answer took a hundredth
        ({"main": 0.0, "small": 1.0}, None, 200.0),  # until it does
        ({"main": 0.5, "small": 0.5}, None, 4 / 0.055),
        ({"main": 1.0}, Canary(stable=(OLD,), revision=1, replicas=2, mirror=1.0), 20.0),
        ({"main": 1.0}, Canary(stable=(OLD,), revision=1, replicas=2, weight=0.5), 4 / 0.055),
        ({"main": 1.0}, Canary(stable=(OLD,), revision=1, replicas=2, weight=1.0), 200.0),
    ],
)  # fmt: skip
def test_only_those_that_users_are_sent_to_carry_anything(
    weights: dict[str, float], canary: Canary | None, carried: float
) -> None:
    """Two replicas of a tenth of a second, and two of a hundredth that are spares or get copies."""
    wish = service("digits", **weights)
    others = {"variant": "small", "digest": Variant(name="small", model="small").digest}
    if canary is not None:
        head = (Variant(model="new"),)
        wish = msgspec.structs.replace(wish, spec=Spec(name="digits", variants=head), canary=canary)
        others = {"variant": "main", "digest": head[0].digest}
    here = replicas("digits", "a", "b") + replicas("digits", "c", "d", **others)
    store = Memory()
    for second in range(4):
        took = {"a": 0.1, "b": 0.1, "c": 0.01, "d": 0.01}
        tell(store, float(second), 20.0, {id: (10.0 * second, each) for id, each in took.items()})
    load = load_of(store, wish, here, 3.0)
    assert load is not None and load.carried == pytest.approx(carried)
    both = carried == pytest.approx(4 / 0.055)
    assert load.waiting == (120.0 if both else 60.0), "copies and what a spare still holds keep no user waiting"


@pytest.mark.parametrize(("stuck", "lifted"), [(0.0, True), (3.0, False)])
def test_a_refusal_ends_where_nobody_asks_any_more(stuck: float, lifted: bool) -> None:
    """A burst ends with its last request: nothing is computed from then on, and what is refused is refused in vain.
    Requests that are under way and get no answer say that something else is the matter."""
    store, ended, moments = Memory(), 60.0, list[Moment]()
    for second in range(600):
        asked = second < ended
        tell(store, float(second), 20.0 * asked, {"a": (5.0, 0.1) if asked else (stuck, None)})
        load = load_of(store, service("digits"), replicas("digits", "a"), float(second))
        moments += [Moment(float(second), load)] if load is not None else []
    load = load_of(store, service("digits"), replicas("digits", "a"), ended + 300.0)
    assert (load is not None) == lifted
    if load is not None:
        assert (load.arrivals, load.waiting, load.carried) == (0.0, 0.0, pytest.approx(10.0))
    soon = [m for m in moments if m.at <= ended + 10.0]
    assert eased(soon, 0.8, ended + 10.0, HOLD) == (0.0 if lifted else None)
