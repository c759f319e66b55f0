"""One question, one key: however it is written; and two questions never share one."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptonai.edge.forms import Form, convert, with_id, without_id
from leptonai.edge.key import asked
from leptonai.edge.tensors import pack, unpack

INFER = b"/v2/models/digits/infer"
FLOATS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=8)


def meaning(body: Any, json_size: bytes = b"", target: bytes = INFER) -> bytes:
    found = asked(target, body if isinstance(body, bytes) else json.dumps(body).encode(), json_size)
    assert found is not None
    return found.meaning


def as_json(values: list[float], **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "shape": [1, len(values)], "datatype": "FP32", "data": values}], **more}


def as_binary(values: list[float]) -> tuple[bytes, bytes]:
    block = struct.pack(f"<{len(values)}f", *values)
    tensor = {
        "name": "x",
        "shape": [1, len(values)],
        "datatype": "FP32",
        "parameters": {"binary_data_size": len(block)},
    }
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return head + block, str(len(head)).encode()


@given(FLOATS)
def test_spelling_makes_no_difference(values: list[float]) -> None:
    """JSON flat or nested, indented, in another field order, with an id, or binary: the same question."""
    plain = meaning(as_json(values))
    tensor = as_json(values)["inputs"][0]
    nested = {"id": "7", "inputs": [dict(reversed({**tensor, "data": [values]}.items()))]}
    assert meaning(json.dumps(nested, indent=3).encode()) == plain
    assert meaning(as_json(values, parameters={"timeout": 5, "priority": 1})) == plain
    assert meaning(*as_binary(values)) == plain


@given(FLOATS, FLOATS)
def test_other_tensors_are_another_question(one: list[float], other: list[float]) -> None:
    same = np.array(one, "f4").tobytes() == np.array(other, "f4").tobytes()
    assert (meaning(as_json(one)) == meaning(as_json(other))) == same
    assert meaning(as_json(one)) != meaning(as_json(one, parameters={"temperature": 2}))
    assert meaning(as_json(one)) != meaning(as_json(one, outputs=[{"name": "y"}]))
    assert meaning(as_json(one)) != meaning(json.dumps(as_json(one)).encode(), target=b"/v2/models/other/infer")


def test_the_order_of_inputs_makes_no_difference_but_their_names_do() -> None:
    a, b = (dict(name=n, shape=[1], datatype="INT64", data=[v]) for n, v in (("a", 1), ("b", 2)))
    assert meaning({"inputs": [a, b]}) == meaning({"inputs": [b, a]})
    assert meaning({"inputs": [a, b]}) != meaning({"inputs": [a | {"data": [2]}, b | {"data": [1]}]})


def test_predict_bodies() -> None:
    def key(body: bytes) -> bytes:
        return meaning(body, target=b"/predict")

    assert key(b'{"x": 1, "y": [1.0, 2]}') == key(b' {"y":[1.00,2],\n"x":1}')
    assert key(b'{"x": 1}') != key(b'{"x": 1.0}') != key(b'{"x": "1"}')


@pytest.mark.parametrize(
    ("target", "body", "json_size"),
    [
        (b"/metrics", b"{}", b""),
        (b"/predict", b"{", b""),
        (INFER, b"[]", b""),
        (INFER, b"{}", b""),
        (INFER, b'{"inputs": 3}', b""),
        (INFER, b'{"inputs": []}x', b"14"),
        (INFER, b"{}", b"-1"),
        (INFER, b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":["a"]}]}', b""),
        (INFER, b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":9}}]}', b"92"),
        (INFER, b"[" * 100_000, b""),
    ],
)
def test_what_is_no_question_has_no_key(target: bytes, body: bytes, json_size: bytes) -> None:
    assert asked(target, body, json_size) is None


@given(st.binary(max_size=200), st.binary(max_size=10))
def test_garbage_raises_nothing(body: bytes, json_size: bytes) -> None:
    asked(INFER, body, json_size)
    asked(b"/predict", body, json_size)


@pytest.mark.parametrize("kind", ["BOOL", "UINT8", "INT16", "INT64", "UINT64", "FP16", "FP32", "FP64", "BYTES"])
def test_tensors_survive_both_ways(kind: str) -> None:
    values: list[Any] = {"BOOL": [True, False], "BYTES": ["a", "", "ä"], "FP16": [0.5, -2.0]}.get(kind, [1, 0, 100])
    assert unpack(kind, pack(kind, values)) == values
    if kind not in ("BYTES", "BOOL"):
        names = {"FP16": "f2", "FP32": "f4", "FP64": "f8"}
        assert pack(kind, values) == np.array(values, names.get(kind, kind.lower())).tobytes()


def test_an_answer_is_given_in_the_form_that_is_asked_for() -> None:
    outputs = [
        {"name": "p", "shape": [1, 2], "datatype": "FP32", "data": [0.5, 0.25]},
        {"name": "l", "shape": [1], "datatype": "INT64", "data": [3]},
    ]
    plain = without_id(Form(json.dumps({"model_name": "m", "id": "1", "outputs": outputs}).encode(), None))
    binary = convert(plain, b"*")
    assert binary.json_size is not None and binary.body[binary.json_size :] == struct.pack("<ffq", 0.5, 0.25, 3)
    assert json.loads(convert(binary, b"").body) == json.loads(plain.body)
    mixed = convert(binary, b'{"p":false,"l":true}')
    assert mixed.json_size is not None and mixed.body[mixed.json_size :] == struct.pack("<q", 3)
    named = with_id(binary, 'a"b')
    assert named.json_size is not None and json.loads(named.body[: named.json_size])["id"] == 'a"b'
    with pytest.raises(ValueError):
        convert(Form(b'{"a": 1}', None), b"*")
