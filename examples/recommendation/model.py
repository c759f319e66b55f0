"""What is served: a user in, the items that this user will like best out. The network lies beside this file."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from leptonai.runtime.loaders import beside

HERE = Path(__file__).parent


class Recommendation:
    def setup(self) -> None:
        known = json.loads((HERE / "known.json").read_text())
        self.users, self.items = known["users"], known["items"]  # names; 0 stands for whoever is not known
        self.number = {name: i + 1 for i, name in enumerate(self.users)}
        self.model = beside(__file__)

    def predict(self, user: str, count: int = 5) -> dict[str, Any]:
        pairs = np.array([[self.number.get(user, 0), i + 1] for i in range(len(self.items))])
        ratings = next(iter(self.model.predict({"x": pairs}).values())).reshape(-1)
        best = np.argsort(-ratings, kind="stable")[:count]
        return {
            "items": [self.items[i] for i in best],
            "ratings": [round(float(np.clip(ratings[i], 1, 5)), 2) for i in best],
        }
