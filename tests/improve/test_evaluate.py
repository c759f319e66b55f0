"""Measures against scikit-learn's, drift against what was moved, rows that are refused, the command on a real model."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from leptonai.cli.main import run
from leptonai.errors import SpecError
from leptonai.improve.evaluate.answers import Answers, answers
from leptonai.improve.evaluate.compare import paired, slices
from leptonai.improve.evaluate.drift import drift, psi
from leptonai.improve.evaluate.measures import Classification, Regression, auroc, average_precision, measure
from leptonai.improve.evaluate.rows import Rows, read

X = [{"name": "X", "datatype": "FP32", "shape": [-1, 3]}]


def said(seed: int, rows: int = 300, classes: int = 4) -> tuple[np.ndarray, Answers]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, rows)
    scores = rng.standard_normal((rows, classes)) + 1.5 * np.eye(classes)[y]
    outputs = {"scores": np.round(scores, 1).astype(np.float32)}  # rounded: equal scores must be handled
    return y, answers(outputs, Rows({"X": scores}, y))


@pytest.mark.parametrize("seed", range(5))
def test_a_classification_is_measured_as_scikit_learn_does(seed: int) -> None:
    y, a = said(seed)
    m = measure(y, a)
    assert isinstance(m, Classification) and a.probabilities is not None
    assert m.accuracy == pytest.approx(oracle.accuracy_score(y, a.predicted))
    assert np.array_equal(m.confusion, oracle.confusion_matrix(y, a.predicted))
    precision, recall, f1, support = oracle.precision_recall_fscore_support(y, a.predicted)
    for i, c in enumerate(m.classes):
        assert (c.precision, c.recall, c.f1, c.support) == pytest.approx((precision[i], recall[i], f1[i], support[i]))
        assert c.auroc == pytest.approx(oracle.roc_auc_score(y == i, a.probabilities[:, i]))
        assert c.average_precision == pytest.approx(oracle.average_precision_score(y == i, a.probabilities[:, i]))
    assert m.log_loss == pytest.approx(oracle.log_loss(y, a.probabilities))
    assert m.macro_f1 == pytest.approx(oracle.f1_score(y, a.predicted, average="macro"))


@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=60))
def test_areas_equal_scikit_learns_whatever_ties_there_are(pairs: list[tuple[bool, int]]) -> None:
    y, s = np.array([p for p, _ in pairs]), np.array([float(v) for _, v in pairs])
    if 0 < y.sum() < len(y):
        assert auroc(y, s) == pytest.approx(oracle.roc_auc_score(y, s))
        assert average_precision(y, s) == pytest.approx(oracle.average_precision_score(y, s))


def test_a_regression_is_measured_and_its_bias_is_seen() -> None:
    y = np.random.default_rng(0).standard_normal(200)
    m = measure(y, Answers(y + 0.5, None, None))
    assert isinstance(m, Regression)
    assert (m.mae, m.rmse, m.bias) == pytest.approx((0.5, 0.5, 0.5))
    assert m.r2 == pytest.approx(oracle.r2_score(y, y + 0.5))


def test_overconfident_answers_have_a_calibration_error() -> None:
    rng = np.random.default_rng(1)
    p = rng.uniform(0.5, 1, 4000)
    y = (rng.uniform(size=4000) < p).astype(int)
    honest = measure(y, answers({"p": p}, Rows({"X": p}, y)))
    bold = measure(y, answers({"p": np.clip(2 * p - 0.5, 0, 1)}, Rows({"X": p}, y)))
    assert isinstance(honest, Classification) and isinstance(bold, Classification)
    assert honest.calibration_error < 0.03 < 0.1 < bold.calibration_error


def test_two_models_are_compared_row_by_row() -> None:
    rng = np.random.default_rng(2)
    worse = rng.uniform(size=500) < 0.8
    better = worse | (rng.uniform(size=500) < 0.5)
    same, more = paired(worse, worse), paired(better, worse)
    assert (same.gain, same.p) == (0.0, 1.0)
    assert more.low > 0 and more.p < 1e-6 and more.only_other == 0


def test_the_slice_that_was_spoilt_comes_first() -> None:
    rng = np.random.default_rng(3)
    region = rng.choice(["east", "north", "west"], 600)
    right = rng.uniform(size=600) < np.where(region == "north", 0.6, 0.95)
    first, *others = slices("region", region, right)
    assert first.value == "north" and first.p < 1e-6 and len(others) == 2
    assert [s.rows for s in slices("age", np.arange(400.0), right[:400])] == [100] * 4


def test_drift_is_told_of_moved_rows_and_of_no_others() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal((500, 6)), rng.standard_normal((300, 6))
    assert not drift(a, b).drifted
    b[:, 2] += 0.8
    moved = drift(a, b)
    assert [c.name for c in moved.columns if c.drifted] == ["2"] and moved.p < 0.01
    b = rng.standard_normal((300, 6)) @ np.triu(np.ones((6, 6))) / np.sqrt(np.arange(1, 7))
    assert drift(a, b).p < 0.01  # every column looks as before; only together they are other
    assert psi(a[:, 0], a[:, 0]) == 0.0


def write(path: Path, lines: list[list[object]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return path


def test_rows_that_say_nothing_are_refused_by_name(tmp_path: Path) -> None:
    head: list[object] = ["a", "b", "c", "y"]
    bad: list[tuple[Path, str]] = [
        (tmp_path / "none.csv", "no such file"),
        (write(tmp_path / "empty.csv", [head]), "empty"),
        (write(tmp_path / "word.csv", [head, [1, 2, 3, 0], [1, "x", 3, 1]]), ":3: column 'b' holds 'x'"),
        (write(tmp_path / "ragged.csv", [head, [1, 2, 3]]), "3 values, but 4 columns"),
        (write(tmp_path / "narrow.csv", [["a", "y"], [1, 0], [2, 1]]), "shape"),
        (write(tmp_path / "rows.parquet", [head]), ".parquet suffix"),
    ]
    np.savez(tmp_path / "uneven.npz", X=np.zeros((5, 3)), y=np.zeros(4))
    np.savez(tmp_path / "nan.npz", X=np.full((5, 3), np.nan), y=np.arange(5))
    (tmp_path / "torn.npz").write_bytes((tmp_path / "nan.npz").read_bytes()[:100])
    bad += [
        (tmp_path / "uneven.npz", "different numbers of rows"),
        (tmp_path / "nan.npz", "not finite"),
        (tmp_path / "torn.npz", "cannot be read"),
    ]
    for path, wanted in bad:
        with pytest.raises(SpecError, match=wanted) as e:
            read(path, X)
        assert path.name in e.value.message
    one = read(write(tmp_path / "one.csv", [head, *[[i, 2, 3, 1] for i in range(4)]]), X)
    with pytest.raises(SpecError, match="all 4 labels"):
        one.labelled()


def test_the_command_measures_a_model_and_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from skl2onnx import to_onnx
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    x, y = load_iris(return_X_y=True)
    x = x.astype(np.float32)
    for name, columns in (("good", 4), ("poor", 1)):
        weak = x.copy()
        weak[:, columns:] = 0
        model = LogisticRegression(max_iter=500).fit(weak, y)
        made = to_onnx(model, x[:1], options={"zipmap": False})
        (tmp_path / f"{name}.onnx").write_bytes(made.SerializeToString())
    np.savez(tmp_path / "test.npz", X=x, y=y, kind=np.where(x[:, 0] > 6, "long", "short"))
    data = ["--data", str(tmp_path / "test.npz")]
    good, poor = str(tmp_path / "good.onnx"), str(tmp_path / "poor.onnx")
    more = ["--against", poor, "--slice", "kind", "--plot", str(tmp_path / "p.png"), "--reference", data[1], "--json"]
    assert run(["evaluate", good, *data, *more]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["measures"]["accuracy"] > 0.95 and told["against"]["low"] > 0
    assert {s["value"] for s in told["slices"]} == {"long", "short"}
    assert not any(c["drifted"] for c in told["drift"]["columns"])
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"
    assert run(["evaluate", good, *data]) == 0
    assert "AUROC" in capsys.readouterr().out
    assert run(["evaluate", good, *data, "--slice", "age"]) == 2
    assert "no column 'age'" in capsys.readouterr().err
