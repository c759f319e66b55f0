"""Two tiers behind one watcher: who sits, who says why, and what a restart or a new meaning keeps."""

from __future__ import annotations

import numpy as np
import pytest

from leptonai.ops.detect import Watcher
from leptonai.ops.detect.tiers import Tiers
from leptonai.ops.detect.watcher import EXHAUSTION, MISSING, Concern
from leptonai.protocols import Floats
from leptonai.types import Signal

RNG = np.random.default_rng(11)


def run(tiers: Tiers, rows: Floats, start: int = 0) -> Floats:
    every = np.ones(rows.shape[1], dtype=np.bool_)
    return np.array([tiers.step(float(start + t), row, every).score for t, row in enumerate(rows)])


def test_suspects_take_a_seat_and_give_it_back() -> None:
    tiers = Tiers(stay=50)
    tiers.open(20)
    rows = RNG.standard_normal((260, 20))
    rows[100, 3] = 60.0
    run(tiers, rows[:100])
    quiet = tiers.seated
    run(tiers, rows[100:102], 100)
    assert tiers.seated > quiet and tiers.reasons(3, least=0.0)
    run(tiers, rows[102:], 102)
    assert tiers.seated <= quiet + 2


def test_seats_are_bounded_and_the_pinned_ones_come_first() -> None:
    tiers = Tiers(seats=4)
    tiers.open(30)
    rows = RNG.standard_normal((120, 30))
    rows[100] = 50.0
    run(tiers, rows)
    assert tiers.seated == 4
    assert tiers.pin(np.arange(4)).all() and tiers.seated == 4
    assert not tiers.pin(np.array([9])).any(), "no seat is left: it is scored by the base tier"
    assert np.isfinite(run(tiers, rows[:1], 120)[0, 9])


def test_a_part_of_the_state_goes_on_as_the_whole_would() -> None:
    """Dumped, cut to some slots and loaded into another, those slots score as if nothing had happened."""
    whole, rows = Tiers(), RNG.standard_normal((200, 12))
    whole.open(12)
    whole.pin(np.array([2, 5, 7]))
    run(whole, rows)
    some = np.array([5, 2, 9])
    cut = Tiers()
    cut.load(whole.part(some))
    after = RNG.standard_normal((40, 12))
    np.testing.assert_array_equal(run(whole, after, 200)[:, some], run(cut, after[:, some], 200))


def signal(name: str, at: int, value: float, **labels: str) -> Signal:
    return Signal(name=name, labels=labels, at=at, value=value)


def test_a_signal_that_means_something_else_is_learnt_anew() -> None:
    """The level of a new version is no anomaly after it is learnt from what came since; without that it is."""

    def told(again: bool) -> int:
        watcher = Watcher()
        noise = RNG.standard_normal(400) * 0.001
        for t in range(150):
            watcher.step(t, [signal("latency_p50_seconds", t, 0.02 + noise[t], service="digits")])
        slot = watcher.find("latency_p50_seconds", {"service": "digits"})
        assert slot is not None
        if again:
            watcher.relearn([slot], list(range(150, 200)), (0.2 + noise[150:200])[:, None])
        late = range(200, 220)
        return sum(
            bool(watcher.step(t, [signal("latency_p50_seconds", t, 0.2 + noise[t], service="digits")])) for t in late
        )

    assert told(again=True) == 0
    assert told(again=False) == 20


def test_an_anomaly_says_who_says_so_and_a_group_whose_part_it_is() -> None:
    watcher = Watcher(concern=lambda s: Concern("default/external/press"))
    noise = RNG.standard_normal((320, 3))
    base = RNG.standard_normal(320)
    for t in range(300):
        watcher.step(t, [signal(f"s{i}_celsius", t, 50 + 3 * base[t] + 0.3 * noise[t, i]) for i in range(3)])
    odd = [50 + 3 * base[300] + 0.3 * noise[300, i] + (40.0 if i == 1 else 0.0) for i in range(3)]
    found = watcher.step(300, [signal(f"s{i}_celsius", 300, v) for i, v in enumerate(odd)])
    (told,) = [a for a in found if a.signal == "s1_celsius"]
    assert {"ewma", "ar"} <= {r.detector for r in told.reasons}
    assert [r.score for r in told.reasons] == sorted((r.score for r in told.reasons), reverse=True)
    shares = [r.share for r in told.reasons if r.share is not None]
    assert shares and max(shares) > 0.5
    assert f"{told.reasons[0].detector} {told.reasons[0].score:.1f}" in told.detail


def test_limits_climbs_and_silence_need_no_second_voice() -> None:
    watcher = Watcher(concern=lambda s: Concern("default/external/till", upper=1000.0))
    noise = RNG.standard_normal(200)
    named: set[str] = set()
    for t in range(120):
        named |= {a.signal for a in watcher.step(t, [signal("disk_bytes", t, 100.0 + 2.0 * t + noise[t])])}
    assert named == {"disk_bytes" + EXHAUSTION}
    assert "disk_bytes" in {a.signal for a in watcher.step(120, [signal("disk_bytes", 120, 1001.0)])}
    gone: set[str] = set()
    for t in range(121, 140):
        gone |= {a.signal for a in watcher.step(t, [])}
    assert "disk_bytes" + MISSING in gone


@pytest.mark.parametrize("label", ["name", "self", "at"])
def test_labels_of_any_name_are_labels(label: str) -> None:
    watcher = Watcher()
    watcher.step(0.0, [Signal(name="x", labels={label: "1", "b": "2"}, at=0.0, value=1.0)])
    assert watcher.find("x", {"b": "2", label: "1"}) is not None
