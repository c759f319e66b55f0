"""The embedded telemetry store: the suite, what it forgets, and that it agrees with a plain list."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptonai.errors import SpecError
from leptonai.platforms.telemetry import Memory
from leptonai.testing.telemetry_suite import TelemetrySuite, sample


class TestMemory(TelemetrySuite):
    def store(self) -> Memory:
        return Memory(keep=60.0)


def test_only_the_newest_seconds_are_kept() -> None:
    store = Memory(keep=10.0)
    for t in range(100):
        store.write([sample(float(t), float(t))])
    (series,) = store.read("latency_p99_seconds", 0.0, 200.0)
    assert series.at == [float(t) for t in range(89, 100)]


def test_a_series_that_fell_silent_is_forgotten() -> None:
    store = Memory(keep=10.0)
    store.write([sample(0.0, 1.0, "gone_count")])
    store.write([sample(30.0, 1.0, "here_count")])
    assert store.names() == ["here_count"]


def test_series_that_come_and_go_cannot_fill_the_memory() -> None:
    store = Memory(keep=1e6, series=32)
    for t in range(1000):
        store.write([sample(float(t), 1.0, "replica_rss_bytes", replica=f"r{t}")])
    kept = store.read("replica_rss_bytes", 0.0, 2000.0)
    assert len(kept) <= 32
    assert "r999" in {s.labels["replica"] for s in kept}


def test_more_points_than_the_limit_are_refused() -> None:
    with pytest.raises(SpecError, match="11000"):
        Memory().read("x_count", 0.0, 1e6, step=1.0)


@given(
    st.lists(st.tuples(st.integers(0, 50), st.floats(-1e6, 1e6)), max_size=40),
    st.integers(0, 50),
    st.integers(1, 20),
    st.sampled_from([0.0, 1.0, 3.0]),
)
def test_agrees_with_a_plain_list(points: list[tuple[int, float]], start: int, width: int, step: float) -> None:
    """Any order of writes reads back as the sorted list of last writes per time, or as its means per step."""
    store = Memory(keep=1e6)
    for at, value in points:
        store.write([sample(float(at), value)])
    plain = {float(at): value for at, value in points if start <= at < start + width}
    found = store.read("latency_p99_seconds", float(start), float(start + width), step=step)
    if not plain:
        assert found == []
    elif not step:
        assert dict(zip(found[0].at, found[0].value, strict=True)) == plain
        assert found[0].at == sorted(found[0].at)
    else:
        for at, value in zip(found[0].at, found[0].value, strict=True):
            inside = [v for t, v in plain.items() if at <= t < at + step]
            assert (math.isnan(value) and not inside) or math.isclose(
                value, sum(inside) / len(inside), rel_tol=1e-9, abs_tol=1e-6
            )
