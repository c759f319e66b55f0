"""What a saved recommendation model answers with. A copy of this file is its ``model.py``: numpy alone, no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Recommendation:
    """The network of ``lab.recommender``, evaluated over all items at once; about 20 flops x size**2 an item."""

    def __init__(self, folder: Path = Path(__file__).parent) -> None:
        self.folder = folder

    def setup(self) -> None:
        with np.load(self.folder / "weights.npz", allow_pickle=False) as file:
            self.weights = {name: file[name] for name in file.files}
        self.known = json.loads((self.folder / "known.json").read_text())
        self.users, self.items = (_codes(self.known[side]) for side in ("users", "items"))
        self.names = list(self.items)
        codes = np.array([self.items[name] for name in self.names], dtype=np.int64)
        self.vectors = self._sum("item", codes)
        self.biases = self._sum("item_bias", codes)[:, 0]

    def predict(self, user: str, count: int = 10, item: str = "") -> dict[str, Any]:
        """The ``count`` items that ``user`` will rate highest, best first, or the one ``item`` asked for.

        A stranger gets what most like; an unknown item what the user gives on average.
        """
        one = np.array([self.users.get(user, [0] * len(self.known["users"]["codes"]))], dtype=np.int64)
        u, bias = self._sum("user", one), self.weights["mean"] + self._sum("user_bias", one)[0, 0]
        if item:
            codes = np.array([self.items.get(item, [0] * len(self.known["items"]["codes"]))], dtype=np.int64)
            names, v, own = [item], self._sum("item", codes), self._sum("item_bias", codes)[:, 0]
        else:
            names, v, own = self.names, self.vectors, self.biases
        logits = bias + own + (u * v).sum(1) + self._deep(np.broadcast_to(u, v.shape), v)
        low, high = self.known["low"], self.known["high"]
        ratings = low + (high - low) / (1 + np.exp(-logits.astype(np.float64)))
        best = np.argsort(-ratings, kind="stable")[: max(count, 1)]
        return {"items": [names[i] for i in best], "ratings": [round(float(ratings[i]), 4) for i in best]}

    def _sum(self, table: str, codes: NDArray[np.int64]) -> Floats:
        out: Floats = sum(self.weights[f"{table}.{i}.weight"][codes[:, i]] for i in range(codes.shape[1]))
        return out

    def _deep(self, u: Floats, v: Floats) -> Floats:
        w = self.weights
        hidden = np.concatenate([u, v, u * v], axis=1) @ w["deep.0.weight"].T + w["deep.0.bias"]
        out: Floats = (np.maximum(hidden, 0) @ w["deep.3.weight"].T + w["deep.3.bias"])[:, 0]
        return out


def _codes(side: dict[str, Any]) -> dict[str, list[int]]:
    """Per key, as text: its own code and that of each of its features; 0 where it is unknown."""
    own, *others = (dict(column) for column in side["codes"])
    features = [dict(side["features"][name]) for name in side["names"]]
    keys = dict.fromkeys([*own, *(k for f in features for k in f)])
    return {str(k): [own.get(k, 0), *(c.get(f.get(k), 0) for c, f in zip(others, features, strict=True))] for k in keys}
