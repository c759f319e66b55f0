"""JSON numbers straight into an array, by simdjson: no Python object is made for any of them. Pure.

Only what is certain is taken: lists of numbers and nothing else, every row as long as the others, all finite in their
type. Whatever is not is left to the stricter and slower way, which also knows what to say of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

simdjson: Any = None
with suppress(ImportError):  # no wheel for this Python or machine: the slower way takes everything
    simdjson = import_module("simdjson")

MOST = 4 << 20  # bytes of a text; the parser keeps some ten times as much memory for good
_PARSER: Any = None if simdjson is None else simdjson.Parser()


def floats(raw: bytes, dtype: np.dtype[Any]) -> Array | None:
    """The tensor of the floating-point ``dtype`` that ``raw`` is; None: look closer."""
    found = named(raw, {"": dtype})
    return None if found is None else found[""]


def named(raw: bytes, dtypes: Mapping[str, np.dtype[Any]]) -> dict[str, Array] | None:
    """The tensors of an object that has these names and no other, or of a list when there is one name; None: look
    closer. All ``dtypes`` are of floating point."""
    if _PARSER is None or len(raw) > MOST:
        return None
    found, lists = {}, 0
    try:
        top = _PARSER.parse(raw)
        if top.__class__ is simdjson.Array and len(dtypes) == 1:
            top = dict.fromkeys(dtypes, top)
        elif "inputs" not in dtypes and "inputs" in top and len(top) == 1:
            top = top["inputs"]
        if len(top) != len(dtypes):
            return None
        for name, dtype in dtypes.items():
            tensor = top[name]
            shape, count = _shape(tensor)
            lists += count
            values = np.frombuffer(tensor.as_buffer(of_type="d"), np.float64)
            with np.errstate(over="ignore"):
                array = found[name] = values.astype(dtype).reshape(shape)
            if not np.isfinite(array).all():
                return None
    except (ValueError, TypeError, LookupError, RuntimeError):  # RuntimeError: another thread holds the parser
        return None
    return found if raw.count(b"[") == lists else None  # a list among the numbers would have been flattened


def _shape(top: Any) -> tuple[list[int], int]:
    """Of lists that are all equally long at each level, and how many lists there are. ValueError, TypeError else."""
    shape, rows, lists = [], [top], 0
    while True:
        size = len(rows[0])
        if not size or (len(rows) > 1 and set(map(len, rows)) != {size}):
            raise ValueError
        shape.append(size)
        lists += len(rows)
        if rows[0][0].__class__ is not simdjson.Array:
            return shape, lists
        rows = list(rows[0]) if len(rows) == 1 else [item for row in rows for item in row]
