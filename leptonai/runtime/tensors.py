"""JSON to tensors and back, strictly: what the Open Inference Protocol v2 and ``/predict`` have in common. Pure.

Nothing is coerced: a string is not a number, 1.5 is not an integer, a ragged list is not a tensor.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import chain
from math import prod
from struct import Struct as Layout
from struct import error as LayoutError
from typing import Any

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from leptonai.errors import ModelError, SpecError
from leptonai.runtime.numbers import floats

Array = NDArray[Any]

DTYPES: dict[str, Any] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_KINDS: dict[str, Any] = {"b": bool, "u": int, "i": int, "f": float, "O": str}
# numpy's codes of numbers to those of struct, which fills memory from a list in half of the time that numpy takes
_CODES = dict(zip("fdbBhHiIlL", "fdbBhHiIqQ", strict=True))
MAX_DEPTH = 32  # nesting of a JSON tensor; numpy before 2.0 holds no more dimensions
ORJSON = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


@lru_cache(maxsize=256)
def _decoder(kind: str, depth: int) -> msgspec.json.Decoder[Any]:
    type_: Any = _KINDS[kind]
    for _ in range(depth):
        type_ = list[type_]
    return msgspec.json.Decoder(type_)


def _depth(raw: bytes) -> int:
    depth = 0
    for byte in raw:
        if byte == 0x5B:  # [
            depth += 1
            if depth > MAX_DEPTH:
                break
        elif byte not in b" \t\r\n":
            break
    return depth


def array_of(raw: bytes, datatype: str, name: str) -> Array:
    """The tensor written as JSON numbers, booleans or strings, nested or flat. SpecError names what does not fit."""
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise SpecError(f"input {name!r}: unknown datatype {datatype!r}", hint=f"one of {', '.join(DTYPES)}")
    depth = _depth(raw)
    if depth > MAX_DEPTH:
        raise SpecError(f"input {name!r} is nested deeper than {MAX_DEPTH} lists", hint="flatten the data")
    if dtype.kind == "f" and depth and (quick := floats(raw, dtype)) is not None:
        return quick
    try:
        values = _decoder(dtype.kind, depth).decode(raw)
    except msgspec.DecodeError as e:
        reason = str(e)
        if raw.strip() in (b"", b"null"):
            reason = "no data"
        raise SpecError(
            f"input {name!r} is not a {datatype} tensor: {reason}",
            hint="a tensor is a list of numbers of its datatype, all rows of equal length; JSON has no NaN or Infinity",
        ) from e
    except RecursionError as e:  # unreachable within MAX_DEPTH; kept because the decoder is compiled code
        raise SpecError(f"input {name!r} is nested too deeply", hint="flatten the data") from e
    if dtype.char in _CODES and depth:
        try:
            return _packed(values, dtype, depth)
        except (ValueError, LayoutError, OverflowError):
            pass  # numpy says what is wrong
    return _converted(values, datatype, depth, name)


def _packed(values: Any, dtype: np.dtype[Any], depth: int) -> Array:
    """The array of lists of numbers, ``depth`` deep. ValueError, ``struct.error``, OverflowError if there is none."""
    shape, rows = [], [values]
    for level in range(depth):
        size = len(rows[0])
        if not size or (len(rows) > 1 and set(map(len, rows)) != {size}):
            raise ValueError
        shape.append(size)
        if level < depth - 1:
            rows = rows[0] if len(rows) == 1 else list(chain.from_iterable(rows))
    array: Any = np.empty(shape, dtype)
    fill = _layout(_CODES[dtype.char], size).pack_into
    for start, row in zip(range(0, array.nbytes, size * dtype.itemsize), rows, strict=True):
        fill(array, start, *row)
    return array  # type: ignore[no-any-return]


@lru_cache(maxsize=256)
def _layout(code: str, count: int) -> Layout:
    return Layout(f"={count}{code}")


def _converted(values: Any, datatype: str, depth: int, name: str) -> Array:
    dtype = DTYPES[datatype]
    try:
        with np.errstate(over="ignore"):
            array = np.array(values, dtype)
    except ValueError as e:
        raise SpecError(f"input {name!r} is ragged: its rows differ in length", hint="pad the rows") from e
    except OverflowError as e:
        raise SpecError(f"input {name!r} holds a number outside {datatype}: {e}", hint="use a wider datatype") from e
    if dtype.kind == "O":
        if array.ndim != depth:
            raise SpecError(f"input {name!r} is ragged: its rows differ in length", hint="pad the rows")
    elif dtype.kind == "f" and not np.isfinite(array).all():
        raise SpecError(f"input {name!r} holds a number outside {datatype}", hint="use a wider datatype")
    return array


def fit(array: Array, wanted: dict[str, Any]) -> None:
    """Raise SpecError unless the array has the datatype's rank and each fixed dimension that a model declares."""
    shape = wanted["shape"]
    if array.ndim != len(shape) or any(w >= 0 and w != have for w, have in zip(shape, array.shape, strict=True)):
        hint = f"its shape is {shape}; -1 is any size"
        if array.ndim == len(shape) - 1:
            hint += "; the first dimension is the batch: wrap one sample in a list"
        raise SpecError(f"input {wanted['name']!r} has shape {list(array.shape)}, the model takes {shape}", hint=hint)
    if array.ndim and array.shape[0] == 0:
        raise SpecError(f"input {wanted['name']!r} holds no sample", hint="send at least one")


def datatype_of(array: Array) -> str:
    """The protocol's name of an array's dtype; strings and objects are BYTES. ModelError for complex and the like."""
    if array.dtype.kind in "OUS":
        return "BYTES"
    try:
        return _NAMES[array.dtype]
    except KeyError:
        raise ModelError(f"an output has dtype {array.dtype}, which no tensor can have", code="model_failed") from None


def plain(array: Array) -> Any:
    """What orjson writes for the array: itself where it can, else nested lists; bytes become text."""
    if array.dtype.kind in "biuf" and array.flags.c_contiguous and array.ndim:
        return array
    values = array.tolist()
    return _text(values) if array.dtype.kind in "OS" else values


def _text(value: Any) -> Any:
    if isinstance(value, list):
        return [_text(v) for v in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def encode_tensor(name: str, array: Array) -> dict[str, Any]:
    """One output of an inference response, its data flat and row-major."""
    return {
        "name": name,
        "shape": list(array.shape),
        "datatype": datatype_of(array),
        "data": plain(array.ravel() if array.ndim else array.reshape(1)),
    }


def reshaped(array: Array, shape: list[int], name: str) -> Array:
    """Data given flat or nested, in the shape it was said to have. SpecError when the two disagree."""
    if array.ndim == len(shape) and list(array.shape) == shape:
        return array
    if array.ndim == 1 and array.size == prod(shape):
        return array.reshape(shape)
    raise SpecError(
        f"input {name!r}: data of shape {list(array.shape)} does not match shape {shape}",
        hint=f"shape {shape} needs {prod(shape)} values, flat or nested in that shape",
    )
