"""Detectors tuned on labelled series: the defaults are judged beside, held-out series have no part in anything."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("optuna", reason="optuna is not installed: tuning is not tested here")

import msgspec

from leptonai import settings, yaml
from leptonai.cli.main import run
from leptonai.errors import LeptonError
from leptonai.improve.tune.detecting import Detect, folds, nested, objective
from leptonai.improve.tune.study import Study
from leptonai.ops.detect.bench import Bench, alarms
from leptonai.ops.detect.full import FullTier
from leptonai.ops.detect.labelled import Labelled, read, stretched
from leptonai.ops.detect.memory import restore, write
from leptonai.ops.detect.tiers import Tiers
from leptonai.ops.detect.watcher import Watcher
from leptonai.settings import Detecting
from leptonai.types import Signal

ROWS, SERIES = 240, 6
ONLY = ("ewma", "ar", "seasonal", "novelty", "cusum", "garch")


def lagged(seed: int = 0, memory: int = 6) -> list[Labelled]:
    """Each value remembers the one six before it, which AR(3) cannot see and AR(6) can; one incident each."""
    rng = np.random.default_rng(seed)
    out = []
    for k in range(SERIES):
        x = rng.standard_normal(ROWS)
        for t in range(memory, ROWS):
            x[t] += 0.9 * x[t - memory]
        first = int(rng.integers(120, 200))
        x[first + 2 : first + 18] += 9 * rng.choice([-1, 1])
        out.append(Labelled(f"{k}.csv", 300.0 * np.arange(ROWS), x, [(first, first + 20)]))
    return out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The series of ``lagged`` as files, and the study that reads them."""
    (tmp_path / "series").mkdir()
    told = {}
    for one in lagged():
        at = [str(datetime(2026, 3, 2) + timedelta(seconds=s)) for s in one.at]
        lines = [f"{a},{v}" for a, v in zip(at, one.values, strict=True)]
        (tmp_path / "series" / one.name).write_text("\n".join(["timestamp,value", *lines]))
        told[one.name] = [[at[first], at[last]] for first, last in one.windows]
    (tmp_path / "incidents.json").write_text(json.dumps(told))
    (tmp_path / "t.yaml").write_text(
        "name: t\ntrials: 2\nsampler: grid\nspace: {order: [3, 6]}\n"
        "detect: {data: series, windows: incidents.json, outer: 3, inner: 2, augment: 1}\n"
    )
    return tmp_path


def test_the_command_finds_what_the_defaults_miss_and_says_what_to_write(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["tune", str(folder / "t.yaml"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["holds"] and told["tuned"]["nab"] > told["default"]["nab"] + 20
    assert told["params"]["order"] == 6 and told["settings"]["watch"] == {"detector": {"order": 6}}
    assert sorted(i for fold in told["folds"] for i in fold["series"]) == list(range(SERIES))
    assert told["tuned"]["incidents"] == SERIES
    (folder / "settings.yaml").write_text(msgspec.json.encode(told["settings"]).decode())  # JSON is YAML
    found = settings.load(folder / "settings.yaml")
    assert found.watch.detector == Detecting(order=6) and found.ops.anomaly_score == told["alarm"]
    assert run(["tune", str(folder / "t.yaml")]) == 0  # goes on: every trial is there
    text = capsys.readouterr().out
    assert "The gain holds." in text and "the defaults: NAB" in text
    assert yaml.decode(text.rpartition("again:")[2].encode()) == told["settings"]


def test_workers_share_all_searches_and_none_fails_at_the_start(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two that begin at once on a file that is not there yet make every trial of every fold once."""
    text = folder / "t.yaml"
    text.write_text(text.read_text().replace("[3, 6]", "[3]").replace("trials: 2", "trials: 1\nworkers: 2"))
    assert run(["tune", str(text), "--json"]) == 0
    told, said = capfd.readouterr()
    assert json.loads(told)["best"]["params"] == {"order": 3} and not said


def test_a_trial_says_what_the_live_tier_says_and_never_looks_ahead() -> None:
    """A row's score is the same whatever follows it, and that of the tier that ops runs."""
    series = lagged()[:2]
    bench = Bench(series)
    params = {"order": 2, "patience": 30, "day": 1200.0, "weekly": False}
    said = bench._scores(params)
    tier = FullTier(voters=ONLY, **params)  # type: ignore[arg-type]
    tier.open(2)
    for t in range(ROWS):
        row = np.array([one.values[t] for one in series])
        told = tier.step(float(series[0].at[t]), row, np.ones(2, dtype=np.bool_))
        assert [s[t] for s in said] == np.nan_to_num(told.score).tolist()
    cut = [Labelled(one.name, one.at[:150], one.values[:150], []) for one in series]
    for whole, part in zip(said, Bench(cut)._scores(params), strict=True):
        assert np.array_equal(whole[:150], part)


def test_repeats_are_no_alarms() -> None:
    score = np.array([0.0, 4.0, 4.1, 5.0, 0.0, 0.0, 0.0, 4.0])
    assert alarms(score, 4.0, quiet=3).tolist() == [0, 1, 0, 1, 0, 0, 0, 1]
    assert alarms(score, 5.0, quiet=3).tolist() == [0, 0, 0, 1, 0, 0, 0, 0]


class Spy:
    """A bench that keeps what it was asked for."""

    defaults, usual, labelled = {"order": 3}, 4.0, (True, False) * 6

    def __init__(self, gain: float) -> None:
        self.gain, self.chosen_on, self.judged = gain, [], []  # type: ignore[var-annotated]

    def check(self, params: object) -> None:
        pass

    def alarm(self, params: object, train: object) -> float:
        self.chosen_on.append(set(train))  # type: ignore[call-overload]
        return 5.0

    def worth(self, choices: list[tuple[dict[str, int], float, list[int]]]) -> dict[str, float]:
        self.judged.append({i for _, _, held in choices for i in held})
        noise = float(np.mean([held[0] for _, _, held in choices])) % 3 - 1
        return {"nab": float(np.mean([p["order"] > 3 for p, _, _ in choices])) * (self.gain + noise)}


@pytest.mark.parametrize(("gain", "holds"), [(9.0, True), (-9.0, False), (0.0, False)])
def test_held_out_series_have_no_part_and_a_gain_within_its_error_is_none(gain: float, holds: bool) -> None:
    study = Study(name="s", space={"order": (4, 6)}, trials=2, sampler="grid")
    spy = Spy(gain)
    chosen = nested(spy, study, Detect(data="", outer=3, inner=2))  # type: ignore[arg-type]
    assert chosen.holds is holds
    assert (chosen.params, chosen.alarm) == (
        ({"order": chosen.best.params["order"]}, 5.0) if holds else ({"order": 3}, 4.0)
    )
    for fold in chosen.folds:  # an outer fold has labelled series and others, and each is judged once
        assert {spy.labelled[i] for i in fold.series} == {True, False}
    every = list(range(12))
    assert sorted(i for fold in chosen.folds for i in fold.series) == every
    for number, (train, held) in enumerate(folds(every, spy.labelled, 3, study.seed)):
        inner = Spy(gain)
        objective(inner, train, 2, number)({"order": 4}, lambda step, value: True)  # type: ignore[arg-type]
        assert not any(set(held) & seen for seen in inner.chosen_on + inner.judged)
        first = inner.judged[0]
        assert not first & inner.chosen_on[0] and first | inner.chosen_on[0] == set(train)


def test_copies_are_chosen_on_and_never_judged() -> None:
    """The alarm may change with copies, what a choice is worth may not; windows go where the rows go."""
    series = lagged()
    one = Labelled("x", series[0].at, np.arange(ROWS, dtype=float) ** 3, [(100, 120)])
    copy = stretched(one, np.random.default_rng(3))
    assert len(copy.values) == ROWS and np.array_equal(copy.at, one.at)
    (first, last) = copy.windows[0]
    scale = np.median(copy.values[50:] / np.arange(50.0, ROWS) ** 3)
    assert scale != 1.0 and 60 < first < last < 160
    plain, doubled = Bench(series), Bench(series, copies=2)
    choice = [({"order": 6}, 3.0, [0, 1, 2])]
    assert plain.worth(choice) == doubled.worth(choice)
    assert len(doubled._scores({"order": 6})) == 3 * SERIES and len(doubled.labelled) == SERIES
    held = doubled._scores({})
    assert np.array_equal(held[0], plain._scores({})[0]) and not np.array_equal(held[0], held[SERIES])


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"text": ("windows: incidents.json, ", "")}, "where the incidents were is not told"),
        ({"text": ("windows: incidents.json", "windows: incidents.json, label: value")}, "both given"),
        ({"text": ("windows: incidents.json", "label: fault")}, "has no column 'fault'"),
        ({"text": ("order: [3, 6]", "magic: [1, 2]")}, "the space: Object contains unknown field `magic`"),
        ({"text": ("order: [3, 6]", "order: [3, 60]")}, "order is 60; it must be 1 to 12"),
        ({"text": ("sampler: grid\nspace: {order: [3, 6]}", "space: {order: {low: 1, high: 6}}")}, "Expected `int`"),
        ({"text": ("outer: 3", "outer: 7")}, "7 outer folds leave 5 of them to choose on"),
        ({"text": ("inner: 2", "inner: 6")}, "6 inner folds need as many"),
        ({"text": ("inner: 2", "outter: 2")}, "unknown field `outter`"),
        ({"text": ("data: series", "data: none")}, "no folder"),
        ({"windows": {}}, "says nothing of 0.csv"),
        ({"windows": {f"{k}.csv": [] for k in range(6)}}, "has a labelled incident"),
        ({"windows": {"9.csv": []}}, "there is no series '9.csv'"),
        ({"windows": {"0.csv": [["2027-01-01", "2027-01-02"]]}}, "lies outside of the series"),
        ({"windows": {"0.csv": [["2026-03-02 01:01", "2026-03-02 01:02"]]}}, "there is no row in the window"),
        ({"windows": {"0.csv": "never"}}, "Expected `array`"),
        ({"csv": "timestamp,value\n" + "2026-03-02,5\n" * 120}, "value is always 5"),
        ({"csv": "timestamp,value\n" + "2026-03-02,warm\n" * 120}, "of column value none of 120 cells is a number"),
        ({"csv": "when,what\n" + "2026-03-02,warm\n" * 120}, "has no column of numbers"),
        ({"csv": "value\n1\n2\n"}, "has 2 rows; 100 are the least"),
        ({"csv": "at,value\n" + "9,1\n8,2\n" * 60}, "before that of the row above"),
        ({"alone": True}, "has 1 series"),
        ({"options": ("--deploy", "digits")}, "--deploy is for knobs of serving"),
        ({"text": ("detect:", "objective: a.py:f\ndetect:")}, "is needed"),
    ],
)
def test_what_cannot_be_tuned_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object], wanted: str
) -> None:
    text = folder / "t.yaml"
    match change:
        case {"text": (str(before), str(after))}:
            assert before in text.read_text()
            text.write_text(text.read_text().replace(before, after))
        case {"windows": told}:
            if told and "9.csv" not in told and len(told) == 1:  # type: ignore[operator, arg-type]
                told = {**{f"{k}.csv": [] for k in range(6)}, **told}  # type: ignore[dict-item]
            (folder / "incidents.json").write_text(json.dumps(told))
        case {"csv": str(lines)}:
            (folder / "series" / "0.csv").write_text(lines)
        case {"alone": True}:
            for k in range(1, 6):
                (folder / "series" / f"{k}.csv").unlink()
    assert run(["tune", str(text), *change.get("options", ())]) != 0  # type: ignore[misc]
    assert wanted in capsys.readouterr().err


def test_labels_may_be_a_column(folder: Path) -> None:
    for path in (folder / "series").iterdir():
        head, *rows = path.read_text().splitlines()
        lines = [f"{row},{int(150 <= i < 160)}" for i, row in enumerate(rows)]
        path.write_text("\n".join([f"{head},fault", *lines]))
    assert [one.windows for one in read(folder / "series", label="fault")] == [[(150, 159)]] * SERIES


def test_what_was_learnt_with_other_parameters_is_learnt_anew(tmp_path: Path) -> None:
    """Of the same parameters it is taken over; of others the watcher begins anew, and works."""

    def watcher(**options: float) -> Watcher:
        return Watcher(Tiers(full=FullTier(voters=ONLY, **options)))  # type: ignore[arg-type]

    def seen(at: float) -> list[Signal]:
        return [Signal(name="ready_count", labels={"service": "default/a"}, at=at, value=np.sin(at))]

    before = watcher(order=5, every=6)
    for t in range(40):
        before.step(float(t), seen(float(t)))
    learnt = before.learnt(40.0, 10_000_000)
    assert learnt is not None
    write(tmp_path / "d.npz", learnt)
    for options, known in (({"order": 5, "every": 6}, 1), ({"order": 3, "every": 6}, 0), ({"order": 5}, 0),
                           ({"order": 5, "every": 6, "day": 3600.0}, 0)):  # fmt: skip
        after = watcher(**options)
        assert restore(tmp_path / "d.npz", after, 41.0) == known, options
        after.relearn([], [], np.zeros((0, 0)))
        for t in range(41, 45):
            after.step(float(t), seen(float(t)))
        assert len(after) == 1


def test_settings_out_of_bounds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("watch: {detector: {alpha: 0.9}}")
    with pytest.raises(LeptonError, match=r"watch\.detector\.alpha is 0\.9; it must be 0\.0001 to 0\.5"):
        settings.load(tmp_path / "settings.yaml")
