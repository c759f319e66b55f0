"""What is found of a version on probation, from lines of the prediction logs and the gateway's counts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from leptonai.ops.convict import Tally, wrong_answers
from leptonai.ops.lookout import Lookout
from leptonai.ops.outcomes import Outcomes, agree
from leptonai.ops.probation import Counted, Probation
from leptonai.plan.rollout import Finding
from leptonai.settings import Ops
from leptonai.types import Canary, Dials, Replica, Rollout, Scale, Service, Spec, Variant, VariantDials

OLD, NEW = Variant(model="old", idempotent=True), Variant(model="new", idempotent=True)
BEGAN = 1_000_000
Line = tuple[Replica, str, str, float, float, int, Any]


def service(**rollout: Any) -> Service:
    spec = Spec(name="s", variants=(NEW,), scale=Scale(replicas=1), rollout=Rollout(strategy="canary", **rollout))
    dials = Dials(variants={"main": VariantDials(replicas=1)})
    return Service(spec=spec, dials=dials, revision=2, canary=Canary(stable=(OLD,), revision=1, mirror=1.0))


def replica(id: str, variant: Variant) -> Replica:
    return Replica(id=id, service="s", variant="main", digest=variant.digest, state="ready", since=0.0)


def mirrored(
    seconds: int, errors: float = 0.0, slower: float = 1.0, differ: float = 0.0, seed: int = 1
) -> Iterator[Line]:
    """Ten requests a second, each answered by both versions."""
    rng = random.Random(seed)
    both = (replica("o", OLD), OLD), (replica("n", NEW), NEW)
    for second in range(seconds):
        for number in range(10):
            for one, variant in both:
                new = variant is NEW
                code = 500 if new and rng.random() < errors else 200
                took = 0.01 * rng.uniform(0.8, 1.2) * (slower if new else 1.0)
                said = [1 if new and rng.random() < differ else 0]
                at = BEGAN + second + number / 10
                yield one, f"{second}-{number}", variant.digest, at, took, code, said


def found(probation: Probation, wish: Service, labels: Tally | None = None) -> dict[str, Finding]:
    wrong = list(wrong_answers({NEW.digest: labels}).values()) if labels else []
    return {f.measure: f for f in probation.findings(wish, [], wrong, {"n"})}


def judged(wish: Service, lines: Iterator[Line], seconds: int) -> Probation:
    probation = Probation(wish)
    for line in lines:
        probation.saw(*line)
    probation.step(BEGAN + seconds + 10.0)
    return probation


def test_a_version_like_the_old_one_is_clear_once_enough_was_seen_and_not_before() -> None:
    wish = service()
    few = found(judged(wish, mirrored(5), 5), wish)
    assert few["errors"].verdict == "not enough evidence" and "are needed" in few["errors"].text
    assert {f.verdict for f in found(judged(wish, mirrored(60), 60), wish).values()} == {"clear"}


@pytest.mark.parametrize(
    ("bad", "measure"), [({"errors": 0.1}, "errors"), ({"slower": 2.0}, "p50"), ({"slower": 2.0}, "p95")]
)
def test_what_is_worse_is_convicted_by_what_it_is_worse_in(bad: dict[str, Any], measure: str) -> None:
    wish = service()
    finding = found(judged(wish, mirrored(60, **bad), 60), wish)[measure]
    assert finding.verdict == "convicted" and finding.numbers["log_evidence"] >= finding.numbers["convicts_at"]


def test_a_count_clears_nothing_while_what_was_counted_speaks_against_it() -> None:
    """Ten seconds with an error of the new version each, and many without any: suspicious, not yet convicted."""
    wish, probation = service(min_samples=50, effect=0.4), Probation(service())
    for _ in range(4):
        probation.tests["errors"].add(1, 20, 0, 20)
    finding = found(probation, wish)["errors"]
    assert probation.tests["errors"].total >= finding.numbers["samples_needed"]
    assert finding.verdict == "not enough evidence" and "to 1 that it is worse" in finding.text


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ([3], [3], True),
        ([3], [4], False),  # classes
        ([0.90, 0.10], [0.92, 0.08], True),
        ([8.1, -0.2, 0.01], [8.0, -0.1, -0.02], True),  # scores: what is near zero is no other answer
        ([8.1, -0.2, 0.01], [0.1, 8.0, 0.0], False),
        ([2.0], [2.2], False),
        ([2.0, float("nan")], [2.0, float("nan")], False),
        (["a", 1.0], ["b", 1.0], False),
    ],
)
def test_two_answers_agree_within_a_twentieth_of_the_largest_number(a: list[Any], b: list[Any], same: bool) -> None:
    assert agree(a, b) is agree(b, a) is same


def test_answers_that_differ_pause_and_labels_decide() -> None:
    wish = service()
    probation = judged(wish, mirrored(60, differ=0.5), 60)
    assert found(probation, wish)["answers"].verdict == "disagrees"
    assert found(probation, wish, Tally(0, 3))["answers"].verdict == "disagrees", "three labels decide nothing"
    right = found(probation, wish, Tally(wrong=0, total=200))
    assert "answers" not in right and right["labels"].verdict == "clear", "the new answers are the right ones"
    wrong = found(probation, wish, Tally(wrong=60, total=100))
    assert wrong["labels"].verdict == "convicted"


def test_failures_that_the_gateway_makes_are_seen_though_no_log_tells_of_them() -> None:
    wish = service()
    probation = judged(wish, mirrored(60), 60)
    for _ in range(30):
        probation.at_gateway({"main": (100, 0), "main-new": (5, 1)})
    finding = found(probation, wish)["gateway"]
    assert finding.verdict == "convicted" and "30 of 150 answers" in finding.text


def test_a_restart_neither_forgets_evidence_nor_counts_it_twice() -> None:
    """The logs are read again from their beginning; what was closed before counts once, and the verdict is the same."""
    wish, lines = service(), list(mirrored(40, errors=0.04, slower=1.1, differ=0.2))
    whole = judged(wish, iter(lines), 40)
    first = Probation(wish)
    for line in lines:
        if line[3] < BEGAN + 20:
            first.saw(*line)
    first.at_gateway({"main": (100, 0), "main-new": (5, 1)})
    first.step(BEGAN + 20.0)
    kept = msgspec.msgpack.decode(msgspec.msgpack.encode(first.counted()), type=Counted)
    second = Probation(wish)
    assert second.resume(kept)
    for line in lines:
        second.saw(*line)
    second.step(BEGAN + 50.0)
    for name in ("errors", "p50", "p95"):
        assert second.tests[name].state() == pytest.approx(whole.tests[name].state()), name
    assert second.tests["gateway"].total == 5
    assert second.agreed + second.differed <= whole.agreed + whole.differed, "no pair counts twice"
    assert second.agreed + second.differed >= 0.9 * (whole.agreed + whole.differed)


def test_what_was_counted_of_another_rollout_is_nobodys_evidence() -> None:
    kept = judged(service(), mirrored(20, errors=0.5), 20).counted()
    other = msgspec.structs.replace(service(), revision=3)
    probation = Probation(other)
    assert not probation.resume(kept) and probation.tests["errors"].total == 0


@pytest.mark.parametrize(("wrong", "verdict"), [(20, "clear"), (190, "convicted")])
def test_a_version_is_held_against_the_one_it_would_replace_however_bad_that_is(wrong: int, verdict: str) -> None:
    """Nobody ever verified the old one: three of five of its answers are wrong."""
    outcomes = Outcomes()
    outcomes.count("s", OLD.digest, 200, 120)
    outcomes.count("s", NEW.digest, 200, wrong)
    told = Lookout(service(), Ops())._wrong(outcomes)
    assert told[NEW.digest].verdict == verdict and told[NEW.digest].tolerable > 0.6
    alone = msgspec.structs.replace(service(), canary=None)
    assert Lookout(alone, Ops())._wrong(outcomes)[NEW.digest].tolerable == 0.1
