"""Whatever bytes arrive as a body, decoding gives a job or a SpecError: never another exception, never a hang."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leptonai.errors import SpecError
from leptonai.runtime.infer import decode_infer
from leptonai.runtime.model import TensorModel
from leptonai.runtime.tensors import DTYPES, array_of, encode_tensor, reshaped


class Twice:
    """A real, small predictor."""

    platform = "test_numpy"
    batchable = True
    inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}, {"name": "s", "datatype": "BYTES", "shape": [-1]}]
    outputs = [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}]

    def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {"y": inputs["x"] * 2}


MODEL = TensorModel(Twice())
numbers = st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), st.text(max_size=3))
tree = st.recursive(
    numbers,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("xsyz"), inner, max_size=3)),
)
nearly = st.fixed_dictionaries(
    {
        "inputs": st.lists(
            st.fixed_dictionaries(
                {
                    "name": st.sampled_from(["x", "s", "y"]),
                    "shape": st.one_of(st.lists(st.integers(-1, 3), max_size=3), tree),
                    "datatype": st.one_of(st.sampled_from([*DTYPES, "NOPE"]), tree),
                    "data": tree,
                }
            ),
            max_size=3,
        )
    },
    optional={"parameters": tree, "outputs": tree, "id": tree},
)


def attempt(body: bytes) -> None:
    for decode in (MODEL.job, lambda b: MODEL.infer_job(decode_infer(b))):
        try:
            job = decode(body)
        except SpecError as e:
            assert e.message and e.hint
        else:
            assert job.inputs["x"].shape == (job.samples, 2) and job.inputs["x"].dtype == np.float32
            assert np.isfinite(job.inputs["x"]).all()
            assert len(job.inputs["s"]) == job.samples


@given(st.binary(max_size=200))
def test_any_bytes(body: bytes) -> None:
    attempt(body)


@settings(max_examples=300)
@given(st.one_of(tree, nearly))
def test_any_json(value: Any) -> None:
    attempt(json.dumps(value).encode())


@settings(max_examples=200)
@given(st.data())
def test_a_tensor_survives_the_way_to_json_and_back(data: st.DataObject) -> None:
    datatype = data.draw(st.sampled_from(sorted(DTYPES)))
    shape = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    dtype = DTYPES[datatype]
    size = int(np.prod(shape))
    if dtype.kind == "f":
        values: Any = data.draw(st.lists(st.floats(width=dtype.itemsize * 8, allow_nan=False, allow_infinity=False),
                                         min_size=size, max_size=size))  # fmt: skip
    elif dtype.kind == "b":
        values = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    elif dtype.kind == "O":
        values = data.draw(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=size, max_size=size))
    else:
        limits = np.iinfo(dtype)
        values = data.draw(st.lists(st.integers(int(limits.min), int(limits.max)), min_size=size, max_size=size))
    array = np.array(values, dtype).reshape(shape)
    import orjson

    from leptonai.runtime.tensors import ORJSON

    sent = orjson.loads(orjson.dumps(encode_tensor("t", array), option=ORJSON))
    assert sent["datatype"] == datatype
    back = reshaped(array_of(orjson.dumps(sent["data"]), datatype, "t"), sent["shape"], "t")
    assert back.dtype == dtype and np.array_equal(back, array)


@pytest.mark.parametrize("datatype", ["INT8", "UINT8", "INT64", "UINT64"])
def test_an_integer_outside_its_datatype_is_refused(datatype: str) -> None:
    limits = np.iinfo(DTYPES[datatype])
    for value in (int(limits.min) - 1, int(limits.max) + 1):
        with pytest.raises(SpecError):
            array_of(b"[%d]" % value, datatype, "x")
    with pytest.raises(SpecError):
        array_of(b"[1.5]", datatype, "x")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_nested_numbers_become_what_numpy_makes_of_them(data: st.DataObject) -> None:
    datatype = data.draw(st.sampled_from(["FP32", "FP64", "INT8", "UINT16", "INT32", "INT64", "UINT64"]))
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    dtype = DTYPES[datatype]
    if dtype.kind == "f":
        entry: Any = st.floats(-3e38, 3e38) | st.integers(-(2**63), 2**64)
    else:
        entry = st.integers(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    size = int(np.prod(shape))
    values = data.draw(st.lists(entry, min_size=size, max_size=size))
    nested = np.array(values, object).reshape(shape).tolist()
    got = array_of(json.dumps(nested).encode(), datatype, "x")
    assert got.dtype == dtype and np.array_equal(got, np.array(nested, dtype)) and got.flags.writeable


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"[[1.0],[2.0,3.0]]", "ragged"),
        (b"[[[1],[2]],[[3]]]", "ragged"),
        (b"[[1],[[2]]]", "not a FP32 tensor"),
        (b"[[],[1]]", "ragged"),
        (b"[1,3.5e38]", "outside FP32"),
        (b"[1,true]", "not a FP32 tensor"),
        (b'[1,"2"]', "not a FP32 tensor"),
        (b"[1,null]", "not a FP32 tensor"),
    ],
)
def test_what_is_no_tensor_of_numbers_is_named(text: bytes, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        array_of(text, "FP32", "x")


@pytest.mark.parametrize(("text", "shape"), [(b"[]", (0,)), (b"[[],[]]", (2, 0)), (b"7", ())])
def test_a_tensor_may_hold_nothing_or_be_one_number(text: bytes, shape: tuple[int, ...]) -> None:
    assert array_of(text, "INT32", "x").shape == shape
