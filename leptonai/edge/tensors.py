"""Tensors as bytes, whatever they were written as: JSON, nested or flat, or the binary extension's blocks. Pure.

The standard library does it, so that the edge needs no numpy (12 MB).
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from typing import Any

_ARRAYS = {
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP32": "f",
    "FP64": "d",
}


def pack(datatype: str, data: Any) -> bytes:
    """The elements as the binary extension writes them: little-endian, row by row. ValueError for what does not fit."""
    values = list(_flat(data)) if isinstance(data, list) else [data]
    try:
        if code := _ARRAYS.get(datatype):
            return array(code, values).tobytes()
        if datatype == "FP16":
            return struct.pack(f"<{len(values)}e", *values)
        if datatype == "BOOL" and all(isinstance(v, bool) for v in values):
            return bytes(values)
        if datatype == "BYTES":
            encoded = [v.encode() for v in values]
            return b"".join(struct.pack("<I", len(v)) + v for v in encoded)
    except (TypeError, OverflowError, struct.error, AttributeError) as e:
        raise ValueError(f"not {datatype} data: {e}") from e
    raise ValueError(f"not {datatype} data")


def unpack(datatype: str, block: bytes) -> list[Any]:
    """The inverse of pack, flat. ValueError when the block is no such tensor, or text that JSON cannot carry."""
    try:
        if code := _ARRAYS.get(datatype):
            found = array(code)
            found.frombytes(block)
            return found.tolist()
        if datatype == "FP16":
            return list(struct.unpack(f"<{len(block) // 2}e", block))
        if datatype == "BOOL":
            return [bool(b) for b in block]
        if datatype == "BYTES":
            return [element.decode() for element in _elements(block)]
    except (struct.error, UnicodeDecodeError) as e:
        raise ValueError(f"not {datatype} data: {e}") from e
    raise ValueError(f"unknown datatype {datatype}")


def _flat(values: list[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list):
            yield from _flat(value)
        else:
            yield value


def _elements(block: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(block):
        (size,) = struct.unpack_from("<I", block, at)
        at += 4
        if at + size > len(block):
            raise ValueError("an element is cut short")
        yield block[at : at + size]
        at += size
