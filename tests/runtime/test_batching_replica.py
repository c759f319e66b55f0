"""Batching in a real replica: caps, slices, priorities, deadlines, and other rules while it runs."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from leptonai.types import Batching, Tuning
from tests.runtime.conftest import Running, Trained

SLOW = """
import time
class Slow:
    batch = True
    def predict(self, x: list[float]):
        time.sleep(0.02 + 0.01 * len(x))
        print("ran", x, flush=True)
        return x
"""


def ran(replica: Running) -> list[list[float]]:
    return [json.loads(line[4:]) for line in replica.log().splitlines() if line.startswith("ran ")]


class Load:
    """Requests under way, each in a thread of its own."""

    def __init__(self, replica: Running) -> None:
        self.replica, self._threads = replica, list[threading.Thread]()
        self.answers: list[httpx.Response] = []

    def send(self, x: float, **parameters: Any) -> None:
        """Send one, and return once the replica has it."""
        before = self.replica.ready()["in_flight"]
        tensor = {"name": "x", "shape": [1], "datatype": "FP64", "data": [x]}
        call = threading.Thread(
            target=lambda: self.answers.append(self.replica.infer(tensor, parameters=parameters)), daemon=True
        )
        self._threads.append(call)
        call.start()
        self.replica.until(lambda: self.replica.ready()["in_flight"] > before or not call.is_alive())

    def hold(self, flag: Path, x: float = 0.0) -> None:
        """The model runs ``x`` until the flag is empty; what is sent meanwhile waits."""
        flag.write_text("hold")
        self.send(x)
        self.replica.until(lambda: self.replica.ready()["running_for"] > 0.0)

    def wait(self) -> None:
        for call in self._threads:
            call.join(60)


def pausing(start: Callable[..., Running], tmp: Path, **batching: Any) -> tuple[Running, Load, Path]:
    """A replica whose model is held by a file, so that a queue builds up for certain."""
    flag = tmp / "held"
    text = SLOW.replace(
        "        time.sleep(0.02",
        f"        while open({str(flag)!r}).read(): time.sleep(0.005)\n        time.sleep(0.02",
    )
    flag.write_text("")
    replica = start({"model.py": text}, batching=Batching(**batching)).wait_ready()
    return replica, Load(replica), flag


def test_a_queue_runs_by_priority_within_the_cap(start: Callable[..., Running], tmp_path: Path) -> None:
    replica, load, flag = pausing(start, tmp_path, policy="eager", max_size=2)
    load.hold(flag)
    for x, priority in [(1.0, 0), (2.0, 9), (3.0, 1), (4.0, 0), (5.0, 5)]:
        load.send(x, priority=priority)
    flag.write_text("")
    load.wait()
    assert ran(replica) == [[0.0], [3.0, 1.0], [4.0, 5.0], [2.0]]
    assert [r.status_code for r in load.answers] == [200] * 6
    assert replica.predict({"x": 6.0}, **{"x-priority": "1", "x-timeout-us": "9000000"}).json() == 6.0
    for header in ({"x-priority": "10"}, {"x-priority": "first"}, {"x-timeout-us": "-1"}, {"x-timeout-us": "1e3"}):
        wrong = replica.predict({"x": 6.0}, **header)
        assert (wrong.status_code, next(iter(header)) in wrong.json()["error"]) == (400, True)
    refused = replica.infer({"name": "x", "shape": [1], "datatype": "FP64", "data": [1.0]}, parameters={"priority": 10})
    assert (refused.status_code, "priority" in refused.json()["error"]) == (400, True)


def test_what_cannot_be_in_time_is_shed_at_once_and_what_expired_is_told_so(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    replica, load, flag = pausing(start, tmp_path, policy="eager", max_size=2)
    for x in range(8):  # it learns that a run takes 0.03 s
        replica.predict({"x": float(x)})
    computed = len(ran(replica))
    load.hold(flag, 100.0)
    for _ in range(8):
        load.send(100.0)
    load.send(101.0, timeout=1000)  # 1 ms, behind four batches
    shed = load.answers[0]
    assert (shed.status_code, shed.json()["code"], shed.json()["retry"]) == (429, "shed_deadline", True)
    assert shed.headers["retry-after"] == "1" and 0.05 < shed.json()["retry_after"] < 1.0
    got = replica.predict({"x": 101.0}, **{"x-timeout-us": "1000"})
    assert (got.status_code, got.json()["code"]) == (429, "shed_deadline")
    load.send(102.0, timeout=2_500_000)  # there seems to be time, but the model is held
    late = replica.until(lambda: next((r for r in load.answers if r.status_code == 504), None))
    assert late.json()["code"] == "timeout" and replica.ready()["running_for"] > 0.0  # it need not wait for the run
    flag.write_text("")
    load.wait()
    assert len(ran(replica)) == computed + 5
    assert not any(x > 100.0 for batch in ran(replica) for x in batch)  # neither was computed
    assert replica.metrics()["leptonai_errors_total{kind=shed}"] == 2


def test_requests_of_clients_that_have_gone_leave_the_queue(start: Callable[..., Running], tmp_path: Path) -> None:
    replica, load, flag = pausing(start, tmp_path, max_size=4, max_queue=4)
    load.hold(flag)
    connections = [replica.connection() for _ in range(4)]
    for c in connections:
        c.request("POST", "/predict", b'{"x": 7.0}')
    replica.until(lambda: replica.ready()["in_flight"] == 5)
    assert replica.predict({"x": 8.0}).json()["code"] == "shed"
    for c in connections:
        c.close()
    replica.until(lambda: replica.metrics()["leptonai_errors_total{kind=client_gone}"] == 4)
    assert replica.metrics()["leptonai_queued"] == 0 and replica.ready()["running_for"] > 0.0
    for x in (1.0, 2.0, 3.0, 4.0):  # those who left keep nobody out
        load.send(x)
    assert replica.predict({"x": 8.0}).json()["code"] == "shed"
    flag.write_text("")
    load.wait()
    assert [r.status_code for r in load.answers] == [200] * 5
    assert sorted(x for batch in ran(replica) for x in batch) == [0.0, 1.0, 2.0, 3.0, 4.0]  # no 7.0
    assert replica.metrics()["leptonai_queued"] == 0 and replica.ready()["in_flight"] == 0


def test_batching_changes_while_requests_wait_and_nobody_notices(start: Callable[..., Running], tmp_path: Path) -> None:
    replica, load, flag = pausing(start, tmp_path, max_size=2)
    load.hold(flag)
    for x in range(1, 9):
        load.send(float(x))
    new = Tuning(batching=Batching(policy="eager", max_size=6, max_queue=8), latency=0.5, timeout=20.0)
    assert replica.client.put("/-/batching", content=msgspec.json.encode(new)).status_code == 200
    assert msgspec.convert(replica.ready()["tuning"], Tuning) == new
    load.send(9.0)  # eight wait: the new limit
    flag.write_text("")
    load.wait()
    assert ran(replica) == [[0.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [7.0, 8.0]]
    assert sorted(r.status_code for r in load.answers) == [200] * 9 + [429]
    wrong = replica.client.put("/-/batching", content=b'{"batching": {"max_size": 0}}')
    assert (wrong.status_code, "max_size is 0" in wrong.json()["error"]) == (400, True)
    assert msgspec.convert(replica.ready()["tuning"], Tuning) == new
    assert replica.client.post("/-/batching").status_code == 405


def test_a_wait_is_cut_short_by_other_rules(start: Callable[..., Running]) -> None:
    replica = start({"model.py": SLOW}, batching=Batching(policy="eager", max_wait=50.0)).wait_ready()
    load = Load(replica)
    load.send(1.0)
    assert replica.ready()["in_flight"] == 1
    replica.client.put("/-/batching", content=msgspec.json.encode(Tuning()))
    load.wait()
    assert load.answers[0].status_code == 200


def test_a_large_request_is_computed_in_slices_beside_small_ones(
    start: Callable[..., Running], digits: Trained, digits_onnx: bytes
) -> None:
    replica = start({"model.onnx": digits_onnx}, batching=Batching(max_size=16, max_queue=2000)).wait_ready()
    rows = (digits.x[:500] / 16).astype(np.float32)
    want = digits.model.predict(rows).tolist()
    got: list[Any] = []
    large = [threading.Thread(target=lambda: got.append(replica.predict(rows.tolist()).json())) for _ in range(3)]
    for call in large:
        call.start()
    small = []
    while any(call.is_alive() for call in large):
        small.append(replica.predict(rows[:1].tolist()).json()["label"])
    assert [g["label"] for g in got] == [want] * 3
    assert len(got[0]["probabilities"]) == 500 and small == [want[:1]] * len(small)
    numbers = replica.metrics()
    assert numbers["leptonai_batch_size_bucket{le=16}"] == numbers["leptonai_batch_size_count"] >= 3 * 32
    assert numbers["leptonai_batch_size_sum"] == 1500 + len(small)
    assert numbers["leptonai_queued"] == 0 and numbers["leptonai_in_flight"] == 0
    assert numbers["leptonai_batch_cost_seconds_per_sample"] + numbers["leptonai_batch_cost_fixed_seconds"] > 0
    assert replica.ready()["cost"] == pytest.approx(
        [numbers["leptonai_batch_cost_seconds_per_sample"], numbers["leptonai_batch_cost_fixed_seconds"]], rel=0.5
    )


def test_under_load_batches_form_and_every_answer_is_its_own(
    start: Callable[..., Running], digits: Trained, digits_onnx: bytes
) -> None:
    replica = start({"model.onnx": digits_onnx}).wait_ready()
    rows = (digits.x[:64] / 16).astype(np.float32)
    want = digits.model.predict(rows).tolist()
    wrong: list[Any] = []

    def client(n: int) -> None:
        c: http.client.HTTPConnection = replica.connection()
        for i in range(30):
            at = (n * 7 + i) % 64
            c.request("POST", "/predict", json.dumps({"X": rows[at : at + 1].tolist()}))
            answer = json.loads(c.getresponse().read())
            if answer["label"] != [want[at]]:
                wrong.append((at, answer))
        c.close()

    clients = [threading.Thread(target=client, args=(n,)) for n in range(24)]
    for c in clients:
        c.start()
    for c in clients:
        c.join(120)
    numbers = replica.metrics()
    assert not wrong
    assert numbers["leptonai_batch_size_sum"] == 24 * 30 > numbers["leptonai_batch_size_count"]
