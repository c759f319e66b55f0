"""OpenAI's API for classes that declare it: ``embed``, ``complete`` and ``chat``; and ``generate`` of the OIP.

A method's first argument takes the input (texts, a prompt, messages); its other arguments take the request's fields of
their names (``max_tokens``, ``temperature`` ...), checked against their type hints; fields it does not name are not
passed. It returns text, or yields it in pieces; a dict stands for a message (``tool_calls``), ``finish_reason`` in it
for why the answer ends. ``count_tokens(text)`` on the class fills ``usage``; without it there is none.
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import numpy as np
import orjson
from msgspec import Struct
from numpy.typing import NDArray

from leptonai.errors import LeptonError, ModelError, NotFound, SpecError
from leptonai.runtime.batching import Job
from leptonai.runtime.flow import Flow, Wire, event
from leptonai.runtime.loaders.python import Method, PythonPredictor

Json = dict[str, Any]
Vectors = NDArray[np.float32]
_FIELDS = msgspec.json.Decoder(dict[str, Any])
_OURS = {"model", "stream", "stream_options", "n", "user", "encoding_format"}
DONE = b"data: [DONE]\n\n"


class Door(Protocol):
    """Computes and writes jobs of another method than ``predict``; those of equal keys together."""

    def run(self, jobs: list[Job]) -> list[Json]:
        """One result for each job, in order: arrays by name, their first dimension the samples."""

    def whole(self, result: Json) -> bytes:
        """The body of the answer."""


class Asked(Struct, eq=False):
    """One request, ready to become a job."""

    method: Method
    arguments: Json
    wire: Wire
    events: bool = False

    def job(self) -> Job:
        call, arguments = self.method.call, self.arguments
        if isinstance(self.wire, Embeddings) and not (self.method.asynchronous or self.method.generates):
            return self.wire.job(self.method, arguments)
        flow = Flow(lambda: call(**arguments), self.wire, self.events, self.method.asynchronous)
        return Job({}, 1, None, flow=flow)


class OpenAI:
    """What a class declares of OpenAI's API, under the model name ``name``."""

    def __init__(self, predictor: PythonPredictor, name: str) -> None:
        self.methods = predictor.methods
        self._name = name
        self._count: Callable[[str], int] | None = predictor.count_tokens

    def asked(self, method: str, body: bytes) -> Asked:
        """The request in ``body``. SpecError names the field; NotFound for another model's name."""
        fields = _decoded(body)
        model = fields.get("model", self._name)
        if model != self._name:
            raise NotFound(f"unknown model {str(model)[:80]!r}", hint=f"the model here is {self._name!r}")
        if fields.get("n") not in (None, 1):
            raise SpecError(f"n is {fields['n']!r}", hint="one answer a request: n = 1")
        if method == "embed":
            return self._embed(fields)
        stream = _flag(fields, "stream")
        options = fields.get("stream_options") or {}
        usage = self._count if not stream or (isinstance(options, dict) and options.get("include_usage")) else None
        wire: Wire
        if method == "complete":
            prompt = _prompt(fields.pop("prompt", None))
            wire = Completion(self._name, prompt, usage)
            return Asked(self.methods[method], _arguments(self.methods[method], prompt, fields), wire, stream)
        messages = _messages(fields.pop("messages", None))
        wire = Chat(self._name, "\n".join(_text_of(m) for m in messages), usage)
        return Asked(self.methods[method], _arguments(self.methods[method], messages, fields), wire, stream)

    def _embed(self, fields: Json) -> Asked:
        texts = fields.pop("input", None)
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
            raise SpecError("input is neither text nor a list of texts", hint="tokens are not accepted: send the text")
        form = fields.get("encoding_format") or "float"
        if form not in ("float", "base64"):
            raise SpecError(f"encoding_format is {str(form)[:40]!r}", hint="float or base64")
        wire = Embeddings(self._name, texts, form == "base64", self._count)
        method = self.methods["embed"]
        return Asked(method, _arguments(method, texts, fields), wire)

    def generate(self, body: bytes, events: bool, version: str) -> Asked:
        """The Open Inference Protocol's generate: ``text_input`` and ``parameters``."""
        fields = _decoded(body)
        text = fields.get("text_input")
        if not isinstance(text, str):
            raise SpecError("text_input is not a text", hint='send {"text_input": "...", "parameters": {}}')
        parameters = fields.get("parameters") or {}
        if not isinstance(parameters, dict):
            raise SpecError("parameters is not an object", hint='send {"max_tokens": 10} or leave it out')
        method = self.methods["complete"]
        return Asked(method, _arguments(method, text, parameters), Generate(self._name, version), events)


def _decoded(body: bytes) -> Json:
    try:
        return _FIELDS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise SpecError(f"the body is no JSON object: {e}", hint="send the request as JSON") from e


def _flag(fields: Json, name: str) -> bool:
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise SpecError(f"{name} is {str(value)[:40]!r}", hint="true or false")
    return bool(value)


def _prompt(value: Any) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        raise SpecError("prompt is not one text", hint="send one prompt a request, as text, not as tokens")
    return value


def _messages(value: Any) -> list[Json]:
    if not isinstance(value, list) or not value:
        raise SpecError("messages is not a list with a message in it", hint='send [{"role": "user", "content": "..."}]')
    for i, message in enumerate(value):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise SpecError(f"message {i} has no role", hint='send {"role": "user", "content": "..."}')
    return value


def _text_of(message: Json) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return " ".join(str(p.get("text", "")) for p in content if isinstance(p, dict))
    return content if isinstance(content, str) else ""


def _arguments(method: Method, main: Any, fields: Json) -> Json:
    first, *others = method.parameters
    arguments = {first.name: _converted(main, first.hint, first.name)}
    for p in others:
        value = fields.get(p.name)
        if value is not None:
            arguments[p.name] = _converted(value, p.hint, p.name)
        elif p.required:
            raise SpecError(f"{p.name} is missing", hint="this model needs it")
    if method.open_ended:
        rest = {k: v for k, v in fields.items() if k not in arguments and k not in _OURS and v is not None}
        arguments.update(rest)
    return arguments


def _converted(value: Any, hint: Any, name: str) -> Any:
    if hint is Any:
        return value
    try:
        return msgspec.convert(value, hint)
    except (msgspec.ValidationError, TypeError) as e:
        raise SpecError(f"{name}: {e}", hint="see the type hints of the model's method") from e


class _Written:
    """What the answers of one request have in common."""

    kind = ""
    prefix = ""

    def __init__(self, model: str, prompt: str, count: Callable[[str], int] | None) -> None:
        self._model, self._prompt, self._count = model, prompt, count
        self._id = f"{self.prefix}-{os.urandom(12).hex()}"
        self._created = int(time.time())
        self._reason = "stop"
        self._said: list[str] = []

    def _frame(self, kind: str, choices: list[Json]) -> Json:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model, "choices": choices}

    def _taken(self, item: Any) -> Json:
        """An item as a message: its text counted, its reason kept."""
        if isinstance(item, str):
            self._said.append(item)
            return {"content": item}
        if not isinstance(item, dict):
            raise ModelError(
                f"a {type(item).__name__} is no piece of an answer",
                code="model_failed",
                hint="return or yield text, or a dict that is a message",
            )
        item = dict(item)
        self._reason = item.pop("finish_reason", self._reason)
        if isinstance(item.get("content"), str):
            self._said.append(item["content"])
        return dict(item)

    def _usage(self) -> Json:
        if self._count is None:
            return {}
        asked, said = self._count(self._prompt), self._count("".join(self._said))
        return {"usage": {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}}

    def _usage_event(self) -> bytes:
        usage = self._usage()
        return event(orjson.dumps({**self._frame(self.kind, []), **usage})) if usage else b""

    def failed(self, error: LeptonError) -> bytes:
        return event(orjson.dumps(error_body(error)))


class Completion(_Written):
    kind, prefix = "text_completion", "cmpl"

    def _choice(self, text: str, reason: str | None) -> list[Json]:
        return [{"index": 0, "text": text, "logprobs": None, "finish_reason": reason}]

    def piece(self, item: Any) -> bytes:
        text = self._taken(item).get("content") or ""
        return event(orjson.dumps(self._frame(self.kind, self._choice(text, None))))

    def last(self) -> bytes:
        return event(orjson.dumps(self._frame(self.kind, self._choice("", self._reason)))) + self._usage_event() + DONE

    def whole(self, items: list[Any]) -> bytes:
        text = "".join(self._taken(i).get("content") or "" for i in items)
        return orjson.dumps({**self._frame(self.kind, self._choice(text, self._reason)), **self._usage()})


class Chat(_Written):
    kind, prefix = "chat.completion.chunk", "chatcmpl"
    _begun = False

    def _delta(self, delta: Json, reason: str | None) -> bytes:
        return event(orjson.dumps(self._frame(self.kind, [{"index": 0, "delta": delta, "finish_reason": reason}])))

    def piece(self, item: Any) -> bytes:
        delta = self._taken(item)
        if not self._begun:
            self._begun = True
            delta = {"role": "assistant", **delta}
        return self._delta(delta, None)

    def last(self) -> bytes:
        return self._delta({}, self._reason) + self._usage_event() + DONE

    def whole(self, items: list[Any]) -> bytes:
        message: Json = {"role": "assistant", "content": None}
        for item in items:
            for key, value in self._taken(item).items():
                if key == "content" or (key == "tool_calls" and key in message):
                    value = (message[key] or value[:0]) + value if value is not None else message[key]
                message[key] = value
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._reason}
        return orjson.dumps({**self._frame("chat.completion", [choice]), **self._usage()})


class Embeddings:
    """One vector for each text, as numbers or as base64 of little-endian float32."""

    def __init__(self, model: str, texts: list[str], packed: bool, count: Callable[[str], int] | None) -> None:
        self._model, self._texts, self._packed, self._count = model, texts, packed, count

    def job(self, method: Method, arguments: Json) -> Job:
        """A job of as many samples as texts: requests that agree in all else are computed in one call."""
        first = method.parameters[0].name
        others = {name: value for name, value in arguments.items() if name != first}
        texts = np.array(self._texts, object)
        key = ("embed", repr(sorted(others.items())))
        return Job({"texts": texts}, len(texts), key, door=Embedder(method, others, self))

    def piece(self, item: Any) -> bytes:
        return b""

    def last(self) -> bytes:
        return b""

    def failed(self, error: LeptonError) -> bytes:
        return b""

    def whole(self, items: list[Any]) -> bytes:
        return self.written(vectors_of(items[0], len(self._texts)))

    def written(self, vectors: Vectors) -> bytes:
        data = [
            {"object": "embedding", "index": i, "embedding": base64.b64encode(v.data).decode() if self._packed else v}
            for i, v in enumerate(vectors)
        ]
        answer: Json = {"object": "list", "model": self._model, "data": data}
        if self._count is not None:
            tokens = sum(map(self._count, self._texts))
            answer["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


class Embedder:
    """The ``Door`` of embeddings: one call for the texts of all jobs."""

    def __init__(self, method: Method, others: Json, wire: Embeddings) -> None:
        self._method, self._others, self._wire = method, others, wire

    def run(self, jobs: list[Job]) -> list[Json]:
        first = self._method.parameters[0]
        texts = [text for job in jobs for text in job.inputs["texts"].tolist()]
        given = {first.name: _converted(texts, first.hint, first.name), **self._others}
        vectors = vectors_of(self._method.call(**given), len(texts))
        ends = np.cumsum([job.samples for job in jobs])
        return [{"vectors": part} for part in np.split(vectors, ends[:-1])]

    def whole(self, result: Json) -> bytes:
        return self._wire.written(result["vectors"])


def vectors_of(returned: Any, texts: int) -> Vectors:
    """What ``embed`` returned, one row for each text. ModelError when it is anything else."""
    try:
        vectors = np.ascontiguousarray(returned, "<f4")
    except (ValueError, TypeError) as e:
        raise ModelError(f"embed returned no vectors: {e}", code="model_failed", hint="return an array") from e
    if vectors.ndim != 2 or len(vectors) != texts:
        raise ModelError(
            f"embed returned shape {list(vectors.shape)} for {texts} texts",
            code="model_failed",
            hint="return one vector for each text",
        )
    return vectors


class Generate:
    """The Open Inference Protocol's answers to generate and generate_stream."""

    def __init__(self, model: str, version: str) -> None:
        self._about = {"model_name": model, "model_version": version}

    def _text(self, item: Any) -> str:
        text = item.get("content", "") if isinstance(item, dict) else item
        if not isinstance(text, str):
            raise ModelError("complete gave no text", code="model_failed", hint="return or yield text")
        return text

    def piece(self, item: Any) -> bytes:
        return event(orjson.dumps({**self._about, "text_output": self._text(item)}))

    def last(self) -> bytes:
        return b""

    def failed(self, error: LeptonError) -> bytes:
        return event(orjson.dumps({**self._about, **error.body()}, default=str))

    def whole(self, items: list[Any]) -> bytes:
        return orjson.dumps({**self._about, "text_output": "".join(map(self._text, items))})


def error_body(error: LeptonError) -> Json:
    """An error in OpenAI's shape."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    message = f"{error.message} ({error.hint})" if error.hint else error.message
    return {"error": {"message": message, "type": kind, "param": None, "code": error.code}}
