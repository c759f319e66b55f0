"""What loads, what it answers, and what is refused: each refusal is failure.json, exit code 8, one line, a hint."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leptonai.runtime.loaders.python import PythonPredictor
from tests.runtime.conftest import NOOP, Running, Trained

ALL_TYPES = """
import numpy as np
import numpy.typing as npt
class Types:
    def setup(self, options):
        self.factor = options["factor"]
    def predict(self, f: float, i: int, s: str, b: bool, l: list[int], d: dict[str, float],
                a: np.ndarray, small: npt.NDArray[np.float32] = None, anything=None):
        assert a.dtype == np.float64 and (small is None or small.dtype == np.float32)
        return {"f": f * self.factor, "i": i, "s": s, "b": b, "l": l, "d": d, "a": a * 2,
                "n": np.float32(0.5), "anything": anything, "t": (1, 2)}
"""


def test_a_python_class_gets_its_arguments_by_type_hint(start: Callable[..., Running]) -> None:
    replica = start({"types_model.py": ALL_TYPES}, options={"factor": 3}).wait_ready()
    given: dict[str, Any] = {"f": 1, "i": 2, "s": "x", "b": True, "l": [1], "d": {"k": 0.5}, "a": [[1, 2], [3, 4]]}
    r = replica.predict({**given, "anything": {"z": [None]}})
    want = {**given, "f": 3.0, "a": [[2.0, 4.0], [6.0, 8.0]], "n": 0.5, "anything": {"z": [None]}, "t": [1, 2]}
    assert r.json() == want
    for name, wrong in {"f": "1", "i": 1.5, "s": 1, "b": 1, "l": ["a"], "d": {"k": "v"}, "a": [[1], [2, 3]]}.items():
        r = replica.predict({**given, name: wrong})
        assert r.status_code == 400 and (name in r.json()["error"]), r.text
    assert replica.predict({k: v for k, v in given.items() if k != "f"}).status_code == 400
    assert replica.predict({**given, "unknown": 1}).status_code == 400
    tensors = replica.client.get("/v2/models/m").json()["inputs"]
    assert [t["datatype"] for t in tensors][:5] == ["FP64", "INT64", "BYTES", "BOOL", "INT64"]


class Scalar:
    def predict(self, x: float) -> float:
        return x


class Nested:
    async def predict(self, x: float) -> list[list[int]]:
        return [[1]]


class Labels:
    batch = True

    def predict(self, x: list[float]) -> list[str]:
        return ["a"] * len(x)


class Fields:
    def predict(self, x: float) -> dict[str, float]:
        return {"x": x}


class Silent:
    def predict(self, x: float):  # type: ignore[no-untyped-def]
        return x


class Pieces:
    def predict(self, x: float) -> Iterator[float]:
        yield x


@pytest.mark.parametrize(
    ("cls", "datatype", "shape"),
    [
        (Scalar, "FP64", [1]),
        (Nested, "INT64", [-1, -1]),
        (Labels, "BYTES", [1]),
        (Fields, "BYTES", [1]),
        (Silent, "BYTES", [-1]),
        (Pieces, "BYTES", [-1]),
    ],
)
def test_what_an_answer_is_follows_the_hint_of_what_predict_returns(cls: type, datatype: str, shape: list[int]) -> None:
    assert PythonPredictor(cls, "m.py", {}).outputs == [{"name": "output", "datatype": datatype, "shape": shape}]


def test_options_class_picks_one_of_several(start: Callable[..., Running]) -> None:
    text = "class A:\n    def predict(self): return 'a'\nclass B:\n    def predict(self): return 'b'\n"
    assert start({"model.py": text}, options={"class": "B"}).wait_ready().predict({}).json() == "b"
    failure = start({"model.py": text}).failure()
    assert "A, B" in failure["error"] and "options.class" in failure["hint"]


def test_a_skops_model_answers_as_the_library_does(start: Callable[..., Running], digits: Trained) -> None:
    import skops.io

    replica = start({"digits.skops": skops.io.dumps(digits.model)}).wait_ready()
    x = digits.x[:4] / 16
    answer = replica.predict({"X": x.astype(float).tolist()}).json()
    assert answer["prediction"] == digits.model.predict(x).tolist()
    np.testing.assert_allclose(answer["probabilities"], digits.model.predict_proba(x), atol=1e-6)


def test_a_skops_file_with_foreign_types_is_refused_by_name(start: Callable[..., Running]) -> None:
    import skops.io

    failure = start({"m.skops": skops.io.dumps({"evil": io.BytesIO})}).failure()
    assert failure["code"] == "untrusted" and "BytesIO" in failure["error"]


def test_a_pickle_loads_only_where_it_is_trusted(start: Callable[..., Running], digits: Trained) -> None:
    import joblib

    buffer = io.BytesIO()
    joblib.dump(digits.model, buffer)
    for name, data in {"m.pkl": pickle.dumps(digits.model), "m.joblib": buffer.getvalue()}.items():
        failure = start({name: data}).failure()
        assert failure["code"] == "untrusted" and "trust: pickle" in failure["hint"]
        replica = start({name: data}, trust="pickle").wait_ready()
        answer = replica.predict({"X": (digits.x[:2] / 16).astype(float).tolist()}).json()
        assert answer["prediction"] == digits.model.predict(digits.x[:2] / 16).tolist()


BROKEN: dict[str, tuple[dict[str, str | bytes], str]] = {
    "corrupt onnx": ({"m.onnx": b"not a model"}, "m.onnx"),
    "empty folder": ({}, "no files at all"),
    "unknown file": ({"m.h5": b""}, "m.h5"),
    "syntax": ({"model.py": "class A(:\n"}, "line 1"),
    "missing module": ({"model.py": "import nowhere_to_be_found\n"}, "nowhere_to_be_found"),
    "raises when imported": ({"model.py": "1 / 0\n"}, "ZeroDivisionError"),
    "exits when imported": ({"model.py": "raise SystemExit(0)\n"}, "SystemExit"),
    "no class": ({"model.py": "x = 1\n"}, "predict"),
    "setup raises": (
        {"model.py": "class A:\n def setup(self): open('/nowhere')\n def predict(self): pass\n"},
        "/nowhere",
    ),
    "positional": ({"model.py": "class A:\n def predict(self, *x): pass\n"}, "position"),
    "golden malformed": ({"model.py": NOOP, "golden.json": "{"}, "golden.json"),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_what_does_not_load_says_why_in_one_line(start: Callable[..., Running], name: str) -> None:
    files, cause = BROKEN[name]
    failure = start(files).failure()
    assert cause in failure["error"], failure
    assert "\n" not in failure["error"] and "Traceback" not in failure["error"]
    assert failure["hint"] and set(failure) >= {"error", "code", "hint", "retry"}


@pytest.mark.parametrize("options", [{"threads": 0}, {"threads": "two"}, {"thread": 1}, {"file": "other.onnx"}])
def test_wrong_options_are_named(start: Callable[..., Running], digits_onnx: bytes, options: dict[str, Any]) -> None:
    failure = start({"m.onnx": digits_onnx}, options=options).failure()
    assert next(iter(options)) in failure["error"]


def test_golden_examples_must_hold(start: Callable[..., Running], digits: Trained, digits_onnx: bytes) -> None:
    examples = json.loads(digits.golden())
    examples[0]["outputs"]["label"][1] = 99
    failure = start({"d.onnx": digits_onnx, "d.golden.json": json.dumps(examples)}).failure()
    assert failure["code"] == "golden_failed" and "'label'" in failure["error"] and "99" in failure["error"]
    python = [{"inputs": {"x": 2}, "outputs": {"y": 2.05}, "tolerance": 0.1}]
    start({"model.py": NOOP, "golden.json": json.dumps(python)}).wait_ready()
    python[0]["tolerance"] = 0.001
    assert start({"model.py": NOOP, "golden.json": json.dumps(python)}).failure()["code"] == "golden_failed"


def test_a_wrong_environment_or_socket_is_named(start: Callable[..., Running], tmp_path: Path) -> None:
    replica = start({"model.py": NOOP}, environment={"LEPTONAI_MAX_BODY": "many"})
    assert replica.process.wait(30) == 2
    assert "LEPTONAI_MAX_BODY is 'many'" in json.loads((replica.folder / "failure.json").read_bytes())["error"]
    import subprocess
    import sys

    launch = json.loads((replica.folder / "launch.json").read_bytes())
    launch |= {"socket": f"{tmp_path}/{'s' * 120}", "run_dir": str(tmp_path)}
    (tmp_path / "launch.json").write_text(json.dumps(launch))
    run = [sys.executable, "-m", "leptonai.runtime", str(tmp_path)]
    assert subprocess.run(run, capture_output=True).returncode == 8
    assert "cannot listen" in json.loads((tmp_path / "failure.json").read_bytes())["error"]


def test_a_model_that_left_threads_behind_still_ends(start: Callable[..., Running]) -> None:
    text = """
import threading, time
class A:
    def setup(self):
        threading.Thread(target=time.sleep, args=(600,)).start()
    def predict(self): return 1
"""
    replica = start({"model.py": text}).wait_ready()
    replica.process.terminate()
    assert replica.process.wait(20) == 0


def test_without_a_launch_file_it_says_so(start: Callable[..., Running], tmp_path: Path) -> None:
    import subprocess
    import sys

    run = [sys.executable, "-m", "leptonai.runtime"]
    for arguments, text in (([], "usage"), ([str(tmp_path)], "launch.json")):
        done = subprocess.run([*run, *arguments], capture_output=True, text=True)
        assert done.returncode == 2 and text in done.stderr and "Traceback" not in done.stderr


def test_a_third_party_loader_comes_in_by_entry_point(start: Callable[..., Running], tmp_path: Path) -> None:
    (tmp_path / "their_loader.py").write_text(
        """
import numpy as np
class Predictor:
    platform, batchable = "their_format", True
    inputs = [{"name": "x", "datatype": "FP32", "shape": [-1]}]
    outputs = [{"name": "y", "datatype": "FP32", "shape": [-1]}]
    def predict(self, inputs): return {"y": inputs["x"] + 1}
class Loader:
    name = "their"
    def match(self, files): return next((f for f in files if f.endswith(".their")), None)
    def load(self, path, variant): return Predictor()
"""
    )
    info = tmp_path / "their-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[leptonai.loaders]\ntheir = their_loader:Loader\n")
    replica = start({"m.their": b""}, environment={"PYTHONPATH": str(tmp_path)}).wait_ready()
    assert replica.predict([1, 2]).json() == {"y": [2.0, 3.0]}
    assert replica.client.get("/v2/models/m").json()["platform"] == "their_format"
