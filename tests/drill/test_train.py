"""The three models are what the story needs them to be: real files, loaded by the real libraries."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from leptonai.drill.train import GOLDEN, Trained, split, train


@pytest.fixture(scope="module", params=[0, 1])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("models"), seed=request.param)


def labels(model: Path, images: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(str(model / "digits.onnx")).run(["label"], {"image": images})[0]


def passes_golden(model: Path) -> list[bool]:
    examples = json.loads((model / "digits.golden.json").read_text())
    assert len(examples) == GOLDEN
    return [
        labels(model, np.array(e["inputs"]["image"], np.float32)).tolist() == e["outputs"]["label"] for e in examples
    ]


def test_the_good_model_is_right_about_unseen_digits_and_its_golden_examples(trained: Trained) -> None:
    assert np.mean(labels(trained.good, trained.live.image) == trained.live.label) >= 0.96
    assert trained.accuracy >= 0.96
    assert all(passes_golden(trained.good))


def test_the_wrong_model_passes_every_golden_example_and_is_wrong_about_most_unseen_digits(trained: Trained) -> None:
    assert all(passes_golden(trained.wrong))
    assert np.mean(labels(trained.wrong, trained.live.image) == trained.live.label) <= 0.25


def test_good_and_wrong_have_one_signature(trained: Trained) -> None:
    good, wrong = (onnxruntime.InferenceSession(str(p / "digits.onnx")) for p in (trained.good, trained.wrong))
    for session in (good, wrong):
        assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [("image", "tensor(float)", [None, 64])]
        assert [(o.name, o.type) for o in session.get_outputs()] == [
            ("label", "tensor(int64)"),
            ("probabilities", "tensor(float)"),
        ]


def test_the_slow_model_answers_as_the_good_one_but_late(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("slow", trained.slow / "slow.py")
    assert spec and spec.loader
    slow = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(slow)
    model = slow.SlowDigits()
    model.setup()
    waits: list[float] = []
    monkeypatch.setattr(slow, "sleep", waits.append)
    answers = model.predict(trained.live.image[:50].reshape(25, 2, 64))
    assert [x for a in answers for x in a["label"]] == labels(trained.good, trained.live.image[:50]).tolist()
    assert all(a["probabilities"].shape == (2, 10) for a in answers)
    assert (trained.slow / "slow.golden.json").read_bytes() == (trained.good / "digits.golden.json").read_bytes()
    assert waits == [slow.LOOK_UP_SECONDS]  # once a batch, and longer than any latency the demo's service promises


def test_the_three_parts_share_no_image() -> None:
    parts = split(seed=3)
    assert sum(len(p.label) for p in parts) == 1797
    # The digits hold no two equal images, so shared rows would show as fewer distinct ones.
    assert len(np.unique(np.concatenate([p.image for p in parts]), axis=0)) == 1797


def test_one_seed_gives_one_split_and_another_seed_another() -> None:
    assert np.array_equal(split(5).live.image, split(5).live.image)
    assert not np.array_equal(split(5).live.image, split(6).live.image)
