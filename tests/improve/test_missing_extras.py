"""What is said where an extra is not installed: the module, and the command that brings it. In processes without it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from leptonai.errors import EXTRAS, NotInstalled, how_to_install, needs

# A process for each case, forked from one that has imported what is heavy: in it the module cannot be imported.
DRIVER = """
import contextlib, importlib, io, json, os, sys
from leptonai.cli.main import run, say
HEAVY = "sklearn.svm sklearn.ensemble skops.io skl2onnx onnx onnxruntime optuna"
for name in HEAVY.split():
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
for case in json.load(sys.stdin):
    read, write = os.pipe()
    if os.fork() == 0:
        for name in [n for n in sys.modules if n.partition(".")[0] == case["without"]]:
            del sys.modules[name]
        sys.modules[case["without"]] = None
        code, said = -1, io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            try:
                code = run(case["given"]) if "given" in case else exec(case["code"])
            except ImportError as e:
                code = say(e, False)
            except BaseException as e:
                print(repr(e))
        os.write(write, json.dumps([code, said.getvalue()[-900:]]).encode())
        os._exit(0)
    os.close(write)
    print(os.fdopen(read).read() or '["died", ""]')
    os.wait()
"""
NET = "from torch import nn\nclass Net(nn.Linear):\n    def __init__(self):\n        super().__init__(8, 2)\n"
TEXTS = {
    "net": "data: rows.npz\nmodule: net.py",
    "vector": "data: rows.npz\nestimator: sklearn.svm.SVC",
    "trees": "data: rows.npz\nestimator: sklearn.ensemble.RandomForestClassifier\nargs: {n_estimators: 3}",
    "study": "name: s\ntrials: 2\nspace: {args.C: [1, 2]}\ntrain: {data: rows.npz, estimator: sklearn.svm.SVC}",
    "nets": "name: s\ntrials: 2\nspace: {rate: [0.1, 0.2]}\ntrain: {data: rows.npz, module: net.py}",
    "gauss": "name: s\ntrials: 9\nsampler: gp\nspace: {C: {low: 1, high: 2}}\n"
    "classify: {data: rows.npz, estimator: sklearn.svm.SVC}",
    "knobs": "name: s\ntrials: 1\nspace: {precision: [int8 stored]}\nserve: {model: m.onnx, traffic: rows.npz}",
    "flow": "name: f\ncollect: [rows.npz]\ntrain: {estimator: sklearn.svm.SVC}\n"
    "compress: {budget: agreement=50%, only: [int8 stored]}",
}
COMPRESS = ["--data", "rows.npz", "--only", ""]
COMMANDS = [
    ("onnx", ["compress", "m.onnx", *COMPRESS]),
    ("onnxruntime", ["compress", "m.onnx", *COMPRESS]),
    ("skl2onnx", ["compress", "vector.skops", *COMPRESS]),
    ("skops", ["compress", "vector.skops", *COMPRESS]),
    ("tensorflow", ["compress", "m.keras", *COMPRESS]),
    ("matplotlib", ["compress", "m.onnx", *COMPRESS, "--plot", "front.png"]),
    ("onnxscript", ["compress", "m.pt2", *COMPRESS]),
    ("torch", ["compress", "m.pt2", *COMPRESS]),
    ("torch", ["train", "net.yaml"]),
    ("sklearn", ["train", "vector.yaml"]),
    ("skops", ["train", "vector.yaml"]),
    ("skl2onnx", ["train", "trees.yaml"]),
    ("onnxruntime", ["train", "trees.yaml"]),
    ("optuna", ["tune", "study.yaml"]),
    ("sklearn", ["tune", "study.yaml"]),
    ("torch", ["tune", "nets.yaml"]),
    ("sklearn", ["tune", "gauss.yaml"]),
    ("torch", ["tune", "gauss.yaml"]),
    ("onnxruntime", ["tune", "knobs.yaml"]),
    ("onnx", ["tune", "knobs.yaml"]),
    ("onnxruntime", ["evaluate", "m.onnx", "--data", "rows.npz"]),
    ("skops", ["evaluate", "vector.skops", "--data", "rows.npz"]),
    ("torch", ["evaluate", "m.pt2", "--data", "rows.npz"]),
    ("matplotlib", ["evaluate", "m.onnx", "--data", "rows.npz", "--plot", "p.png"]),
    ("sklearn", ["pipeline", "run", "flow.yaml", "--folder", "first"]),
    ("onnx", ["pipeline", "run", "flow.yaml", "--folder", "second"]),
]
IMPORTS = [
    "from leptonai.metrics import MAE",
    "from leptonai.models.regression import AR",
    "import leptonai; leptonai.Model('recommendation')",
    "from leptonai.model import Model",
    "from leptonai.improve.train import Guard",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Models and rows as they were made where everything was installed."""
    import skops.io
    from onnx import TensorProto, helper, numpy_helper, save
    from sklearn.svm import SVC

    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 8)).astype(np.float32)
    y = (x[:, 0] > 0).astype(int)
    np.savez(tmp_path / "rows.npz", x=x, y=y)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["scores"])], "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 16])],
        [numpy_helper.from_array(rng.normal(size=(8, 16)).astype(np.float32), "w")],
    )  # fmt: skip
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    skops.io.dump(SVC().fit(x, y), tmp_path / "vector.skops")
    (tmp_path / "m.keras").write_bytes(b"not opened")
    (tmp_path / "net.py").write_text(NET)
    for name, text in TEXTS.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    if find_spec("torch") is not None:
        import torch

        dims = ({0: torch.export.Dim("batch")},)
        program = torch.export.export(torch.nn.Linear(8, 2), (torch.zeros(2, 8),), dynamic_shapes=dims)
        torch.export.save(program, tmp_path / "m.pt2")
    return tmp_path


def test_every_command_and_import_names_the_extra_that_is_not_there(folder: Path) -> None:
    cases: list[dict[str, object]] = [{"without": m, "given": given} for m, given in COMMANDS]
    cases += [{"without": "torch", "code": code} for code in IMPORTS]
    if find_spec("torch") is None:
        cases = [c for c in cases if c["without"] != "onnxscript"]  # it is torch that is missed first
    done = subprocess.run(
        [sys.executable, "-c", DRIVER], input=json.dumps(cases), capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    wrong = []
    for case, line in zip(cases, done.stdout.splitlines(), strict=True):
        code, said = json.loads(line)
        module = str(case["without"])
        hint = how_to_install(module)
        if not (code in (8, 9) and module in said and hint in said and "mistake of ours" not in said):
            wrong.append((case, code, said))
    assert not wrong, "\n\n".join(f"{case}\n{code}: {said}" for case, code, said in wrong)


def test_the_hint_is_an_extra_that_there_is() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(EXTRAS.values()) <= set(project["optional-dependencies"])
    with pytest.raises(NotInstalled, match="dreaming needs no_such_module, which is not installed") as refused:
        needs("dreaming", "json", "no_such_module")
    assert refused.value.hint == "pip install no_such_module" and isinstance(refused.value, ImportError)
