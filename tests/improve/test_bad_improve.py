"""What a hostile or careless user gives to training and compression: a sentence each, never a traceback."""

from pathlib import Path

import numpy as np
import pytest

from leptonai.cli.main import run

NET = """
from torch import nn
class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.layer = nn.Linear(8, width)
    def forward(self, x):
        {body}
"""
CODE = {
    "net": NET.format(body="return self.layer(x)"),
    "pair": NET.format(body="return self.layer(x), x"),
    "raises": NET.format(body="raise KeyError('boom')"),
    "empty": "from torch import nn\nclass Net(nn.Module):\n    def forward(self, x):\n        return x\n",
    "disk": "from torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n        raise OSError('no disk')\n"
    "    def forward(self, x):\n        return x\n",
    "plain": "class Net:\n    def predict(self, x):\n        return x\n",
    "two": "from torch import nn\nclass A(nn.Module): ...\nclass B(nn.Module): ...\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    x = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    y = (x[:, 0] > 0).astype(int)
    given = {
        "good": (x, y),
        "narrow": (x[:, :5], y),
        "rare": (x[:40], np.array([0] * 39 + [1])),
        "dates": (x, np.array(["2020-01-01", "2021-01-01"] * 100, dtype="datetime64[D]")),
        "huge": (x.astype(np.float64) * 1e300, y),
    }
    for name, (rows, labels) in given.items():
        np.savez(tmp_path / f"{name}.npz", x=rows, y=labels)
    (tmp_path / "head.csv").write_text("a,b,y\n\n")
    for name, code in CODE.items():
        (tmp_path / f"{name}.py").write_text(code)
    return tmp_path


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What is said on stderr of a command that fails, and not by a mistake of ours."""
    assert run(arguments) in (2, 6, 8)
    said = capsys.readouterr().err
    assert "mistake of ours" not in said and "Traceback" not in said
    return said


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("data: head.csv\nestimator: sklearn.svm.SVC", "the data set is empty"),
        ("data: dates.npz\nestimator: sklearn.svm.SVC", "datetime64[D], which names no class"),
        ("data: huge.npz\nestimator: sklearn.svm.SVC", "more than FP32 can hold"),
        ("data: rare.npz\nestimator: sklearn.svm.SVC", "class '1' has one row of 40"),
        ("data: good.npz\nestimator: sklearn.cluster.KMeans", "KMeans learns no labels"),
        ("data: good.npz\nestimator: sklearn.decomposition.PCA", "PCA learns no labels"),
        ("data: good.npz\nestimator: sklearn.ensemble.IsolationForest", "IsolationForest learns no labels"),
    ],
)
def test_rows_and_estimators_that_teach_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str, wanted: str
) -> None:
    (folder / "job.yaml").write_text(text)
    assert wanted in refused(["train", str(folder / "job.yaml")], capsys)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("data: narrow.npz\nmodule: net.py", "its rows have shape [5]"),
        ("data: good.npz\nmodule: pair.py", "the module gives a tuple"),
        ("data: good.npz\nmodule: raises.py", "cannot learn these rows: KeyError: 'boom'"),
        ("data: good.npz\nmodule: empty.py", "has no parameters that could learn"),
        ("data: good.npz\nmodule: disk.py", "Net cannot be made: OSError: no disk"),
        ("data: good.npz\nmodule: plain.py", "Net is no torch Module"),
        ("data: good.npz\nmodule: two.py", "one torch Module"),
        ("data: good.npz\nmodule: net.py\nthreads: 1000000", "at most 256"),
    ],
)
def test_modules_that_cannot_learn(folder: Path, capsys: pytest.CaptureFixture[str], text: str, wanted: str) -> None:
    pytest.importorskip("torch", reason="torch is not installed: networks are not trained here")
    (folder / "job.yaml").write_text(text)
    assert wanted in refused(["train", str(folder / "job.yaml")], capsys)


def test_checkpoints_that_are_torn_or_of_another_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A torn one is told and done without; one of another network ends the run, and says what to do."""
    pytest.importorskip("torch", reason="torch is not installed: networks are not trained here")
    job, text = folder / "job.yaml", "data: good.npz\nmodule: net.py\nepochs: 2\nevery: 2\n"
    job.write_text(text)
    assert run(["train", str(job), "--out", str(folder / "run")]) == 0
    first = capsys.readouterr()  # eight scores for two classes: those without a class are never the answer
    assert "right of the rows" in first.out and not first.err.strip()
    for path in (folder / "run" / "checkpoints").glob("*.ckpt"):
        path.write_bytes(path.read_bytes()[:500])
    capsys.readouterr()
    assert run(["train", str(job), "--out", str(folder / "run")]) == 0
    assert "is damaged: " in capsys.readouterr().err
    job.write_text(text + "args: {width: 4}\n")
    said = refused(["train", str(job), "--out", str(folder / "run")], capsys)
    assert "does not fit" in said and "use another folder" in said and len(said.strip().splitlines()) == 2


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        (["--plot", "front.nothing"], "no picture has such a suffix"),
        (["--beside", "net.py"], "--beside is for a model that is deployed"),
        (["--beside", "none.py", "--deploy", "net"], "none.py: no such file"),
        (["--deploy", "net"], "no platform runs"),
        (["--budget", "accuracy=much"], "is not NAME=NUMBER"),
    ],
)
def test_what_could_not_be_done_with_the_outcome_is_said_before_the_search(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: list[str], wanted: str
) -> None:
    """The model is not even opened: there is none."""
    monkeypatch.chdir(folder)
    given = ["--home", str(folder / "home"), "compress", "none.pt2", "--data", "good.npz", *more]
    assert wanted in refused(given, capsys)


def test_a_model_with_labels_it_does_not_know_and_one_cut_short(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="torch is not installed: networks are not trained here")
    import torch

    module = torch.nn.Linear(8, 2)
    dims = ({0: torch.export.Dim("batch")},)
    model, data = folder / "m.pt2", np.load(folder / "good.npz")
    torch.export.save(torch.export.export(module, (torch.zeros(2, 8),), dynamic_shapes=dims), model)
    np.savez(folder / "three.npz", x=data["x"], y=np.arange(200) % 3)
    given = ["--only", "", "--out", str(folder / "out")]
    said = refused(["compress", str(model), "--data", str(folder / "three.npz"), *given], capsys)
    assert "label 2 is over the 2 classes" in said
    said = refused(
        ["compress", str(model), "--data", str(folder / "good.npz"), "--teach", str(folder / "narrow.npz"), *given],
        capsys,
    )
    assert "narrow.npz" in said and "shape" in said
    model.write_bytes(model.read_bytes()[:2000])
    said = refused(["compress", str(model), "--data", str(folder / "good.npz"), *given], capsys)
    assert "does not load" in said
