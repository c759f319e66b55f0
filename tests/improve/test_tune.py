"""Studies on functions whose best is known: resumed, shared, pruned, refused; nested folds; the commands."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("optuna", reason="optuna is not installed: tuning is not tested here")

from leptonai.cli.main import run
from leptonai.errors import ModelError, SpecError
from leptonai.improve.evaluate.rows import Rows
from leptonai.improve.tune.nested import Classify, augmented, balanced, folds, maker, nested
from leptonai.improve.tune.study import STARTUP, Pruned, Range, Study, Told, Value, work

SPACE = {"x": Range(low=-5, high=5), "y": Range(low=1e-3, high=10, log=True), "kind": ("a", "b")}


def bowl(params: dict[str, Value], told: Told) -> float:
    x, y = float(params["x"]), float(params["y"])
    return -((x - 2) ** 2) - np.log10(y) ** 2 - (params["kind"] == "b")


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_study_finds_the_top_and_its_history_only_rises(sampler: str) -> None:
    best = work(Study(name="bowl", space=SPACE, trials=60, sampler=sampler), bowl)  # type: ignore[arg-type]
    assert best.trials == len(best.history) == 60 and best.params["kind"] == "a"
    assert list(best.history) == sorted(best.history) and best.value == best.history[-1] > -2
    assert work(Study(name="bowl", space=SPACE, trials=60, sampler=sampler), bowl) == best  # type: ignore[arg-type]


def test_of_few_settings_none_is_tried_twice() -> None:
    """Trials of a finite space differ until there is no other, so it is walked wholly, the top found on the way."""
    space = {"x": ("a", "b", "c"), "n": Range(low=1, high=4, step=1)}
    seen: list[tuple[Value, ...]] = []

    def note(params: dict[str, Value], told: Told) -> float:
        seen.append((params["x"], params["n"]))
        return float(params["n"]) + (params["x"] == "b")

    best = work(Study(name="few", space=space, trials=12), note)  # type: ignore[arg-type]
    assert best.value == 5.0 and best.params == {"x": "b", "n": 4}
    assert len(set(seen[STARTUP:])) == len(seen) - STARTUP and not set(seen[STARTUP:]) & set(seen[:STARTUP])


def test_a_grid_is_walked_once() -> None:
    space = {"x": Range(low=0, high=4, step=1), "kind": ("a", "b")}
    seen = []

    def note(params: dict[str, Value], told: Told) -> float:
        seen.append((params["x"], params["kind"]))
        return float(params["x"])

    best = work(Study(name="grid", space=space, trials=10, sampler="grid"), note)
    assert len(set(seen)) == 10 and best.params["x"] == 4


def test_a_study_goes_on_where_it_was(tmp_path: Path) -> None:
    study = Study(name="bowl", space=SPACE, trials=8, sampler="random")
    first = work(study, bowl, tmp_path / "s.db")
    again = work(study, bowl, tmp_path / "s.db")  # nothing is left to do
    assert first.history == again.history
    more = work(Study(name="bowl", space=SPACE, trials=12, sampler="random"), bowl, tmp_path / "s.db")
    assert more.history[:8] == first.history and more.trials == 12
    with pytest.raises(ModelError, match="was begun to maximize"):
        work(Study(name="bowl", space=SPACE, trials=12, direction="minimize"), bowl, tmp_path / "s.db")
    (tmp_path / "torn.db").write_bytes(b"SQLite format 3\0" + bytes(80))
    with pytest.raises(ModelError, match="cannot be used as a study"):
        work(study, bowl, tmp_path / "torn.db")


def test_a_poor_trial_ends_early_and_a_failing_one_is_told() -> None:
    steps = []

    def slow(params: dict[str, Value], told: Told) -> float:
        for step in range(10):
            steps.append(step)
            if not told(step, float(params["x"])):
                raise Pruned
        if float(params["x"]) > 4.5:
            raise ValueError("too far")
        return float(params["x"])

    best = work(Study(name="slow", space={"x": Range(low=-5, high=5)}, trials=30, sampler="random"), slow)
    assert best.pruned > 5 and len(steps) < 300 and best.value <= 4.5

    def never(params: dict[str, Value], told: Told) -> float:
        raise ValueError("no data")

    with pytest.raises(ModelError, match="no trial of never came to a value") as e:
        work(Study(name="never", space=SPACE, trials=30), never)
    assert "no data" in e.value.hint


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"space": {}}, "space is empty"),
        ({"space": SPACE, "trials": 0}, "trials is 0"),
        ({"space": {"x": Range(low=2, high=1)}}, "x: low 2, high 1"),
        ({"space": {"x": Range(low=0, high=1, log=True)}}, "no range"),
        ({"space": {"x": ("a", "a")}}, "choices must differ"),
        ({"space": SPACE, "sampler": "grid"}, "a grid needs a step"),
        ({"space": SPACE, "workers": 100_000}, "the limits are 1000000 and 256"),
        ({"space": {"x": Range(low=0, high=1, step=1e-9)}, "sampler": "grid"}, "more than 1000000 values"),
    ],
)
def test_a_study_that_cannot_be_is_refused(fields: dict[str, object], wanted: str) -> None:
    with pytest.raises(SpecError, match=wanted):
        work(Study(name="bad", **fields), bowl)  # type: ignore[arg-type]


OBJECTIVE = """
import time
from pathlib import Path
here, seen = Path(__file__).parent, []
def bowl(params, told):
    seen.append(params)
    while len(seen) > 3 and not (here / "go").exists():  # the one that will be killed waits in a trial
        (here / "waits").touch()
        time.sleep(0.01)
    return -(params["x"] - 2) ** 2
"""
TEXT = """
name: shared
trials: 24
workers: 2
sampler: random
space: {x: {low: -5, high: 5}}
objective: objective.py:bowl
"""


@pytest.mark.timeout(300)
def test_workers_share_trials_and_a_killed_one_loses_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "objective.py").write_text(OBJECTIVE)
    (tmp_path / "study.yaml").write_text(TEXT)
    one = [sys.executable, "-m", "leptonai.cli", "tune", str(tmp_path / "study.yaml"), "--worker", "7"]
    with subprocess.Popen(one, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 200
        while not (tmp_path / "waits").exists():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    (tmp_path / "go").touch()
    assert run(["tune", str(tmp_path / "study.yaml"), "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert len(done["history"]) >= 24 and done["value"] > -1


def incidents(seed: int = 0) -> Rows:
    """Twenty incidents of two causes, three rows each; rows of one incident are alike beyond their cause."""
    rng = np.random.default_rng(seed)
    cause = np.repeat([0, 1], 10)
    centre = rng.standard_normal((20, 6)) + 3 * cause[:, None] * np.array([1, 1, 0, 0, 0, 0])
    x = np.repeat(centre, 3, 0) + 0.2 * rng.standard_normal((60, 6))
    return Rows({"x": x}, np.repeat(cause, 3), {"incident": np.repeat(np.arange(20), 3)})


def test_rows_of_one_incident_are_never_on_both_sides() -> None:
    rows = incidents()
    held = []
    for train, other in folds(rows.labelled(), 5, rows.columns["incident"], 0):
        assert not set(rows.columns["incident"][train]) & set(rows.columns["incident"][other])
        assert len(set(rows.labelled()[other])) == 2
        held += other.tolist()
    assert sorted(held) == list(range(60))


def test_nested_folds_are_honest_about_noise_and_see_what_is_there() -> None:
    """Labels that mean nothing are told by chance, however many parameters were tried."""
    rows = incidents()
    noise = Rows(rows.inputs, np.random.default_rng(1).permutation(np.repeat([0, 1], 10)).repeat(3), rows.columns)
    study = Study(name="c", space={"C": Range(low=1e-3, high=100, log=True)}, trials=3, sampler="random", prune=False)
    task = Classify(data="", estimator="sklearn.linear_model.LogisticRegression", group="incident", augment=2)
    real, none = (nested(r, study, maker(task, 0), task) for r in (rows, noise))
    assert real.accuracy > 0.7 and len(real.folds) == 5 and real.best.trials == 3
    assert none.accuracy < 0.7
    x, y = augmented(rows.inputs["x"], rows.labelled(), 2, 0)
    assert len(x) == len(y) == 180 and np.array_equal(x[:60], rows.inputs["x"])
    assert balanced(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0])) == 0.5


def test_training_is_searched_through_the_command_and_a_wrong_text_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sklearn.datasets import load_iris

    x, y = load_iris(return_X_y=True)
    np.savez(tmp_path / "iris.npz", x=x, y=y)
    text = tmp_path / "t.yaml"
    head = "name: t\ntrials: 4\nsampler: random\nspace: {args.max_depth: {low: 1, high: 3, step: 1}}\n"
    job = "train: {data: iris.npz, estimator: sklearn.tree.DecisionTreeClassifier}\n"
    text.write_text(head + job)
    assert run(["tune", str(text), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["value"] > 0.9
    for wrong, wanted in [
        (head, "names no task"),
        (head + job + "serve: {}\n", "one of objective, train"),
        (head.replace("args.max_depth", "depth") + job, "no field of a job"),
        (head + "objective: nothing.py:f\n", "FILE.py:FUNCTION"),
        (head + "train: {data: iris.npz}\n", "either module"),
    ]:
        text.write_text(wrong)
        (tmp_path / "t.db").unlink(missing_ok=True)
        assert run(["tune", str(text)]) in (2, 8)
        assert wanted in capsys.readouterr().err
