"""Trains the recommendation model and writes it to ``model/``: ``python train.py [RATINGS.csv]``.

The CSV has a header and the columns user, item, rating. Without one, ratings are drawn by chance: tastes of 300 people
for 120 things, enough to try everything else with.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

import leptonai
from leptonai.config import config
from leptonai.model import Dataset

HERE = Path(__file__).parent


def drawn() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    taste, kind, liked = rng.normal(size=(300, 3)), rng.normal(size=(120, 3)), 0.5 * rng.normal(size=120)
    user, item = rng.integers(0, 300, 6_000), rng.integers(0, 120, 6_000)
    mean = 3.3 + liked[item] + 0.6 * (taste[user] * kind[item]).sum(1)
    rating = np.clip(np.round(mean + 0.4 * rng.normal(size=6_000)), 1, 5)
    table = pd.DataFrame({"user": [f"u{n}" for n in user], "item": [f"i{n}" for n in item], "rating": rating})
    return table.drop_duplicates(["user", "item"])


def main() -> None:
    ratings = pd.read_csv(sys.argv[1], dtype={"user": str, "item": str}) if len(sys.argv) > 1 else drawn()
    held = np.random.default_rng(1).random(len(ratings)) < 0.1
    train, test = (Dataset.from_pandas(d.user, d.item, d.rating) for d in (ratings[~held], ratings[held]))

    model = leptonai.Model("NAME")
    model.config.add_layer("input", config.PandasInput())
    model.config.add_layer("embedding", config.FeatureEmbedding(50))
    model.config.add_layer("interaction", config.Interaction())
    model.config.add_layer("loss", config.BCELoss())
    model.config.add_layer("output", config.RegressionOutput())
    model.fit(train, epochs=10, batch_size=64)

    error = float(np.sqrt(np.mean((model.predict(test) - test.ratings) ** 2)))
    always = float(np.sqrt(np.mean((train.ratings.mean() - test.ratings) ** 2)))
    print(f"error on {len(test)} ratings left out: {error:.2f} stars (the mean of all: {always:.2f})")
    print(f"wrote {model.save(HERE / 'model').relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
