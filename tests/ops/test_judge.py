from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leptonai.ops.convict import Leak, Wrong
from leptonai.ops.detect import Watcher
from leptonai.ops.judge import LASTING, PENDING, RELEASE, Memory, Seen, Trigger, judge
from leptonai.ops.slo import BurnState
from leptonai.types import Anomaly, Replica, Signal

NAMES = (
    "request_rate_per_second",
    "error_ratio",
    "latency_p50_seconds",
    "latency_p99_seconds",
    "slow_ratio",
    "ready_count",
)


def replica(id: str, state: str = "ready", reason: str = "", digest: str = "d1", since: float = 5.0) -> Replica:
    return Replica(id=id, service="s", variant="main", digest=digest, state=state, reason=reason, since=since)  # type: ignore[arg-type]


def odd(name: str, began: float = 90.0, **labels: str) -> Anomaly:
    return Anomaly(signal=name, labels={"service": "s", **labels}, began=began, last=100.0, score=9.0)


LEAK = Leak(replica="a", slope=5e6, siblings=0.0, score=12.0, seconds=12.0, began=80.0, rss=3e8)
WRONG = Wrong(
    digest="d1", verdict="convicted", wrong=9, total=9, ratio=1.0, lower=0.7, upper=1.0, tolerable=0.1, odds=7.5
)
BURN = BurnState(rule="errors", severity="critical", burn_long=50, burn_short=99, factor=14.4, began=97.0)
BOTH = (replica("a"), replica("b"))


def seen(**about: Any) -> Seen:
    return Seen(**({"service": "s", "wanted": 2, "replicas": BOTH, "golden": 6} | about))


def now_and_later(what: Seen, seconds: int = 10) -> list[Trigger]:
    memory: Memory = {}
    triggers: list[Trigger] = []
    for t in range(seconds):
        triggers, memory = judge(100.0 + t, what, memory)
    return triggers


@pytest.mark.parametrize(
    ("about", "kind", "subject", "severity", "began"),
    [
        ({"burns": (BURN,)}, "burn_errors", "", "critical", 97.0),
        (
            {"burns": (msgspec.structs.replace(BURN, rule="latency", severity="warning"),)},
            "burn_latency", "", "warning", 97.0,
        ),
        ({"replicas": (replica("a", "failed", "killed"), BOTH[1])}, "replica_gone", "a", "warning", 5.0),
        ({"replicas": (replica("a", "failed", "hung"), BOTH[1])}, "replica_hung", "a", "warning", 5.0),
        ({"replicas": (replica("a", "failed", "killed"),)}, "replica_gone", "a", "critical", 5.0),
        ({"lost": {"a": "killed"}, "replicas": BOTH[1:]}, "replica_gone", "a", "warning", 100.0),
        ({"leaks": (LEAK,)}, "replica_leak", "a", "warning", 80.0),
        ({"wrong": (WRONG,)}, "wrong_answers", "d1", "critical", 100.0),
    ],
)  # fmt: skip
def test_what_fires_at_once(about: dict[str, Any], kind: str, subject: str, severity: str, began: float) -> None:
    (trigger,), _ = judge(100.0, seen(**about), {})
    assert (trigger.kind, trigger.subject, trigger.severity, trigger.began) == (kind, subject, severity, began)
    assert trigger.service == "s" and trigger.terms


@pytest.mark.parametrize(
    "about",
    [
        {},
        {"anomalies": (odd("latency_p99_seconds"),)},
        {"anomalies": tuple(odd("replica_rss_bytes", replica=f"r{i}") for i in range(50))},
        {"anomalies": tuple(odd("latency_p99_seconds", began=b) for b in (1.0, 2.0, 3.0))},
        {"wrong": (msgspec.structs.replace(WRONG, verdict="not enough evidence"),)},
        {"wrong": (msgspec.structs.replace(WRONG, digest="gone"),)},  # nothing of that revision serves any more
        {"leaks": (msgspec.structs.replace(LEAK, replica="gone"),)},
        {"burns": (BurnState(rule="errors", burn_long=3.0, burn_short=0.0),)},
        {"replicas": (replica("a", "stopping"), replica("b", "starting"))},
        {"wanted": 0, "replicas": (replica("a", "failed", "killed"),), "anomalies": tuple(map(odd, NAMES))},
        {"wanted": 0, "replicas": (), "burns": (BurnState(rule="errors", absent=True),)},
    ],
)
def test_what_never_fires(about: dict[str, Any]) -> None:
    """One series never pages, nor many series of replicas, nor what is not wished for, nor what is not convicted."""
    assert now_and_later(seen(**about)) == []


def test_a_rate_of_anomalies_must_hold_and_dates_from_when_enough_came_together() -> None:
    what = seen(
        anomalies=(
            odd("latency_p50_seconds", 10.0),
            odd("latency_p99_seconds", 95.0),
            odd("x_seconds", 99.0, replica="a"),
        )
    )
    memory: Memory = {}
    fired = []
    for t in range(10):
        triggers, memory = judge(100.0 + t, what, memory)
        fired.append([trigger.kind for trigger in triggers])
    assert fired[4] == [] and fired[5] == ["anomaly_rate"]
    assert triggers[0].began == 95.0 and triggers[0].terms["needed"] == 2


def test_the_slowest_requests_alone_must_last_and_the_median_beside_them_need_not() -> None:
    """p99 and the share of slow ones read the same few requests: no two signs of trouble for those who call people."""
    tail = seen(anomalies=(odd("latency_p99_seconds"), odd("slow_ratio")))
    broad = seen(anomalies=(*tail.anomalies, odd("latency_p50_seconds")))
    assert now_and_later(tail, seconds=int(LASTING)) == []
    (trigger,) = now_and_later(tail, seconds=int(LASTING) + 1)
    assert trigger.kind == "anomaly_rate" and trigger.terms["lasting"] == LASTING
    memory: Memory = {}
    for t in range(9):
        triggers, memory = judge(100.0 + t, broad if t == 8 else tail, memory)
        assert bool(triggers) == (t == 8)  # together for longer than two kinds need


def test_more_traffic_is_no_trouble_by_itself() -> None:
    """An idle service that is asked all at once: its rate is unlike itself, and so is the tail of many answers."""
    more, fewer = odd("request_rate_per_second"), msgspec.structs.replace(odd("request_rate_per_second"), fell=True)
    p50, p99, errors = odd("latency_p50_seconds"), odd("latency_p99_seconds"), odd("error_ratio")
    better = msgspec.structs.replace(p50, fell=True)
    for quiet in ((more, p99), (more, better), (more, better, p99)):
        assert now_and_later(seen(golden=6, anomalies=quiet)) == []
    assert now_and_later(seen(golden=6, anomalies=(more, p99)), seconds=int(LASTING) + 1) != [], "it does not pass"
    for told in ((more, p50), (more, errors), (fewer, better), (fewer, p99), (better, errors)):
        assert [t.kind for t in now_and_later(seen(golden=6, anomalies=told))] == ["anomaly_rate"]


def test_a_jump_from_no_traffic_opens_nothing() -> None:
    """Ten minutes of a request now and then, then 26 a second: what the watcher makes of it, the judge lets be."""
    rng, watcher, memory, jump = np.random.default_rng(2), Watcher(), dict[str, Any](), 600
    found: list[Trigger] = []
    odd_ones: set[str] = set()
    for t in range(jump + 60):
        count = int(rng.poisson(0.05 if t < jump else 26.0))
        took = rng.lognormal(np.log(0.06 if t < jump else 0.02), 0.4, count)
        values = {"request_rate_per_second": float(count), "ready_count": 2.0}
        if count:
            tail = float(np.quantile(took, 0.99)) + (0.4 if jump <= t < jump + 20 else 0.0)
            values |= {"latency_p50_seconds": float(np.median(took)), "latency_p99_seconds": tail, "error_ratio": 0.0}
        signals = [Signal(name=n, labels={"service": "digits"}, at=float(t), value=v) for n, v in values.items()]
        odd_now = watcher.step(float(t), signals)
        odd_ones |= {a.signal for a in odd_now} if t >= jump else set()
        what = Seen(service="digits", wanted=2, golden=watcher.golden("digits"), anomalies=tuple(odd_now))
        triggers, memory = judge(float(t), what, memory)
        found += triggers
    assert odd_ones >= {"request_rate_per_second", "latency_p99_seconds"} and not found


def test_a_rate_of_anomalies_that_breaks_off_starts_anew() -> None:
    two = seen(anomalies=(odd("latency_p50_seconds"), odd("slow_ratio")))
    memory: Memory = {}
    for t in range(30):
        triggers, memory = judge(100.0 + t, seen() if t % 5 == 4 else two, memory)
        assert triggers == []


def test_firing_is_held_for_the_release_and_keeps_its_onset() -> None:
    triggers, memory = judge(100.0, seen(burns=(BURN,)), {})
    later = msgspec.structs.replace(BURN, began=101.0, burn_long=60)
    triggers, memory = judge(101.0, seen(burns=(later,)), memory)
    assert triggers[0].began == 97.0 and triggers[0].terms["burn_long"] == 60
    for at in (102.0, 103.0, 105.9):
        triggers, memory = judge(at, seen(), memory)
        assert [t.kind for t in triggers] == ["burn_errors"]
    triggers, memory = judge(101.0 + RELEASE, seen(), memory)
    assert triggers == [] and memory == {}


def test_a_lost_replica_is_missed_until_as_many_are_ready_as_wanted() -> None:
    _, memory = judge(100.0, seen(lost={"a": "killed"}, replicas=BOTH[1:]), {})
    for at in range(101, 130):
        triggers, memory = judge(float(at), seen(replicas=(BOTH[1], replica("c", "starting"))), memory)
        assert [(t.kind, t.subject, t.began, t.terms["reason"]) for t in triggers] == [
            ("replica_gone", "a", 100.0, "killed")
        ]
    for at in range(130, 135):
        triggers, memory = judge(float(at), seen(replicas=(BOTH[1], replica("c"))), memory)
    assert triggers == []


def test_silence_of_a_ready_service_is_an_incident() -> None:
    silent = seen(burns=(BurnState(rule="errors", absent=True), BurnState(rule="latency", absent=True)))
    assert [t.kind for t in now_and_later(silent)] == ["service_absent"]
    assert now_and_later(silent, seconds=int(PENDING["service_absent"])) == []
    missing = seen(anomalies=(odd("error_ratio:missing", 91.0), odd("ready_count:missing", 92.0)))
    (trigger,) = now_and_later(missing)
    assert trigger.kind == "service_absent" and trigger.began == 91.0


def test_the_most_severe_comes_first_and_evidence_is_attached() -> None:
    own, others = odd("replica_rss_bytes", replica="a"), odd("replica_rss_bytes", replica="b")
    told = now_and_later(seen(leaks=(LEAK,), burns=(BURN,), anomalies=(odd("error_ratio"), own, others)))
    assert [t.kind for t in told] == ["burn_errors", "replica_leak"]
    assert own in told[1].anomalies and others not in told[1].anomalies


@given(st.lists(st.sampled_from(["burn", "quiet", "two", "lost", "leak"]), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_judging_is_pure_and_its_memory_can_be_written_down(story: list[str]) -> None:
    """The same looks give the same triggers, also after the memory went through JSON; what is given is not changed."""
    looks = {
        "burn": seen(burns=(BURN,)),
        "quiet": seen(),
        "two": seen(anomalies=(odd("latency_p50_seconds"), odd("slow_ratio"))),
        "lost": seen(lost={"a": "killed"}, replicas=BOTH[1:]),
        "leak": seen(leaks=(LEAK,)),
    }
    one: Memory = {}
    two: Memory = {}
    for t, what in enumerate(story):
        before = msgspec.json.encode(one)
        told, after = judge(float(t), looks[what], one)
        assert msgspec.json.encode(one) == before
        again, two = judge(float(t), looks[what], msgspec.json.decode(msgspec.json.encode(two), type=Memory))
        assert told == again
        one = after
