"""What the examples' READMEs say works: they train, and the door of deploy accepts them."""

import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import onnxruntime

from leptonai.serve import spec
from leptonai.types import Spec

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_every_example_has_a_readme_whose_files_exist() -> None:
    folders = [p for p in EXAMPLES.iterdir() if p.is_dir()]
    assert len(folders) >= 2
    for folder in folders:
        readme = (folder / "README.md").read_text()
        made = ("digits.onnx", "digits.golden.json")  # by the example itself
        for word in readme.split():
            if word.startswith(f"examples/{folder.name}/") and not word.endswith(made):
                assert (EXAMPLES.parent / word).is_file(), word


def test_the_plain_class_deploys_by_itself_and_by_its_text() -> None:
    alone, _ = spec.load(EXAMPLES / "plain_python" / "greeter.py")
    assert (alone.name, alone.variants[0].idempotent, alone.scale.replicas) == ("greeter", False, 1)
    told, model = spec.load(EXAMPLES / "plain_python" / "service.yaml")
    assert (told.name, told.variants[0].idempotent, told.scale.replicas) == ("greeter", True, 2)
    assert model and model.name == "greeter.py"
    assert told.slo.latency == 0.1


def test_the_onnx_example_trains_is_right_about_its_golden_examples_and_deploys(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(EXAMPLES / "onnx_digits", tmp_path / "onnx_digits"))
    runpy.run_path(str(folder / "train.py"), run_name="__main__")
    session = onnxruntime.InferenceSession(str(folder / "digits.onnx"))
    examples = json.loads((folder / "digits.golden.json").read_text())
    assert len(examples) == 8
    for example in examples:
        label = session.run(["label"], {"image": np.array(example["inputs"]["image"], np.float32)})[0]
        assert label.tolist() == example["outputs"]["label"]
    alone, _ = spec.load(folder / "digits.onnx")
    told, _ = spec.load(folder / "service.yaml")
    assert isinstance(alone, Spec) and alone.name == told.name == "digits"
    assert (told.scale.replicas, told.variants[0].batching.max_size, told.rollout.verify_seconds) == (2, 32, 30.0)
