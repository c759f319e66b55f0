"""Ratings with what is known of users and items, as arrays. Reads pandas objects without importing pandas."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leptonai.errors import SpecError

Features = dict[str, dict[Any, Any]]  # column -> key of the user or item -> category


@dataclass(frozen=True)
class Dataset:
    """Row i says: ``users[i]`` gave ``items[i]`` the rating ``ratings[i]``."""

    users: NDArray[Any]
    items: NDArray[Any]
    ratings: NDArray[np.float64]
    user_features: Features = field(default_factory=dict)
    item_features: Features = field(default_factory=dict)

    @classmethod
    def from_pandas(cls, users: Any, items: Any, ratings: Any) -> Dataset:
        """Either three columns of equal length, one rating a row; or three frames.

        Frames: the first column of ``users`` and of ``items`` is the key, the others are features (numbers with more
        than 20 values are cut into ten quantiles); ``ratings`` has the columns user, item, rating, in this order.
        Raises SpecError naming the column and what is wrong with it.
        """
        if hasattr(ratings, "columns"):
            if len(ratings.columns) < 3:
                raise SpecError(f"ratings has columns {list(ratings.columns)}; user, item and rating are needed")
            user, item, rating = (ratings[c] for c in ratings.columns[:3])
            return cls._checked(user, item, rating, _features(users, "users"), _features(items, "items"))
        return cls._checked(users, items, ratings, {}, {})

    @classmethod
    def _checked(cls, users: Any, items: Any, ratings: Any, uf: Features, vf: Features) -> Dataset:
        u, v = np.asarray(users), np.asarray(items)
        try:
            r = np.asarray(ratings, dtype=np.float64)
        except (TypeError, ValueError) as e:
            raise SpecError(f"ratings must be numbers: {e}") from e
        if u.ndim != 1 or not (u.shape == v.shape == r.shape):
            raise SpecError(
                f"users, items and ratings have shapes {u.shape}, {v.shape}, {r.shape}; one row each needed"
            )
        if not len(r):
            raise SpecError("the data set is empty")
        if not np.isfinite(r).all():
            raise SpecError(f"{int((~np.isfinite(r)).sum())} of {len(r)} ratings are missing or not finite")
        return cls(u, v, r, uf, vf)

    def __len__(self) -> int:
        return len(self.ratings)

    def rows(self, index: NDArray[np.int64]) -> Dataset:
        """The data set with these rows only; what is known of users and items stays."""
        return Dataset(
            self.users[index], self.items[index], self.ratings[index], self.user_features, self.item_features
        )


def _features(frame: Any, name: str) -> Features:
    if not hasattr(frame, "columns"):
        raise SpecError(f"{name} is {type(frame).__name__}, but ratings is a frame", hint="give three frames")
    columns = list(frame.columns)
    if not columns:
        raise SpecError(f"{name} has no columns")
    keys = np.asarray(frame[columns[0]]).tolist()
    if len(set(keys)) != len(keys):
        raise SpecError(f"column {columns[0]!r} of {name} names somebody twice")
    return {str(c): dict(zip(keys, _categories(np.asarray(frame[c])), strict=True)) for c in columns[1:]}


def _categories(values: NDArray[Any]) -> list[Any]:
    if values.dtype.kind in "fiu" and len(np.unique(values)) > 20:
        cuts = np.nanquantile(values.astype(float), np.linspace(0.1, 0.9, 9))
        return [None if np.isnan(v) else int(k) for v, k in zip(values, np.searchsorted(cuts, values), strict=True)]
    return [None if v is None or v != v else v for v in values.tolist()]
