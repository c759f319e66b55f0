"""The Open Inference Protocol and /predict against a real ONNX model: right answers, bad tensors refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.runtime.conftest import Running, Trained


@pytest.fixture(scope="module")
def replica(start: Callable[..., Running], digits: Trained, digits_onnx: bytes) -> Running:
    return start({"digits.onnx": digits_onnx, "digits.golden.json": digits.golden()}).wait_ready()


def tensor(data: Any, **changes: Any) -> dict[str, Any]:
    return {"name": "X", "shape": [1, 64], "datatype": "FP32", "data": data, **changes}


ROW = [0.5] * 64


def test_metadata_live_and_ready(replica: Running) -> None:
    get = replica.client.get
    assert get("/v2").json() == get("/v2/").json()
    assert set(get("/v2").json()) == {"name", "version", "extensions"}
    assert get("/v2/health/live").status_code == get("/v2/health/ready").status_code == 200
    model = get("/v2/models/m").json()
    assert model == get("/v2/models/m/versions/3").json()
    assert (model["name"], model["versions"], model["platform"]) == ("m", ["3"], "onnx_onnxv1")
    assert model["inputs"] == [{"name": "X", "datatype": "FP32", "shape": [-1, 64]}]
    assert {o["name"] for o in model["outputs"]} == {"label", "probabilities"}
    assert get("/v2/models/m/ready").json() == {"name": "m", "ready": True}


def test_infer_flat_nested_and_by_version_agree_with_the_library(replica: Running, digits: Trained) -> None:
    x = digits.x[:5] / 16
    want = digits.model.predict(x).tolist()
    for data in (x.tolist(), x.ravel().tolist()):
        body = {"id": "seven", "inputs": [tensor(data, shape=[5, 64])]}
        r = replica.client.post("/v2/models/m/versions/3/infer", json=body)
        answer = r.json()
        assert (r.status_code, answer["id"], answer["model_name"], answer["model_version"]) == (200, "seven", "m", "3")
        found = {o["name"]: o for o in answer["outputs"]}
        assert found["label"]["data"] == want
        assert (found["label"]["shape"], found["label"]["datatype"]) == ([5], "INT64")
        assert found["probabilities"]["shape"] == [5, 10]
        np.testing.assert_allclose(
            np.reshape(found["probabilities"]["data"], (5, 10)), digits.model.predict_proba(x), atol=1e-5
        )


def test_outputs_can_be_chosen(replica: Running) -> None:
    answer = replica.infer(tensor(ROW), outputs=[{"name": "probabilities"}]).json()
    assert [o["name"] for o in answer["outputs"]] == ["probabilities"]
    assert replica.infer(tensor(ROW), outputs=[{"name": "nope"}]).status_code == 400


def test_predict_takes_three_spellings(replica: Running, digits: Trained) -> None:
    x = (digits.x[:2] / 16).tolist()
    want = digits.model.predict(digits.x[:2] / 16).tolist()
    for body in ({"inputs": {"X": x}}, {"X": x}, x):
        assert replica.predict(body).json()["label"] == want


BAD = {
    "ragged": tensor([[0.5] * 64, [0.5] * 63], shape=[2, 64]),
    "ragged depth": tensor([[0.5] * 63 + [[1]]]),
    "a string among numbers": tensor(["a", *ROW[1:]]),
    "null among numbers": tensor([None, *ROW[1:]]),
    "true among numbers": tensor([True, *ROW[1:]]),
    "too few": tensor(ROW[1:]),
    "shape and data differ": tensor(ROW, shape=[2, 32]),
    "shape the model does not take": tensor([0.5] * 63, shape=[1, 63]),
    "no batch dimension": tensor(ROW, shape=[64]),
    "no samples": tensor([], shape=[0, 64]),
    "negative shape": tensor(ROW, shape=[-1, 64]),
    "shape of strings": tensor(ROW, shape=["1", "64"]),
    "other datatype": tensor(ROW, datatype="FP64"),
    "unknown datatype": tensor(ROW, datatype="FP31"),
    "overflow": tensor([1e300, *ROW[1:]]),
    "huge integer": tensor([10**400, *ROW[1:]]),
    "data is no list": tensor("0.5"),
    "data is an object": tensor({"a": 1}),
    "no data": {k: v for k, v in tensor(ROW).items() if k != "data"},
    "unknown name": tensor(ROW, name="Y"),
    "no name": {k: v for k, v in tensor(ROW).items() if k != "name"},
}


@pytest.mark.parametrize("name", list(BAD))
def test_a_malformed_tensor_is_refused_with_a_hint(replica: Running, name: str) -> None:
    r = replica.infer(BAD[name])
    assert r.status_code == 400, r.text
    assert set(r.json()) == {"error", "code", "hint", "retry"}
    assert r.json()["hint"] and r.json()["retry"] is False
    assert "Traceback" not in r.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"inputs": []}',
        b'{"inputs": {}}',
        b'{"inputs": [1]}',
        b'{"inputs": [{"name": "X", "shape": [1, 64], "datatype": "FP32", "data": [NaN]}]}',
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps({"inputs": [tensor(ROW), tensor(ROW)]}).encode(),
        json.dumps({"inputs": [tensor(ROW)], "parameters": {"timeout": "soon"}}).encode(),
        json.dumps({"inputs": [tensor(ROW)], "parameters": {"timeout": -1}}).encode(),
    ],
    ids=range(13),
)
def test_a_malformed_request_is_refused(replica: Running, body: bytes) -> None:
    for path in ("/v2/models/m/infer", "/predict"):
        r = replica.client.post(path, content=body)
        if path == "/predict" and body.startswith(b'{"inputs": [{'):
            continue
        assert r.status_code == 400 and r.json()["hint"], (path, body[:80], r.text)


def test_predict_refuses_nan_and_one_bare_sample_with_a_way_out(replica: Running) -> None:
    assert replica.client.post("/predict", content=b'{"X": [[NaN]]}').status_code == 400
    r = replica.predict({"X": ROW})
    assert r.status_code == 400 and "wrap one sample" in r.json()["hint"]


def test_bytes_tensors_and_unicode(start: Callable[..., Running]) -> None:
    text = """
class Up:
    def predict(self, word: str, many: list[str] = []):
        return {"up": word.upper(), "n": many}
"""
    replica = start({"model.py": text}).wait_ready()
    answer = replica.infer({"name": "word", "shape": [1], "datatype": "BYTES", "data": ["grüße"]}).json()
    assert answer["outputs"][0] == {"name": "up", "shape": [1], "datatype": "BYTES", "data": ["GRÜSSE"]}
    r = replica.infer({"name": "word", "shape": [1], "datatype": "BYTES", "data": [1]})
    assert r.status_code == 400


def test_a_deadline_that_has_passed_is_504_before_compute(start: Callable[..., Running]) -> None:
    text = """
import time
class Slow:
    def predict(self, s: float):
        time.sleep(s)
        print("ran", s, flush=True)
"""
    replica = start({"model.py": text}).wait_ready()
    import threading

    blocker = threading.Thread(target=replica.predict, args=({"s": 0.6},))
    blocker.start()
    replica.until(lambda: replica.metrics()["leptonai_in_flight"] == 1)
    late = {"name": "s", "shape": [1], "datatype": "FP64", "data": [0.01]}
    r = replica.infer(late, parameters={"timeout": 50_000})
    blocker.join()
    assert (r.status_code, r.json()["code"], r.json()["retry"]) == (504, "timeout", True)
    assert replica.infer(late, parameters={"timeout": 5_000_000}).status_code == 200
    assert replica.log().count("ran 0.01") == 1
    assert replica.metrics()["leptonai_errors_total{kind=timeout}"] == 1
