"""Training described by a text: same job, same bytes; killed, it ends the same; what cannot be learnt is said."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from leptonai.cli.main import run
from leptonai.improve.evaluate.answers import opened

NET = """
from torch import nn
class Net(nn.Sequential):
    def __init__(self, width=32):
        super().__init__(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    np.savez(tmp_path / "digits.npz", x=((x - 4.9) / 6).astype(np.float32), y=y)
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_estimator_is_trained_by_the_same_command_to_the_same_bytes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "job.yaml").write_text(
        "data: digits.npz\nestimator: sklearn.ensemble.RandomForestClassifier\nargs: {n_estimators: 20}\n"
    )
    seen = set()
    for out in ("a", "b"):
        assert run(["train", str(folder / "job.yaml"), "--out", str(folder / out), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["run"]["quality"] > 0.85
        seen.add(digest(folder / out / "model.onnx"))
    assert len(seen) == 1
    assert run(["evaluate", str(folder / "a" / "model.onnx"), "--data", str(folder / "digits.npz"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["measures"]["accuracy"] > 0.9


@pytest.mark.timeout(400)
def test_a_killed_run_ends_as_one_that_was_not(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="torch is not installed: networks are not trained here")
    (folder / "job.yaml").write_text("data: digits.npz\nmodule: net.py\nepochs: 4\nevery: 7\nrate: 1e-2\n")
    assert run(["train", str(folder / "job.yaml"), "--out", str(folder / "whole"), "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)["run"]
    assert whole["quality"] > 0.8 and len(whole["losses"]) == 4
    command = [sys.executable, "-m", "leptonai.cli", "train", str(folder / "job.yaml"), "--out", str(folder / "cut")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 300  # torch takes long to come up on a busy machine
        while len(list((folder / "cut" / "checkpoints").glob("step-*.ckpt"))) < 2:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
    assert not (folder / "cut" / "model.pt2").exists()
    assert run(["train", str(folder / "job.yaml"), "--out", str(folder / "cut"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"]["losses"] == whole["losses"]
    assert digest(folder / "cut" / "model.pt2") == digest(folder / "whole" / "model.pt2")
    with zipfile.ZipFile(folder / "whole" / "model.pt2") as file:
        held = b"".join(file.read(n) for n in file.namelist())
    assert str(folder).encode() not in held and b"job.py" not in held, "where it was trained is no part of a model"
    model = opened(folder / "whole" / "model.pt2")
    told = {o["name"]: (o["datatype"], o["shape"]) for o in model.outputs}
    assert told == {"label": ("INT64", [-1]), "scores": ("FP32", [-1, 10])}, "what users correct comes first"
    said = model.predict({"x": np.load(folder / "digits.npz")["x"][:50]})
    assert list(said) == ["label", "scores"] and (said["scores"].argmax(1) == said["label"]).all()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("data: digits.npz\n", "either module"),
        ("data: none.npz\nestimator: sklearn.svm.SVC\n", "no such file"),
        ("data: one.npz\nestimator: sklearn.svm.SVC\n", "all 40 labels"),
        ("data: digits.npz\nestimator: os.system\n", "class of scikit-learn"),
        ("data: digits.npz\nestimator: sklearn.svm.Nothing\n", "cannot be made"),
        ("data: digits.npz\nestimator: sklearn.svm.SVC\nhold: 2\n", "hold is 2"),
        ("data: digits.npz\nestimator: sklearn.svm.SVC\nfun: 2\n", "unknown field `fun`"),
        ("data: digits.npz\nestimator: sklearn.svm.SVC\nseed: -1\n", "seed is -1"),
        ("data: broken.npz\nestimator: sklearn.svm.SVC\n", "broken.npz: cannot be read"),
    ],
)
def test_what_cannot_be_trained_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str, wanted: str
) -> None:
    np.savez(folder / "one.npz", x=np.zeros((40, 64)), y=np.zeros(40, int))
    (folder / "broken.npz").write_bytes(b"no archive")
    (folder / "job.yaml").write_text(text)
    assert run(["train", str(folder / "job.yaml"), "--out", str(folder / "o")]) == 2
    assert wanted in capsys.readouterr().err
