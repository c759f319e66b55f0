"""netdata's published anomaly detection of one series, done again as a baseline.

As learn.netdata.cloud/docs/ml-configuration describes it and its source does: each value becomes a vector (difference
of 1, mean of 3, and 5 lags of it), k-means with two centres is fitted to the newest TRAIN vectors every EVERY rows, a
model's score is the mean distance to its centres, scaled from 0 at the least to 100 at the greatest of its own
training. MODELS models are kept and all must agree (99 and more is anomalous there), so the least of their scores is
the score. Its windows are in seconds at one value a second; here they are in rows, at the least it trains on.
"""

from __future__ import annotations

import numpy as np

from leptonai.protocols import Floats

DIFF, SMOOTH, LAGS = 1, 3, 5
TRAIN, EVERY, MODELS = 900, 450, 18
ROUNDS = 100  # of k-means at most


def netdata(values: Floats, seed: int = 0) -> Floats:
    """A score a row, from rows up to it alone; 0 until there is a model."""
    smooth = np.convolve(np.diff(values, n=DIFF), np.full(SMOOTH, 1 / SMOOTH), "valid")
    vectors = np.lib.stride_tricks.sliding_window_view(smooth, LAGS + 1)
    first = len(values) - len(vectors)  # the row of vector 0
    rng, models = np.random.default_rng(seed), list[tuple[Floats, float, float]]()
    out = np.zeros(len(values))
    for start in range(0, len(vectors), EVERY):
        if start >= TRAIN:
            past = vectors[start - TRAIN : start]
            centres = two_means(past, rng)
            apart = distance(past, centres)
            least, most = float(apart.min()), float(apart.max())
            models = [*models, (centres, least, most if most > least else np.inf)][-MODELS:]
        block = vectors[start : start + EVERY]
        said = [
            100 * np.abs(distance(block, c) - low) / (high - low if high > low else np.inf) for c, low, high in models
        ]
        if said:
            out[first + start : first + start + len(block)] = np.min(said, axis=0)
    return out


def distance(vectors: Floats, centres: Floats) -> Floats:
    out: Floats = np.mean([np.linalg.norm(vectors - c, axis=1) for c in centres], axis=0)
    return out


def two_means(vectors: Floats, rng: np.random.Generator) -> Floats:
    """Lloyd's algorithm from two vectors, the second drawn by its squared distance to the first (k-means++)."""
    one = vectors[rng.integers(len(vectors))]
    square = ((vectors - one) ** 2).sum(axis=1)
    if not square.any():
        return np.array([one, one])
    centres = np.array([one, vectors[rng.choice(len(vectors), p=square / square.sum())]])
    for _ in range(ROUNDS):
        near = np.argmin([((vectors - c) ** 2).sum(axis=1) for c in centres], axis=0)
        moved = np.array([vectors[near == k].mean(axis=0) if (near == k).any() else centres[k] for k in (0, 1)])
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres
