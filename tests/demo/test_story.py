"""When the next fault may come, and what is told of a repair. Pure parts, by example."""

from typing import Any

import msgspec
import pytest

from leptonai.client.wire import ServiceView
from leptonai.demo.story import Report
from leptonai.drill.outcome import Injection
from leptonai.drill.run import fare, progress, unrest, whole
from leptonai.drill.traffic import Answer
from leptonai.types import Action, Cause, Dials, Incident, Replica, Service, Spec, Variant, VariantDials

GOOD = Spec(name="digits", variants=(Variant(model="sha256:" + "0" * 64),))
BAD = msgspec.structs.replace(GOOD, timeout=1.0)
REPLICA = Replica(id="r1", service="digits", variant="main", digest=GOOD.variants[0].digest, state="ready", since=1.0)


def replica(id: str, **fields: Any) -> Replica:
    return msgspec.structs.replace(REPLICA, id=id, **fields)


def view(*replicas: Replica, spec: Spec = GOOD, verified: int | None = 3, shed: float = 0.0) -> ServiceView:
    service = Service(spec=spec, dials=Dials(variants={"main": VariantDials(replicas=2)}, shed=shed), revision=3)
    ready = sum(r.state == "ready" for r in replicas)
    return ServiceView(
        service=service, replicas=replicas, ready=ready, wanted=2, status="", url="http://x", verified=verified
    )


def incident(**fields: Any) -> Incident:
    given = {"id": 1, "subject": "s", "severity": "critical", "title": "slow", "began": 1.0, "opened": 14.0}
    return Incident(**{**given, **fields})


CALM = view(replica("a"), replica("b"))


@pytest.mark.parametrize(
    ("seen", "incidents", "why"),
    [
        (CALM, [], ""),
        (CALM, [incident(closed=20.0)], ""),
        (CALM, [incident(closed=20.0), incident(id=2)], "incident 2 is open"),
        (view(replica("a")), [], "digits: 1 of 2 ready"),
        (view(replica("a"), replica("b", state="starting")), [], "digits: 1 of 2 ready"),
        (view(replica("a"), replica("b"), verified=2), [], "revision 3 is not verified yet"),
        (view(replica("a"), replica("b"), verified=None), [], "revision 3 is not verified yet"),
        (view(replica("a"), replica("b"), shed=0.5), [], "50% of the requests are still refused"),
    ],
)
def test_the_next_fault_waits_until_all_is_calm(seen: ServiceView, incidents: list[Incident], why: str) -> None:
    assert unrest(seen, incidents, GOOD) == why


def test_a_service_is_whole_only_with_the_good_spec_and_exactly_the_wished_replicas_ready() -> None:
    assert whole(CALM, GOOD)
    assert not whole(CALM, BAD)
    assert not whole(view(replica("a"), replica("b"), replica("c")), GOOD)
    assert not whole(view(replica("a"), replica("b"), replica("c", state="stopping")), GOOD)
    assert not whole(view(replica("a"), replica("b", digest="f" * 16)), GOOD)


def test_progress_tells_each_milestone_with_its_seconds_since_the_injection() -> None:
    injection = Injection(kind="stop", at=10.0, replica="a")
    assert progress(None, injection) == []
    assert len(progress(incident(), injection)) == 1
    done = incident(
        diagnosed=15.5,
        mitigated=22.0,
        causes=(Cause(name="hung_replica", subject="a", confidence=0.95),),
        actions=(Action(remedy="evict", proposal="p", at=16.0, verdict="effective"),),
    )
    assert progress(done, injection) == [
        "  4.0 s  incident 1: slow",
        "  5.5 s  cause: hung_replica of a (95% sure)",
        "  6.0 s  remedy: evict",
        " 12.0 s  repaired",
    ]


def test_fare_counts_all_answers_and_times_those_of_the_last_five_seconds() -> None:
    answers = [
        Answer(id="1", due=10.0, seconds=9.0, status=0, result="failed"),
        Answer(id="2", due=99.0, seconds=0.02, status=200, result="wrong"),
        Answer(id="3", due=99.5, seconds=0.02, status=200, result="right"),
    ]
    assert fare(answers, 100.0) == "users: 3 answers, 1 failed, 1 wrong; now 0 a second, p99 20 ms"
    assert fare([], 100.0) == "users: 0 answers, 0 failed, 0 wrong; now 0 a second"


def test_a_report_is_good_only_without_false_alarms_and_told_to_its_end() -> None:
    good = Report(seed=0, accuracy=0.98, seconds=100.0, outcomes=())
    assert good.repaired
    assert not msgspec.structs.replace(good, false_alarms=("incident 1",)).repaired
    assert not msgspec.structs.replace(good, stopped="not calm").repaired
