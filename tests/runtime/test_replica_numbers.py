"""The quick way from JSON to floats takes what the strict way takes too, to the same array, or nothing."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from leptonai.errors import SpecError
from leptonai.runtime import numbers
from leptonai.runtime.model import TensorModel
from leptonai.runtime.tensors import DTYPES, array_of

pytestmark = pytest.mark.skipif(numbers.simdjson is None, reason="pysimdjson has no wheel here: the strict way it is")


class Two:
    """A real, small predictor."""

    platform = "test_numpy"
    batchable = False
    inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, -1]}, {"name": "y", "datatype": "FP64", "shape": [-1]}]
    outputs = [{"name": "y", "datatype": "FP32", "shape": [-1]}]

    def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return inputs


class One(Two):
    inputs = Two.inputs[:1]


leaf = st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), st.text("[x", max_size=2), st.just(1e39))
row = st.lists(st.one_of(st.integers(-3, 3), st.floats(-1, 1)), min_size=2, max_size=2)
tree = st.recursive(leaf, lambda inner: st.one_of(st.lists(inner, max_size=3), st.lists(row, max_size=3)))
body = st.one_of(
    tree,
    st.dictionaries(st.sampled_from(["x", "y", "inputs", "["]), tree, max_size=3),
    st.fixed_dictionaries({"x": st.lists(row, min_size=1), "y": st.lists(st.floats(-1, 1), min_size=1)}),
    st.fixed_dictionaries({"inputs": st.fixed_dictionaries({"x": st.lists(row, min_size=1), "y": row})}),
)


def strictly(monkeypatch: pytest.MonkeyPatch, call: Any, *arguments: Any) -> Any:
    with monkeypatch.context() as m:
        m.setattr(numbers, "_PARSER", None)
        try:
            return call(*arguments)
        except SpecError:
            return None


@settings(max_examples=400, deadline=None)
@given(tree)
@example([[1, 2], [3, [4]]])
@example([[1, 2], [3], [4, 5, 6]])
@example([True])
@example([2**64, 2**63])
def test_a_tensor_taken_quickly_is_the_one_taken_strictly(value: Any) -> None:
    raw = json.dumps(value).encode()
    for datatype in ("FP16", "FP32", "FP64"):
        quick = numbers.floats(raw, DTYPES[datatype])
        if quick is not None:
            strict = strictly(pytest.MonkeyPatch(), array_of, raw, datatype, "x")
            assert strict is not None and quick.flags.writeable
            assert (quick.dtype, quick.shape) == (strict.dtype, strict.shape) and np.array_equal(quick, strict)


@settings(max_examples=400, deadline=None)
@given(body, st.booleans())
@example([[1.5, 2], [3, 4]], True)
@example({"inputs": {"x": [[1.5]]}}, True)
@example({"x": [[1, 2], [3, [4]]], "y": [1]}, False)
def test_a_body_taken_quickly_makes_the_job_of_the_strict_way(value: Any, one: bool) -> None:
    model = TensorModel(One() if one else Two())
    text = json.dumps(value).encode()
    strict = strictly(pytest.MonkeyPatch(), model.job, text)
    try:
        quick = model.job(text)
    except SpecError:
        assert strict is None
    else:
        assert strict is not None and quick.inputs.keys() == strict.inputs.keys()
        for name, array in quick.inputs.items():
            assert array.dtype == strict.inputs[name].dtype and np.array_equal(array, strict.inputs[name])


def test_usual_bodies_are_taken_quickly_and_rare_ones_are_not() -> None:
    dtypes = {"x": DTYPES["FP32"]}
    for text in (b'{"x": [[1, 2.5]]}', b'{"inputs": {"x": [[1]]}}', b"[[0, 1e3]]"):
        assert numbers.named(text, dtypes) is not None, text
    for text in (
        b'{"x": [1], "x": [2]}',
        b'{"y": [1]}',
        b"{}",
        b"[]",
        b'{"x": 1}',
        b"[1e39]",
        b'["1"]',
        b"[1" + b" " * 5_000_000,
    ):
        assert numbers.named(text, dtypes) is None, text[:40]
