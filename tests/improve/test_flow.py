"""The life of a model by one command: killed anywhere it ends the same; nothing is done twice."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leptonai.cli.main import run
from leptonai.errors import Conflict, SpecError
from leptonai.improve.flow.kept import Kept, State, alone
from leptonai.improve.flow.steps import measured
from leptonai.improve.flow.text import Evaluate, parse
from leptonai.lab.pipeline import Pipeline


def test_a_step_is_done_once_for_what_went_in_and_anew_when_it_is_damaged(tmp_path: Path) -> None:
    done: list[str] = []

    def step(name: str, config: Any = None, outside: tuple[Path, ...] = ()) -> Kept:
        def do(state: State, folder: Path) -> dict[str, Any]:
            done.append(name)
            (folder / "out").write_text(f"{name} {config} {outside[0].read_text() if outside else ''}")
            return {name: config}

        return Kept(name, do, tmp_path / "root", config, outside)

    file = tmp_path / "in"
    file.write_text("1")

    def whole(config: int) -> State:
        steps = [("a", step("a", None, (file,))), ("b", step("b", config)), ("c", step("c"))]
        return Pipeline(steps).run(State())  # type: ignore[no-any-return]

    first = whole(1)
    assert whole(1) == first and done == ["a", "b", "c"]
    assert whole(2).digest != first.digest and done == ["a", "b", "c", "b", "c"]
    file.write_text("2")
    assert whole(1).digest != first.digest and done[5:] == ["a", "b", "c"]
    file.write_text("1")
    assert whole(1) == first and len(done) == 8  # all of it is still there
    (Path(first.values["b_files"]) / "out").write_text("changed by somebody")
    assert whole(1) == first and done[8:] == ["b"]


def test_a_stop_skips_the_rest_but_the_report(tmp_path: Path) -> None:
    def stop(state: State, folder: Path) -> dict[str, Any]:
        return {"stopped": "not good enough"}

    def never(state: State, folder: Path) -> dict[str, Any]:
        raise AssertionError

    report = Kept("report", lambda s, f: {"text": s.stopped}, tmp_path, always=True)
    steps = [("a", Kept("a", stop, tmp_path)), ("b", Kept("b", never, tmp_path)), ("report", report)]
    assert Pipeline(steps).run(State()).values["text"] == "not good enough"


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(Conflict, match="another run"), alone(tmp_path):
        pass


FORKS = """
import os, signal, sys
from pathlib import Path
from leptonai.improve.flow.kept import Kept, State
from leptonai.lab.pipeline import Pipeline

NAMES = ("collect", "train", "evaluate", "compress", "report")

def do(name):
    def do(state, folder):
        (folder / "half").write_text(name)
        (folder / "whole").write_text(f"{name} after {state.digest}")
        return {name: state.digest, "begun": name}
    return do

def whole(root):
    return Pipeline([(n, Kept(n, do(n), root, outside=[Path(__file__)])) for n in NAMES]).run(State())

def dies(root, moment):
    seen = 0
    def hook(event, arguments):
        nonlocal seen
        if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir") and "root-" in str(arguments[0]):
            seen += 1
            if seen > moment:
                os.kill(os.getpid(), signal.SIGKILL)
    if not (child := os.fork()):
        sys.addaudithook(hook)
        whole(root)
        os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL

here = Path(sys.argv[1])
want = whole(here / "root-whole").digest
moment = 0
while dies(here / f"root-{moment}", moment):
    again = dies(here / f"root-{moment}", 3)  # once more, soon after it went on
    assert whole(here / f"root-{moment}").digest == want, moment
    assert not list((here / f"root-{moment}" / "work").iterdir()), moment
    moment += 1
print(moment)
"""


def test_killed_before_any_touch_of_a_file_it_ends_the_same(tmp_path: Path) -> None:
    """``kill -9`` at each open, mkdir, rename and removal of five steps, so at every boundary and within every step."""
    script = tmp_path / "forks.py"
    script.write_text(FORKS)
    done = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 5 * 8  # of each step at least: its folder, two files, the result, digests, the rename


TEXT = """
name: digits
collect: [base.npz, new/*.npz]
train: {estimator: sklearn.neural_network.MLPClassifier, args: {hidden_layer_sizes: [128], max_iter: 15}}
evaluate: {test: test.npz, at_least: 0.8}
compress: {budget: accuracy=3%, only: [int8 stored]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = ((x - 4.9) / 6).astype(np.float32)
    (tmp_path / "new").mkdir()
    np.savez(tmp_path / "base.npz", x=x[:700], y=y[:700])
    np.savez(tmp_path / "new" / "1.npz", x=x[600:1200], y=y[600:1200])
    np.savez(tmp_path / "test.npz", x=x[1200:], y=y[1200:])
    (tmp_path / "flow.yaml").write_text(TEXT.replace("max_iter: 15", "max_iter: 15, early_stopping: true"))
    return tmp_path


def killed(folder: Path, when: str) -> None:
    """One run that dies as soon as a path like ``when`` is there."""
    command = [sys.executable, "-m", "leptonai.cli", "pipeline", "run", str(folder / "flow.yaml")]
    command += ["--folder", str(folder / "cut")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 600
        while not list((folder / "cut").glob(when)):
            assert time.monotonic() < deadline and process.poll() is None, when
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)


@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_killed_anywhere_it_ends_with_the_same_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = str(folder / "flow.yaml")
    assert run(["pipeline", "run", text, "--folder", str(folder / "whole"), "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)["values"]
    assert whole["rows"] == 1200 and whole["twice"] == 100
    assert whole["quality"] > 0.8 and whole["chosen"] and whole["smaller"] > 1.5
    for when in ("work/train-*", "done/train-*", "work/compress-*", "done/compress-*"):
        killed(folder, when)
    assert run(["pipeline", "run", text, "--folder", str(folder / "cut"), "--json"]) == 0
    cut = json.loads(capsys.readouterr().out)["values"]
    assert cut["digest"] == whole["digest"]
    assert {p.name for p in (folder / "cut" / "done").iterdir()} >= {Path(whole["train_files"]).name}
    assert run(["pipeline", "run", text, "--folder", str(folder / "cut")]) == 0  # nothing is left to do
    again = capsys.readouterr()
    assert again.err.count("done before") == 5 and f"sha256 {whole['digest']}" in again.out


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_model_that_is_not_good_enough_stops_it_and_a_trigger_begins_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = folder / "flow.yaml"
    more = "trigger: {reference: base.npz, recent: recent.npz}\n"
    text.write_text(TEXT.replace("0.8", "0.999").replace("[128]", "[8]").replace("max_iter: 15", "max_iter: 2") + more)
    base = np.load(folder / "base.npz")
    half = np.random.default_rng(0).permutation(700)[:350]
    np.savez(folder / "recent.npz", x=base["x"][half], y=base["y"][half])
    assert run(["pipeline", "run", str(text), "--if-needed"]) == 0
    assert "nothing has moved" in capsys.readouterr().out
    np.savez(folder / "recent.npz", x=base["x"] + 0.7, y=base["y"])
    assert run(["pipeline", "run", str(text), "--if-needed"]) == 10
    told = capsys.readouterr().out
    assert "rows have drifted" in told and "is below 0.999" in told and "int8" not in told


def test_the_model_that_serves_may_take_other_numbers_under_another_name(folder: Path) -> None:
    """A network takes float32 as ``x``, what an estimator became takes float64 as ``X``."""
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    base = np.load(folder / "base.npz")
    fitted = LogisticRegression(max_iter=500).fit(base["x"], base["y"])
    for name, kind in (("single", np.float32), ("double", np.float64)):
        model = to_onnx(fitted, base["x"][:1].astype(kind), options={"zipmap": False})
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    flow = parse({"name": "n", "collect": ["base.npz"], "train": {"estimator": "sklearn.svm.SVC"}}, "t.yaml")
    state = State(values={"train_files": str(folder), "model": "single.onnx"})
    told = measured(Evaluate(test="test.npz", current="double.onnx"), folder, flow, state)
    assert told["quality"] == pytest.approx(told["current"], abs=0.01) and "stopped" not in told


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"collect": []}, "collect names no file"),
        ({"collect": ["none.npz"]}, "none.npz"),
        ({"train": {"data": "x", "estimator": "sklearn.svm.SVC"}}, "train.data is what collect gives"),
        ({"compress": {"only": ["magic"]}}, "'magic' is not known"),
        ({"compress": {"bugdet": "x"}}, "compress.bugdet: unknown field"),
        ({"canary": {"service": "digits"}}, "canary without evaluate"),
        ({"compress": {"steps": 0}}, "compress.steps is 0"),
        ({"evaluate": {"test": "t.npz", "margin": -1.0}}, "evaluate.margin is -1"),
        ({"canary": {"service": "digits", "timeout": 0}}, "canary.timeout is 0"),
        ({"trigger": {"wrong": 5}}, "trigger.wrong is 5; it must be 0 to 1"),
        ({"colect": ["x"]}, "colect: unknown field"),
    ],
)
def test_a_text_that_cannot_be_is_refused(tmp_path: Path, change: dict[str, Any], wanted: str) -> None:
    from leptonai.improve.flow.steps import steps

    fields = {"name": "n", "collect": ["base.npz"], "train": {"estimator": "sklearn.svm.SVC"}, **change}
    with pytest.raises(SpecError) as e:
        found = steps(parse(fields, "t.yaml"), tmp_path, tmp_path / "r", lambda: None, print)  # type: ignore[arg-type, return-value]
        Pipeline(found).run(State())
    assert wanted in e.value.message
