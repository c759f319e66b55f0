"""The binary tensor extension of the Open Inference Protocol: tensors as raw bytes behind the JSON, both ways. Pure.

Little-endian, row-major, packed; an element of BYTES is its length (uint32) and its bytes. A tensor is a view of the
request's bytes: it is copied only where its elements would not be aligned in memory, or may be written to.
"""

from __future__ import annotations

from math import prod
from struct import Struct as Layout
from typing import Any

import numpy as np
from msgspec import Raw

from leptonai.errors import ModelError, SpecError
from leptonai.runtime.http import Parts
from leptonai.runtime.infer import InferRequest, decode_infer
from leptonai.runtime.tensors import DTYPES, Array

SIZE = "binary_data_size"
_LENGTH = Layout("<I")


def decode(body: bytes, json_size: bytes) -> InferRequest:
    """The request whose JSON is the first ``json_size`` (a header's text) bytes. SpecError unless all blocks fit."""
    if not json_size.isdigit() or len(json_size) > 19 or int(json_size) > len(body):
        raise SpecError(
            f"Inference-Header-Content-Length is {json_size[:40].decode('latin-1')!r}, the body has {len(body)} bytes",
            hint="give the bytes of the JSON at the body's begin, in digits",
        )
    view = memoryview(body)
    at = int(json_size)
    request = decode_infer(view[:at])
    for tensor in request.inputs:
        size = (tensor.parameters or {}).get(SIZE)
        if size is None:
            continue
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise SpecError(f"input {tensor.name!r}: {SIZE} is {size!r}", hint="give a number of bytes")
        if bytes(tensor.data).strip():
            raise SpecError(f"input {tensor.name!r} has both data and {SIZE}", hint="send one of them")
        if at + size > len(body):
            raise SpecError(
                f"input {tensor.name!r} is truncated: {size} bytes said, {len(body) - at} left in the body",
                hint="the tensors' bytes follow the JSON in the order of the inputs",
            )
        tensor.data = Raw(view[at : at + size])
        tensor.binary = True
        at += size
    if at != len(body):
        raise SpecError(
            f"{len(body) - at} bytes follow the last tensor", hint=f"every binary input says its {SIZE}; check the sum"
        )
    return request


def array_of(raw: memoryview, datatype: str, shape: list[int], name: str, own: bool = False) -> Array:
    """The tensor in ``raw``; read-only, or with ``own`` a copy to write to. SpecError when its bytes are not exactly
    those of ``shape``."""
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise SpecError(f"input {name!r}: unknown datatype {datatype!r}", hint=f"one of {', '.join(DTYPES)}")
    count = prod(shape)
    if dtype.kind == "O":
        return _elements(raw, count, name).reshape(shape)
    if count * dtype.itemsize != len(raw):
        raise SpecError(
            f"input {name!r}: {len(raw)} bytes are no {datatype} tensor of shape {shape}",
            hint=f"shape {shape} needs {count * dtype.itemsize} bytes",
        )
    array = np.frombuffer(raw, dtype).reshape(shape)
    if dtype.kind == "b" and array.size and array.view(np.uint8).max() > 1:
        raise SpecError(f"input {name!r} holds a BOOL that is neither 0 nor 1", hint="one byte each, 0 or 1")
    if own or not array.flags.aligned:
        array = array.copy()
        array.flags.writeable = own
    return array


def _elements(raw: memoryview, count: int, name: str) -> Array:
    """``count`` elements of a BYTES tensor: text where it is UTF-8, else bytes."""
    if count * 4 > len(raw):  # before anything of that size is made
        raise SpecError(f"input {name!r} is truncated: {count} elements in {len(raw)} bytes", hint="4 + n bytes each")
    array = np.empty(count, object)
    at = 0
    for i in range(count):
        end = at + 4
        if end <= len(raw):
            end += _LENGTH.unpack_from(raw, at)[0]
        if end > len(raw):
            raise SpecError(f"input {name!r} is truncated in its element {i}", hint="a uint32 length, then the bytes")
        element = bytes(raw[at + 4 : end])
        try:
            array[i] = element.decode()
        except UnicodeDecodeError:
            array[i] = element
        at = end
    if at != len(raw):
        raise SpecError(
            f"input {name!r}: {len(raw) - at} bytes follow its {count} elements", hint="shape and data differ"
        )
    return array


def block(array: Array) -> bytes | memoryview:
    """The array's bytes as they go on the wire. Numbers are not copied where they already lie in a row."""
    if array.dtype.kind in "OUS":
        parts: list[bytes] = []
        for value in array.ravel().tolist():
            element = value if isinstance(value, bytes) else str(value).encode()
            parts += (_LENGTH.pack(len(element)), element)
        return b"".join(parts)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise ModelError(f"an output has dtype {array.dtype}, which no tensor can have", code="model_failed")
    if not array.size:
        return b""
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return memoryview(array.reshape(-1).view(np.uint8).data)


def wanted(request: InferRequest) -> dict[str, bool]:
    """Which outputs are to be binary; the entry ``""`` stands for those not named. SpecError for what is no boolean."""
    found = {"": _flag(request.parameters, "binary_data_output", False)}
    for output in request.outputs or ():
        found[output.name] = _flag(output.parameters, "binary_data", found[""])
    return found


def _flag(parameters: dict[str, Any] | None, name: str, default: bool) -> bool:
    value = default if parameters is None else parameters.get(name, default)
    if not isinstance(value, bool):
        raise SpecError(f"parameter {name} is {value!r}", hint="true or false")
    return value


def joined(json: bytes, blocks: list[bytes | memoryview]) -> Parts:
    """The body of a response with binary outputs."""
    return Parts([json, *blocks], len(json) + sum(map(len, blocks)), len(json))
