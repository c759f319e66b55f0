"""What is served: a headline in, its sentiment out. The network lies beside this file, in whatever form it has."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from leptonai.runtime.loaders import beside

HERE = Path(__file__).parent
LABELS = ("negative", "neutral", "positive")
LENGTH = 16  # words that are read


def numbers(text: str, words: dict[str, int]) -> list[int]:
    """0 pads, 1 stands for every word that was not learnt."""
    found = [words.get(w, 1) for w in re.findall(r"[a-z]+", text.lower())][:LENGTH]
    return found + [0] * (LENGTH - len(found))


class Sentiment:
    def setup(self) -> None:
        self.words = json.loads((HERE / "words.json").read_text())
        self.model = beside(__file__)

    def predict(self, text: str) -> dict[str, Any]:
        said = self.model.predict({"x": np.array([numbers(text, self.words)])})
        scores = np.exp(said["scores"][0] - said["scores"][0].max())
        label = int(said["label"][0])
        return {"label": LABELS[label], "sure": round(float(scores[label] / scores.sum()), 3)}
