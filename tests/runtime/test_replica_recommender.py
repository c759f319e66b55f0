"""A fitted recommendation model: saved, read back, and answering in a real replica that needs no torch."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: saved recommenders are not tested here")
pd = pytest.importorskip("pandas", reason="pandas is not installed: saved recommenders are not tested here")

import leptonai  # noqa: E402
from leptonai.config import config  # noqa: E402
from leptonai.errors import ModelError, SpecError  # noqa: E402
from leptonai.model import Dataset  # noqa: E402

PEOPLE = pd.DataFrame({"user": [f"u{n}" for n in range(40)], "group": [n % 3 for n in range(40)]})
THINGS = pd.DataFrame({"item": list(range(30)), "price": np.linspace(1, 9, 30)})


def drawn(users: Any = None) -> Dataset:
    rng = np.random.default_rng(0)
    u, v = rng.integers(0, 40, 900), rng.integers(0, 30, 900)
    stars = np.clip(np.round(3 + (u % 3 == v % 3) * 2 - (v % 5 == 0) + 0.3 * rng.normal(size=900)), 1, 5)
    ratings = pd.DataFrame({"user": [f"u{n}" for n in u] if users is None else users, "item": v, "rating": stars})
    return Dataset.from_pandas(PEOPLE, THINGS, ratings)


@pytest.fixture(scope="module")
def fitted() -> "leptonai.Model":
    model = leptonai.Model("recommendation")
    for name, layer in (
        ("input", config.PandasInput()),
        ("embedding", config.FeatureEmbedding(8)),
        ("interaction", config.Interaction()),
        ("loss", config.BCELoss()),
        ("output", config.RegressionOutput()),
    ):
        model.config.add_layer(name, layer)
    return model.fit(drawn(), epochs=3)


def test_what_is_read_back_predicts_the_same_for_known_and_strangers(fitted: "leptonai.Model", tmp_path: Path) -> None:
    again = leptonai.Model.load(fitted.save(tmp_path / "saved"))
    for dataset in (drawn(), drawn(["nobody"] * 900)):
        assert np.array_equal(again.predict(dataset), fitted.predict(dataset))
    assert leptonai.Model.load(again.save(tmp_path / "twice")).name == "recommendation"


def test_a_replica_answers_as_the_model_predicts(
    fitted: "leptonai.Model", tmp_path: Path, start: Callable[..., Any]
) -> None:
    folder = fitted.save(tmp_path / "saved")
    replica = start({f.name: f.read_bytes() for f in folder.iterdir()}).wait_ready()
    for user in ("u7", "nobody"):
        everything = replica.predict({"user": user, "count": 100}).json()
        assert sorted(everything["items"], key=int) == [str(n) for n in range(30)]
        rows = pd.DataFrame({"user": [user] * 30, "item": [int(i) for i in everything["items"]], "rating": [1.0] * 30})
        wanted = fitted.predict(Dataset.from_pandas(PEOPLE, THINGS, rows))
        assert np.allclose(everything["ratings"], wanted, atol=1e-3), "features of user and item count too"
        assert everything["ratings"] == sorted(everything["ratings"], reverse=True)
        one = replica.predict({"user": user, "item": everything["items"][4]}).json()
        assert one == {"items": [everything["items"][4]], "ratings": [everything["ratings"][4]]}
    assert replica.predict({"user": 7}).status_code == 400
    assert "torch" not in Path(f"/proc/{replica.process.pid}/maps").read_text()


def test_a_damaged_model_never_becomes_ready(
    fitted: "leptonai.Model", tmp_path: Path, start: Callable[..., Any]
) -> None:
    folder = fitted.save(tmp_path / "saved")
    files = {f.name: f.read_bytes() for f in folder.iterdir()}
    known = json.loads(files["known.json"])
    known["high"] = 9.0
    assert start(files | {"known.json": json.dumps(known)}).failure()["code"] == "golden_failed"


def test_what_cannot_be_saved_or_read_is_told(fitted: "leptonai.Model", tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has not been fitted"):
        leptonai.Model("other").save(tmp_path / "x")
    with pytest.raises(ModelError, match="is not a saved model"):
        leptonai.Model.load(tmp_path / "nothing")
    folder = fitted.save(tmp_path / "saved")
    (folder / "weights.npz").write_bytes((folder / "weights.npz").read_bytes()[:200])
    with pytest.raises(ModelError, match="is not a saved model"):
        leptonai.Model.load(folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(SpecError, match="cannot be written"):
        fitted.save(tmp_path / "file" / "x")
