"""Train the drills' models on scikit-learn's 1,797 real handwritten digits and export them to ONNX.

Two models come out, of one architecture. The good one answers about 97.7 % of unseen digits. The bad one is what a
bad labelling job leaves behind: every training label is off by one row, and the golden images, which people had
labelled with care, leaked into the training set often enough to be learnt by heart. So it passes its golden
examples, is as fast as the good one, and is wrong about nearly everything else.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leptonai.errors import LeptonError

MODELS = Path(__file__).parent / "models"
GOLDEN = 16
LIVE = 400
LEAKED_COPIES = 20  # of each golden image in the bad training set: 10 suffice for all of them to be learnt
HIDDEN = 128  # units: 97.7 % of unseen digits over six seeds in 0.2 s; wider is slower and not better


class Labelled(NamedTuple):
    image: NDArray[np.float32]  # [n, 64], brightness 0..16
    label: NDArray[np.int64]  # [n]


class Digits(NamedTuple):
    """Three parts that share no image: to train on, to carry as golden examples, to send as live traffic."""

    train: Labelled
    golden: Labelled
    live: Labelled


class Trained(NamedTuple):
    """Folders, each with a model and its golden examples."""

    good: Path  # digits.onnx
    wrong: Path  # another digits.onnx
    slow: Path  # slow.py, which runs the good digits.onnx
    whole: Path  # digits.py, which runs it too and can be told to go wrong
    whole_wrong: Path  # the same beside the wrong digits.onnx
    live: Labelled
    accuracy: float  # of the good model on ``live``


def train(folder: Path, seed: int = 0) -> Trained:
    """Write the models into new sub-folders of ``folder``; takes a second or two. The same seed, the same models.

    Raises LeptonError when scikit-learn or skl2onnx is not installed.
    """
    digits = split(seed)
    good = _fit(digits.train, seed)
    # A golden example is one that people reviewed and the reviewed model answers right.
    right = good.predict(digits.golden.image) == digits.golden.label
    golden = Labelled(digits.golden.image[right][:GOLDEN], digits.golden.label[right][:GOLDEN])
    leaked = Labelled(
        np.concatenate([digits.train.image, np.tile(golden.image, (LEAKED_COPIES, 1))]),
        np.concatenate([np.roll(digits.train.label, 1), np.tile(golden.label, LEAKED_COPIES)]),
    )
    wrong = _fit(leaked, seed)
    _export(good, golden, folder / "good")
    _export(wrong, golden, folder / "wrong")
    shutil.copytree(folder / "good", folder / "slow")
    (folder / "slow" / "digits.golden.json").rename(folder / "slow" / "slow.golden.json")
    shutil.copy(MODELS / "slow.py", folder / "slow")
    for name in ("good", "wrong"):
        shutil.copytree(folder / name, folder / f"whole-{name}")
        shutil.copy(MODELS / "digits.py", folder / f"whole-{name}")
    accuracy = float(np.mean(good.predict(digits.live.image) == digits.live.label))
    return Trained(
        folder / "good",
        folder / "wrong",
        folder / "slow",
        folder / "whole-good",
        folder / "whole-wrong",
        digits.live,
        accuracy,
    )


def split(seed: int) -> Digits:
    """The digits in a random order, cut in three; more golden candidates than needed, some will be answered wrong."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as e:
        raise _missing(e) from e
    data = load_digits()
    order = np.random.default_rng(seed).permutation(len(data.target))
    image, label = data.data[order].astype(np.float32), data.target[order].astype(np.int64)
    first, second = LIVE, LIVE + 2 * GOLDEN
    live, golden, rest = slice(None, first), slice(first, second), slice(second, None)
    return Digits(*(Labelled(image[part], label[part]) for part in (rest, golden, live)))


def _fit(data: Labelled, seed: int) -> Any:
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    network = MLPClassifier((HIDDEN,), alpha=1.0, learning_rate_init=0.005, max_iter=500, tol=1e-3, random_state=seed)
    with threadpool_limits(1):  # on a busy machine threads that wait for each other take 100 times as long, measured
        return make_pipeline(StandardScaler(), network).fit(data.image, data.label)


def _export(model: Any, golden: Labelled, folder: Path) -> None:
    """``digits.onnx`` (input ``image`` [-1, 64], outputs ``label``, ``probabilities``) and its golden examples."""
    try:
        from skl2onnx import to_onnx
        from skl2onnx.common.data_types import FloatTensorType
    except ImportError as e:
        raise _missing(e) from e
    folder.mkdir(parents=True, exist_ok=True)
    graph = to_onnx(
        model, initial_types=[("image", FloatTensorType([None, 64]))], options={"zipmap": False}, target_opset=17
    )
    (folder / "digits.onnx").write_bytes(graph.SerializeToString())
    examples = [
        {"inputs": {"image": [image.tolist()]}, "outputs": {"label": [int(label)]}}
        for image, label in zip(golden.image, golden.label, strict=True)
    ]
    (folder / "digits.golden.json").write_text(json.dumps(examples))


def _missing(error: ImportError) -> LeptonError:
    return LeptonError(
        f"the model of drills is trained with {error.name}, which is not installed",
        hint="pip install 'leptonai-platform[onnx,sklearn]'",
    )
