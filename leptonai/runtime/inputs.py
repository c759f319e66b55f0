"""What was asked, as far as the prediction log may know it: shapes, ranges, a hash; never a value or a text.

Numbers are rounded to three digits, so that an account number given as an input does not stand in a log; the hash tells
the same input again on another replica of the same variant. Of a text only its length is told: it could be guessed
from its hash.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from itertools import islice
from typing import Any

import numpy as np

MOST_INPUTS = 4
MOST_VALUES = 4096  # of one input that are looked at, evenly spread
MOST_DEPTH = 8
SEEN = dict[str, dict[str, Any]]


def inputs_seen(inputs: dict[str, Any], key: bytes) -> SEEN | None:
    """By name: ``shape`` and, of numbers, ``low``, ``high``, ``mean`` (of those that are finite), ``odd`` (how many are
    not, of those looked at) and ``hash``; of texts and bytes ``length``. None: nothing can be told."""
    found: SEEN = {}
    for name, value in inputs.items():
        if (told := _told(value, key)) is not None:
            found[name[:64]] = told
        if len(found) == MOST_INPUTS:
            break
    return found or None


def _told(value: Any, key: bytes) -> dict[str, Any] | None:
    if isinstance(value, str | bytes):
        return {"length": len(value)}
    if isinstance(value, bool | int | float | list | tuple):
        shape, array = _shape(value), _array(value)
    elif isinstance(value, np.ndarray):
        shape, array = list(value.shape), value
    else:
        return None  # a thing of the model's own: looking at it would run its code
    if array is None or array.dtype.kind not in "fiub":
        return {"shape": shape} if shape else None
    flat = array.reshape(-1)
    if flat.size > MOST_VALUES:
        flat = flat[:: -(-flat.size // MOST_VALUES)]
    flat = np.ascontiguousarray(flat)
    digest = blake2b(flat.tobytes(), digest_size=8, key=key[:64]).hexdigest()
    finite = flat[np.isfinite(flat)].astype(np.float64) if flat.dtype.kind == "f" else flat.astype(np.float64)
    out: dict[str, Any] = {"shape": shape, "hash": digest}
    if finite.size < flat.size:
        out["odd"] = int(flat.size - finite.size)
    if finite.size:
        out |= {"low": _round(finite.min()), "high": _round(finite.max()), "mean": _round(finite.mean())}
    return out


def _round(value: float) -> float:
    return float(f"{value:.3g}")


def _shape(value: Any) -> list[int]:
    """Of nested lists, by their first items."""
    shape: list[int] = []
    while isinstance(value, list | tuple) and len(shape) < MOST_DEPTH:
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return shape


def _array(value: Any) -> np.ndarray | None:
    """The first MOST_VALUES numbers of nested lists; None when something else is among them."""
    found = list(islice(_leaves(value, MOST_DEPTH), MOST_VALUES))
    if not found or not all(isinstance(v, bool | int | float) for v in found):
        return None
    return np.array(found, dtype=np.float64) if max(map(abs, found)) < 2.0**1000 else None


def _leaves(value: Any, depth: int) -> Iterator[Any]:
    if isinstance(value, list | tuple) and depth:
        for item in value:
            yield from _leaves(item, depth - 1)
    else:
        yield value
