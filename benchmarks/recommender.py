"""The recommender of the model SDK beside popularity and a biased matrix factorisation, on generated ratings.

    python benchmarks/recommender.py                   # five seeds, about three minutes of one core
    python benchmarks/recommender.py --seeds 1 --users 300

No ratings may be shipped, so they are drawn: tastes that partly follow what is known of users and items, a bias each,
popularity by Zipf's law, noise, whole stars. A fifth is held out by chance. RMSE is over all held-out ratings, NDCG@10
over the held-out ratings of each user. The factorisation is that of Surprise's SVD with its documented defaults (100
factors, 20 epochs of SGD, rate 0.005, regularisation 0.02), done again here. The exit code says whether ours is better
than both by both measures, as medians over the seeds.
"""

from __future__ import annotations

import argparse
import sys
from statistics import median

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

import leptonai
from leptonai.config import config
from leptonai.metrics import ndcg
from leptonai.model import Dataset

Array = NDArray[np.float64]
FACTORS = 6


def draw(seed: int, users: int, items: int, each: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    group, genre = rng.integers(0, 8, users), rng.integers(0, 12, items)
    taste = 0.7 * rng.normal(size=(8, FACTORS))[group] + 0.7 * rng.normal(size=(users, FACTORS))
    kind = 0.7 * rng.normal(size=(12, FACTORS))[genre] + 0.7 * rng.normal(size=(items, FACTORS))
    mild, liked = 0.4 * rng.normal(size=users), 0.5 * rng.normal(size=items)
    popular = 1 / np.arange(1, items + 1) ** 0.8
    popular = rng.permutation(popular / popular.sum())
    u = np.repeat(np.arange(users), each)
    v = np.concatenate([rng.choice(items, each, replace=False, p=popular) for _ in range(users)])
    mean = 3.4 + mild[u] + liked[v] + 0.9 * np.tanh((taste[u] * kind[v]).sum(1) / np.sqrt(FACTORS))
    stars = np.clip(np.round(mean + 0.6 * rng.normal(size=len(u))), 1, 5)
    return (
        pd.DataFrame({"user": np.arange(users), "group": group}),
        pd.DataFrame({"item": np.arange(items), "genre": genre}),
        pd.DataFrame({"user": u, "item": v, "rating": stars}),
    )


def popularity(train: pd.DataFrame, test: pd.DataFrame) -> Array:
    """The mean of each item, drawn to the mean of all by 5 ratings."""
    mean, by = train.rating.mean(), train.groupby("item").rating
    told = (by.sum() + 5 * mean) / (by.count() + 5)
    return test.item.map(told).fillna(mean).to_numpy()


def factorisation(train: pd.DataFrame, test: pd.DataFrame, seed: int) -> Array:
    """Koren, Bell & Volinsky 2009, by SGD."""
    rng = np.random.default_rng(seed)
    users, items, mean = int(train.user.max()) + 1, int(max(train.item.max(), test.item.max())) + 1, train.rating.mean()
    p, q = 0.1 * rng.normal(size=(users, 100)), 0.1 * rng.normal(size=(items, 100))
    a, b = np.zeros(users), np.zeros(items)
    rows = list(zip(train.user, train.item, train.rating, strict=True))
    for _ in range(20):
        for u, v, r in rows:
            e = r - mean - a[u] - b[v] - p[u] @ q[v]
            a[u] += 0.005 * (e - 0.02 * a[u])
            b[v] += 0.005 * (e - 0.02 * b[v])
            p[u], q[v] = p[u] + 0.005 * (e * q[v] - 0.02 * p[u]), q[v] + 0.005 * (e * p[u] - 0.02 * q[v])
    u, v = test.user.to_numpy(), test.item.to_numpy()
    told: Array = np.clip(mean + a[u] + b[v] + (p[u] * q[v]).sum(1), 1, 5)
    return told


def ours(train: Dataset, test: Dataset, seed: int) -> Array:
    model = leptonai.Model("recommendation")
    for name, layer in (
        ("input", config.PandasInput()),
        ("embedding", config.FeatureEmbedding(50)),
        ("interaction", config.Interaction()),
        ("loss", config.BCELoss()),
        ("output", config.RegressionOutput()),
    ):
        model.config.add_layer(name, layer)
    return model.fit(train, seed=seed).predict(test)


def measure(seed: int, users: int) -> dict[str, tuple[float, float]]:
    people, things, ratings = draw(seed, users, users // 2, 50)
    held = np.random.default_rng(seed + 1000).random(len(ratings)) < 0.2
    train, test = ratings[~held], ratings[held]
    plain = [Dataset.from_pandas(d.user, d.item, d.rating) for d in (train, test)]
    known = [Dataset.from_pandas(people, things, d) for d in (train, test)]
    told = {
        "popularity": popularity(train, test),
        "matrix factorisation": factorisation(train, test, seed),
        "ours, ratings alone": ours(*plain, seed),
        "ours, with features": ours(*known, seed),
    }
    y, who = test.rating.to_numpy(), test.user.to_numpy()
    return {k: (float(np.sqrt(np.mean((y - v) ** 2))), ndcg(y, v, who, 10)) for k, v in told.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--users", type=int, default=1000, help="half as many items, 50 ratings each")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    runs = []
    for seed in range(asked.seeds):
        runs.append(measure(seed, asked.users))
        print(f"seed {seed}", *(f"{k} {r:.3f} {n:.3f}" for k, (r, n) in runs[-1].items()), sep="; ", file=sys.stderr)
    table = {k: (median(r[k][0] for r in runs), median(r[k][1] for r in runs)) for k in runs[0]}
    print("| model | RMSE | NDCG@10 |\n|---|---|---|")
    for name, (rmse, gain) in table.items():
        print(f"| {name} | {rmse:.3f} | {gain:.3f} |")
    best = table["ours, ratings alone"]
    held = all(best[0] < table[k][0] and best[1] > table[k][1] for k in ("popularity", "matrix factorisation"))
    print("better than both by both, from ratings alone:", "held" if held else "MISSED")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
