import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leptonai.ops.collect import Collected
from leptonai.ops.convict import Tally, leaks, wrong_answers
from leptonai.ops.lookout import Lookout
from leptonai.ops.outcomes import Outcomes
from leptonai.platforms.telemetry import Memory
from leptonai.settings import Ops
from leptonai.types import Dials, Service, Spec, Variant

READY = {"a": 0.0, "b": 0.0}


def memory(seed: int, seconds: int = 240, noise: float = 3e5, series: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    at = np.arange(seconds) + rng.uniform(0, 0.05, seconds)
    return at, 150e6 + np.cumsum(rng.normal(0, noise, (series, seconds)), axis=1)


def first(
    at: np.ndarray, rss: dict[str, np.ndarray], since: dict[str, float], start: int = 12
) -> tuple[float, str] | None:
    for t in range(start, len(at)):
        told = leaks(float(at[t]), {name: (at[: t + 1], v[: t + 1]) for name, v in rss.items()}, since)
        if told:
            return float(at[t]), told[0].replica
    return None


@pytest.mark.parametrize("seed", range(10))
def test_five_megabytes_a_second_are_convicted_within_fifteen_seconds(seed: int) -> None:
    at, (a, b) = memory(seed)
    a = a + 5e6 * np.maximum(at - 200.0, 0)
    found = first(at, {"a": a, "b": b}, READY, start=180)
    assert found is not None and found[1] == "a" and 205 <= found[0] <= 215


def test_the_sentence_names_the_slopes() -> None:
    at, (a, b) = memory(1)
    a = a + 5e6 * np.maximum(at - 200.0, 0)
    (leak,) = leaks(230.0, {"a": (at, a), "b": (at, b)}, READY)
    assert leak.slope == pytest.approx(5e6, rel=0.2) and abs(leak.siblings) < 5e5 and leak.score >= 8
    assert leak.began >= 195.0


def test_a_replica_without_siblings_needs_longer() -> None:
    at, (a, _) = memory(2)
    a = a + 5e6 * np.maximum(at - 200.0, 0)
    found = first(at, {"a": a}, {"a": 0.0}, start=180)
    assert found is not None and 220 <= found[0] <= 230


def test_what_all_do_together_is_no_leak() -> None:
    at, (a, b) = memory(3)
    climb = 5e6 * np.maximum(at - 100.0, 0)
    assert first(at, {"a": a + climb, "b": b + climb}, READY) is None


@pytest.mark.parametrize("size", [2e7, 1e8, 1e9])
def test_jumps_are_no_slope(size: float) -> None:
    at, (a, b) = memory(4)
    a = a + size * (at > 100) + size * (at > 103) + size * (at > 160)
    assert first(at, {"a": a, "b": b}, READY) is None


@pytest.mark.parametrize("tau", [1.0, 5.0, 20.0, 45.0])
@pytest.mark.parametrize("size", [3e7, 3e8])
def test_a_warm_up_is_no_leak(tau: float, size: float) -> None:
    """A young replica fills its caches exponentially beside a settled one."""
    at, (a, b) = memory(5, noise=5e4)
    assert first(at, {"a": a + size * (1 - np.exp(-at / tau)), "b": b}, {"a": 0.0, "b": -1e4}) is None


@pytest.mark.parametrize(("size", "convicted"), [(1e9, False), (1e8, True)])
def test_a_young_replica_must_gain_a_tenth_of_what_it_holds(size: float, convicted: bool) -> None:
    """Half a minute of filling caches is steep and straight; what is much against the whole is no cache."""
    at, (_, b) = memory(5, noise=5e4)
    young = np.where(at < 30.0, 2e6 * at, 6e7) + size
    found = first(at[:60], {"a": young[:60], "b": b[:60] - b[0] + size}, {"a": 0.0, "b": -1e4})
    assert (found is not None) == convicted


def test_random_walks_and_swings_are_no_leak() -> None:
    """Forty replica-quarter-hours; benchmarks/leak_false_alarms.py does tens of thousands of hours."""
    rng = np.random.default_rng(0)
    for swing in (0.0, 0.7):
        steps = rng.normal(0, 2e6, (2, 900))
        for t in range(1, 900):
            steps[:, t] += swing * steps[:, t - 1]
        at = np.arange(900.0)
        a, b = 1e9 + np.cumsum(steps, axis=1)
        for t in range(20, 900, 2):
            lo = max(0, t - 250)
            assert leaks(at[t], {"a": (at[lo:t], a[lo:t]), "b": (at[lo:t], b[lo:t])}, READY) == []


def test_the_future_gaps_and_the_unknown_do_not_matter() -> None:
    at, (a, b) = memory(6)
    a = a + 5e6 * np.maximum(at - 200.0, 0)
    holed = np.where(np.arange(240) % 9 == 0, np.nan, a)
    assert leaks(199.0, {"a": (at, a), "b": (at, b)}, READY) == []
    assert [x.replica for x in leaks(235.0, {"a": (at, holed), "b": (at, b)}, READY)] == ["a"]
    assert leaks(235.0, {}, {}) == leaks(235.0, {"a": (at, a)}, {}) == []
    assert leaks(235.0, {"a": (np.zeros(0), np.zeros(0))}, READY) == []


# --- wrong answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "total", "verdict"),
    [
        (0, 0, "not enough evidence"),
        (1, 1, "not enough evidence"),
        (3, 3, "not enough evidence"),
        (5, 5, "convicted"),
        (8, 12, "convicted"),
        (1, 100, "clear"),
        (1, 20, "not enough evidence"),
        (3, 30, "not enough evidence"),
        (0, 50, "clear"),
        (50, 200, "convicted"),
        (25, 200, "not enough evidence"),
    ],
)
def test_verdicts_over_labels(wrong: int, total: int, verdict: str) -> None:
    assert wrong_answers({"d": Tally(wrong, total)})["d"].verdict == verdict


def test_a_mostly_wrong_revision_is_convicted_within_a_second_of_labels() -> None:
    """Nine labels a second (30 % of 30 requests), 80 % of the answers wrong: convicted by the 20th label, 99 in 100."""
    rng = np.random.default_rng(0)
    in_time = 0
    for _ in range(200):
        answers = np.cumsum(rng.random(20) < 0.8)
        in_time += any(
            wrong_answers({"d": Tally(int(k), n + 1)})["d"].verdict == "convicted" for n, k in enumerate(answers)
        )
    assert in_time >= 198


def test_a_revision_is_measured_against_the_one_it_replaced() -> None:
    """30 % wrong is a conviction, unless the revision before was no better."""
    now = Tally(60, 200)
    better, alike = {"new": now, "old": Tally(4, 200)}, {"new": now, "old": Tally(55, 200)}
    assert wrong_answers(better, {"new": "old"})["new"].verdict == "convicted"
    assert wrong_answers(alike, {"new": "old"})["new"].verdict != "convicted"
    assert wrong_answers({"new": now, "old": Tally(0, 0)}, {"new": "old"})["new"].verdict == "convicted"


@given(st.integers(0, 300), st.integers(0, 300))
@settings(deadline=None)
def test_more_wrong_answers_never_speak_for_a_revision(wrong: int, right: int) -> None:
    one = wrong_answers({"d": Tally(wrong, wrong + right)})["d"]
    two = wrong_answers({"d": Tally(wrong + 1, wrong + right + 1)})["d"]
    assert not (one.verdict == "convicted" and two.verdict == "clear")
    if one.ratio > one.tolerable:
        assert two.odds >= one.odds - 1e-9


def test_who_was_right_before_is_known_when_labels_convict() -> None:
    """A model that its first labels cleared did not become wrong by its deployment; one that never was right did."""
    variant = Variant(model="m")
    spec = Spec(name="digits", variants=(variant,))
    for first, cleared in ((0, True), (60, False)):
        lookout, outcomes = Lookout(Service(spec=spec, dials=Dials(variants={}), revision=1), Ops()), Outcomes()
        verdicts = []
        for now, wrong in ((1.0, first), (2.0, 60)):
            outcomes.count("digits", variant.digest, 100, wrong)
            (seen,) = lookout.step(now, Collected(at=now, seconds=1.0), [], 0, outcomes, Memory()).wrong
            verdicts.append((seen.verdict, seen.cleared))
        assert verdicts[-1] == ("convicted", cleared), verdicts
