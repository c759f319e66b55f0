"""Availability arithmetic against counts made by hand, and false pages against simulation of the very rule."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leptonai.errors import SpecError
from leptonai.ops.alarm import detects, fires, garwood, pages
from leptonai.ops.availability import _mean, availability
from leptonai.ops.slo import Burn
from leptonai.series.burn import windows
from leptonai.types import Incident, Series, Slo

AT = 1_700_000_000.0
DAY = 86400.0


def incident(began: float, opened: float, over: float | None) -> Incident:
    return Incident(
        id=1, subject="default/service/digits", severity="warning", title="x", began=AT + began, opened=AT + opened,
        mitigated=None if over is None else AT + over, closed=None if over is None else AT + over + 3,
    )  # fmt: skip


def series(name: str, value: Any, seconds: float = DAY, step: float = 10.0) -> Series:
    at = [AT + t for t in np.arange(0, seconds, step)]
    return Series(name=name, labels={}, at=at, value=[value(t - AT) if callable(value) else value for t in at])


def measured(
    incidents: list[Incident], errors: Any = 0.0, rate: Any = 10.0, slo: Slo | None = None, slow: Any = 0.0
) -> Any:
    wish = slo or Slo(availability=0.99)
    seen = series("r", rate), series("e", errors), series("s", slow)
    return availability("digits", wish, incidents, *seen, AT, AT + DAY, 1.0)


def by_hand(short: tuple[int, int], long: tuple[int, int], limit: float) -> bool:
    """The rule as facts and docs/alerts.md say it, of (bad, all) requests: both windows above factor x budget, ten
    requests or more, and no chance that explains the long one: Chernoff's bound below 0.001."""
    (bad, total), (some, few) = long, short
    if total < 10 or bad <= limit * total or not few or some <= limit * few:
        return False
    q = bad / total
    entropy = q * math.log(q / limit) + ((1 - q) * math.log((1 - q) / (1 - limit)) if q < 1 else 0.0)
    return math.exp(-total * entropy) < 1e-3


def test_the_textbook_numbers_of_two_incidents() -> None:
    """Down 100 s + 300 s of a day, noticed after 2 s and 4 s; all requests of the first fail, half of the second."""
    two = [incident(1000, 1002, 1100), incident(5000, 5004, 5300)]
    found = measured(two, lambda t: 1.0 if 1000 <= t < 1100 else 0.5 if 5000 <= t < 5300 else 0.0)
    assert (found.incidents, found.open, found.requests, found.errors) == (2, 0, 864_000, 2500)
    assert found.detect.value == 3 and found.recover.value == 200 and found.downtime.value == 200
    assert found.between.value == pytest.approx((DAY - 400) / 2)
    assert found.up_share == pytest.approx(1 - 400 / DAY)
    assert found.share.value == pytest.approx(1 - 2500 / 864_000)
    assert found.budget_spent_share == pytest.approx(2500 / 8640)
    assert found.per_day.value == pytest.approx(2) and found.expected_downtime.value == pytest.approx(400)
    errors, latency = found.alarms
    assert errors.healthy.value == 0 and errors.page_chance == pytest.approx(0.0, abs=1e-6), "over before it burns"
    assert latency.rule == "latency" and latency.page_chance == pytest.approx(0.0, abs=1e-6), "none was late"


def test_overlapping_incidents_are_down_once_and_an_open_one_lasts_until_now() -> None:
    found = measured([incident(1000, 1001, 1100), incident(1050, 1051, 1150), incident(DAY - 50, DAY - 49, None)])
    assert found.up_share == pytest.approx(1 - 200 / DAY) and found.open == 1
    assert found.recover.value == pytest.approx((100 + 100 + 50) / 2)  # total time / ends


def test_without_incidents_or_requests_it_says_that_it_cannot_tell() -> None:
    calm = measured([])
    assert calm.recover.value is None and calm.between.value is None and calm.between.high is None
    assert calm.between.low == pytest.approx(DAY / -math.log(0.025)) and calm.expected_downtime.value == 0
    blind = availability("digits", Slo(), [], None, None, None, AT, AT + DAY, 1.0)
    assert blind.share.value is None and blind.budget_spent_share is None
    assert [a.false_pages for a in blind.alarms] == [None, None] and blind.false_pages_a_week is None
    assert any("requests" in text for text in blind.cannot_tell)
    with pytest.raises(SpecError, match="empty"):
        availability("digits", Slo(), [], None, None, None, AT, AT, 1.0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, DAY), st.floats(0, 100), st.floats(0, 1000)), max_size=6), st.floats(0, 1))
def test_an_interval_holds_its_value_and_shares_are_shares(spans: list[tuple[float, float, float]], bad: float) -> None:
    found = measured([incident(a, a + b, a + b + c) for a, b, c in spans], bad, slo=Slo(availability=0.5))
    for each in (found.detect, found.recover, found.between, found.share, found.per_day, found.downtime,
                 found.expected_downtime, *(a.healthy for a in found.alarms)):  # fmt: skip
        if each.value is not None:
            assert each.low is not None and each.low <= each.value * (1 + 1e-9) + 1e-12
            assert each.high is None or each.value <= each.high * (1 + 1e-9) + 1e-12
    assert 0 <= found.up_share <= 1


def test_garwoods_interval_covers_what_it_says() -> None:
    draw = np.random.default_rng(5)
    for mean in (0.5, 3.0, 20.0):
        intervals = [garwood(int(n)) for n in draw.poisson(mean, 2000)]
        assert np.mean([low <= mean <= high for low, high in intervals]) >= 0.945


@pytest.mark.parametrize("until", [math.inf, 300.0])
def test_the_interval_of_mttr_covers_what_it_says_also_where_incidents_are_open(until: float) -> None:
    """A thousand times six incidents of 200 s on average; those longer than ``until`` are still open."""
    draw, held, looked = np.random.default_rng(6), 0, 0
    for times in draw.exponential(200.0, (1000, 6)):
        over = times[times <= until]
        found = _mean(np.minimum(times, until).tolist(), len(over))
        looked += len(over) > 0
        held += len(over) > 0 and found.low <= 200.0 <= found.high
    assert 0.93 <= held / looked <= 0.99


@pytest.mark.parametrize(
    ("objective", "row", "rate", "share"),
    [(0.99, 0, 0.2, 0.17), (0.99, 1, 0.2, 0.068), (0.9, 0, 0.004, 0.78), (0.999, 0, 0.01, 0.06), (0.99, 0, 3.0, 0.15)],
)
def test_the_chance_at_one_look_is_what_drawing_requests_gives(
    objective: float, row: int, rate: float, share: float
) -> None:
    """Against 10,000 draws of both windows, requests and all, judged by the rule written down by hand."""
    draw, n = np.random.default_rng(3), 10_000
    one, budget = windows(objective, 30 * DAY)[row], 1.0 - objective
    short, rest = draw.poisson(rate * one.short, n), draw.poisson(rate * (one.long - one.short), n)
    some, bad = draw.binomial(short, share), draw.binomial(rest, share)
    counts = zip(some.tolist(), short.tolist(), (some + bad).tolist(), (short + rest).tolist(), strict=True)
    drawn = sum(by_hand((a, b), (c, d), one.factor * budget) for a, b, c, d in counts) / n
    assert drawn > 0.002, "a case that never fires tells nothing"
    assert fires(rate, share, one, budget) == pytest.approx(drawn, rel=0.05, abs=4 * math.sqrt(drawn / n))


def test_an_incident_that_is_over_soon_pages_less_surely_than_a_long_one() -> None:
    """Each kind of incident is drawn 3,000 times: healthy before, half of the requests bad for its length."""
    draw, n, rate, row = np.random.default_rng(4), 3000, 1.0, windows(0.99, 30 * DAY)[0]
    chances = []
    for seconds in (300.0, 1200.0, 3600.0):
        inside, outside = min(seconds, row.short), max(seconds - row.short, 0.0)
        few, rest = draw.poisson(rate * row.short, n), draw.poisson(rate * (row.long - row.short), n)
        some = draw.binomial(few, 0.5 * inside / row.short)
        bad = draw.binomial(rest, 0.5 * outside / (row.long - row.short))
        counts = zip(some.tolist(), few.tolist(), (some + bad).tolist(), (few + rest).tolist(), strict=True)
        drawn = sum(by_hand((a, b), (c, d), row.factor * 0.01) for a, b, c, d in counts) / n
        chances.append(detects(rate, 0.5, 0.0, seconds, 0.99, 30 * DAY, 1.0))
        assert chances[-1] >= drawn - 0.02
    assert chances == sorted(chances) and chances[0] < 0.2 and chances[-1] > 0.99


def test_false_pages_a_week_are_those_of_the_rule_itself() -> None:
    """``slo.Burn``, step by step over made requests, pages about as often as the arithmetic says."""
    slo = Slo(availability=0.99, period=7200.0)
    rate, share, seconds = 4.0, 0.07, 12_000
    said = pages(rate, share, slo.availability, slo.period, 1.0)
    assert said.a_week is not None and said.high is not None and said.low is not None
    draw = np.random.default_rng(11)
    rule = Burn(slo, "errors", step=1.0)
    found, last = 0, -math.inf
    for t in range(seconds):
        bad = int(draw.poisson(rate * share))
        state = rule.step(float(t), bad + int(draw.poisson(rate * (1 - share))), bad)
        if state.severity == "critical":
            found += t - last > 30.0
            last = t
    low, high = garwood(found, 0.999)
    scale = 7 * DAY / seconds
    assert low * scale * 0.5 <= said.a_week <= high * scale * 2, (found * scale, said)
    assert said.at_most >= said.a_week


def test_a_rate_of_errors_far_below_the_promise_never_pages() -> None:
    said = pages(50.0, 1e-5, 0.999, 30 * DAY, 1.0)
    assert said.a_week is None and said.at_most < 1e-6


def test_a_service_that_answers_late_is_paged_for_by_the_other_rule() -> None:
    """4 % late of which 1 % are promised not to be: no error is seen, and yet pages are expected."""
    found = measured([], slow=0.09, rate=0.3, slo=Slo(availability=0.999, latency_objective=0.99))
    errors, latency = found.alarms
    assert errors.false_pages.a_week is None and latency.healthy.value == pytest.approx(0.09, rel=0.01)
    assert latency.false_pages.a_week > 0 and found.false_pages_a_week >= latency.false_pages.a_week
    assert measured([], slow=math.nan).alarms[1].false_pages is None
