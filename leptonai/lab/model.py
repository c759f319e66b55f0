"""A named model: layers are added, then it is fitted to a data set, then it predicts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from leptonai.errors import ModelError, SpecError
from leptonai.lab.config import Layers
from leptonai.lab.dataset import Dataset, Features
from leptonai.lab.recommender import Recommender
from leptonai.types import NAME

HELD = 0.1  # share of the ratings that chooses the best epoch
ENOUGH = 50  # ratings below which nothing can be held back


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
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._learn(users, items, target, size, epochs, batch_size, rate, weight_decay)
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
        if self._net is None:
            raise ModelError(f"model {self.name} has not been fitted", hint="call model.fit(dataset) first")
        users, items = self._encode(dataset)
        with torch.no_grad():
            share = torch.sigmoid(self._net(users, items)).double().numpy()
        return np.asarray(self._low + (self._high - self._low) * share, dtype=np.float64)

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
