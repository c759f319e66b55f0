"""Two tiers behind one watcher: who sits, who says why, and what a restart or a new meaning keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leptonai.ops.detect import Watcher, memory
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


def test_of_what_fills_no_level_is_odd_but_its_limit_and_the_way_there_are_told() -> None:
    """Programs that end give back what they held; a disk may jump to any level that is not its limit."""
    told: dict[bool, set[str]] = {}
    for fills in (False, True):
        watcher = Watcher(concern=lambda s, fills=fills: Concern("default/external/host", upper=1.0, fills=fills))  # type: ignore[misc]
        noise, found = 1e-4 * RNG.standard_normal(400), set[str]()
        for t in range(200):
            level = 0.7 if t < 120 else 0.2
            found |= {a.signal for a in watcher.step(t, [signal("memory_used_ratio", t, level + noise[t])])}
        told[fills] = found
        beyond = watcher.step(200, [signal("memory_used_ratio", 200, 1.01)])
        assert "memory_used_ratio" in {a.signal for a in beyond}
    assert told == {False: {"memory_used_ratio"}, True: set()}


@pytest.mark.parametrize("label", ["name", "self", "at"])
def test_labels_of_any_name_are_labels(label: str) -> None:
    watcher = Watcher()
    watcher.step(0.0, [Signal(name="x", labels={label: "1", "b": "2"}, at=0.0, value=1.0)])
    assert watcher.find("x", {"b": "2", label: "1"}) is not None


def press(at: int, fault: bool = False) -> list[Signal]:
    n = NOISE[at]
    values = {
        "heat_celsius": 60 + n[0],
        "force_bar": 180 + 2 * n[1],
        "shake_hertz": (9.0 if fault else 2.0) + 0.1 * n[2],
    }
    return [signal(name, at, v, machine="press-7") for name, v in values.items()]


NOISE = RNG.standard_normal((3000, 3))


def concern(s: Signal) -> Concern:
    return Concern("default/external/press-7", upper=500.0 if s.name == "force_bar" else float("inf"))


def kept(folder: Path) -> tuple[Path, Watcher]:
    """What a watcher learnt in 250 seconds, on disk, and the watcher."""
    path, watcher = folder / memory.FILE, Watcher(concern=concern)
    for t in range(250):
        watcher.step(t, press(t))
    learnt = watcher.learnt(250.0, 10_000_000)
    assert learnt is not None
    memory.write(path, learnt)
    return path, watcher


def test_a_restart_is_not_noticed(tmp_path: Path) -> None:
    """What is restored from the file finds the same anomalies with the same scores as what never stopped."""
    path, whole = kept(tmp_path)
    assert path.stat().st_size < 100_000, "three series"
    again = Watcher(concern=concern)
    assert memory.restore(path, again, 250.0) == 3
    for t in range(250, 270):
        a, b = (w.step(t, press(t, fault=t >= 260)) for w in (whole, again))
        assert [(x.signal, x.score, x.detail) for x in a] == [(x.signal, x.score, x.detail) for x in b]
    assert {x.signal for x in a} >= {"shake_hertz"} and len(again) == 3


def test_after_a_long_time_away_levels_are_learnt_anew(tmp_path: Path) -> None:
    path, _ = kept(tmp_path)
    later = Watcher(concern=concern)
    assert memory.restore(path, later, 2000.0) == 3
    assert [later.step(t, press(t, fault=True)) for t in range(2000, 2100)] == [[]] * 100


def test_the_file_is_bounded_and_a_damaged_one_is_told_and_left(tmp_path: Path) -> None:
    path, watcher = tmp_path / memory.FILE, Watcher(concern=concern)
    for t in range(40):
        watcher.step(t, press(t))
    learnt = watcher.learnt(40.0, 1)
    assert learnt is not None and len(learnt.series) == 1
    memory.write(path, learnt)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole.replace(b"about", b"tuoba")):
        path.write_bytes(damaged)
        fresh = Watcher(concern=concern)
        assert memory.restore(path, fresh, 41.0) == 0 and len(fresh) == 0
        assert fresh.step(41.0, press(41)) == []


def test_a_series_that_concerns_another_by_now_begins_anew(tmp_path: Path) -> None:
    path, before = tmp_path / memory.FILE, Watcher(concern=concern)
    for t in range(200):
        before.step(t, press(t))
    learnt = before.learnt(200.0, 10_000_000)
    assert learnt is not None
    memory.write(path, learnt)
    after = Watcher(concern=lambda s: Concern("default/external/hall"))
    memory.restore(path, after, 200.0)
    assert after.step(200.0, press(200, fault=True)) == []
    assert {k: len(v) for k, v in after.about.items() if v} == {"default/external/hall": 3}
