"""What a request asks, in one spelling: equal requests have equal keys, however they are written. Pure.

Open Inference Protocol: the order of fields and inputs, white space, nested or flat data, JSON or binary make no
difference, nor do the request's id, its timeout and priority, and how the outputs are to be encoded. ``/predict``:
field order and white space make no difference; 1 and 1.0 do, since a Python model may tell them apart.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from leptonai.edge.tensors import pack

_SORTED = orjson.OPT_SORT_KEYS
_UNIMPORTANT = frozenset({"binary_data_output", "timeout", "priority", "binary_data_size", "binary_data"})
MAX_TENSORS = 1024


class Asked(NamedTuple):
    """``meaning``: what the answer depends on. ``form``: how it is to be written, b"" when all of it is JSON."""

    meaning: bytes
    form: bytes
    id: str | None = None


def asked(target: bytes, body: bytes, json_size: bytes) -> Asked | None:
    """What is asked; None for a path or a body whose answers are not kept."""
    path, _, query = target.partition(b"?")
    try:
        if path == b"/predict" and not json_size:
            return Asked(b"predict?%b\0%b" % (query, orjson.dumps(orjson.loads(body), option=_SORTED)), b"")
        if path.startswith(b"/v2/models/") and path.endswith(b"/infer") and not query:
            return _infer(path, body, int(json_size) if json_size else len(body))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        pass
    return None


def _infer(path: bytes, body: bytes, size: int) -> Asked:
    request = orjson.loads(body[:size])
    at, inputs = size, []
    for tensor in request["inputs"]:
        parameters = tensor.get("parameters") or {}
        shape, datatype = [int(d) for d in tensor["shape"]], str(tensor["datatype"])
        if (length := parameters.get("binary_data_size")) is not None:
            if not 0 <= length <= len(body) - at:
                raise ValueError("cut short")
            block = body[at : at + length]
            at += length
        else:
            block = pack(datatype, tensor["data"])
        inputs.append((str(tensor["name"]), datatype, shape, _important(parameters), block))
    if at != len(body) or len(inputs) > MAX_TENSORS:
        raise ValueError("not its size")
    parameters = request.get("parameters") or {}
    outputs = request.get("outputs")
    wanted = None if outputs is None else [(o["name"], _important(o.get("parameters") or {})) for o in outputs]
    heads = [(name, kind, shape, said, len(block)) for name, kind, shape, said, block in sorted(inputs)]
    head = orjson.dumps([heads, wanted, _important(parameters)], option=_SORTED)
    model = b"/".join(path.split(b"/")[3:-1])
    blocks = b"".join(block for *_, block in sorted(inputs))
    id = request.get("id")
    return Asked(
        b"infer %b\0%d\0%b%b" % (model, len(head), head, blocks),
        _form(parameters, outputs or []),
        None if id is None else str(id),
    )


def _important(parameters: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in parameters.items() if k not in _UNIMPORTANT}


def _form(parameters: dict[str, Any], outputs: list[dict[str, Any]]) -> bytes:
    default = parameters.get("binary_data_output") is True
    named = {o["name"]: (o.get("parameters") or {}).get("binary_data", default) is True for o in outputs}
    if not any(named.values()) if named else not default:
        return b""
    if all(named.values()):
        return b"*"
    return orjson.dumps(named, option=_SORTED)
