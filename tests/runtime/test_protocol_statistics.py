"""The statistics extension after mixed traffic: each number is what was sent, answered and run, and nothing twice."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from leptonai.types import Batching
from tests.runtime.conftest import Running

MODEL = """
import time

class Model:
    batch = True

    def predict(self, x: list[float]) -> list[float]:
        time.sleep(0.02)
        if -1.0 in x:
            raise ValueError("no")
        return x
"""
MOUNTED = """
class Model:
    def predict(self, n: int):
        for i in range(n):
            yield 1 / (2 - i)

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})
"""
KINDS = ("queue", "compute_input", "compute_infer", "compute_output")


def stats(replica: Running) -> dict[str, Any]:
    one: dict[str, Any] = replica.client.get("/v2/models/m/stats").json()["model_stats"][0]
    return one


def counts(one: dict[str, Any]) -> dict[str, int]:
    return {kind: value["count"] for kind, value in one["inference_stats"].items()}


def test_before_any_request_every_number_is_there_and_zero(start: Callable[..., Running]) -> None:
    one = stats(start({"model.py": MODEL}).wait_ready())
    assert (one["inference_count"], one["execution_count"], one["last_inference"], one["batch_stats"]) == (0, 0, 0, [])
    assert all(value == {"count": 0, "ns": 0} for value in one["inference_stats"].values())


def test_good_bad_late_and_refused_requests_are_counted_once_each(start: Callable[..., Running]) -> None:
    replica = start({"model.py": MODEL}, batching=Batching(max_size=4), idempotent=True).wait_ready()
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda n: replica.predict({"x": float(n)}).status_code, range(-1, 19)))
    assert sorted(answers) == [200] * 19 + [500]
    assert replica.predict({"x": "one"}).status_code == 400  # refused before it was a job
    assert replica.predict({"x": 1.0}, **{"x-timeout-us": "1"}).status_code == 504  # a job that never ran
    for path in ("/nothing", "/v2/models/other"):  # not asking for an inference
        assert replica.client.get(path).status_code == 404
    one = stats(replica)
    assert counts(one) == {"success": 19, "fail": 3, **dict.fromkeys(KINDS, 19)}
    assert one["inference_count"] == 19
    runs = {batch["batch_size"]: batch["compute_infer"] for batch in one["batch_stats"]}
    assert sum(size * run["count"] for size, run in runs.items()) == 19, "the batch that failed was not a good run"
    assert one["execution_count"] == sum(run["count"] for run in runs.values()) < 19
    spent = {kind: value["ns"] for kind, value in one["inference_stats"].items()}
    assert spent["compute_infer"] >= 19 * 20e6 > 0 and spent["fail"] > 20e6
    assert sum(spent[kind] for kind in KINDS) <= spent["success"] * 1.01


def same() -> bytes:
    """An ONNX model of numbers that come back."""
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def test_a_request_cut_in_slices_is_one_with_all_its_runs(start: Callable[..., Running]) -> None:
    replica = start({"same.onnx": same()}, batching=Batching(max_size=8)).wait_ready()
    assert replica.predict([[0.5] * 4] * 30).status_code == 200
    one = stats(replica)
    assert counts(one) == {"success": 1, "fail": 0, **dict.fromkeys(KINDS, 1)}
    assert one["inference_count"] == 30
    runs = {batch["batch_size"]: batch["compute_infer"] for batch in one["batch_stats"]}
    assert {size: run["count"] for size, run in runs.items()} == {8: 3, 6: 1} and one["execution_count"] == 4
    whole = one["inference_stats"]["compute_infer"]["ns"]
    assert abs(sum(run["ns"] for run in runs.values()) - whole) <= 10
    assert replica.metrics()["leptonai_batch_size_count"] == 4


def test_streams_count_once_and_the_app_beside_the_model_not_at_all(start: Callable[..., Running]) -> None:
    replica = start({"model.py": MOUNTED}).wait_ready()
    assert replica.predict({"n": 2}).status_code == 200
    assert replica.predict({"n": 2}, accept="text/event-stream").status_code == 200
    assert replica.predict({"n": 3}).status_code == 500
    assert "error" in replica.predict({"n": 3}, accept="text/event-stream").text  # after its status was sent
    assert replica.client.get("/hello").text == "hello"
    one = stats(replica)
    assert counts(one) == {"success": 2, "fail": 2, **dict.fromkeys(KINDS, 2)}
    assert (one["inference_count"], one["execution_count"]) == (2, 2)
