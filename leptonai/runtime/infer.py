"""The messages of the Open Inference Protocol v2 (REST), as they are on the wire."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from leptonai.errors import SpecError
from leptonai.runtime.batching import LEVELS, USUAL
from leptonai.runtime.tensors import MAX_DEPTH

MAX_VALUES = 2**48  # of one tensor; numpy counts in int64, and no body that is accepted comes near


class _Input(Struct):
    name: str
    shape: list[int]
    datatype: str
    data: Raw = Raw(b"")
    parameters: dict[str, Any] | None = None


class InferInput(_Input, dict=True):
    """One input. ``binary``: its ``data`` are raw bytes of the body, not JSON; no field, so that no JSON can say so."""

    binary = False


class InferOutput(Struct):
    name: str
    parameters: dict[str, Any] | None = None


class InferRequest(Struct):
    inputs: list[InferInput]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[InferOutput] | None = None


_REQUEST = msgspec.json.Decoder(InferRequest)


def decode_infer(body: bytes | memoryview) -> InferRequest:
    """The request in ``body``. SpecError names the field; tensor data is checked later, against the model's inputs."""
    try:
        request = _REQUEST.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise SpecError(
            f"not an inference request: {e}",
            hint='send {"inputs": [{"name", "shape", "datatype", "data"}]} as in the Open Inference Protocol v2',
        ) from e
    seen: set[str] = set()
    for tensor in request.inputs:
        if tensor.name in seen:
            raise SpecError(f"input {tensor.name!r} is given twice", hint="name each input once")
        seen.add(tensor.name)
        _check_shape(tensor)
    return request


def _check_shape(tensor: InferInput) -> None:
    shape = tensor.shape
    values = 1
    for d in shape:
        if d < 0:
            raise SpecError(
                f"input {tensor.name!r} has a negative dimension in shape {shape[:MAX_DEPTH]}",
                hint="a request's shape is concrete; -1 is for metadata only",
            )
        values *= d or 1  # a zero elsewhere must not hide a dimension that no array can have
        if values > MAX_VALUES:
            raise SpecError(f"input {tensor.name!r} has over {MAX_VALUES} values", hint="check its shape")
    if len(shape) > MAX_DEPTH:
        raise SpecError(
            f"input {tensor.name!r} has {len(shape)} dimensions, the limit is {MAX_DEPTH}", hint="flatten the data"
        )


def deadline_of(request: InferRequest) -> float:
    """Seconds the caller allows, from ``parameters.timeout`` in microseconds (the schedule policy); 0: none given."""
    if not request.parameters or "timeout" not in request.parameters:
        return 0.0
    value = request.parameters["timeout"]
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise SpecError(f"parameters.timeout is {value!r}", hint="give microseconds as a number; 0 means no limit")
    return float(value) / 1e6


def priority_of(request: InferRequest) -> int:
    """The level from ``parameters.priority`` (the schedule policy): 1 the highest; 0: none given."""
    if not request.parameters or "priority" not in request.parameters:
        return 0
    value = request.parameters["priority"]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LEVELS:
        raise SpecError(f"parameters.priority is {value!r}", hint=f"1 (first) to {LEVELS}; 0 means {USUAL}")
    return value


def refuse_unknown(parameters: dict[str, Any] | None) -> None:
    """SpecError for a parameter of an output that asks for another answer than we would give."""
    if parameters and parameters.get("classification"):
        raise SpecError("the classification extension is not supported", hint="read the output and sort it")


def wanted_outputs(request: InferRequest, known: list[str]) -> list[str] | None:
    """The outputs asked for, in their order; None: all. SpecError for an unknown one."""
    if request.outputs is None:
        return None
    names = [o.name for o in request.outputs]
    for output in request.outputs:
        refuse_unknown(output.parameters)
    for name in names:
        if name not in known:
            raise SpecError(f"unknown output {name!r}", hint=f"the model's outputs: {', '.join(known)}")
    return names
