"""Real models made smaller, measured in real replicas; what cannot be done is said. A few seconds of training each."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: compression is not tested here")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: compression is not tested here")

from torch import nn  # noqa: E402

from leptonai.cli.main import run  # noqa: E402
from leptonai.errors import ModelError  # noqa: E402
from leptonai.improve.compress import network, networks, replica, shapes  # noqa: E402
from leptonai.improve.compress.front import Budget, Candidate  # noqa: E402
from leptonai.improve.compress.networks import SINGLE  # noqa: E402
from leptonai.improve.compress.precision import PRECISIONS  # noqa: E402
from leptonai.improve.compress.steps import PRECISIONS as PRECISION_NAMES  # noqa: E402
from leptonai.improve.compress.steps import SHAPES  # noqa: E402
from leptonai.improve.compress.teach import lesson, said, teach  # noqa: E402
from leptonai.improve.evaluate.answers import ask, opened  # noqa: E402
from leptonai.improve.evaluate.rows import Rows  # noqa: E402


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 32)
        self.body = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.1, batch_first=True)
        self.out = nn.Linear(32, 3)

    def forward(self, x: Any) -> Any:
        return self.out(self.body(self.words(x)).mean(1))


def conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(16, 8, 3), nn.Flatten(), nn.Linear(32, 16), nn.Dropout(0.5), nn.Linear(16, 10),
    )  # fmt: skip


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))


def graph(module: nn.Module, example: Any) -> Any:
    torch.manual_seed(0)
    return network.exported(module, [example])


IMAGES, ROWS, WORDS = torch.randn(40, 1, 8, 8), torch.randn(40, 64), torch.randint(0, 20, (40, 7))


def test_the_names_of_steps_are_told_as_they_are() -> None:
    assert tuple(SINGLE) == SHAPES and tuple(PRECISIONS) == PRECISION_NAMES


@pytest.mark.parametrize(
    ("make", "x", "groups"), [(conv, IMAGES, 4), (mlp, ROWS, 2), (Attends, WORDS, 1)], ids=["conv", "mlp", "attention"]
)
def test_units_are_cut_where_no_output_depends_on_them(make: Any, x: Any, groups: int) -> None:
    """Zeroed units change nothing when cut: so the right columns and rows go together."""
    g = graph(make(), x)
    found = shapes.groups(g)
    assert len(found) == groups
    for group in found:
        with torch.no_grad():  # half of the units give zero, whatever comes
            shapes.parameter(g, group.maker.args[1])[::2] = 0
            shapes.parameter(g, group.maker.args[2])[::2] = 0
            for norm in group.norms:
                for index in (2, 3):
                    shapes.parameter(g, norm.args[index])[::2] = 0
    want = network.forward(g, [x])

    def gradients(new: Any) -> None:
        network.forward(new, [x]).square().sum().backward()

    small = shapes.prune(g, 0.5, gradients)
    assert torch.allclose(network.forward(small, [x]), want, atol=1e-4)
    size = [sum(p.numel() for p in m.parameters()) for m in (small, g)]
    assert size[0] < 0.8 * size[1]


def test_factors_keep_what_real_inputs_need() -> None:
    g = graph(mlp(), ROWS)
    base = torch.randn(64, 8)
    x = torch.randn(200, 8) @ base.T  # only 8 directions occur
    exact = shapes.low_rank(g, 0.25, [x])  # the first layer keeps 10 directions of 64
    deep = (network.forward(exact, [x]) - network.forward(g, [x])).norm() / network.forward(g, [x]).norm()
    assert deep < 0.5  # of random weights; the plain factors of 10 directions lose far more
    plain = shapes.low_rank(g, 0.25, [torch.randn(400, 64)])  # of inputs that do not occur
    lost = (network.forward(plain, [x]) - network.forward(g, [x])).norm() / network.forward(g, [x]).norm()
    assert deep < 0.7 * lost
    count = [sum(p.numel() for p in m.parameters() if p.dim() > 1) for m in (exact, g)]
    used = {n.target for n in exact.graph.nodes if n.op == "get_attr"}
    kept = sum(p.numel() for n, p in exact.named_parameters() if n in used)
    assert kept < 0.5 * count[1]


def test_layers_are_split_in_groups_and_still_learn() -> None:
    g = graph(conv(), IMAGES)
    parted = shapes.split(g, 2)
    assert network.forward(parted, [IMAGES]).shape == (40, 10)
    linear = shapes.split(graph(mlp(), ROWS), 2)
    assert network.forward(linear, [ROWS]).shape == (40, 10)
    with pytest.raises(ModelError, match="no inner layer"):
        shapes.split(graph(nn.Sequential(nn.Linear(64, 10)), ROWS), 2)


def test_what_is_cut_stays_cut_while_the_rest_learns() -> None:
    original = graph(mlp(), ROWS)
    new, masks = shapes.magnitude(original, 0.9)
    labels = torch.randint(0, 10, (40,))

    targets = said(original, [ROWS], step=16)
    assert torch.allclose(targets, network.forward(original, [ROWS]), atol=1e-5)

    def loss() -> float:
        return float(lesson(network.forward(new, [ROWS]), targets, labels).detach())

    before = loss()
    teach(new, targets, [ROWS], labels, steps=60, masks=masks)
    assert loss() < before
    zeros = [float((dict(new.named_parameters())[n] == 0).float().mean()) for n in masks]
    assert np.average(zeros) > 0.7


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network on scikit-learn's digits as .pt2, with rows it has not seen."""
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("digits")
    x, y = load_digits(return_X_y=True)
    x = ((x - 4.9) / 6).astype(np.float32)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for i in range(300):
        rows = torch.from_numpy(np.random.default_rng(i).integers(0, 900, 64))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.from_numpy(x)[rows]), torch.from_numpy(y)[rows]).backward()
        optimizer.step()
    program = torch.export.export(
        model.eval(), (torch.from_numpy(x[:2]),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    torch.export.save(program, folder / "digits.pt2")
    np.savez(folder / "calib.npz", x=x[900:], y=y[900:])
    np.savez(folder / "unlabelled.npz", x=x[900:])
    np.savez(folder / "one.npz", x=x[900:], y=np.zeros(len(y) - 900, int))
    np.savez(folder / "narrow.npz", x=x[900:, :60], y=y[900:])
    return folder


def test_every_precision_gives_a_model_that_answers_alike(digits: Path, tmp_path: Path) -> None:
    rows = np.load(digits / "calib.npz")["x"]
    predictor = opened(digits / "digits.pt2")
    name = predictor.inputs[0]["name"]
    whole = tmp_path / "onnx.onnx"
    told = network.to_onnx(network.capture(predictor, {name: rows}), predictor, {name: rows}, whole)
    assert told.difference < 1e-4
    want = ask(opened(whole), {name: rows})["output"]
    for step, apply in PRECISIONS.items():
        target = tmp_path / f"{step}.onnx"
        apply(whole, target, {name: rows})
        made = opened(target)
        assert made.inputs[0] == {"name": name, "datatype": "FP32", "shape": [-1, 64]} and made.batchable
        have = ask(made, {name: rows})["output"]
        assert (have.argmax(1) == want.argmax(1)).mean() > 0.97, step
        assert target.stat().st_size < (0.4 if "int8" in step else 0.6) * whole.stat().st_size, step


def test_a_wrong_export_is_not_accepted(digits: Path, tmp_path: Path) -> None:
    rows = np.load(digits / "calib.npz")["x"]
    predictor = opened(digits / "digits.pt2")
    name = predictor.inputs[0]["name"]
    g = network.capture(predictor, {name: rows})
    network.to_onnx(g, predictor, {name: rows}, tmp_path / "a.onnx")
    with torch.no_grad():
        next(iter(g.parameters())).add_(0.1)
    with pytest.raises(ModelError, match="differs from its original"):
        network.equal(g, tmp_path / "a.onnx", [rows])


def test_the_command_measures_chooses_and_keeps_golden_answers(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    given = ["compress", str(digits / "digits.pt2"), "--data", str(digits / "calib.npz"), "--out", str(out)]
    more = ["--only", "prune 50%,int8 stored", "--budget", "accuracy=2%", "--for", "size", "--steps", "150"]
    assert run([*given, *more, "--plot", str(tmp_path / "f.png")]) == 0
    text = capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    chosen = report["chosen"]
    assert chosen["steps"] == ["prune 50%", "int8 stored"], text
    assert report["candidates"][0]["size"] > 8 * chosen["size"]
    assert (
        chosen["speedup_low"] <= chosen["speedup"] <= chosen["speedup_high"] and chosen["p99"] >= chosen["median"] > 0
    )
    assert report["confirmed"] <= 0.02 and report["rows"] == {"teach": 359, "choose": 269, "confirm": 269}
    assert {p.name for p in (out / "chosen").iterdir()} == {"model.onnx", "golden.json"}
    assert (tmp_path / "f.png").read_bytes()[:4] == b"\x89PNG"
    assert "x SMALLER" in text and "chosen" in text


def linear(folder: Path) -> None:
    """``m.onnx`` with 64 numbers in and ten out, and ``rows.npz`` for it."""
    from onnx import TensorProto, helper, numpy_helper, save

    made = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["scores"])], "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32), "w")],
    )  # fmt: skip
    save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "m.onnx")
    np.savez(folder / "rows.npz", x=np.random.default_rng(1).normal(size=(200, 64)).astype(np.float32))


def test_a_machine_that_gives_no_replica_any_time_changes_no_choice_by_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By speed nothing is chosen then, and that is said: an answer for want of a measurement would be another model."""
    linear(tmp_path)
    given = ["compress", str(tmp_path / "m.onnx"), "--data", str(tmp_path / "rows.npz"), "--only", "int8 stored"]
    given += ["--budget", "agreement=10%", "--plot", str(tmp_path / "f.png"), "--for"]
    assert run([*given, "size", "--out", str(tmp_path / "quiet")]) == 0
    assert "times smaller" in capsys.readouterr().out
    monkeypatch.setattr(replica, "START", 0.0)
    assert run([*given, "size", "--out", str(tmp_path / "busy")]) == 0
    assert "int8 stored: not measured, the replica was not ready" in (told := capsys.readouterr().out)
    assert "its speed was not measured" in told
    files = [(tmp_path / n / "chosen" / "model.onnx").read_bytes() for n in ("quiet", "busy")]
    assert files[0] == files[1]
    assert run([*given, "both", "--out", str(tmp_path / "both")]) == 6
    assert "not ready within 0 s" in capsys.readouterr().err and not (tmp_path / "both" / "chosen").exists()


def test_a_model_that_is_known_to_be_broken_is_not_chosen_because_the_original_was_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The candidate's replica answers errors; the original's own has no time any more when it is asked the last."""
    linear(tmp_path)
    asked: list[replica.Replica] = []

    def ask(one: replica.Replica, bodies: Any, count: int, seconds: float) -> list[float]:
        asked.append(one)
        if one is asked[0] and count == replica.WARM:
            return [0.001]
        raise ModelError("no time" if one is asked[0] else "the replica answers 500", retry=one is asked[0])

    monkeypatch.setattr(replica.Replica, "ask", ask)
    given = ["compress", str(tmp_path / "m.onnx"), "--data", str(tmp_path / "rows.npz"), "--only", "int8 stored"]
    given += ["--budget", "agreement=10%", "--for", "size", "--out", str(tmp_path / "o")]
    run(given)
    assert "the replica answers 500" in capsys.readouterr().out and len(asked) > 2
    assert not (tmp_path / "o" / "chosen").exists()


def test_a_prediction_log_that_ends_in_the_middle_of_a_line_is_read() -> None:
    assert [replica._computed(line) for line in (b'{"compute":0.5}', b'{"id":"a"}', b'{"comp')] == [0.5, -1.0, -1.0]


def test_who_was_beaten_by_one_that_came_to_nothing_goes_on(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The smaller one is better after a quarter of the lessons and useless at the end; asked for by name, all learn."""
    monkeypatch.setattr(networks, "SINGLE", {n: SINGLE[n] for n in ("prune 50%", "prune 75%")})
    predictor = opened(digits / "digits.pt2")
    rows = Rows({predictor.inputs[0]["name"]: np.load(digits / "calib.npz")["x"][:64]}, None)
    said: list[str] = []

    def shapes(smaller: float, only: list[str] | None) -> dict[tuple[str, ...], Candidate]:
        said.clear()
        told = {"prune 50%": iter([0.5, 0.0]), "prune 75%": iter([0.3, smaller])}

        def hear(steps: Any, model: Any) -> Candidate:
            return Candidate(steps=tuple(steps), loss=next(told[steps[0]]), error_of_loss=0.1)

        def judge(steps: Any, path: Path) -> Candidate:
            return Candidate(steps=tuple(steps), loss=0.0, file=path.name)

        labels = np.zeros(64, np.int64)
        made = networks.Networks(predictor, rows, labels, 0, 8, said.append, only, "size")
        return {c.steps: c for c in made.shapes(tmp_path, judge, hear, Budget(loss=0.01))}

    found = shapes(0.9, None)
    assert found["prune 50%",].file and "it loses 90" in found["prune 75%",].left
    assert said.index("prune 75%: 6 lessons") < said.index("prune 50%: 6 lessons"), "it had waited for that one"
    found = shapes(0.0, None)
    assert "after 2 of 8 lessons one that is no larger loses less" in found["prune 50%",].left
    assert not found["prune 50%",].file and found["prune 75%",].file
    found = shapes(0.0, ["prune 50%", "prune 75%"])
    assert found["prune 50%",].file and found["prune 75%",].file


@pytest.mark.parametrize(
    ("data", "more", "code", "wanted"),
    [
        ("unlabelled.npz", [], 2, "has no labels"),
        ("one.npz", [], 2, "labels of the data are '0'"),
        ("narrow.npz", [], 2, "shape"),
        ("calib.npz", ["--budget", "fun=1"], 2, "'fun' is not known"),
        ("calib.npz", ["--only", "magic"], 2, "'magic' is not known"),
    ],
)
def test_what_cannot_be_compressed_is_said(
    digits: Path, capsys: pytest.CaptureFixture[str], data: str, more: list[str], code: int, wanted: str
) -> None:
    given = ["compress", str(digits / "digits.pt2"), "--data", str(digits / data), "--out", str(digits / "no")]
    assert run([*given, *more]) == code
    assert wanted in capsys.readouterr().err


def test_a_budget_that_cannot_be_met_keeps_the_original(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["compress", str(digits / "digits.pt2"), "--data", str(digits / "calib.npz"), "--out", str(tmp_path / "o")]
    assert run([*given, "--only", "", "--budget", "accuracy=1%,size=1KB"]) == 0
    assert "the original is kept" in capsys.readouterr().out
    assert not (tmp_path / "o" / "chosen").exists()


def test_an_operator_without_onnx_form_is_named(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Odd(nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.special.bessel_j0(x) @ torch.ones(64, 3)

    program = torch.export.export(Odd(), (ROWS,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, tmp_path / "odd.pt2")
    predictor = opened(tmp_path / "odd.pt2")
    rows = {predictor.inputs[0]["name"]: ROWS.numpy()}
    with pytest.raises(ModelError, match="bessel_j0"):
        network.to_onnx(network.capture(predictor, rows), predictor, rows, tmp_path / "odd.onnx")
    monkeypatch.setattr(replica, "ROUNDS", 1)
    np.savez(tmp_path / "rows.npz", x=ROWS.numpy(), y=np.arange(40) % 3)
    assert run(["compress", str(tmp_path / "odd.pt2"), "--data", str(tmp_path / "rows.npz"), "--only", ""]) == 0
    said = capsys.readouterr().out
    last = said.strip().splitlines()[-1]
    assert "Nothing could be made of odd.pt2" in last and "bessel_j0" in last and "the original is kept" in last
