"""Binary tensors and packed bodies, both ways, on real replicas; and a fuzz run over the parser."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leptonai.errors import LeptonError
from leptonai.runtime import binary
from leptonai.runtime.infer import decode_infer
from leptonai.runtime.model import infer_answer, tensor_of
from leptonai.runtime.tensors import DTYPES
from tests.runtime.conftest import Running, Trained

ECHO = """
import numpy as np

class Echo:
    def __init__(self):
        self.kept = np.zeros(3)

    def predict(self, x: np.ndarray = None, t: list[str] = None, b: bytes = b"", k: int = 0):
        self.kept += 1
        if k:
            return {"kept": self.kept}
        return {n: v for n, v in (("x", x), ("t", t), ("b", np.array([b], object) if b else None)) if v is not None}
"""


def packed_alike(data: bytes) -> bytes:
    """The same bytes whenever it is called: gzip writes the time otherwise, and tests are named by it."""
    return gzip.compress(data, mtime=0)


@pytest.fixture(scope="module")
def echo(start: Callable[..., Running]) -> Running:
    return start({"model.py": ECHO}, environment={"LEPTONAI_MAX_BODY": "1000000"}).wait_ready()


@pytest.fixture(scope="module")
def digits_replica(start: Callable[..., Running], digits_onnx: bytes) -> Running:
    return start({"digits.onnx": digits_onnx}).wait_ready()


def message(asked: dict[str, Any], *blocks: bytes) -> tuple[bytes, dict[str, str]]:
    head = json.dumps(asked).encode()
    return b"".join([head, *blocks]), {"inference-header-content-length": str(len(head))}


def tensor(name: str, array: np.ndarray, datatype: str) -> tuple[dict[str, Any], bytes]:
    block = bytes(binary.block(array))
    about = {"name": name, "shape": list(array.shape), "datatype": datatype}
    return {**about, "parameters": {"binary_data_size": len(block)}}, block


def read(r: httpx.Response) -> dict[str, Any]:
    """Outputs by name: arrays, or raw bytes of BYTES."""
    assert r.status_code == 200, r.text
    size = int(r.headers.get("inference-header-content-length", len(r.content)))
    answer, at, found = json.loads(r.content[:size]), size, {}
    for out in answer["outputs"]:
        if "data" in out:
            found[out["name"]] = out["data"]
            continue
        assert "data" not in out
        part = r.content[at : at + out["parameters"]["binary_data_size"]]
        at += len(part)
        found[out["name"]] = part if out["datatype"] == "BYTES" else np.frombuffer(part, DTYPES[out["datatype"]])
    assert at == len(r.content)
    return found


def infer(replica: Running, body: bytes, headers: dict[str, str], path: str = "/v2/models/m/infer") -> httpx.Response:
    return replica.client.post(path, content=body, headers=headers)


def test_binary_in_and_out_agree_with_json_on_a_real_model(digits_replica: Running, digits: Trained) -> None:
    x = (digits.x[:7] / 16).astype("<f4")
    about, block = tensor("X", x, "FP32")
    want = {o["name"]: o["data"] for o in infer(digits_replica, *message({"inputs": [about]}, block)).json()["outputs"]}
    r = infer(digits_replica, *message({"inputs": [about], "parameters": {"binary_data_output": True}}, block))
    assert r.headers["content-type"] == "application/octet-stream"
    got = read(r)
    assert got["label"].tolist() == want["label"] == digits.model.predict(x).tolist()
    np.testing.assert_allclose(got["probabilities"], want["probabilities"], atol=1e-6)
    one = {"inputs": [about], "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}]}
    assert list(read(infer(digits_replica, *message(one, block)))) == ["probabilities"]
    mixed = {
        "inputs": [about],
        "parameters": {"binary_data_output": True},
        "outputs": [{"name": "probabilities"}, {"name": "label", "parameters": {"binary_data": False}}],
    }
    got = read(infer(digits_replica, *message(mixed, block)))
    assert isinstance(got["label"], list) and isinstance(got["probabilities"], np.ndarray)
    assert "binary_tensor_data" in digits_replica.client.get("/v2").json()["extensions"]


def test_text_and_bytes_and_headers_in_capitals(echo: Running) -> None:
    text = np.array(["", "ü", "z" * 300], object)
    raw = np.array([b"\xff\x00"], object)
    about, block = tensor("t", text, "BYTES")
    other, more = tensor("b", raw, "BYTES")
    asked = {"inputs": [about, other], "parameters": {"binary_data_output": True}}
    body, headers = message(asked, block, more)
    got = read(infer(echo, body, {"Inference-Header-Content-Length": headers["inference-header-content-length"]}))
    assert got["t"] == block
    assert got["b"] == struct.pack("<I", 2) + b"\xff\x00"
    not_text, more = tensor("t", raw, "BYTES")
    assert infer(echo, *message({"inputs": [not_text]}, more)).status_code == 400


def test_an_array_that_a_class_keeps_is_sent_as_it_was(echo: Running) -> None:
    k = {"name": "k", "shape": [1], "datatype": "INT64", "data": [1]}
    asked = json.dumps({"inputs": [k], "parameters": {"binary_data_output": True}}).encode()
    got = [read(infer(echo, asked, {}))["kept"] for _ in range(3)]
    assert [g[0] - got[0][0] for g in got] == [0.0, 1.0, 2.0]


def test_a_class_may_write_to_its_input_however_it_came(start: Callable[..., Running]) -> None:
    doubling = """
import numpy as np
from numpy.typing import NDArray

class Doubling:
    def predict(self, x: NDArray[np.float32]):
        x *= 2
        return x
"""
    replica = start({"model.py": doubling}).wait_ready()
    x = np.arange(5, dtype="<f4")
    about, block = tensor("x", x, "FP32")
    plain = {"inputs": [{"name": "x", "shape": [5], "datatype": "FP32", "data": x.tolist()}]}
    answers = [replica.client.post("/v2/models/m/infer", json=plain)]
    for shift in range(4):  # of the tensor in the body: aligned and not
        answers.append(infer(replica, *message({"inputs": [about], "id": "i" * shift}, block)))
    for answer in answers:
        assert answer.json()["outputs"][0]["data"] == [0.0, 2.0, 4.0, 6.0, 8.0], answer.text


def test_packed_bodies(echo: Running) -> None:
    x = json.dumps({"t": ["a", "b"]}).encode()
    bare = zlib.compressobj(wbits=-15)
    for body, coding in (
        (packed_alike(x), "gzip"),
        (packed_alike(x[:5]) + packed_alike(x[5:]), "GZIP"),
        (zlib.compress(x), "deflate"),
        (bare.compress(x) + bare.flush(), "deflate"),
        (packed_alike(zlib.compress(x)), "deflate, gzip"),
        (x, "identity"),
    ):
        for header in ("content-encoding", "Content-Encoding"):
            r = echo.client.post("/predict", content=body, headers={header: coding})
            assert (r.status_code, r.json()) == (200, {"t": ["a", "b"]}), coding
    about, block = tensor("x", np.arange(3.0), "FP64")
    body, headers = message({"inputs": [about]}, block)
    packed = infer(echo, packed_alike(body), {**headers, "content-encoding": "gzip"})
    assert packed.json()["outputs"][0]["data"] == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("body", "coding", "code"),
    [
        (packed_alike(bytes(100_000_000)), "gzip", 413),
        (packed_alike(packed_alike(bytes(100_000_000))), "gzip, gzip", 413),
        (packed_alike(b"") * 10_000, "gzip", 400),
        (packed_alike(b"{}")[:-3], "gzip", 400),
        (packed_alike(b"{}") + b"tail", "gzip", 400),
        (b"{}", "gzip", 400),
        (zlib.compress(b"{}") + b"tail", "deflate", 400),
        (b"{}", "br", 415),
        (b"{}", "gzip, gzip, gzip", 415),
    ],
)
def test_packed_bodies_that_are_refused(echo: Running, body: bytes, coding: str, code: int) -> None:
    r = echo.client.post("/predict", content=body, headers={"content-encoding": coding})
    assert r.status_code == code and r.json()["hint"]
    assert echo.metrics()["process_resident_memory_bytes"] < 400e6


X = {"name": "x", "shape": [3], "datatype": "FP64"}


def sized(size: Any, **changes: Any) -> dict[str, Any]:
    return {"inputs": [{**X, "parameters": {"binary_data_size": size}, **changes}]}


@pytest.mark.parametrize(
    "asked",
    [
        sized(23),
        sized(25),
        sized(2**62),
        sized(-1),
        sized("24"),
        sized(True),
        sized(24, shape=[4]),
        sized(24, shape=[2**32, 2**32, 0]),
        sized(24, shape=[2**63]),
        sized(24, shape=[2**200]),
        sized(24, shape=[-3]),
        sized(24, shape=[1] * 40),
        sized(24, datatype="FP65"),
        sized(24, datatype="BF16"),
        sized(24, datatype="BYTES"),
        sized(24, datatype="BYTES", shape=[2**40]),
        sized(24, data=[1.0, 2.0, 3.0]),
        {"inputs": [{**X, "data": [1.0, 2.0, 3.0]}]},  # with bytes that nobody speaks of
        {"inputs": [*sized(12)["inputs"], *sized(12)["inputs"]]},
        {"inputs": [{**X, "shape": [0, 2**40, 2**40], "data": []}]},
    ],
)
def test_tensors_that_do_not_fit_their_bytes(echo: Running, asked: dict[str, Any]) -> None:
    r = infer(echo, *message(asked, bytes(24)))
    assert (r.status_code, r.json()["code"]) == (400, "spec"), r.text


@pytest.mark.parametrize("size", ["", "-1", "1e3", "9" * 30, "99999", "٣", "+5", "0x10"])
def test_a_wrong_length_of_the_json(echo: Running, size: str) -> None:
    body, _ = message(sized(24), bytes(24))
    r = infer(echo, body, {"inference-header-content-length": size.encode("utf-8")})  # type: ignore[dict-item]
    assert r.status_code == 400


def texts() -> bytes:
    """An ONNX model that gives back the strings it gets."""
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.STRING, ["n", None]) for name in ("s", "t")]
    graph = helper.make_graph([helper.make_node("Identity", ["s"], ["t"])], "g", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def test_bytes_that_are_no_text_are_refused_where_a_model_takes_text(start: Callable[..., Running]) -> None:
    replica = start({"t.onnx": texts()}).wait_ready()
    about = {"name": "s", "shape": [1, 2], "datatype": "BYTES"}
    for element, code in ((b"caf\xc3\xa9", 200), (b"\xff\xfe", 400)):
        raw = b"".join(len(e).to_bytes(4, "little") + e for e in (b"a", element))
        asked = {"inputs": [{**about, "parameters": {"binary_data_size": len(raw)}}]}
        r = infer(replica, *message(asked, raw))
        assert r.status_code == code, r.text
        if code == 200:
            assert r.json()["outputs"][0]["data"] == ["a", "café"]
        else:
            assert "not UTF-8" in r.json()["error"]


# --- the parser alone ---

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
DIMENSION = st.integers(-2, 5) | st.integers() | st.sampled_from([2**31, 2**32, 2**62, 2**63, 2**64])
INPUT = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["a", "b"]) | st.text(max_size=3),
        "shape": st.lists(DIMENSION, max_size=5),
        "datatype": st.sampled_from([*DTYPES, "BF16", ""]),
    },
    optional={
        "data": JSON | st.lists(st.floats() | st.integers(), max_size=6),
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(-1, 30) | JSON}),
    },
)
REQUEST = st.fixed_dictionaries(
    {"inputs": st.lists(INPUT, max_size=3)},
    optional={
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_output": st.booleans() | JSON}),
        "outputs": st.lists(st.fixed_dictionaries({"name": st.text(max_size=3)}), max_size=2),
    },
)


def parse(body: bytes, size: bytes | None) -> None:
    """What a replica does with an inference request before and after its model; only our refusals may be raised."""
    try:
        request = decode_infer(body) if size is None else binary.decode(body, size)
        arrays = {t.name: tensor_of(t) for t in request.inputs}
        for t in request.inputs:
            assert arrays[t.name].shape == tuple(t.shape)
        infer_answer(request, "m", "1", arrays)
    except LeptonError as e:
        assert 400 <= e.status < 500, e


@settings(max_examples=400, deadline=None)
@given(REQUEST, st.binary(max_size=40), st.integers(-2, 2), st.booleans())
def test_fuzz_messages_are_read_or_refused(asked: Any, blocks: bytes, off: int, packed: bool) -> None:
    """Any message, well formed or nearly, is read into tensors of the shapes it says, or refused with 4xx."""
    head = json.dumps(asked).encode()
    parse(head + blocks, str(len(head) + off).encode() if packed else None)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.none() | st.binary(max_size=4))
def test_fuzz_bytes_are_refused(body: bytes, size: bytes | None) -> None:
    parse(body, size)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([d for d in DTYPES if d != "BYTES"]), st.lists(st.integers(0, 4), max_size=4), st.randoms())
def test_what_is_written_is_read_back(datatype: str, shape: list[int], random: Any) -> None:
    """A tensor written as bytes and read again is the same, whatever its type, shape and place in the body."""
    array = np.array([random.randint(0, 1) for _ in range(int(np.prod(shape)))], DTYPES[datatype]).reshape(shape)
    raw = bytes(random.randint(0, 7)) + bytes(binary.block(array))
    at = len(raw) - array.nbytes
    again = binary.array_of(memoryview(raw)[at:], datatype, shape, "a")
    assert again.dtype == array.dtype and again.flags.aligned
    np.testing.assert_array_equal(again, array)


@given(st.lists(st.binary(max_size=9) | st.text(max_size=9)))
def test_elements_are_read_back(values: list[bytes | str]) -> None:
    array = np.empty(len(values), object)
    array[:] = values
    again = binary.array_of(memoryview(bytes(binary.block(array))), "BYTES", [len(values)], "a")
    as_bytes = [v if isinstance(v, bytes) else v.encode() for v in values]
    assert [v if isinstance(v, bytes) else v.encode() for v in again] == as_bytes
