"""A plain Python class as a model: JSON fields become arguments by type hint, and whatever is returned becomes JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import orjson
from msgspec import UNSET, Raw

from leptonai.errors import LeptonError, ModelError, SpecError
from leptonai.runtime.batching import USUAL, Job
from leptonai.runtime.flow import Flow, event, missing
from leptonai.runtime.http import Parts
from leptonai.runtime.infer import InferInput, InferRequest, deadline_of, priority_of, refuse_unknown
from leptonai.runtime.loaders.python import Parameter, PythonPredictor
from leptonai.runtime.model import infer_answer, tensor_of
from leptonai.runtime.openai import OpenAI
from leptonai.runtime.tensors import ORJSON, array_of


class ObjectModel:
    """Decodes, runs and encodes for a PythonPredictor."""

    def __init__(self, predictor: PythonPredictor) -> None:
        self._predictor = predictor
        self._call: Any = predictor.whole
        self.platform = predictor.platform
        self.inputs = predictor.inputs
        self.outputs = predictor.outputs
        self._parameters = {p.name: p for p in predictor.parameters}
        self._arrays = [p for p in predictor.parameters if p.array]
        self._names = tuple(self._parameters)
        self._all_required = all(p.required for p in predictor.parameters)
        self._key = () if predictor.batchable else None
        # What may take its time must not run where requests are read.
        self.steps = predictor.generates or predictor.asynchronous
        self.alone = not (predictor.batchable or self.steps or predictor.methods)
        self.app = predictor.app
        fields = [
            (p.name, Raw if p.array else p.hint) if p.required else (p.name, _optional(p), UNSET)
            for p in sorted(predictor.parameters, key=lambda p: not p.required)
        ]
        self._decode: Any
        try:
            if predictor.open_ended:
                self._decode = msgspec.json.Decoder(dict[str, Any])
            else:
                struct = msgspec.defstruct("Arguments", fields, forbid_unknown_fields=True, gc=False)
                self._decode = msgspec.json.Decoder(struct)
        except (TypeError, ValueError) as e:
            raise ModelError(
                f"{predictor.name}.predict: type hints that JSON cannot fill: {e}",
                hint="use numbers, str, list, dict, numpy arrays or msgspec/dataclass types",
            ) from e

    def openai(self, name: str) -> OpenAI | None:
        return OpenAI(self._predictor, name) if self._predictor.methods else None

    def flow(self, job: Job, events: bool, name: str, version: str) -> Flow | None:
        p = self._predictor
        if not self.steps:
            return None
        wire = Yielded(self, job, name, version, p.generates)
        return Flow(lambda: p.call(**job.inputs), wire, events and p.generates, p.asynchronous)

    def job(self, body: bytes) -> Job:
        if not self._predictor.predicts:
            raise missing("predict", "/predict")
        try:
            given = self._decode.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as e:
            example = ", ".join(f'"{n}": ...' for n in self._names)
            raise SpecError(f"not the arguments of predict: {e}", hint=f"send a JSON object: {{{example}}}") from e
        if isinstance(given, dict):
            arguments = given
            for p in self._parameters.values():
                if p.required and p.name not in arguments:
                    raise SpecError(f"argument {p.name!r} is missing", hint=f"arguments: {', '.join(self._names)}")
        elif self._all_required:
            arguments = msgspec.structs.asdict(given)
        else:
            arguments = {n: v for n in self._names if (v := getattr(given, n)) is not UNSET}
        for p in self._arrays:
            if p.name in arguments:
                value = arguments[p.name]
                raw = bytes(value) if isinstance(value, Raw) else orjson.dumps(value)
                arguments[p.name] = array_of(raw, p.datatype, p.name)
        return Job(arguments, 1, None if self._key is None else self._batch_key(arguments))

    def _batch_key(self, arguments: dict[str, Any]) -> Any:
        if self._key is None:
            return None
        return tuple([(n, v.shape) if isinstance(v, np.ndarray) else n for n, v in arguments.items()])

    def infer_job(self, request: InferRequest) -> Job:
        if not self._predictor.predicts:
            raise missing("predict", "infer")
        arguments: dict[str, Any] = {}
        for tensor in request.inputs:
            p = self._parameters.get(tensor.name)
            if p is None:
                raise SpecError(f"unknown input {tensor.name!r}", hint=f"inputs: {', '.join(self._names)}")
            arguments[p.name] = _argument(tensor, p, own=self._key is None)
        for p in self._parameters.values():
            if p.required and p.name not in arguments:
                raise SpecError(f"input {p.name!r} is missing", hint=f"inputs: {', '.join(self._names)}")
        job = Job(arguments, 1, self._batch_key(arguments), request)
        job.allowed, job.priority = deadline_of(request), priority_of(request) or USUAL
        return job

    def example_job(self, inputs: Mapping[str, Any]) -> Job:
        return self.job(orjson.dumps(dict(inputs)))

    def run(self, jobs: list[Job]) -> list[Any]:
        if jobs[0].door is not None:  # those of one batch are of one key, so of one method
            return list(jobs[0].door.run(jobs))
        if self._key is None:  # such a job comes alone
            return [self._call(**jobs[0].inputs)] if len(jobs) == 1 else [self._call(**job.inputs) for job in jobs]
        merged: dict[str, Any] = {}
        for name, value in jobs[0].inputs.items():
            values = [job.inputs[name] for job in jobs]
            merged[name] = np.stack(values) if isinstance(value, np.ndarray) else values
        results = self._call(**merged)
        if isinstance(results, np.ndarray):
            results = list(results)
        if not isinstance(results, list | tuple) or len(results) != len(jobs):
            got = f"{len(results)} results" if isinstance(results, list | tuple) else type(results).__name__
            raise ModelError(
                f"{self._predictor.name}.predict returned {got} for a batch of {len(jobs)}",
                code="model_failed",
                hint="with batch = True it returns a list with one result for each request",
            )
        return list(results)

    def encode(self, job: Job, result: Any, name: str, version: str) -> tuple[bytes | Parts, int]:
        if job.door is not None:
            return job.door.whole(result), 0
        try:
            if job.asked is None:
                body = orjson.dumps(result, option=ORJSON, default=_plain)
                return body, (_not_finite(result) if b"null" in body else 0)
            named = result if isinstance(result, dict) and result else {"output": result}
            if job.asked.outputs is not None:
                wanted = [o.name for o in job.asked.outputs]
                for o in job.asked.outputs:
                    refuse_unknown(o.parameters)
                missing = [n for n in wanted if n not in named]
                if missing:
                    raise SpecError(f"unknown output {missing[0]!r}", hint=f"outputs: {', '.join(map(str, named))}")
                named = {n: named[n] for n in wanted}
            outputs = {str(n): _tensor(v) for n, v in named.items()}
            # a class may keep an array that it returned and write to it again
            return infer_answer(job.asked, name, version, outputs, shared=False), _not_finite(result)
        except (TypeError, orjson.JSONEncodeError) as e:
            raise ModelError(
                f"{self._predictor.name}.predict returned something JSON cannot carry: {e}",
                code="model_failed",
                hint="return numbers, strings, lists, dicts or numpy arrays",
            ) from e


class Yielded:
    """What a ``predict`` that yields writes: each item as JSON; gathered, they are one list."""

    def __init__(self, model: ObjectModel, job: Job, name: str, version: str, many: bool) -> None:
        self._model, self._job, self._name, self._version, self._many = model, job, name, version, many

    def piece(self, item: Any) -> bytes:
        return event(as_json(item))

    def last(self) -> bytes:
        return b""

    def failed(self, error: LeptonError) -> bytes:
        return event(orjson.dumps(error.body(), default=str), b"error")

    def whole(self, items: list[Any]) -> bytes | Parts:
        return self._model.encode(self._job, items if self._many else items[0], self._name, self._version)[0]


def as_json(value: Any) -> bytes:
    """JSON of whatever a class returned. ModelError when there is none."""
    try:
        return orjson.dumps(value, option=ORJSON, default=_plain)
    except (TypeError, orjson.JSONEncodeError) as e:
        raise ModelError(
            f"the model returned something JSON cannot carry: {e}",
            code="model_failed",
            hint="return numbers, strings, lists, dicts or numpy arrays",
        ) from e


def _optional(p: Parameter) -> Any:
    return (Raw if p.array else p.hint) | msgspec.UnsetType if p.hint is not Any else Any


def _argument(tensor: InferInput, p: Parameter, own: bool) -> Any:
    """``own``: an array is the method's to write to, as one that came as JSON is; a batch is stacked into its own."""
    if p.hint is not Any and tensor.datatype != p.datatype:
        raise SpecError(
            f"input {p.name!r} is {tensor.datatype!r}, predict takes {p.datatype}", hint=f"send it as {p.datatype}"
        )
    array = tensor_of(tensor, own and p.array)
    if tensor.binary and tensor.datatype == "BYTES" and p.hint is not bytes and p.hint is not Any:
        for element in array.ravel():
            if isinstance(element, bytes):
                raise SpecError(f"input {p.name!r} holds bytes that are not UTF-8", hint="predict takes text here")
    if p.array:
        return array
    if p.shape != [1]:
        return array.tolist()
    if array.size != 1:
        raise SpecError(f"input {p.name!r} has shape {tensor.shape}, predict takes one value", hint="use shape [1]")
    value = array.reshape(-1)[0]
    if p.hint is bytes:
        return value if isinstance(value, bytes) else value.encode()
    if p.datatype != "BYTES" or p.hint is str:
        return value.item() if hasattr(value, "item") else value
    try:
        return msgspec.json.decode(value.encode(), type=p.hint) if isinstance(value, str) else value
    except msgspec.DecodeError as e:
        raise SpecError(
            f"input {p.name!r} is not JSON text of the right type: {e}", hint="send JSON in a string"
        ) from e


def _tensor(value: Any) -> Any:
    """A returned value as an array; what is no regular array of numbers or strings becomes JSON text."""
    array: Any = None
    if isinstance(value, bytes):
        return np.array([value], object)  # numpy's own strings drop zero bytes at the end
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        array = value if all(isinstance(v, bytes | str) for v in value.flat) else None
        if array is not None:
            return array if array.ndim else array.reshape(1)
    if isinstance(value, np.ndarray | bool | int | float | str | list | np.generic):
        try:
            array = np.asarray(value)
        except (ValueError, OverflowError):
            array = None
    if array is None or array.dtype.kind not in "biufUS":
        array = np.array([orjson.dumps(value, option=ORJSON, default=_plain).decode()], object)
    return array if array.ndim else array.reshape(1)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value)
    raise TypeError(f"a {type(value).__name__}")


def _not_finite(value: Any) -> int:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, np.ndarray | np.generic):
        return np.size(value) - int(np.count_nonzero(np.isfinite(value))) if value.dtype.kind == "f" else 0
    if isinstance(value, dict):
        return sum(_not_finite(v) for v in value.values())
    if isinstance(value, list | tuple):
        return sum(_not_finite(v) for v in value)
    return 0
