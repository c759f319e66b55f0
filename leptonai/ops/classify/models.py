"""What was learnt, as plain arrays: three machines that map rows of standardised features to scores per class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from leptonai.protocols import Floats

FARTHEST = 8.0  # standard deviations; beyond them more says nothing more
LEAST = 1e-4  # probability that no model falls below: nobody is that sure


class Model(Protocol):
    name: ClassVar[str]

    def scores(self, x: Floats) -> Floats:
        """``x`` (rows, features) standardised; (rows, classes), the higher the likelier, in the logarithm."""

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Everything it consists of."""


@dataclass(frozen=True)
class Scaler:
    """Features to standard deviations from their mean; a feature that was not seen counts as ``fill``."""

    names: tuple[str, ...]
    fill: Floats
    mean: Floats
    scale: Floats

    def rows(self, table: Floats) -> Floats:
        """``table`` (rows, names), nan where not seen."""
        known = np.where(np.isfinite(table), table, self.fill)
        out: Floats = np.clip((known - self.mean) / self.scale, -FARTHEST, FARTHEST)
        return out

    def row(self, features: dict[str, float]) -> Floats:
        return self.rows(np.array([[features.get(name, np.nan) for name in self.names]], dtype=np.float64))


@dataclass(frozen=True)
class Svm:
    """Kernel expansion: exp(-gamma |x - landmark|^2) @ weights + bias, one column per class.

    Trained with the squared hinge loss, one class against the rest, on the Nystroem map of the RBF kernel (Williams &
    Seeger 2001); map and machine are one matrix here.
    """

    landmarks: Floats
    weights: Floats
    bias: Floats
    gamma: float
    name: ClassVar[str] = "svm"

    def near(self, x: Floats) -> Floats:
        """(rows, landmarks): 1 at a landmark, towards 0 far from it."""
        apart = (x**2).sum(axis=1)[:, None] - 2.0 * x @ self.landmarks.T + (self.landmarks**2).sum(axis=1)[None, :]
        out: Floats = np.exp(-self.gamma * np.maximum(apart, 0.0))
        return out

    def scores(self, x: Floats) -> Floats:
        out: Floats = self.near(x) @ self.weights + self.bias
        return out

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        return {
            "landmarks": self.landmarks.astype(np.float16),
            "weights": self.weights.astype(np.float32),
            "bias": self.bias.astype(np.float32),
            "gamma": np.array([self.gamma], dtype=np.float64),
        }

    @classmethod
    def of(cls, a: dict[str, NDArray[np.generic]]) -> Svm:
        return cls(_floats(a["landmarks"]), _floats(a["weights"]), _floats(a["bias"]), float(_floats(a["gamma"])[0]))


@dataclass(frozen=True)
class Forest:
    """Trees in one table of nodes: go left where the feature is at most the threshold; a leaf (feature -1) votes.

    ``leaf``: the row of ``votes`` of a leaf; ``votes`` are shares of the classes, in 255ths.
    """

    roots: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float32]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    leaf: NDArray[np.int64]
    votes: NDArray[np.uint8]
    name: ClassVar[str] = "forest"

    def scores(self, x: Floats) -> Floats:
        rows = x.astype(np.float32)
        at = np.broadcast_to(self.roots[:, None], (len(self.roots), len(x))).copy()
        which = np.arange(len(x))[None, :]
        while (inner := self.feature[at] >= 0).any():
            goes = rows[which, np.maximum(self.feature[at], 0)] <= self.threshold[at]
            at = np.where(inner, np.where(goes, self.left[at], self.right[at]), at)
        votes = self.votes[self.leaf[at]].astype(np.float64).sum(axis=0)
        share = votes / votes.sum(axis=1, keepdims=True)
        out: Floats = np.log(np.maximum(share, LEAST))
        return out

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        return {
            "roots": self.roots.astype(np.int32),
            "feature": self.feature.astype(np.int8),
            "threshold": self.threshold.astype(np.float32),
            "left": self.left.astype(np.int32),
            "right": self.right.astype(np.int32),
            "leaf": self.leaf.astype(np.int32),
            "votes": self.votes,
        }

    @classmethod
    def of(cls, a: dict[str, NDArray[np.generic]]) -> Forest:
        roots, feature, left, right, leaf = (
            np.asarray(a[name]).astype(np.int64) for name in ("roots", "feature", "left", "right", "leaf")
        )
        return cls(
            roots, feature, np.asarray(a["threshold"]).astype(np.float32), left, right, leaf,
            np.asarray(a["votes"]).astype(np.uint8),
        )  # fmt: skip


@dataclass(frozen=True)
class Net:
    """Layers of weights with a bias; between two of them what is negative becomes zero."""

    weights: tuple[Floats, ...]
    bias: tuple[Floats, ...]
    name: ClassVar[str] = "net"

    def scores(self, x: Floats) -> Floats:
        for i, (w, b) in enumerate(zip(self.weights, self.bias, strict=True)):
            x = x @ w + b
            if i < len(self.weights) - 1:
                x = np.maximum(x, 0.0)
        return x

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        out: dict[str, NDArray[np.generic]] = {}
        for i, (w, b) in enumerate(zip(self.weights, self.bias, strict=True)):
            out[f"w{i}"], out[f"b{i}"] = w.astype(np.float32), b.astype(np.float32)
        return out

    @classmethod
    def of(cls, a: dict[str, NDArray[np.generic]]) -> Net:
        n = sum(name.startswith("w") for name in a)
        return cls(tuple(_floats(a[f"w{i}"]) for i in range(n)), tuple(_floats(a[f"b{i}"]) for i in range(n)))


MODELS: dict[str, type[Svm] | type[Forest] | type[Net]] = {"svm": Svm, "forest": Forest, "net": Net}


def softmax(scores: Floats) -> Floats:
    """Rows that sum to 1, none of them surer than LEAST allows."""
    apart = np.exp(scores - scores.max(axis=1, keepdims=True))
    share = apart / apart.sum(axis=1, keepdims=True)
    share = np.maximum(share, LEAST)
    out: Floats = share / share.sum(axis=1, keepdims=True)
    return out


def _floats(a: NDArray[np.generic]) -> Floats:
    return np.asarray(a).astype(np.float64)
