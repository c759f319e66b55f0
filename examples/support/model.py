"""What is served: a customer's message in; the reply to send, and the intent it stands for, out."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from leptonai.runtime.loaders import beside

HERE = Path(__file__).parent
LENGTH = 20  # words that are read
LEAST = 0.4  # below it a person is asked


def numbers(text: str, words: dict[str, int]) -> list[int]:
    """0 pads, 1 stands for every word that was not learnt."""
    found = [words.get(w, 1) for w in re.findall(r"[a-z]+", text.lower())][:LENGTH]
    return found + [0] * (LENGTH - len(found))


class Support:
    def setup(self) -> None:
        self.words = json.loads((HERE / "words.json").read_text())
        self.replies = json.loads((HERE / "replies.json").read_text())
        self.names = list(self.replies)
        self.intents = [name.partition("/")[0] for name in self.names]
        self.model = beside(__file__)

    def predict(self, message: str) -> dict[str, Any]:
        scores = self.model.predict({"x": np.array([numbers(message, self.words)])})["scores"][0]
        share = np.exp(scores - scores.max())
        share /= share.sum()
        sure = {intent: 0.0 for intent in self.intents}
        for intent, part in zip(self.intents, share.tolist(), strict=True):
            sure[intent] += part
        intent = max(sure, key=lambda i: sure[i])
        name = max((n for n in self.names if n.startswith(f"{intent}/")), key=lambda n: share[self.names.index(n)])
        if sure[intent] < LEAST:
            name, intent = "person/ask", "person"
        return {"reply": name, "text": self.replies[name], "intent": intent, "sure": round(sure[intent], 3)}
