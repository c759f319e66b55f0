"""A named model: layers are added, then it is fitted to a data set, then it predicts."""

from __future__ import annotations

import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from leptonai.client import Client
from leptonai.errors import ModelError, SpecError
from leptonai.lab import served
from leptonai.lab.config import BCELoss, FeatureEmbedding, Interaction, Layers, PandasInput, RegressionOutput
from leptonai.lab.dataset import Dataset, Features
from leptonai.lab.recommender import Recommender
from leptonai.types import NAME, Revision, Scale, Spec, Variant

HELD = 0.1  # share of the ratings that chooses the best epoch
ENOUGH = 50  # ratings below which nothing can be held back
NAMES = ("embedding", "input", "interaction", "loss", "output")  # of the layers of a model that was loaded
PLAIN = (PandasInput(), Interaction(), BCELoss(), RegressionOutput())


class Model:
    """A recommendation model. ``history`` holds the held-out loss of each epoch after ``fit``."""

    def __init__(self, name: str) -> None:
        if not NAME.fullmatch(name):
            raise SpecError(f"model name is {name!r}; it must be lower-case letters, digits and dashes, at most 40")
        self.name = name
        self.config = Layers()
        self.history: list[float] = []
        self._net: Any = None
        self._low, self._high = 0.0, 1.0
        self._codes: tuple[list[dict[Any, int]], list[dict[Any, int]]] = ([], [])
        self._features: tuple[Features, Features] = ({}, {})

    def fit(
        self,
        dataset: Dataset,
        epochs: int = 10,
        batch_size: int = 64,
        *,
        rate: float = 0.005,
        weight_decay: float = 1e-4,
        seed: int = 0,
    ) -> Model:
        """The model has learnt ``dataset``, with the weights of its best epoch on a tenth that was held back.

        The same seed gives the same model on the same machine; torch's global generator is left as it was.
        Raises SpecError for missing layers, no rows, or ratings that are all equal.
        """
        size = self.config.size()
        if epochs < 1 or batch_size < 1:
            raise SpecError(f"epochs is {epochs}, batch_size {batch_size}; both must be at least 1")
        low, high = float(dataset.ratings.min()), float(dataset.ratings.max())
        if low == high:
            raise SpecError(f"all {len(dataset)} ratings are {low:g}; there is nothing to learn")
        self._low, self._high = low, high
        self._features = dataset.user_features, dataset.item_features
        self._codes = (
            _dictionaries(dataset.users, dataset.user_features),
            _dictionaries(dataset.items, dataset.item_features),
        )
        users, items = self._encode(dataset)
        target = torch.tensor((dataset.ratings - low) / (high - low), dtype=torch.float32)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # batches this small only wait for each other
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self._learn(users, items, target, size, epochs, batch_size, rate, weight_decay)
        finally:
            torch.set_num_threads(threads)
        return self

    def _learn(
        self, users: Any, items: Any, target: Any, size: int, epochs: int, batch: int, rate: float, decay: float
    ) -> None:
        mean = float(target.mean().clamp(0.01, 0.99))
        sizes = [[len(d) + 1 for d in side] for side in self._codes]
        net = Recommender(sizes[0], sizes[1], size, float(np.log(mean / (1 - mean))))
        order = torch.randperm(len(target))
        cut = int(HELD * len(target)) if len(target) >= ENOUGH else 0
        held, train = order[:cut], order[cut:]
        loss_function = torch.nn.BCEWithLogitsLoss()
        optimizer = torch.optim.Adam(net.parameters(), lr=rate, weight_decay=decay)
        best, kept = float("inf"), None
        self.history = []
        for _ in range(epochs):
            net.train()
            for rows in train[torch.randperm(len(train))].split(batch):
                optimizer.zero_grad()
                loss = loss_function(net(users[rows], items[rows]), target[rows])
                loss.backward()
                optimizer.step()
            judged = held if cut else train
            net.eval()
            with torch.no_grad():
                told = loss_function(net(users[judged], items[judged]), target[judged]).item()
            self.history.append(told)
            if told < best:
                best, kept = told, {k: v.clone() for k, v in net.state_dict().items()}
        if kept is None:
            raise ModelError(f"model {self.name}: the loss was never finite", hint="lower rate")
        net.load_state_dict(kept)
        self._net = net.eval()

    def predict(self, dataset: Dataset) -> NDArray[np.float64]:
        """A rating for each row, within the range of those learnt; its own ratings are not looked at.

        Unknown users and items get what is known of the rest. Raises ModelError before ``fit``.
        """
        net = self._fitted()
        users, items = self._encode(dataset)
        with torch.no_grad():
            share = torch.sigmoid(net(users, items)).double().numpy()
        return np.asarray(self._low + (self._high - self._low) * share, dtype=np.float64)

    def save(self, folder: str | Path) -> Path:
        """``folder`` holds the fitted model as a service serves it: ``leptonai deploy`` takes it as it is.

        ``model.py`` (numpy alone), ``weights.npz``, ``known.json`` and three golden examples. Raises ModelError before
        ``fit``, SpecError for keys or features that are no text, number or truth value, or a folder that cannot be
        written.
        """
        net = self._fitted()
        known = {
            "name": self.name,
            "low": self._low,
            "high": self._high,
            "size": self.config.size(),
            **{
                side: {
                    "codes": [list(column.items()) for column in codes],
                    "names": list(features),
                    "features": {name: list(column.items()) for name, column in features.items()},
                }
                for side, codes, features in zip(("users", "items"), self._codes, self._features, strict=True)
            },
        }
        folder = Path(folder)
        try:
            text = json.dumps(known, default=_plain, separators=(",", ":"))
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "known.json").write_text(text)
            np.savez(folder / "weights.npz", **{k: v.numpy() for k, v in net.state_dict().items()})
            (folder / "model.py").write_text(Path(served.__file__).read_text())
        except OSError as e:
            raise SpecError(f"{folder} cannot be written: {e.strerror or e}") from e
        (folder / "golden.json").write_text(json.dumps(_golden(folder), indent=1))
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Model:
        """The model that ``save`` wrote: it predicts the same. Raises ModelError naming what is missing or damaged."""
        folder = Path(folder)
        try:
            known = json.loads((folder / "known.json").read_text())
            model = cls(known["name"])
            model._low, model._high = known["low"], known["high"]
            sides = [known[side] for side in ("users", "items")]
            users, items = ([dict(column) for column in side["codes"]] for side in sides)
            model._codes = users, items
            model._features = tuple({n: dict(side["features"][n]) for n in side["names"]} for side in sides)  # type: ignore[assignment]
            for name, layer in zip(NAMES, (FeatureEmbedding(known["size"]), *PLAIN), strict=True):
                model.config.add_layer(name, layer)
            sizes = [[len(d) + 1 for d in side] for side in model._codes]
            net = Recommender(sizes[0], sizes[1], known["size"], 0.0)
            with (folder / "weights.npz").open("rb") as file, np.load(file, allow_pickle=False) as weights:
                net.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights.files})
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, zipfile.BadZipFile) as e:
            raise ModelError(f"{folder} is not a saved model: {e}", hint="model.save(folder) writes one") from e
        model._net = net.eval()
        return model

    def deploy(self, client: Client | None = None, replicas: int = 2) -> Revision:
        """The model serves under its name, all replicas ready. ``client`` None: the platform of the environment.

        Raises what ``Client.deploy`` raises: a refusal, an unreachable platform, a rollout that failed.
        """
        with tempfile.TemporaryDirectory(prefix="leptonai-model-") as folder:
            path = self.save(Path(folder) / self.name)
            with client or Client() as platform:
                variant = Variant(model=str(path), idempotent=True)
                platform.deploy(Spec(name=self.name, variants=(variant,), scale=Scale(replicas=replicas)))
                return platform.revisions(self.name)[-1]

    def _fitted(self) -> Any:
        if self._net is None:
            raise ModelError(f"model {self.name} has not been fitted", hint="call model.fit(dataset) first")
        return self._net

    def _encode(self, dataset: Dataset) -> tuple[Any, Any]:
        sides = (dataset.users, dataset.user_features), (dataset.items, dataset.item_features)
        out = []
        for (keys, given), known, codes in zip(sides, self._features, self._codes, strict=True):
            columns = [[codes[0].get(k, 0) for k in keys.tolist()]]
            for code, name in zip(codes[1:], known, strict=True):
                values = {**known[name], **given.get(name, {})}
                columns.append([code.get(values.get(k), 0) for k in keys.tolist()])
            out.append(torch.tensor(columns, dtype=torch.long).T.contiguous())
        return out[0], out[1]


def _dictionaries(keys: NDArray[Any], features: Features) -> list[dict[Any, int]]:
    """One code from 1 for each distinct key, and for each value of each feature; 0 is left for the unknown."""
    sets = [keys.tolist(), *(list(column.values()) for column in features.values())]
    return [{v: i + 1 for i, v in enumerate(dict.fromkeys(x for x in s if x is not None))} for s in sets]


def _plain(value: Any) -> Any:
    """numpy's scalars as Python's; anything else has no spelling in JSON."""
    if isinstance(value, np.generic):
        return value.item()
    raise SpecError(f"{value!r} is {type(value).__name__}; what is saved needs text, numbers or truth values")


def _golden(folder: Path) -> list[dict[str, Any]]:
    """Three users' answers by what was saved, so that a replica that answers otherwise never becomes ready."""
    saved = served.Recommendation(folder)
    saved.setup()
    asked = [{"user": user, "count": 3} for user in [*list(saved.users)[:2], "nobody knows"]]
    return [{"inputs": one, "outputs": saved.predict(**one), "tolerance": 1e-3} for one in asked]  # type: ignore[arg-type]
