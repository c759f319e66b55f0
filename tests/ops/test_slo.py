import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leptonai.errors import SpecError
from leptonai.ops.slo import ALPHA, Burn, Sliding, _interval
from leptonai.series.burn import MONTH, windows
from leptonai.series.proportion import wilson
from leptonai.types import Slo

HOUR = 3600.0


def test_a_month_gives_the_textbook_table() -> None:
    assert [tuple(row) for row in windows(0.999, MONTH)] == [
        ("critical", 1 * HOUR, HOUR / 12, pytest.approx(14.4)),
        ("critical", 6 * HOUR, HOUR / 2, pytest.approx(6)),
        ("warning", 24 * HOUR, 2 * HOUR, pytest.approx(3)),
        ("warning", 72 * HOUR, 6 * HOUR, pytest.approx(1)),
    ]


@given(st.floats(3600.0, 90 * 86400.0), st.floats(0.9, 0.9999), st.floats(0.5, 10.0))
def test_a_factor_is_always_budget_spent_times_period_over_the_long_window(
    period: float, objective: float, step: float
) -> None:
    spent = {"critical": (0.02, 0.05), "warning": (0.10,)}
    try:
        rows = windows(objective, period, step)
    except SpecError:
        return
    for row in rows:
        assert any(row.factor * row.long == pytest.approx(share * period) for share in spent[row.severity])
        assert row.factor * (1 - objective) < 1 and row.factor >= 1 - 1e-9
        assert row.short >= 3 * step and row.long >= 6 * step


def test_short_periods_keep_windows_of_a_few_collections() -> None:
    rows = windows(0.999, 3600.0)
    assert [(row.long, row.short, round(row.factor, 6)) for row in rows] == [
        (6, 3, 12), (30, 3, 6), (120, 10, 3), (360, 30, 1),
    ]  # fmt: skip


def test_rows_that_could_never_fire_are_left_out_and_hopeless_promises_refused() -> None:
    assert len(windows(0.90, MONTH)) == 3  # 14.4 x 10 % asks for 144 % bad requests
    with pytest.raises(SpecError, match="more than 100 %") as told:
        windows(0.5, MONTH)
    assert "0.833" in told.value.hint
    with pytest.raises(SpecError, match="at least 300 s"):
        windows(0.999, 100.0)
    for objective in (0.0, 1.0, float("nan")):
        with pytest.raises(SpecError, match="strictly between"):
            windows(objective, MONTH)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=300), st.sampled_from([3.0, 7.0, 60.0]))
@settings(max_examples=50, deadline=None)
def test_a_sliding_count_is_the_sum_of_its_window(events: list[tuple[int, int]], width: float) -> None:
    """With steps of one second the running sums equal a sum over the last ``width`` steps, made anew each time."""
    sliding = Sliding(width, 1.0)
    for t, (total, bad) in enumerate(events):
        sliding.add(float(t), total, bad)
        last = events[max(0, t + 1 - int(width)) : t + 1]
        assert (sliding.total, sliding.bad) == (sum(e[0] for e in last), sum(e[1] for e in last))


def play(burn: Burn, *stretches: tuple[int, float | None, float | None], start: float = 0.0) -> list:
    out, at = [], start
    for steps, total, bad in stretches:
        for _ in range(steps):
            out.append(burn.step(at, total, bad))
            at += 1.0
    return out


def test_an_outage_pages_within_two_seconds_says_since_when_and_ends() -> None:
    told = play(Burn(Slo(period=3600.0), "errors"), (120, 30, 0), (10, 30, 30), (30, 30, 0))
    assert not any(state.severity for state in told[:120])
    assert told[121].severity == "critical" and told[121].began == 120.0
    assert told[121].burn_long > told[121].factor and told[121].burn_short > told[121].factor
    assert told[129].began == 120.0
    assert told[159].severity is None and told[159].began is None


def test_slow_answers_burn_the_latency_objective() -> None:
    slo = Slo(period=3600.0, latency_objective=0.99)
    assert play(Burn(slo, "latency"), (60, 30, 0), (4, 30, 20))[-1].severity == "critical"
    assert play(Burn(slo, "latency"), (60, 30, 0), (4, 30, 1))[-1].severity is None


def test_a_small_steady_burn_is_a_warning() -> None:
    told = play(Burn(Slo(period=36000.0, availability=0.99), "errors"), (3600, 100, 4))
    assert told[-1].severity == "warning" and told[-1].burn_long == pytest.approx(4)


@pytest.mark.parametrize("availability", [0.99, 0.999, 0.9999])
@pytest.mark.parametrize("every", [1, 5, 20])
def test_one_error_never_pages_however_low_the_traffic(availability: float, every: int) -> None:
    """One request each ``every`` seconds, one of them failed: no severity at any later time."""
    burn = Burn(Slo(availability=availability, period=86400.0), "errors")
    for t in range(2000):
        came = t % every == 0
        state = burn.step(float(t), float(came), float(came and t == 500))
        assert state.severity is None


def test_low_traffic_still_pages_when_most_of_it_fails() -> None:
    burn = Burn(Slo(period=86400.0), "errors")
    told = [burn.step(float(t), float(t % 5 == 0), float(t % 5 == 0 and t >= 100)) for t in range(200)]
    first = next(i for i, state in enumerate(told) if state.severity)
    assert first <= 120 and told[first].chance < ALPHA


def test_false_pages_at_the_promised_rate_are_rare() -> None:
    """A service that errs at exactly its budget for 2,000 steps is not paged for, at three rates of traffic."""
    rng = np.random.default_rng(0)
    for rate in (0.5, 5.0, 100.0):
        burn = Burn(Slo(period=86400.0, availability=0.99), "errors")
        for t in range(2000):
            total = rng.poisson(rate)
            assert burn.step(float(t), total, rng.binomial(total, 0.01)).severity != "critical"


def test_nothing_heard_is_absent_but_zero_is_a_count() -> None:
    burn = Burn(Slo(), "errors", absent_after=10.0)
    assert not any(state.absent for state in play(burn, (60, 0, 0)))
    told = play(burn, (20, None, None), start=60.0)
    assert not told[9].absent and told[10].absent
    assert play(burn, (1, float("nan"), 0.0), start=80.0)[0].absent
    assert not play(burn, (1, 5.0, 0.0), start=81.0)[0].absent


def test_more_bad_than_total_and_negative_counts_are_bounded() -> None:
    state = play(Burn(Slo(), "errors"), (1, 5, 9), (1, -3, -1))[-1]
    assert (state.total, state.bad) == (5, 5)


@given(st.integers(0, 10**6), st.integers(0, 50))
def test_the_interval_without_bad_ones_is_wilsons(total: int, bad: int) -> None:
    low, high = wilson(min(bad, total), total)
    assert _interval(min(bad, total), total) == pytest.approx((float(low), float(high)), abs=1e-12)
