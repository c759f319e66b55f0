"""The full tier: strictly streaming, and quiet on what is not news."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leptonai.errors import SpecError
from leptonai.ops.detect.stream import ALARM, Hints, Stream, detect


def series(seed: int, rows: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = np.sin(np.arange(rows) / 20.0) + rng.standard_normal(rows) * 0.1
    x[rng.integers(0, rows, rows // 50)] = np.nan
    x[rng.integers(0, rows)] += 5.0
    return x


LONG = 1300  # rows: a guess of the length grows twice, at 500 and 1,000


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), cut=st.integers(0, LONG), hint=st.booleans())
def test_scores_of_a_prefix_are_the_prefix_of_the_scores(seed: int, cut: int, hint: bool) -> None:
    x = series(seed, LONG)
    hints = Hints(-2.0, 6.0, LONG) if hint else Hints()
    whole, _ = detect(x, hints)
    part, _ = detect(x[:cut], hints)
    assert np.array_equal(part, whole[:cut])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), cut=st.integers(0, LONG), hint=st.booleans())
def test_another_future_changes_no_score_and_range_scores_one_window_back_at_most(
    seed: int, cut: int, hint: bool
) -> None:
    """Rows from ``cut`` on are exchanged: scores before them stay, and range scores known by then."""
    x = series(seed, LONG)
    hints = Hints(-2.0, 6.0, LONG) if hint else Hints()
    other = np.concatenate((x[:cut], series(seed + 1, LONG)[cut:] * -3.0))
    (score, wide), (score2, wide2) = detect(x, hints), detect(other, hints)
    stream = Stream(hints)
    settled = len(stream.push(x[:cut])[1])
    assert settled >= cut - stream.delay
    assert np.array_equal(score[:cut], score2[:cut])
    assert np.array_equal(wide[:settled], wide2[:settled])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), cuts=st.lists(st.integers(0, LONG), max_size=6), hint=st.booleans())
def test_how_a_series_is_cut_changes_nothing_and_range_scores_are_one_window_late(
    seed: int, cuts: list[int], hint: bool
) -> None:
    x, hints = series(seed, LONG), Hints(rows=LONG) if hint else Hints()
    whole = detect(x, hints)
    stream = Stream(hints)
    scores, ranges, seen = [], [], 0
    for piece in np.split(x, sorted(cuts)):
        score, late = stream.push(piece)
        seen += len(piece)
        scores.append(score)
        ranges.append(late)
        assert sum(map(len, ranges)) >= seen - stream.delay
    ranges.append(stream.finish())
    assert np.array_equal(np.concatenate(scores), whole[0])
    assert np.array_equal(np.concatenate(ranges), whole[1])


def test_a_series_of_unknown_length_is_read_in_longer_samples_as_it_grows() -> None:
    stream, sizes = Stream(), []
    for _ in range(8):
        stream.push(np.random.default_rng(0).standard_normal(250))
        sizes.append(stream.coarse)
    known = [Stream(Hints(rows=n)).coarse for n in (2000, 4000, 5000, 100_000)]
    assert sizes == [known[0]] * 2 + [known[1]] * 2 + [known[2]] * 4
    assert known[2] == known[3]


def test_a_new_shape_is_an_alarm_and_its_repetition_is_none() -> None:
    x = np.tile(np.sin(np.arange(200) / 200 * 2 * np.pi), 20)
    x[2000:2040] = 3.0
    x[3000:3040] = 3.0
    score, _ = detect(x, Hints(-1.0, 3.0, len(x)))
    alarms = np.flatnonzero(score >= ALARM)
    assert len(alarms) and 2000 <= alarms[0] < 2060
    assert not np.any(alarms > 2200)


@pytest.mark.parametrize(
    "x",
    [
        np.zeros(0),
        np.array([5.0]),
        np.full(3000, 7.0),
        np.full(3000, np.nan),
        np.array([np.inf, -np.inf, np.nan] * 500),
        np.array([1e308, -1e308] * 700),
        np.arange(2000) % 2.0,
    ],
    ids=["none", "one", "constant", "missing", "infinite", "huge", "alternating"],
)
def test_odd_series_score_finite_and_raise_no_alarm(x: np.ndarray) -> None:
    for scores in detect(x):
        assert len(scores) == len(x)
        assert np.all((scores >= 0.0) & (scores < ALARM))


def test_hints_that_cannot_be() -> None:
    with pytest.raises(SpecError, match="upside down"):
        Hints(3.0, 1.0)
    with pytest.raises(SpecError, match="at least 1"):
        Hints(rows=0)
