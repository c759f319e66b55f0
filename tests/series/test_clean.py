"""Cleaning: one row a policy, and what holds for any samples at all."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptonai.series.clean import clean

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("at", "value", "given_", "wanted_at", "wanted", "counts"),
    [
        ([], [], {}, [], [], {}),
        ([1, 2, 3], [4, 5, 6], {}, [1, 2, 3], [4, 5, 6], {}),
        ([1, NAN, INF, 4], [1, 1, 1, 2], {}, [1, 4], [1, 2], {"bad_time": 2}),
        ([1, 2, 99], [1, 2, 3], {"ahead_of": 10.0}, [1, 2], [1, 2], {"bad_time": 1}),
        ([1, 2, 3], [1, NAN, -INF], {}, [1], [1], {"nan": 1, "infinite": 1}),
        ([1, 3, 2, 4], [1, 3, 2, 4], {}, [1, 2, 3, 4], [1, 2, 3, 4], {"out_of_order": 1}),
        ([1, 2, 2, 3], [1, 5, 7, 3], {}, [1, 2, 3], [1, 7, 3], {"duplicate": 1}),
        ([1, 2, 3, 9, 10], [0] * 5, {}, [1, 2, 3, 9, 10], [0] * 5, {"gap": 1}),
        ([1, 2, 3, 4], [10, 15, 3, 4], {"counter": True}, [1, 2, 3, 4], [0, 5, 8, 9], {"reset": 1}),
        ([1, 2, 3], [10, 15, 3], {}, [1, 2, 3], [10, 15, 3], {}),
    ],
)
def test_each_policy(at, value, given_, wanted_at, wanted, counts) -> None:  # type: ignore[no-untyped-def]
    got = clean(np.array(at, float), np.array(value, float), **given_)
    assert (got.at.tolist(), got.value.tolist(), got.counts) == (wanted_at, wanted, counts)


@given(
    st.lists(st.tuples(st.one_of(st.integers(0, 20), st.just(NAN)), st.floats(allow_subnormal=False))), st.booleans()
)
def test_nothing_is_dropped_uncounted(samples: list[tuple[float, float]], counter: bool) -> None:
    """What comes out is in order, finite, and as many as came in less those counted; a counter never falls."""
    at, value = (np.array([s[i] for s in samples], float) for i in (0, 1))
    got = clean(at, np.clip(value, -1e9, 1e9), counter=counter)
    dropped = sum(got.counts.get(k, 0) for k in ("bad_time", "nan", "infinite", "duplicate"))
    assert len(got.at) == len(got.value) == len(samples) - dropped
    assert (np.diff(got.at) > 0).all() and np.isfinite(got.value).all()
    if not counter and len(got.at):
        again = clean(got.at, got.value)
        assert again.value.tolist() == got.value.tolist() and set(again.counts) <= {"gap"}
    if counter and (value >= 0).all():
        assert (np.diff(got.value) >= 0).all()
