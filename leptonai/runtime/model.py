"""A loaded model with its JSON on either side: requests to arguments, batches to the predictor, results to answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np
import orjson
from msgspec import Raw

from leptonai.errors import ModelError, SpecError
from leptonai.protocols import Predictor
from leptonai.runtime import binary
from leptonai.runtime.batching import USUAL, Job
from leptonai.runtime.flow import Flow
from leptonai.runtime.http import Parts
from leptonai.runtime.infer import InferInput, InferRequest, deadline_of, priority_of, wanted_outputs
from leptonai.runtime.numbers import named
from leptonai.runtime.tensors import DTYPES, ORJSON, Array, array_of, datatype_of, encode_tensor, fit, plain, reshaped

if TYPE_CHECKING:
    from leptonai.runtime.openai import OpenAI


class Model(Protocol):
    """What the replica runs. Decoding raises SpecError, running ModelError."""

    platform: str
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    alone: bool  # every job is one short call: no two share a batch, none comes in pieces
    steps: bool  # predict answers in steps, or is waited for
    app: Any  # an ASGI app beside the model, or None

    def openai(self, name: str) -> OpenAI | None:
        """What it declares of OpenAI's API, as the model ``name``."""

    def flow(self, job: Job, events: bool, name: str, version: str) -> Flow | None:
        """How the job's answer comes in pieces (sent as ``events``, or gathered); None: it is one call."""

    def job(self, body: bytes) -> Job:
        """The job of a ``/predict`` body."""

    def infer_job(self, request: InferRequest) -> Job:
        """The job of an Open Inference Protocol request."""

    def example_job(self, inputs: Mapping[str, Any]) -> Job:
        """The job of a golden example's inputs, given as plain values."""

    def run(self, jobs: list[Job]) -> list[Any]:
        """One result for each job, in order; jobs of one key are computed together."""

    def encode(self, job: Job, result: Any, name: str, version: str) -> tuple[bytes | Parts, int]:
        """The answer's body and how many of its numbers were not finite (JSON writes them as null)."""


class TensorModel:
    """A model file: named tensors in, named tensors out."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self.platform = predictor.platform
        self.inputs = predictor.inputs
        self.outputs = predictor.outputs
        self._by_name = {t["name"]: t for t in self.inputs}
        self._single = self.inputs[0]["name"] if len(self.inputs) == 1 else None
        self._tensors = msgspec.json.Decoder(dict[str, Raw])
        dtypes = {t["name"]: DTYPES[t["datatype"]] for t in self.inputs}
        self._floats = dtypes if all(dtype.kind == "f" for dtype in dtypes.values()) else {}
        self._names = [t["name"] for t in self.outputs]
        self.alone = not predictor.batchable
        self.steps = False
        self.app = None

    def openai(self, name: str) -> None:
        """A model file declares nothing of it."""

    def flow(self, job: Job, events: bool, name: str, version: str) -> None:
        """A model file answers at once."""

    def job(self, body: bytes) -> Job:
        if self._floats and (quick := named(body, self._floats)) is not None:
            return self._job(quick)
        start = body.lstrip()[:1]
        if start == b"[" and self._single is not None:
            return self._make({self._single: Raw(body)})
        tensors = self._fields(body)
        if "inputs" not in self._by_name and "inputs" in tensors and len(tensors) == 1:
            tensors = self._fields(bytes(tensors["inputs"]))
        return self._make(tensors)

    def _fields(self, body: bytes) -> dict[str, Raw]:
        try:
            return self._tensors.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            example = ", ".join(f'"{n}": [...]' for n in self._by_name)
            raise SpecError(f"not a prediction request: {e}", hint=f"send a JSON object: {{{example}}}") from e

    def _make(self, tensors: dict[str, Raw]) -> Job:
        self._check_names(tensors)
        return self._job({n: array_of(bytes(tensors[n]), t["datatype"], n) for n, t in self._by_name.items()})

    def _check_names(self, given: Mapping[str, Any]) -> None:
        known = ", ".join(self._by_name)
        for name in given:
            if name not in self._by_name:
                raise SpecError(f"unknown input {name!r}", hint=f"the model's inputs: {known}")
        for name in self._by_name:
            if name not in given:
                raise SpecError(f"input {name!r} is missing", hint=f"the model's inputs: {known}")

    def _job(self, arrays: dict[str, Any], asked: InferRequest | None = None) -> Job:
        for name, array in arrays.items():
            fit(array, self._by_name[name])
        if not self._predictor.batchable:
            return Job(arrays, 1, None, asked)
        sizes = {name: array.shape[0] for name, array in arrays.items()}
        if len(set(sizes.values())) != 1:
            raise SpecError(f"inputs hold different numbers of samples: {sizes}", hint="one batch size for all inputs")
        key = tuple([(array.shape[1:], array.dtype.char) for array in arrays.values()])
        return Job(arrays, next(iter(sizes.values())), key, asked)

    def infer_job(self, request: InferRequest) -> Job:
        wanted_outputs(request, self._names)
        given = {t.name: t for t in request.inputs}
        self._check_names(given)
        arrays = {}
        for name, declared in self._by_name.items():
            tensor = given[name]
            if tensor.datatype != declared["datatype"]:
                raise SpecError(
                    f"input {name!r} is {tensor.datatype!r}, the model takes {declared['datatype']}",
                    hint=f"send it as {declared['datatype']}",
                )
            arrays[name] = tensor_of(tensor)
        job = self._job(arrays, request)
        job.allowed, job.priority = deadline_of(request), priority_of(request) or USUAL
        return job

    def example_job(self, inputs: Mapping[str, Any]) -> Job:
        return self._make({name: Raw(orjson.dumps(value)) for name, value in inputs.items()})

    def run(self, jobs: list[Job]) -> list[dict[str, Any]]:
        if len(jobs) == 1:
            job = jobs[0]
            return [self._checked(self._predictor.predict(job.inputs), job.samples if job.key is not None else None)]
        merged = {name: np.concatenate([job.inputs[name] for job in jobs]) for name in self._by_name}
        total = sum(job.samples for job in jobs)
        outputs = self._checked(self._predictor.predict(merged), total)
        results: list[dict[str, Any]] = []
        start = 0
        for job in jobs:
            end = start + job.samples
            results.append({name: array[start:end] for name, array in outputs.items()})
            start = end
        return results

    def _checked(self, outputs: dict[str, Any], samples: int | None) -> dict[str, Any]:
        for name, array in outputs.items():
            if samples is not None and (array.ndim == 0 or array.shape[0] != samples):
                raise ModelError(
                    f"output {name!r} has shape {list(array.shape)} for {samples} samples",
                    code="model_failed",
                    hint="a batchable model keeps the first dimension",
                )
        return outputs

    def encode(self, job: Job, result: dict[str, Any], name: str, version: str) -> tuple[bytes | Parts, int]:
        bad = 0
        for array in result.values():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                bad += int(array.size - np.isfinite(array).sum())
        if job.asked is None:
            return orjson.dumps({n: plain(a) for n, a in result.items()}, option=ORJSON), bad
        wanted = wanted_outputs(job.asked, self._names)
        return infer_answer(
            job.asked, name, version, {n: result[n] for n in (result if wanted is None else wanted)}
        ), bad


def tensor_of(tensor: InferInput, own: bool = False) -> Array:
    """An input's array, of the shape it says; ``own``: it can be written to. SpecError when its data are not that."""
    if tensor.binary:
        return binary.array_of(memoryview(tensor.data), tensor.datatype, tensor.shape, tensor.name, own)
    return reshaped(array_of(bytes(tensor.data), tensor.datatype, tensor.name), tensor.shape, tensor.name)


def infer_answer(
    asked: InferRequest, name: str, version: str, outputs: dict[str, Array], shared: bool = True
) -> bytes | Parts:
    """The body of an inference response. ``shared``: nobody writes to the arrays from now on, so none is copied."""
    answer: dict[str, Any] = {"model_name": name, "model_version": version}
    if asked.id is not None:
        answer["id"] = asked.id
    if asked.parameters is None and asked.outputs is None:
        answer["outputs"] = [encode_tensor(n, array) for n, array in outputs.items()]
        return orjson.dumps(answer, option=ORJSON)
    wanted = binary.wanted(asked)
    tensors: list[dict[str, Any]] = []
    blocks: list[bytes | memoryview] = []
    for n, array in outputs.items():
        if wanted.get(n, wanted[""]):
            blocks.append(binary.block(array if shared or not array.flags.writeable else array.copy()))
            about = {"name": n, "shape": list(array.shape), "datatype": datatype_of(array)}
            tensors.append({**about, "parameters": {binary.SIZE: len(blocks[-1])}})
        else:
            tensors.append(encode_tensor(n, array))
    answer["outputs"] = tensors
    json = orjson.dumps(answer, option=ORJSON)
    return binary.joined(json, blocks) if blocks else json
