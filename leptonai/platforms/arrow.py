"""Arrow columns from their buffers: pyarrow's own conversion is slower, and loads pandas where that is installed."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST = 2**31 - 1  # bytes of a column of plain strings


def strings(values: Sequence[str]) -> Any:
    """A column of strings."""
    import pyarrow as pa

    data = "".join(values).encode()
    lengths = np.fromiter(map(len, values), np.int64, len(values))
    if len(data) != lengths.sum():  # not all of them ASCII
        lengths = np.fromiter((len(v.encode()) for v in values), np.int64, len(values))
    large = len(data) > _MOST
    offsets = np.zeros(len(values) + 1, np.int64 if large else np.int32)
    np.cumsum(lengths, out=offsets[1:])
    kind = pa.large_string() if large else pa.string()
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def numbers(values: NDArray[Any], kind: Any = None) -> Any:
    """A column of numbers, of Arrow's type ``kind`` of the same width, or of the array's own."""
    import pyarrow as pa

    values = np.ascontiguousarray(values)
    kind = kind or pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


def release() -> None:
    """Freed memory is the system's again: what folding an hour takes for a moment is not held until the next hour."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()
    with suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
