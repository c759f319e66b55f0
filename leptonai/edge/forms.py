"""An inference answer in the form that another request for the same asked for: JSON or binary tensors. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from leptonai.edge.tensors import pack, unpack


class Form(NamedTuple):
    """A body; ``json_size`` None: all of it is JSON."""

    body: bytes
    json_size: int | None


def without_id(form: Form) -> Form:
    """The answer without the id that its own request gave. ValueError when it is no JSON object."""
    size = len(form.body) if form.json_size is None else form.json_size
    answer = orjson.loads(form.body[:size])
    if not isinstance(answer, dict):
        raise ValueError("no object")
    if "id" not in answer:
        return form
    answer.pop("id")
    return _joined(answer, form.body[size:], form.json_size is not None)


def with_id(form: Form, id: str | None) -> Form:
    if id is None:
        return form
    said = b'{"id":' + orjson.dumps(id) + b","
    return Form(said + form.body[1:], None if form.json_size is None else form.json_size + len(said) - 1)


def convert(form: Form, wanted: bytes) -> Form:
    """The same answer with the outputs encoded as ``wanted`` says (see ``key.Asked.form``). ValueError if it cannot."""
    size = len(form.body) if form.json_size is None else form.json_size
    named: dict[str, bool] = orjson.loads(wanted) if wanted not in (b"", b"*") else {}
    at, blocks = size, []
    try:
        answer = orjson.loads(form.body[:size])
        for tensor in answer["outputs"]:
            binary = named.get(tensor["name"], wanted == b"*")
            parameters = dict(tensor.get("parameters") or {})
            length = parameters.pop("binary_data_size", None)
            if length is None:
                block = pack(tensor["datatype"], tensor["data"])
            else:
                block = form.body[at : at + length]
                at += length
            _encode(tensor, block, binary, parameters)
            if binary:
                blocks.append(block)
    except (KeyError, TypeError, AttributeError) as e:
        raise ValueError(f"not an inference answer: {e!r}") from e
    return _joined(answer, b"".join(blocks), bool(blocks))


def _encode(tensor: dict[str, Any], block: bytes, binary: bool, parameters: dict[str, Any]) -> None:
    tensor.pop("data", None)
    tensor.pop("parameters", None)
    if binary:
        parameters["binary_data_size"] = len(block)
    else:
        tensor["data"] = unpack(tensor["datatype"], block)
    if parameters:
        tensor["parameters"] = parameters


def _joined(answer: dict[str, Any], blocks: bytes, binary: bool) -> Form:
    head = orjson.dumps(answer)
    return Form(head + blocks, len(head) if binary else None)
