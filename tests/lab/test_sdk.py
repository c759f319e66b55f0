"""The names of the original articles, used as written there, and what they learn."""

import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the model SDK is not tested here")
pd = pytest.importorskip("pandas", reason="pandas is not installed: Dataset.from_pandas is not tested here")

import leptonai  # noqa: E402
from leptonai.components import pipeline  # noqa: E402
from leptonai.components.pipeline import Pipeline  # noqa: E402
from leptonai.config import config  # noqa: E402
from leptonai.errors import LeptonError, ModelError, SpecError  # noqa: E402
from leptonai.metrics import MAE, ndcg  # noqa: E402
from leptonai.model import Dataset  # noqa: E402
from leptonai.models.regression import AR  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def recommendation() -> "leptonai.Model":
    model = leptonai.Model("recommendation")
    model.config.add_layer("input", config.PandasInput)
    model.config.add_layer("embedding", config.FeatureEmbedding(50))
    model.config.add_layer("interaction", config.Interaction())
    model.config.add_layer("loss", config.BCELoss())
    model.config.add_layer("output", config.RegressionOutput())
    return model


def ratings(seed: int = 0, count: int = 4000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    users, items = 120, 80
    taste, kind, liked = rng.normal(size=(users, 3)), rng.normal(size=(items, 3)), 0.6 * rng.normal(size=items)
    u, v = rng.integers(0, users, count), rng.integers(0, items, count)
    return (
        u,
        v,
        np.clip(np.round(3 + liked[v] + 0.6 * (taste[u] * kind[v]).sum(1) + 0.3 * rng.normal(size=count)), 1, 5),
    )


def test_importing_the_package_loads_no_heavy_library() -> None:
    code = "import sys, leptonai, leptonai.config, leptonai.components.pipeline; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_ar_trains_by_adam_and_mae_before_it_has_seen_its_width() -> None:
    torch.manual_seed(0)
    series = torch.sin(torch.arange(400) / 5)
    x, y = series.unfold(0, 8, 1)[:-1], series[8:]
    model = AR()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    criterion = MAE()
    for _ in range(200):
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
    with pytest.raises(SpecError, match="order 8"):
        model(x[:, :5])


def test_ar_fit_predicts_what_is_linear_and_its_residual_shows_what_is_not() -> None:
    t = np.arange(600)
    series = np.sin(t / 7) + 0.3 * np.cos(t / 3)
    model = AR().fit(series, order=4)
    broken = series.copy()
    broken[300] += 1
    residuals = model.residuals(broken)
    assert torch.isnan(residuals[:4]).all()
    assert residuals[4:300].abs().max() < 1e-3
    assert residuals[300].item() == pytest.approx(1, abs=0.01)
    for wrong in ([1.0] * 5, np.zeros((3, 3)), [float("nan")] * 100):
        with pytest.raises(SpecError):
            AR().fit(wrong, order=4)
    with pytest.raises(SpecError, match="not learnt"):
        AR().residuals(series)


def test_ar_scores_say_what_the_streaming_detector_says() -> None:
    """The same unit and the same tail: what is unlikely for one is unlikely for the other."""
    from leptonai.ops.detect.ar import Ar

    rng, n = np.random.default_rng(0), 2000
    x = np.zeros(n)
    for t in range(2, n):
        x[t] = 1.2 * x[t - 1] - 0.5 * x[t - 2] + rng.normal()
    x[1500] += 9.0
    scores = AR().fit(x[:800], order=3).scores(x).numpy()
    streaming = Ar()
    streaming.open(1)
    told = np.array([streaming.step(float(i), x[i : i + 1], np.ones(1, np.bool_)).score[0] for i in range(n)])
    assert {int(np.nanargmax(scores)), int(np.nanargmax(told))} <= {1500, 1501}, "it, or the one predicted from it"
    assert scores[1500] > 4 and np.nanmean(scores[800:1500] > 3) < 0.01
    later = slice(500, None)
    assert np.corrcoef(scores[later], told[later])[0, 1] > 0.9
    assert np.isnan(scores[:33]).all() and np.isfinite(scores[100:]).all()


def test_mae_refuses_what_would_broadcast() -> None:
    assert MAE()(torch.tensor([[1.0], [2.0]]), torch.tensor([2.0, 4.0])).item() == pytest.approx(1.5)
    with pytest.raises(SpecError, match="must be equal"):
        MAE()(torch.zeros(3, 2), torch.zeros(3))


def test_the_recommendation_model_beats_the_mean_and_item_popularity() -> None:
    u, v, r = ratings()
    train, held = np.arange(3200), np.arange(3200, 4000)
    data = Dataset.from_pandas(pd.Series(u), pd.Series(v), pd.Series(r))
    model = recommendation()
    model.fit(data.rows(train), epochs=10, batch_size=64)
    predicted = model.predict(data.rows(held))
    popular = np.array([r[train][v[train] == i].mean() for i in range(80)])[v[held]]

    def rmse(p: np.ndarray) -> float:
        return float(np.sqrt(np.mean((p - r[held]) ** 2)))

    assert rmse(predicted) < 0.8 * rmse(popular) < rmse(np.full(800, r[train].mean()))
    assert ndcg(r[held], predicted, u[held]) > ndcg(r[held], popular, u[held])
    assert predicted.min() >= 1
    assert predicted.max() <= 5


def test_the_same_seed_gives_the_same_model_and_leaves_the_global_generator_alone() -> None:
    data, state = Dataset.from_pandas(*ratings(count=300)), torch.get_rng_state()
    first, second = (recommendation().fit(data, epochs=2).predict(data) for _ in range(2))
    assert np.array_equal(first, second)
    assert torch.equal(state, torch.get_rng_state())


def test_frames_with_features_tell_something_of_a_user_never_seen() -> None:
    rng = np.random.default_rng(1)
    users = pd.DataFrame({"user": [f"u{i}" for i in range(100)], "taste": ["sweet", "salty"] * 50})
    items = pd.DataFrame({"item": range(40), "kind": ["cake", "crisps"] * 20, "price": rng.random(40)})
    u, v = rng.integers(0, 90, 2500), rng.integers(0, 40, 2500)  # the last ten users rate nothing
    rated = pd.DataFrame({"user": [f"u{i}" for i in u], "item": v, "rating": np.where(u % 2 == v % 2, 5.0, 1.0)})
    model = recommendation().fit(Dataset.from_pandas(users, items, rated), epochs=10, batch_size=64)
    fresh = pd.DataFrame({"user": ["u98", "u98", "stranger"], "item": [0, 1, 0], "rating": [5.0, 1.0, 3.0]})
    sweet, salty, stranger = model.predict(Dataset.from_pandas(users, items, fresh))
    assert sweet > 4
    assert salty < 2
    assert 1 <= stranger <= 5


def test_wrong_models_and_data_are_told() -> None:
    u, v, r = ratings(count=100)
    data = Dataset.from_pandas(u, v, r)
    with pytest.raises(ModelError, match="not been fitted"):
        recommendation().predict(data)
    with pytest.raises(SpecError, match="no FeatureEmbedding"):
        leptonai.Model("recommendation").fit(data)
    model = recommendation()
    for name, layer in [("loss", config.BCELoss()), ("more", config.BCELoss), ("x", 5), ("y", config.FeatureEmbedding)]:
        with pytest.raises(SpecError):
            model.config.add_layer(name, layer)
    for call in (
        lambda: config.FeatureEmbedding(0),
        lambda: leptonai.Model("No Name"),
        lambda: model.fit(Dataset.from_pandas(u, v, np.ones(100))),
        lambda: model.fit(data, epochs=0),
        lambda: Dataset.from_pandas(u, v[:5], r),
        lambda: Dataset.from_pandas([], [], []),
        lambda: Dataset.from_pandas(u, v, ["good"] * 100),
        lambda: Dataset.from_pandas(u, v, [float("nan")] * 100),
        lambda: Dataset.from_pandas(u, v, pd.DataFrame({"a": u})),
        lambda: ndcg([0.0, 0.0], [1.0, 2.0], [0, 0]),
    ):
        with pytest.raises(LeptonError):
            call()


def test_a_pipeline_runs_its_steps_in_order_learns_and_names_the_step_that_fails() -> None:
    assert pipeline.Pipeline is Pipeline
    u, v, r = ratings(count=600)
    steps = Pipeline([("read", lambda columns: Dataset.from_pandas(*columns)), ("model", recommendation())])
    assert steps.fit((u, v, r), epochs=2).predict((u, v, r)).shape == (600,)
    with pytest.raises(ModelError, match="'half' failed: ZeroDivisionError"):
        Pipeline().add("half", lambda x: x / 0).run(1)
    for wrong in (lambda: steps.add("read", abs), lambda: Pipeline([("x", 5)]), lambda: Pipeline().run(1)):
        with pytest.raises(SpecError):
            wrong()
